// The part of expo-router that docs/client/usePush.ts uses.

import type { Href } from 'expo-router';

export const visited: Href[] = [];

export const router = { push: (href: Href): void => void visited.push(href) };
