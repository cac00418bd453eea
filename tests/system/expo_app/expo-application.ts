// The part of expo-application that chat-push-client/expo uses.

import type { PushNotificationServiceEnvironment } from 'expo-application';

export const nativeApplicationVersion: string | null = '1.4.0';

/** That of a build which Xcode has installed. */
export async function getIosPushNotificationServiceEnvironmentAsync(): Promise<PushNotificationServiceEnvironment> {
  return 'development';
}
