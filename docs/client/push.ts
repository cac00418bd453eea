// The push notifications of an Expo chat app. Copy this file into your app. docs/client.md explains each part.

import * as Application from 'expo-application';
import Constants from 'expo-constants';
import * as Crypto from 'expo-crypto';
import * as Notifications from 'expo-notifications';
import * as SecureStore from 'expo-secure-store';
import * as TaskManager from 'expo-task-manager';
import { AppState, Platform } from 'react-native';

import { supabase } from './supabase'; // your app's Supabase client

const TOKENS = process.env.EXPO_PUBLIC_CHAT_PUSH_TOKENS || 'expo'; // or 'native': of FCM and APNs, without Expo's service
const API_URL = process.env.EXPO_PUBLIC_CHAT_PUSH_URL?.replace(/\/+$/, ''); // the output ApiUrl of the stack

//#region api
export class PushError extends Error {
  readonly status: number; // of the response; 0 if there was none
  readonly code: string; // see the table of errors in docs/client.md

  constructor(status: number, code: string, message: string) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

/** Calls the API. Repeats a call that may succeed later, up to `attempts` calls in all. Throws PushError. */
async function call(method: string, path: string, accessToken: string, attempts: number, body?: object): Promise<void> {
  if (!API_URL?.startsWith('http')) throw notConfigured('EXPO_PUBLIC_CHAT_PUSH_URL is not set to the output ApiUrl');
  for (let attempt = 1; ; attempt++) {
    const response = await answer(method, path, accessToken, body);
    if (response?.ok) return;
    const temporary = !response || response.status === 429 || response.status >= 500;
    if (!temporary || attempt >= attempts) throw await errorOf(response);
    const seconds = Number(response?.headers.get('Retry-After')) || 2 ** attempt;
    await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
  }
}

/** Returns the response, or null if there is none within 15 seconds. */
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
  const { error } = await response.json().catch(() => ({})); // an error of a proxy or gateway has another shape
  return new PushError(response.status, error?.code ?? 'http', error?.message ?? `HTTP ${response.status}`);
}

/** The error for a value that is missing in the build of the app. */
function notConfigured(what: string): PushError {
  return new PushError(0, 'not_configured', `${what}. Set it and build the app again.`);
}

/** Returns the access token of the signed-in user, refreshed if it has expired, or null if no user is signed in. */
async function accessTokenNow(): Promise<string | null> {
  const { data } = await supabase.auth.getSession();
  return data.session?.access_token ?? null;
}
//#endregion

//#region device-id
/** Returns the id of this installation. Backups do not restore it, so no two phones share an id. */
async function deviceId(): Promise<string> {
  const options = { keychainAccessible: SecureStore.AFTER_FIRST_UNLOCK_THIS_DEVICE_ONLY };
  const stored = await SecureStore.getItemAsync('chat-push.device-id', options);
  if (stored) return stored;
  const created = Crypto.randomUUID();
  await SecureStore.setItemAsync('chat-push.device-id', created, options);
  return created;
}
//#endregion

//#region register
export type Registration = 'registered' | 'not allowed' | 'signed out';

/**
 * Registers this phone for the signed-in user. It is safe to repeat.
 *
 * `ask` allows the system's permission dialog. The system shows it once per installation, so choose the moment.
 * Throws PushError, and the error of Expo, FCM or APNs if the phone gets no token.
 */
export async function registerPhone({
  ask = false,
  devicePushToken,
}: {
  ask?: boolean;
  devicePushToken?: Notifications.DevicePushToken;
} = {}): Promise<Registration> {
  if (Platform.OS === 'android') {
    // First, because Android 13 shows no dialog before a channel exists, and no push to a channel that does not exist.
    await Notifications.setNotificationChannelAsync('chat-messages', {
      name: 'Messages',
      importance: Notifications.AndroidImportance.HIGH,
    });
    await Notifications.setNotificationChannelAsync('chat-messages-quiet', {
      name: 'Messages without a sound',
      importance: Notifications.AndroidImportance.LOW,
    });
  }
  let permission = await Notifications.getPermissionsAsync();
  if (ask && !allows(permission) && permission.canAskAgain) permission = await Notifications.requestPermissionsAsync();
  if (!allows(permission)) return 'not allowed';

  const accessToken = await accessTokenNow();
  if (!accessToken) return 'signed out';
  await call('POST', '/api/push/register', accessToken, 4, {
    device_id: await deviceId(),
    platform: Platform.OS,
    app_version: Application.nativeApplicationVersion,
    locale: Intl.DateTimeFormat().resolvedOptions().locale,
    ...(TOKENS === 'native' ? await nativeToken(devicePushToken) : await expoToken(devicePushToken)),
  });
  return 'registered';
}

