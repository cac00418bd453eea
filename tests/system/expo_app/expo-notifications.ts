// The part of expo-notifications that chat-push-client/expo uses: one phone, and a record of what happened on it.

import type * as Expo from 'expo-notifications';
import type {
  DevicePushToken,
  EventSubscription,
  ExpoPushToken,
  ExpoPushTokenOptions,
  Notification,
  NotificationBehavior,
  NotificationHandler,
  NotificationPermissionsRequest,
  NotificationPermissionsStatus,
  NotificationResponse,
} from 'expo-notifications';

import { Platform } from './react-native.ts';

export const IosAuthorizationStatus = { PROVISIONAL: 3 satisfies Expo.IosAuthorizationStatus.PROVISIONAL };
export const AndroidImportance = {
  HIGH: 6 satisfies Expo.AndroidImportance.HIGH,
  LOW: 4 satisfies Expo.AndroidImportance.LOW,
};

type Listener<T> = (event: T) => void;

/** What the user did, and what the phone shows. */
export const phone = {
  pushToken: '', // Expo's
  nativeToken: '', // of APNs or FCM
  allowed: false,
  answer: true, // to the system's permission dialog
  asked: 0,
  provisional: false, // allowed without a question, on an iPhone
  canGiveUpToken: true, // an iPhone can; an Android phone needs the network for it
  channels: [] as string[],
  presented: [] as Notification[],
  badge: 0,
  badges: [] as number[], // all that the app has set
  tasks: [] as string[],
  registered: true, // with APNs or FCM
  tappedBeforeStart: null as NotificationResponse | null,
};

const tapListeners = new Set<Listener<NotificationResponse>>();
const tokenListeners = new Set<Listener<DevicePushToken>>();
let handler: NotificationHandler | null = null;

function listen<T>(listeners: Set<Listener<T>>, listener: Listener<T>): EventSubscription {
  listeners.add(listener);
  return { remove: () => void listeners.delete(listener) };
}

/** In a browser, a part of expo-notifications is not there. */
function onPhone(): void {
  if (!['ios', 'android'].includes(Platform.OS)) throw new Error('UnavailabilityError');
}

/** A push arrives while the app is open. Returns how the app wants to show it. */
export async function arrive(notification: Notification): Promise<NotificationBehavior> {
  if (!handler) throw new Error('no handler is set');
  const behaviour = await handler.handleNotification(notification);
  if (behaviour.shouldShowList) phone.presented.push(notification);
  if (behaviour.shouldSetBadge) phone.badge += 1;
  return behaviour;
}

/** The user taps a notification. */
export function tap(notification: Notification): void {
  const response = { notification, actionIdentifier: 'expo.modules.notifications.actions.DEFAULT' };
  if (tapListeners.size === 0) phone.tappedBeforeStart = response;
  tapListeners.forEach((listener) => listener(response));
}

/** APNs or FCM give the phone a new token, for which Expo has `pushToken`. */
export function rollToken(pushToken: string, nativeToken = phone.nativeToken): void {
  Object.assign(phone, { pushToken, nativeToken });
  tokenListeners.forEach((listener) => listener({ type: Platform.OS, data: nativeToken }));
}

export async function getDevicePushTokenAsync(): Promise<DevicePushToken> {
  phone.registered = true;
  rollToken(phone.pushToken); // Asking the phone calls the listeners.
  return { type: Platform.OS, data: phone.nativeToken };
}

export async function setNotificationChannelAsync(id: string): Promise<null> {
  phone.channels.push(id);
  return null; // as on any phone but Android
}

export async function getPermissionsAsync(): Promise<NotificationPermissionsStatus> {
  const status = (phone.allowed ? 'granted' : 'undetermined') as NotificationPermissionsStatus['status'];
  const ios = phone.provisional ? { ios: { status: IosAuthorizationStatus.PROVISIONAL } } : {};
  return { granted: phone.allowed, canAskAgain: phone.asked === 0, expires: 'never', status, ...ios } as NotificationPermissionsStatus;
}

export async function requestPermissionsAsync(
  permissions?: NotificationPermissionsRequest,
): Promise<NotificationPermissionsStatus> {
  if (permissions?.ios?.allowProvisional) {
    phone.provisional = true;
    return getPermissionsAsync();
  }
  if (Platform.OS === 'android' && !phone.channels.length) throw new Error('Android 13 shows no dialog before a channel exists');
  phone.asked += 1;
  phone.allowed = phone.answer;
  return getPermissionsAsync();
}

export async function getExpoPushTokenAsync(options: ExpoPushTokenOptions = {}): Promise<ExpoPushToken> {
  if (!options.projectId) throw new Error('No "projectId" found');
  phone.registered = true;
  const data = phone.pushToken;
  if (!options.devicePushToken) rollToken(data); // without it Expo asks the phone, which calls the listeners
  return { type: 'expo', data };
}

export async function unregisterForNotificationsAsync(): Promise<void> {
  onPhone();
  if (!phone.canGiveUpToken) throw new Error('SERVICE_NOT_AVAILABLE');
  phone.registered = false;
}

export function addPushTokenListener(listener: Listener<DevicePushToken>): EventSubscription {
  return listen(tokenListeners, listener);
}

export function setNotificationHandler(next: NotificationHandler | null): void {
  handler = next;
}

export function addNotificationResponseReceivedListener(listener: Listener<NotificationResponse>): EventSubscription {
  const subscription = listen(tapListeners, listener);
  const tapped = phone.tappedBeforeStart;
  // Some versions of expo-notifications also pass this tap to the listener.
  if (tapped) setTimeout(() => tapListeners.has(listener) && listener(tapped));
  return subscription;
}

export function getLastNotificationResponse(): NotificationResponse | null {
  onPhone();
  return phone.tappedBeforeStart;
}

export function clearLastNotificationResponse(): void {
  phone.tappedBeforeStart = null;
}

export async function getPresentedNotificationsAsync(): Promise<Notification[]> {
  return phone.presented;
}

export async function dismissNotificationAsync(identifier: string): Promise<void> {
  phone.presented = phone.presented.filter(({ request }) => request.identifier !== identifier);
}

export async function dismissAllNotificationsAsync(): Promise<void> {
  onPhone();
  phone.presented = [];
}

export async function registerTaskAsync(taskName: string): Promise<null> {
  phone.tasks.push(taskName);
  return null;
}

export async function setBadgeCountAsync(count: number): Promise<boolean> {
  phone.badges.push(count);
  phone.badge = count;
  if (count === 0) phone.presented = []; // on Android, and on iOS as well
  return true;
}
