// The part of expo-application that docs/client/push.ts uses.

export const nativeApplicationVersion: string | null = '1.4.0';
