// The part of expo-crypto that chat-push-client/expo uses.

import type * as Expo from 'expo-crypto';

export const getRandomValues: typeof Expo.getRandomValues = (bytes) => crypto.getRandomValues(bytes as never);

export const randomUUID = (): string => crypto.randomUUID();
