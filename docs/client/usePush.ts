// Two hooks that call push.ts in an app with Expo Router: for the root layout and for the screen of a conversation.

import { router } from 'expo-router';
import { useEffect, useState } from 'react';
import { Alert, Linking } from 'react-native';

import { keepOnline, keepRegistered, lookAt, markRead, onTap, registerPhone, type Registration } from './push';

const report = (error: unknown) => console.warn('push', error); // or your error reporting

//#region root
/** Call it in the root layout of signed-in users. After 'not allowed', show a button that calls askForPushes. */
export function usePush(): Registration | undefined {
  const [registration, setRegistration] = useState<Registration>();
  useEffect(() => keepRegistered(report, setRegistration), []);
  useEffect(keepOnline, []);
  useEffect(() => onTap(({ conversationId }) => router.push(`/chat/${conversationId}`)), []);
  return registration;
}
//#endregion

//#region ask
/** Call it when the user sees why, such as after the first message. The system asks only once per installation. */
export async function askForPushes(): Promise<void> {
  try {
    if ((await registerPhone({ ask: true })) !== 'not allowed') return;
    Alert.alert('Notifications are off', 'Turn them on in the settings to be notified of new messages.', [
      { text: 'Not now', style: 'cancel' },
      { text: 'Settings', onPress: () => void Linking.openSettings() },
    ]);
  } catch (error) {
    report(error);
  }
}
//#endregion

//#region conversation
/**
 * Call it in the screen of a conversation. `newest` is the id of the newest stored message on the screen. While it is
 * undefined, such as before the first page is there, nothing is marked as read.
 */
export function useConversation(userId: string, conversationId: string, newest?: string): void {
  useEffect(() => lookAt(conversationId), [conversationId]);
  useEffect(() => {
    if (newest) markRead(userId, conversationId, newest).catch(report);
  }, [userId, conversationId, newest]);
}
//#endregion