async function expoToken(devicePushToken?: Notifications.DevicePushToken): Promise<object> {
  if (TOKENS !== 'expo') throw notConfigured('EXPO_PUBLIC_CHAT_PUSH_TOKENS is neither expo nor native');
  const projectId = Constants.expoConfig?.extra?.eas?.projectId ?? Constants.easConfig?.projectId;
  if (!projectId) throw notConfigured('app.json has no EAS project id, which eas init writes');
  const { data } = await Notifications.getExpoPushTokenAsync({ projectId, devicePushToken });
  return { push_token: data };
}

async function nativeToken(devicePushToken?: Notifications.DevicePushToken): Promise<object> {
  const { data } = devicePushToken ?? (await Notifications.getDevicePushTokenAsync());
  if (Platform.OS !== 'ios') return { push_token: data, push_provider: 'fcm' };
  // Apple has other servers for the tokens of development builds. A build from the App Store has no environment.
  const isDevelopment = (await Application.getIosPushNotificationServiceEnvironmentAsync()) === 'development';
  return { push_token: data, push_provider: 'apns', push_environment: isDevelopment ? 'sandbox' : 'production' };
}

function allows(permission: Notifications.NotificationPermissionsStatus): boolean {
  return permission.granted || permission.ios?.status === Notifications.IosAuthorizationStatus.PROVISIONAL;
}
//#endregion

//#region keep-registered
/**
 * Registers on each start, after each login, when the token changes, and after the user allowed pushes in the
 * settings. Calls `done` after each registration. Call it once. It returns a function that stops it.
 */
export function keepRegistered(report: (error: unknown) => void, done?: (outcome: Registration) => void): () => void {
  let last: Registration | undefined;
  const register = (devicePushToken?: Notifications.DevicePushToken) => {
    refreshNotifications().catch(report);
    registerPhone({ devicePushToken }).then((outcome) => done?.((last = outcome)), report);
  };
  const { data: session } = supabase.auth.onAuthStateChange((event, current) => {
    // supabase-js answers getSession only after this callback has returned.
    if (current && (event === 'INITIAL_SESSION' || event === 'SIGNED_IN')) setTimeout(register);
  });
  // The listener gets the token of APNs or FCM. Pass it on: to ask the phone for it would call this listener again,
  // without end. Expo returns its own token for it.
  const token = Notifications.addPushTokenListener(register);
  const app = AppState.addEventListener('change', (state) => {
    if (state !== 'active') return;
    if (last === 'not allowed') register();
    else refreshNotifications().catch(report);
  });
  return () => {
    session.subscription.unsubscribe();
    token.remove();
    app.remove();
  };
}
//#endregion

//#region log-out
/** Unregisters this phone, then signs out on this phone only. Throws if the phone would still get pushes. */
export async function logOut(): Promise<void> {
  const { data } = await supabase.auth.getSession();
  const accessToken = data.session?.access_token;
  try {
    if (data.session) await reportPresence(data.session.user.id, false);
    const path = `/api/push/unregister?device_id=${encodeURIComponent(await deviceId())}`;
    if (accessToken) await call('DELETE', path, accessToken, 1);
  } catch {
    // Offline: the phone gives up its push token, and Expo reports that to the server. The next login gets a new token.
    await Notifications.unregisterForNotificationsAsync();
  }
  await Notifications.dismissAllNotificationsAsync();
  await Notifications.setBadgeCountAsync(0);
  await supabase.auth.signOut({ scope: 'local' });
}
//#endregion

//#region presence
let onScreen: string | null = null; // the conversation on the screen
let reported: Promise<void> = Promise.resolve();

/**
 * Reports every 20 seconds while the app is in the foreground that this phone is online, and which conversation it
 * shows. Reports when the app leaves the foreground. Call it once. It returns a function that stops it.
 */
export function keepOnline(): () => void {
  let timer: ReturnType<typeof setInterval> | undefined;
  const follow = () => {
    clearInterval(timer);
    void report();
    if (AppState.currentState === 'active') timer = setInterval(report, 20_000);
  };
  const app = AppState.addEventListener('change', follow);
  if (AppState.currentState === 'active') follow();
  return () => {
    clearInterval(timer);
    app.remove();
  };
}

/** Says that this conversation is on the screen. Returns a function to call when it is left. */
export function lookAt(conversationId: string): () => void {
  onScreen = conversationId;
  void report();
  return () => {
    if (onScreen !== conversationId) return; // another conversation is open already
    onScreen = null;
    void report();
  };
}

