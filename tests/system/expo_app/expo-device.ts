// The part of expo-device that chat-push-client/expo uses.

export const isDevice: boolean = process.env['PHONE'] !== 'simulator';
