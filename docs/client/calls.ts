// What an app calls beside the hooks.

import { RateLimited, ServerUnreachable, SignInRejected } from 'chat-push-client';
import { PushUnavailable } from 'chat-push-client/expo';
import { router } from 'expo-router';
import { Alert, Linking } from 'react-native';

import { opening, push } from './client';
import { supabase } from './supabase';

//#region sign-in
/** After the app has signed in with supabase.auth, such as with a link in an e-mail. `signIn` does it with a password. */
export async function signedIn(): Promise<void> {
  const chat = await opening;
  await chat.useSession();
}

export async function signIn(email: string, password: string): Promise<string | null> {
  const chat = await opening;
  try {
    await chat.signIn(email, password);
    return null;
  } catch (error) {
    if (error instanceof SignInRejected) return 'The e-mail address or the password is wrong.';
    if (error instanceof RateLimited) return `Too many attempts. Try again in ${error.retryAfter} seconds.`;
    if (error instanceof ServerUnreachable) return 'The server cannot be reached.';
    throw error;
  }
}
//#endregion

//#region sign-up
/** Once, right after the sign-up. An account without a profile cannot send, receive, or register a phone. */
export async function createProfile(displayName: string, role: 'tourist' | 'guide'): Promise<void> {
  const userId = await (await opening).useSession();
  await supabase.from('users').insert({ id: userId, display_name: displayName, role }).throwOnError();
}
//#endregion

//#region begin
/** Opens the conversation with another person, such as from a profile. A new one needs the server. */
export async function chatWith(userId: string): Promise<void> {
  const chat = await opening;
  router.push(`/chat/${await chat.openChat(userId)}`);
}
//#endregion

//#region ask
/** When the person sees why, such as after the first message. The system asks only once per installation. */
export async function askForPushes(): Promise<void> {
  try {
    await push.ask();
  } catch (error) {
    if (!(error instanceof PushUnavailable) || error.reason !== 'denied') return console.warn(error);
    Alert.alert('Notifications are off', 'Turn them on in the settings to be notified of new messages.', [
      { text: 'Not now', style: 'cancel' },
      { text: 'Settings', onPress: () => void Linking.openSettings() },
    ]);
  }
}
//#endregion

//#region sign-out
export async function signOut(): Promise<void> {
  try {
    await push.signOut();
  } catch (error) {
    if (!(error instanceof ServerUnreachable)) throw error;
    Alert.alert('You are still signed in', 'Connect to the internet and try again: this phone would still get your messages.');
  }
}
//#endregion