/** Sends one report after the other, each with the state at its time. The next report replaces a lost one. */
function report(): Promise<void> {
  return (reported = reported.then(sendReport, sendReport));
}

async function sendReport(): Promise<void> {
  const { data } = await supabase.auth.getSession();
  if (data.session) await reportPresence(data.session.user.id, AppState.currentState === 'active');
}

async function reportPresence(userId: string, isOnline: boolean): Promise<void> {
  const conversationId = isOnline ? onScreen : null;
  const { error } = await supabase.rpc('report_presence', {
    p_device_id: await deviceId(),
    p_state: isOnline ? 'online' : 'offline',
    p_conversation_id: conversationId,
  });
  // A phone that is not registered, because the user allows no pushes, reports for the user as a whole.
  if (error?.code !== '22023') return;
  const presence = { user_id: userId, is_online: isOnline, current_conversation_id: conversationId };
  await supabase.from('user_presence').upsert(presence);
}
//#endregion

//#region foreground
// While the app is open: no banner and no sound for the conversation on the screen, for another account, or for a text
// that only changed.
Notifications.setNotificationHandler({
  handleNotification: async ({ request }) => {
    const { data } = request.content;
    const isSilent = await handleSilentPush(data); // on iOS, one that only sets the badge comes here
    const isOnScreen = onScreen !== null && data?.conversationId === onScreen;
    const show = !isSilent && !isOnScreen && !(await isForOtherUser(data));
    const alert = show && data?.kind !== 'update';
    // On Android, expo-notifications ignores the tag while the app is open: the older notification would stay.
    if (show && Platform.OS === 'android') await dismiss((conversation) => conversation === data?.conversationId);
    return { shouldShowBanner: alert, shouldShowList: show, shouldPlaySound: alert, shouldSetBadge: show };
  },
});

/** Returns whether a push is for another account. The user of this phone may have changed since. */
async function isForOtherUser(data?: Record<string, unknown>): Promise<boolean> {
  if (!data?.recipientId) return false;
  const { data: current, error } = await supabase.auth.getSession();
  return !error && current.session?.user.id !== data.recipientId;
}
//#endregion

//#region background
const TASK = 'chat-push';

// At the top level, because the system may start the app in the background for this task alone.
TaskManager.defineTask<Notifications.NotificationTaskPayload>(TASK, async ({ data }) => {
  if (!('actionIdentifier' in data)) await handleSilentPush(JSON.parse(data.data.dataString ?? '{}'));
});
Notifications.registerTaskAsync(TASK).catch((error) => console.warn('push', error)); // such as in Expo Go

/**
 * Handles a push without a text: removes the notifications of conversations that were read elsewhere, and sets the
 * badge. Returns whether it was such a push.
 */
async function handleSilentPush(data?: Record<string, unknown>): Promise<boolean> {
  if (data?.type !== 'chat_message' || (data.kind !== 'dismiss' && data.kind !== 'badge')) return false;
  const { data: current } = await supabase.auth.getSession();
  const userId = current.session?.user.id;
  if (userId && userId !== data.recipientId) return true;
  const ids = Array.isArray(data.conversationIds) ? data.conversationIds : [];
  try {
    if (!userId) throw new Error('signed out');
    await showUnread(userId, ids, Date.parse(String(data.sentAt)));
  } catch {
    // Without the database, do what the push says.
    await dismiss((conversation) => ids.includes(conversation));
    await Notifications.setBadgeCountAsync(Number(data.badge));
  }
  return true;
}

/**
 * Removes the notifications of other users, and of conversations that were read on another device; sets the badge.
 * A phone may have missed the push that says so: iOS limits them, and the app may have been closed by force.
 */
async function refreshNotifications(): Promise<void> {
  for (const { request } of await Notifications.getPresentedNotificationsAsync()) {
    if (await isForOtherUser(request.content.data)) await Notifications.dismissNotificationAsync(request.identifier);
  }
  const { data } = await supabase.auth.getSession();
  if (data.session) await showUnread(data.session.user.id);
}

/**
 * Removes the notifications of conversations without unread messages, then sets the badge. A badge of 0 removes every
 * notification of the app, so it is set only if nothing is unread.
 *
 * `dismissed` are conversations that a push of the time `sentAt` (ms) removes as well, such as an unread message that
 * has expired. The system may hold such a push back, and show a newer message first: that one stays.
 */
