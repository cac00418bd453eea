// The part of expo-crypto that chat-push-client/expo uses.

export const randomUUID = (): string => crypto.randomUUID();
