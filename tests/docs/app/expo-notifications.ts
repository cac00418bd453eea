// The part of expo-notifications 58 that docs/client/push.ts uses, with its types: one phone, and what happened on it.

export interface DevicePushToken {
  type: 'ios' | 'android';
  data: string;
}

export interface NotificationRequest {
  identifier: string;
  content: { title: string | null; body: string | null; data: Record<string, unknown> };
}

export interface Notification {
  date: number;
  request: NotificationRequest;
}

export interface NotificationResponse {
  notification: Notification;
  actionIdentifier: string;
}

export interface NotificationBehavior {
  shouldShowBanner: boolean;
  shouldShowList: boolean;
  shouldPlaySound: boolean;
  shouldSetBadge: boolean;
}

export interface NotificationPermissionsStatus {
  granted: boolean;
  canAskAgain: boolean;
  ios?: { status: number };
}

export const IosAuthorizationStatus = { PROVISIONAL: 3 } as const;
export const AndroidImportance = { HIGH: 6 } as const;

type Listener<T> = (event: T) => void;
type Handler = { handleNotification: (notification: Notification) => Promise<NotificationBehavior> };

/** What the person did, and what the phone shows. */
export const phone = {
  pushToken: '',
  allowed: false,
  answer: true, // to the system's question
  asked: 0,
  channels: [] as string[],
  presented: [] as Notification[],
  badge: 0,
  registered: true, // with APNs or FCM
  tappedBeforeStart: null as NotificationResponse | null,
};

const tapListeners = new Set<Listener<NotificationResponse>>();
const tokenListeners = new Set<Listener<DevicePushToken>>();
let handler: Handler | null = null;

function listen<T>(listeners: Set<Listener<T>>, listener: Listener<T>): { remove(): void } {
  listeners.add(listener);
  return { remove: () => void listeners.delete(listener) };
}

/** A push arrives while the app is open; how the app wants it shown. */
export async function arrive(notification: Notification): Promise<NotificationBehavior> {
  if (!handler) throw new Error('no handler is set');
  const behaviour = await handler.handleNotification(notification);
  if (behaviour.shouldShowList) phone.presented.push(notification);
  if (behaviour.shouldSetBadge) phone.badge += 1;
  return behaviour;
}

/** The person taps a notification. */
export function tap(notification: Notification): void {
  const response = { notification, actionIdentifier: 'expo.modules.notifications.actions.DEFAULT' };
  if (tapListeners.size === 0) phone.tappedBeforeStart = response;
  tapListeners.forEach((listener) => listener(response));
}

/** APNs or FCM give the phone another token. */
export function rollToken(pushToken: string): void {
  phone.pushToken = pushToken;
  tokenListeners.forEach((listener) => listener({ type: 'android', data: 'native' }));
}

export async function setNotificationChannelAsync(id: string, _: { name: string; importance: number }): Promise<void> {
  phone.channels.push(id);
}

export async function getPermissionsAsync(): Promise<NotificationPermissionsStatus> {
  return { granted: phone.allowed, canAskAgain: phone.asked === 0 };
}

export async function requestPermissionsAsync(): Promise<NotificationPermissionsStatus> {
  if (!phone.channels.length) throw new Error('Android 13 does not ask before there is a channel');
  phone.asked += 1;
  phone.allowed = phone.answer;
  return getPermissionsAsync();
}

export async function getExpoPushTokenAsync(options: {
  projectId: string;
  devicePushToken?: DevicePushToken;
}): Promise<{ type: 'expo'; data: string }> {
  if (!options.projectId) throw new Error('No "projectId" found');
  phone.registered = true;
  const data = phone.pushToken;
  if (!options.devicePushToken) rollToken(data); // asking the phone for its own token calls the listeners
  return { type: 'expo', data };
}

export async function unregisterForNotificationsAsync(): Promise<void> {
  phone.registered = false;
}

export function addPushTokenListener(listener: Listener<DevicePushToken>): { remove(): void } {
  return listen(tokenListeners, listener);
}

export function setNotificationHandler(next: Handler | null): void {
  handler = next;
}

export function addNotificationResponseReceivedListener(listener: Listener<NotificationResponse>): { remove(): void } {
  const subscription = listen(tapListeners, listener);
  const tapped = phone.tappedBeforeStart;
  // Some versions say it both ways.
  if (tapped) setTimeout(() => tapListeners.has(listener) && listener(tapped));
  return subscription;
}

export function getLastNotificationResponse(): NotificationResponse | null {
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
  phone.presented = [];
}

export async function setBadgeCountAsync(count: number): Promise<boolean> {
  phone.badge = count;
  return true;
}
