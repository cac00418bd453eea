// The part of expo-router that docs/client/usePush.ts uses.

export const visited: string[] = [];

export const router = { push: (path: string): void => void visited.push(path) };