async function showUnread(userId: string, dismissed: unknown[] = [], sentAt = NaN): Promise<void> {
  const before = new Set((await Notifications.getPresentedNotificationsAsync()).map(versionOf));
  const conversations = await unreadConversations(userId);
  const shown = await Notifications.getPresentedNotificationsAsync();
  // One that arrived meanwhile may be of a message that was not there yet when the database was read.
  if (shown.some((notification) => !before.has(versionOf(notification)))) return showUnread(userId, dismissed, sentAt);
  for (const { request } of shown) {
    const id = conversationOf(request);
    const state = conversations.get(id ?? request.identifier);
    const isOver = state ? state.unread === 0 : id !== undefined;
    const isDismissed = dismissed.includes(id ?? request.identifier) && !(state && state.newestAt > sentAt);
    if (isOver || isDismissed) await Notifications.dismissNotificationAsync(request.identifier);
  }
  const badge = [...conversations.values()].reduce((total, { unread }) => total + unread, 0);
  await Notifications.setBadgeCountAsync(badge);
}

/** Tells a notification from a newer one that replaced it. */
function versionOf({ date, request }: Notifications.Notification): string {
  return `${request.identifier} ${date}`;
}

/** Removes the notifications of these conversations, also those that the system showed while the app was closed. */
async function dismiss(which: (conversationId: string) => boolean): Promise<void> {
  for (const { request } of await Notifications.getPresentedNotificationsAsync()) {
    const id = conversationOf(request) ?? request.identifier; // on iOS, the identifier is that of the conversation
    if (which(id)) await Notifications.dismissNotificationAsync(request.identifier);
  }
}

/** Android returns notifications that the system has drawn without their data, but with their tag. */
function conversationOf({ identifier, content }: Notifications.NotificationRequest): string | undefined {
  if (content.data?.type === 'chat_message') return String(content.data.conversationId);
  return /^expo-notifications:.*[?&]tag=([0-9a-f-]{36})(&|$)/.exec(identifier)?.[1];
}

/** Returns how many messages of each conversation are unread, and when its newest one was sent (ms). */
async function unreadConversations(userId: string): Promise<Map<string, { unread: number; newestAt: number }>> {
  const columns = 'id, user1_id, unread_count_user1, unread_count_user2, last_message_at';
  const { data } = await supabase.from('chat_rooms').select(columns).throwOnError();
  return new Map(
    data.map((room) => {
      const unread = room.user1_id === userId ? room.unread_count_user1 : room.unread_count_user2;
      return [room.id, { unread, newestAt: Date.parse(room.last_message_at) }];
    }),
  );
}
//#endregion

//#region taps
export interface Tapped {
  conversationId: string;
  messageId: string;
  /** Null if the user wants no preview. */
  senderId: string | null;
}

let handled = ''; // shared by all listeners: React's StrictMode mounts a root layout twice

/** Calls `open` for each tapped notification, also for one that started the app. Returns a function that stops it. */
export function onTap(open: (tapped: Tapped) => void): () => void {
  const handle = async (response: Notifications.NotificationResponse | null) => {
    const data = response?.notification.request.content.data;
    if (!response || data?.type !== 'chat_message') return;
    const tap = `${data.messageId} ${response.notification.date}`;
    if (tap === handled) return; // Expo may report the tap that started the app twice
    handled = tap;
    Notifications.clearLastNotificationResponse(); // otherwise the next start opens it again
    if (await isForOtherUser(data)) return;
    open({
      conversationId: String(data.conversationId),
      messageId: String(data.messageId),
      senderId: typeof data.senderId === 'string' ? data.senderId : null,
    });
  };
  const subscription = Notifications.addNotificationResponseReceivedListener(handle);
  void handle(Notifications.getLastNotificationResponse());
  return () => subscription.remove();
}
//#endregion

//#region marks
/** Reports that messages are on this phone. Call it for messages from Realtime, syncs, and pushes. */
export async function markDelivered(userId: string, messageIds: string[]): Promise<void> {
  const { error } = await supabase.rpc('mark_messages_delivered', {
    p_user_id: userId,
    p_message_ids: messageIds,
    p_device_id: await deviceId(),
  });
  if (error) throw error;
}

/**
 * Marks a conversation as read, removes its notification if nothing in it is unread, and sets the badge.
 *
 * `newest` is the id of the newest stored message on the screen. What arrived after it stays unread. Without `newest`,
 * the whole conversation is marked.
 */
export async function markRead(userId: string, conversationId: string, newest?: string): Promise<void> {
  const { error } = await supabase.rpc('mark_messages_read', {
    p_user_id: userId,
    p_conversation_id: conversationId,
    p_up_to_message_id: newest ?? null,
    p_device_id: await deviceId(),
  });
  if (error) throw error;
  await showUnread(userId);
}
//#endregion
