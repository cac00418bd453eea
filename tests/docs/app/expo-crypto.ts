// The part of expo-crypto that docs/client/push.ts uses.

export const randomUUID = (): string => crypto.randomUUID();
