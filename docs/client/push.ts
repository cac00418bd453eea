// What an Expo chat app does for Chat Push. Copy this file into your app; docs/client.md explains each part.

import * as Application from 'expo-application';
import Constants from 'expo-constants';
import * as Crypto from 'expo-crypto';
import * as Notifications from 'expo-notifications';
import * as SecureStore from 'expo-secure-store';
import { AppState, Platform } from 'react-native';

import { supabase } from './supabase'; // the client that your app has anyway

const API_URL = process.env.EXPO_PUBLIC_CHAT_PUSH_URL?.replace(/\/+$/, ''); // the output ApiUrl of the stack

//#region api
export class PushError extends Error {
  readonly status: number; // of the answer; 0: there was none
  readonly code: string; // as in the table of docs/client.md

  constructor(status: number, code: string, message: string) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

/** Calls the API. Waits and tries again where that may help, `attempts` times in all; throws PushError. */
async function call(method: string, path: string, accessToken: string, attempts: number, body?: object): Promise<void> {
  if (!API_URL?.startsWith('http')) throw notConfigured('EXPO_PUBLIC_CHAT_PUSH_URL is not set to the output ApiUrl');
  for (let attempt = 1; ; attempt++) {
    const response = await answer(method, path, accessToken, body);
    if (response?.ok) return;
    const passing = !response || response.status === 429 || response.status >= 500;
    if (!passing || attempt >= attempts) throw await errorOf(response);
    const seconds = Number(response?.headers.get('Retry-After')) || 2 ** attempt;
    await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
  }
}

/** The answer, or null if there is none within 15 seconds. */
async function answer(method: string, path: string, accessToken: string, body?: object): Promise<Response | null> {
  const timeout = new AbortController();
  const timer = setTimeout(() => timeout.abort(), 15_000);
  try {
    return await fetch(`${API_URL}${path}`, {
      method,
      headers: { Authorization: `Bearer ${accessToken}`, 'Content-Type': 'application/json' },
      body: body && JSON.stringify(body),
      signal: timeout.signal,
    });
  } catch {
    return null;
  } finally {
    clearTimeout(timer);
  }
}

async function errorOf(response: Response | null): Promise<PushError> {
  if (!response) return new PushError(0, 'offline', 'the server cannot be reached');
  const { error } = await response.json().catch(() => ({})); // what never reached the API has another shape
  return new PushError(response.status, error?.code ?? 'http', error?.message ?? `HTTP ${response.status}`);
}

/** Something that is put into the app when it is built. */
function notConfigured(what: string): PushError {
  return new PushError(0, 'not_configured', `${what}: mend that, and build the app anew`);
}

/** The access token of whoever is signed in, refreshed if it has expired; null: nobody is. */
async function accessTokenNow(): Promise<string | null> {
  const { data } = await supabase.auth.getSession();
  return data.session?.access_token ?? null;
}
//#endregion

//#region device-id
/** The id of this installation. Not restored on another phone from a backup, so no two phones share one. */
async function deviceId(): Promise<string> {
  const options = { keychainAccessible: SecureStore.AFTER_FIRST_UNLOCK_THIS_DEVICE_ONLY };
  const known = await SecureStore.getItemAsync('chat-push.device-id', options);
  if (known) return known;
  const made = Crypto.randomUUID();
  await SecureStore.setItemAsync('chat-push.device-id', made, options);
  return made;
}
//#endregion

//#region register
export type Registration = 'registered' | 'not allowed' | 'signed out';

/**
 * Registers this phone for whoever is signed in. Safe to repeat.
 *
 * `ask`: may show the system's question; it is shown once in an installation's life, so choose the moment.
 * Throws PushError, and what Expo throws when it cannot be reached.
 */
export async function registerPhone({
  ask = false,
  devicePushToken,
}: {
  ask?: boolean;
  devicePushToken?: Notifications.DevicePushToken;
} = {}): Promise<Registration> {
  if (Platform.OS === 'android') {
    // Before anything else: Android 13 asks nobody until there is a channel, and a push to a missing one is not shown.
    await Notifications.setNotificationChannelAsync('chat-messages', {
      name: 'Messages',
      importance: Notifications.AndroidImportance.HIGH,
    });
  }
  let permission = await Notifications.getPermissionsAsync();
  if (ask && !allows(permission) && permission.canAskAgain) permission = await Notifications.requestPermissionsAsync();
  if (!allows(permission)) return 'not allowed';

  const accessToken = await accessTokenNow();
  if (!accessToken) return 'signed out';
  const projectId = Constants.expoConfig?.extra?.eas?.projectId ?? Constants.easConfig?.projectId;
  if (!projectId) throw notConfigured('the app has no project id of EAS, which eas init writes into app.json');
  const { data: pushToken } = await Notifications.getExpoPushTokenAsync({ projectId, devicePushToken });
  await call('POST', '/api/push/register', accessToken, 4, {
    device_id: await deviceId(),
    platform: Platform.OS,
    push_token: pushToken,
    app_version: Application.nativeApplicationVersion,
  });
  return 'registered';
}

function allows(permission: Notifications.NotificationPermissionsStatus): boolean {
  return permission.granted || permission.ios?.status === Notifications.IosAuthorizationStatus.PROVISIONAL;
}
//#endregion

//#region keep-registered
/**
 * Registers on each start, after each login, when the token changes, and when the person comes back from the settings
 * in which pushes were turned on. `told` hears how each of it ended. Call it once; call the result to end it.
 */
export function keepRegistered(report: (error: unknown) => void, told?: (outcome: Registration) => void): () => void {
  let last: Registration | undefined;
  const register = (devicePushToken?: Notifications.DevicePushToken) => {
    dismissThoseOfOthers().catch(report);
    registerPhone({ devicePushToken }).then((outcome) => told?.((last = outcome)), report);
  };
  const { data: session } = supabase.auth.onAuthStateChange((event, current) => {
    // Later, because supabase-js waits for this callback before it answers getSession.
    if (current && (event === 'INITIAL_SESSION' || event === 'SIGNED_IN')) setTimeout(register);
  });
  // This is the token of APNs or FCM, which the server does not take. Expo makes its own of it; to let Expo ask the
  // phone for it instead would call this listener again, for ever.
  const token = Notifications.addPushTokenListener(register);
  const app = AppState.addEventListener('change', (state) => {
    if (state === 'active' && last === 'not allowed') register();
  });
  return () => {
    session.subscription.unsubscribe();
    token.remove();
    app.remove();
  };
}
//#endregion

//#region log-out
/** Unregisters this phone, then signs out on this phone alone. Throws if neither could be made sure of. */
export async function logOut(): Promise<void> {
  const accessToken = await accessTokenNow();
  try {
    const path = `/api/push/unregister?device_id=${encodeURIComponent(await deviceId())}`;
    if (accessToken) await call('DELETE', path, accessToken, 1);
  } catch {
    // Offline: the phone itself gives up its push token, and the server hears of that from Expo. A login gets it one again.
    await Notifications.unregisterForNotificationsAsync();
  }
  await Notifications.dismissAllNotificationsAsync();
  await Notifications.setBadgeCountAsync(0);
  await supabase.auth.signOut({ scope: 'local' });
}
//#endregion

//#region presence
let onScreen: string | null = null; // the conversation that the person is looking at
let reported: PromiseLike<unknown> = Promise.resolve();

/** Says every 20 seconds that this conversation is on the screen. Call the result when it is left. */
export function lookAt(userId: string, conversationId: string): () => void {
  let timer: ReturnType<typeof setInterval> | undefined;
  const look = () => {
    if (timer) return;
    onScreen = conversationId;
    report(userId, { is_online: true, current_conversation_id: conversationId });
    timer = setInterval(() => report(userId, { is_online: true, current_conversation_id: conversationId }), 20_000);
  };
  const lookAway = (stillOnline: boolean) => {
    clearInterval(timer);
    timer = undefined;
    if (onScreen !== conversationId) return; // another conversation is open by now
    onScreen = null;
    report(userId, { is_online: stillOnline, current_conversation_id: null });
  };
  const app = AppState.addEventListener('change', (state) => (state === 'active' ? look() : lookAway(false)));
  if (AppState.currentState === 'active') look();
  return () => {
    app.remove();
    lookAway(true);
  };
}

/** One after the other, so that "left" never overtakes "there". What is lost is made good by the next. */
function report(userId: string, presence: { is_online: boolean; current_conversation_id: string | null }): void {
  reported = reported.then(() => supabase.from('user_presence').upsert({ user_id: userId, ...presence }));
}
//#endregion

//#region foreground
// While the app is open: no banner and no sound for the conversation that is on the screen, or for another account.
Notifications.setNotificationHandler({
  handleNotification: async ({ request }) => {
    const { data } = request.content;
    const onIt = onScreen !== null && data?.conversationId === onScreen;
    const show = !onIt && !(await isForAnother(data));
    return { shouldShowBanner: show, shouldShowList: show, shouldPlaySound: show, shouldSetBadge: show };
  },
});

/** Whether a push is for somebody else than is signed in here: this phone may be on another account by now. */
async function isForAnother(data?: Record<string, unknown>): Promise<boolean> {
  if (!data?.recipientId) return false;
  const { data: current, error } = await supabase.auth.getSession();
  return !error && current.session?.user.id !== data.recipientId;
}

/** What the system showed while the app was closed, too. */
async function dismissThoseOfOthers(): Promise<void> {
  for (const { request } of await Notifications.getPresentedNotificationsAsync()) {
    if (await isForAnother(request.content.data)) await Notifications.dismissNotificationAsync(request.identifier);
  }
}
//#endregion

//#region taps
export interface Tapped {
  conversationId: string;
  messageId: string;
  senderId: string;
}

let handled = ''; // for all that listen: a root layout may be mounted twice, as React's StrictMode does

/** Calls `open` for each notification that is tapped, also the one that started the app. Call the result to end it. */
export function onTap(open: (tapped: Tapped) => void): () => void {
  const handle = async (response: Notifications.NotificationResponse | null) => {
    const data = response?.notification.request.content.data;
    if (!response || data?.type !== 'chat_message') return;
    const tap = `${data.messageId} ${response.notification.date}`;
    if (tap === handled) return; // the tap that started the app may come both ways
    handled = tap;
    Notifications.clearLastNotificationResponse(); // else the next start would open it again
    if (await isForAnother(data)) return;
    open({
      conversationId: String(data.conversationId),
      messageId: String(data.messageId),
      senderId: String(data.senderId),
    });
  };
  const subscription = Notifications.addNotificationResponseReceivedListener(handle);
  void handle(Notifications.getLastNotificationResponse());
  return () => subscription.remove();
}
//#endregion

//#region marks
/** These messages are on this phone. Call it for whatever arrives: by Realtime, by get_missed_messages, by a push. */
export async function markDelivered(userId: string, messageIds: string[]): Promise<void> {
  const { error } = await supabase.rpc('mark_messages_delivered', {
    p_user_id: userId,
    p_message_ids: messageIds,
    p_device_id: await deviceId(),
  });
  if (error) throw error;
}

/** Everything in this conversation was seen: its notifications go, and the badge counts what is left. */
export async function markRead(userId: string, conversationId: string): Promise<void> {
  const { error } = await supabase.rpc('mark_messages_read', {
    p_user_id: userId,
    p_conversation_id: conversationId,
  });
  if (error) throw error;
  for (const { request } of await Notifications.getPresentedNotificationsAsync()) {
    if (request.content.data?.conversationId === conversationId) {
      await Notifications.dismissNotificationAsync(request.identifier);
    }
  }
  await Notifications.setBadgeCountAsync(await unreadTotal(userId));
}

/** Unread messages of all conversations, as the badge of each push says it. */
async function unreadTotal(userId: string): Promise<number> {
  const { data, error } = await supabase.from('chat_rooms').select('user1_id, unread_count_user1, unread_count_user2');
  if (error) throw error;
  return data.reduce(
    (total, room) => total + (room.user1_id === userId ? room.unread_count_user1 : room.unread_count_user2),
    0,
  );
}
//#endregion
