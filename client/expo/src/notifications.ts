// The pushes of an Expo app: its registration, its permission, what it shows, what a tap opens, and the badge.

import type * as Expo from 'expo-notifications';
import { AppState, Platform } from 'react-native';

import type { ChatClient } from './client.ts';
import type { Device } from './devices.ts';
import { ChatError, NotSignedIn, RateLimited, ServerUnreachable } from './errors.ts';
import type { ChatEvent } from './events.ts';
import { parsed, rowOf, type Conversation } from './models.ts';
import { Application, Constants, ExpoDevice, Notifications, TaskManager, missingOf } from './modules.ts';
import { logOf, reasonOf } from './parts.ts';
import { tapOf, type Tap } from './push.ts';
import { Turns } from './waiting.ts';

const TASK = 'chat-push';
const EXPO_GO = 'Expo Go gets no pushes of your app: use a build of your own';
const ATTEMPTS = 4; // of a registration that may succeed later; then the next return to the app tries again

/**
 * Why this phone can get no pushes.
 *
 * `not_asked`: the person was not asked yet, or may be asked again: call `ask`. `denied`: only the settings of the system
 * can allow them. `simulator`, `expo_go`: use a build of your own on a real phone. `no_project_id`: run `eas init` and build
 * again. `missing_module`: a package of Expo is not in this build; `cause` is the MissingModule that names it. `no_token`:
 * Expo, APNs or FCM gave no push token, such as without a network; `cause` is their error. `web`: see docs/client.md for
 * browsers.
 */
export type PushUnavailableReason =
  | 'not_asked'
  | 'denied'
  | 'simulator'
  | 'expo_go'
  | 'no_project_id'
  | 'missing_module'
  | 'no_token'
  | 'web';

/** This phone gets no pushes. `reason` says why, and the message what to do. */
export class PushUnavailable extends ChatError {
  override name = 'PushUnavailable';
  readonly reason: PushUnavailableReason;

  constructor(reason: PushUnavailableReason, message: string, options?: ErrorOptions) {
    super(message, options);
    this.reason = reason;
  }
}

/** Whether this phone is registered for pushes; `error`: why not. Both are unset before the first attempt has ended. */
export interface PushStatus {
  readonly isRegistered: boolean;
  readonly error: Error | null;
}

/**
 * `tokens`: of Expo, or of FCM and APNs (`native`). `projectId`: that of EAS, if app.json does not have it. `provisional`: on
 * an iPhone, notifications come quietly until the person has decided, without a question. `channels`: the names of the
 * Android channels, which the person sees in the settings. `log`: gets what went wrong; console.warn if not set.
 */
export interface PushSettings {
  readonly tokens?: 'expo' | 'native';
  readonly projectId?: string;
  readonly provisional?: boolean;
  readonly channels?: { readonly messages: string; readonly quiet: string };
  readonly log?: (text: string) => void;
}

/**
 * The pushes of one client.
 *
 * Make it at the top level of a file that the entry of the app imports: the system may start the app in the background, only
 * for the task that this defines. It registers the phone whenever that is needed, and reports in `status` how it went.
 */
export class Push {
  readonly #settings: PushSettings;
  readonly #opening: Promise<ChatClient>;
  readonly #missing = missingPart();
  readonly #endings: (() => void)[] = [];
  readonly #listeners = new Set<() => void>();
  #status: PushStatus = { isRegistered: false, error: null };
  #unread = new Map<string, number>(); // of each conversation, as the last event said
  readonly #registrations = new Turns();
  readonly #refreshes = new Turns();
  #nextRefresh: Promise<void> | null = null;
  #mustSync = false;
  #handledTap = '';
  #isClosed = false;

  /** `client`: an open client, or one that is being opened. */
  constructor(client: ChatClient | Promise<ChatClient>, settings: PushSettings = {}) {
    this.#settings = settings;
    this.#opening = Promise.resolve(client);
    if (this.#missing) {
      this.#set({ isRegistered: false, error: this.#missing });
      this.#failed('the start', this.#missing);
      return;
    }
    Notifications.setNotificationHandler({
      handleNotification: ({ request }) => this.#behaviour(request.content.data),
    });
    // At once, because the system may have started the app for this task alone.
    TaskManager.defineTask<Expo.NotificationTaskPayload>(TASK, async ({ data }) => {
      if (!('actionIdentifier' in data)) await this.#handleSilent(rowOf(parsed(data.data.dataString ?? '')));
    });
    this.#do('the background task', () => Notifications.registerTaskAsync(TASK));
    this.#do('the start', async () => this.#follow(await this.#opening));
  }

  /** Stops. Call it before another Push is made, such as in a test. */
  close(): void {
    this.#isClosed = true;
    for (const end of this.#endings.splice(0)) end();
  }

  // Registration ---------------------------------------------------------------------------------

  /** Whether this phone is registered, or why not. It is the same object until it changes. */
  readonly status = (): PushStatus => this.#status;

  /** Calls the listener when the status has changed. Returns a function that ends it. */
  readonly subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };

  /**
   * Shows the system's permission dialog, and registers the phone. The system shows it once per installation, so call it
   * when the person sees why, such as after the first message.
   *
   * Throws PushUnavailable, and what `registerDevice` throws. `status` has the same error.
   */
  readonly ask = (): Promise<void> => this.#register(true);

  /** Registers the phone if the person has allowed pushes. It is safe to repeat. Throws what `ask` throws. */
  register(): Promise<void> {
    return this.#register(false);
  }

  /**
   * Signs out: unregisters the phone, removes its notifications and its badge, and ends the session on this phone.
   *
   * Without the server, the phone gives up its push token. If that fails, too, such as on Android without a network, the
   * person stays signed in, and it throws ServerUnreachable: show it, and let the person try again.
   */
  readonly signOut = async (): Promise<void> => {
    const client = await this.#opening;
    // Then this device shows no push, and has no token to give up.
    const isMissing = this.#missing?.reason === 'web' || missingOf('expo-notifications');
    await client.signOut(isMissing ? undefined : () => Notifications.unregisterForNotificationsAsync());
    this.#unread.clear();
    if (!isMissing) {
      await Notifications.dismissAllNotificationsAsync();
      await Notifications.setBadgeCountAsync(0);
    }
    this.#set({ isRegistered: false, error: this.#missing });
  };

  // Taps -----------------------------------------------------------------------------------------

  /** Calls `open` for each tapped push, also the one that started the app. Returns a function that ends it. */
  onTap(open: (tap: Tap) => void): () => void {
    if (this.#missing) return () => undefined;
    const handle = (response: Expo.NotificationResponse | null) => {
      if (response) this.#do('a tap', () => this.#open(response, open));
    };
    const subscription = Notifications.addNotificationResponseReceivedListener(handle);
    handle(Notifications.getLastNotificationResponse());
    return () => subscription.remove();
  }

  async #open({ notification }: Expo.NotificationResponse, open: (tap: Tap) => void): Promise<void> {
    const { data } = notification.request.content;
    if (!tapOf(data)) return;
    // Expo may report the tap that started the app twice, and a root layout may be mounted twice.
    const version = versionOf(notification);
    if (version === this.#handledTap) return;
    this.#handledTap = version;
    Notifications.clearLastNotificationResponse(); // otherwise the next start opens it again
    const tap = (await this.#opening).openPush(data);
    if (tap) open(tap);
  }

  // Internals ------------------------------------------------------------------------------------

  async #follow(client: ChatClient): Promise<void> {
    if (this.#isClosed) return;
    const active = AppState.addEventListener('change', (state) => {
      if (state === 'active') this.#returned();
    });
    const ended = client.subscribe((event) => this.#noted(event));
    // It brings the token of FCM or APNs. To ask for it here would call this listener again, without end.
    let token: Expo.EventSubscription | undefined;
    try {
      token = Notifications.addPushTokenListener((devicePushToken) => this.#keepRegistered(devicePushToken));
    } catch (error) {
      this.#failed('push tokens', error); // such as in Expo Go
    }
    this.#endings.push(ended, () => active.remove(), () => token?.remove());
    for (const { id, unread } of await client.conversations()) this.#unread.set(id, unread);
    // A start in the background is for one task only.
    if (AppState.currentState === 'active') this.#returned();
  }

  /** The app is visible: what the system did meanwhile is compared with the server. */
  #returned(): void {
    this.#do('the registration', async () => {
      if (!(await this.#opening).signedIn) return;
      // The person may have taken the permission back in the settings of the system.
      if (!this.#status.isRegistered || !allows(await Notifications.getPermissionsAsync())) this.#keepRegistered();
      await this.#refresh(true);
    });
  }

  #noted(event: ChatEvent): void {
    if (event.type === 'signedIn') {
      this.#keepRegistered();
      this.#refreshSoon(true);
    } else if (event.type === 'conversationChanged') {
      const { id, unread } = event.conversation;
      const isRead = unread < (this.#unread.get(id) ?? 0);
      this.#unread.set(id, unread);
      if (isRead) this.#refreshSoon();
    } else if (event.type === 'conversationRemoved') {
      this.#unread.delete(event.conversationId);
      this.#refreshSoon();
    }
  }

  /** Registers, and tries again while that may succeed. */
  #keepRegistered(devicePushToken?: Expo.DevicePushToken): void {
    this.#do('the registration', async () => {
      for (let attempt = 1; !this.#isClosed; attempt += 1) {
        try {
          await this.#register(false, devicePushToken);
          return;
        } catch (error) {
          if (error instanceof PushUnavailable || error instanceof NotSignedIn) return; // `status` says so
          if (!(error instanceof ServerUnreachable) || attempt === ATTEMPTS) throw error;
          const seconds = error instanceof RateLimited ? error.retryAfter : 2 ** attempt;
          await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
        }
      }
    });
  }

  /** Registers after a registration that runs. */
  #register(ask: boolean, devicePushToken?: Expo.DevicePushToken): Promise<void> {
    return this.#registrations.take(async () => {
      try {
        if (this.#missing) throw this.#missing;
        const client = await this.#opening;
        await client.registerDevice(await this.#device(ask, devicePushToken));
        this.#set({ isRegistered: true, error: null });
      } catch (error) {
        this.#set({ isRegistered: false, error: error as Error });
        throw error;
      }
    });
  }

  /** This phone with its push token. Throws PushUnavailable. */
  async #device(ask: boolean, devicePushToken?: Expo.DevicePushToken): Promise<Device> {
    if (isExpoGo()) throw new PushUnavailable('expo_go', EXPO_GO);
    if (!ExpoDevice.isDevice) {
      throw new PushUnavailable('simulator', 'simulators get no pushes: use a real phone');
    }
    const projectId = this.#projectId(); // before the person is asked for nothing
    await this.#createChannels();
    await this.#allow(ask);
    const token = projectId === null ? await nativeToken(devicePushToken) : await expoToken(projectId, devicePushToken);
    const appVersion = Application.nativeApplicationVersion;
    return { platform: Platform.OS as 'ios' | 'android', ...token, ...(appVersion === null ? {} : { appVersion }) };
  }

  async #createChannels(): Promise<void> {
    if (Platform.OS !== 'android') return;
    const { messages, quiet } = this.#settings.channels ?? { messages: 'Messages', quiet: 'Messages without a sound' };
    // Before the permission: Android 13 shows no dialog without a channel, and no push to a channel that does not exist.
    await Notifications.setNotificationChannelAsync('chat-messages', {
      name: messages,
      importance: Notifications.AndroidImportance.HIGH,
    });
    await Notifications.setNotificationChannelAsync('chat-messages-quiet', {
      name: quiet,
      importance: Notifications.AndroidImportance.LOW,
    });
  }

  async #allow(ask: boolean): Promise<void> {
    let permission = await Notifications.getPermissionsAsync();
    if (ask && !permission.granted && permission.canAskAgain) {
      permission = await Notifications.requestPermissionsAsync();
    } else if (this.#settings.provisional && Platform.OS === 'ios' && !allows(permission) && permission.canAskAgain) {
      // Without a dialog: the first notifications come quietly, and ask whether to keep them.
      permission = await Notifications.requestPermissionsAsync({
        ios: { allowProvisional: true, allowAlert: true, allowBadge: true, allowSound: true },
      });
    }
    if (allows(permission)) return;
    if (permission.canAskAgain) throw new PushUnavailable('not_asked', 'the person was not asked for pushes: call ask');
    throw new PushUnavailable('denied', 'notifications are off: the person can allow them in the settings of the system');
  }

  /** The EAS project whose tokens are registered; null: those of FCM and APNs are. Throws PushUnavailable. */
  #projectId(): string | null {
    if (this.#settings.tokens === 'native') return null;
    const projectId = this.#settings.projectId ?? projectIdOf(Constants.default);
    if (projectId) return projectId;
    throw new PushUnavailable('no_project_id', 'the app has no EAS project id: run `eas init`, and build it again');
  }

  #set(status: PushStatus): void {
    this.#status = status;
    for (const listener of [...this.#listeners]) listener();
  }

  // Notifications --------------------------------------------------------------------------------

  /**
   * How a push is shown while the app is open: without a banner and a sound for the conversation on the screen, for another
   * account, or for a text that only changed.
   */
  async #behaviour(data: Record<string, unknown> | undefined): Promise<Expo.NotificationBehavior> {
    const client = await this.#opening;
    const isSilent = await this.#handleSilent(data); // on iOS, one that only sets the badge comes here
    const conversation = String(data?.['conversationId']);
    const show = !isSilent && conversation !== client.onScreen && !isForOther(client, data);
    const alert = show && data?.['kind'] !== 'update';
    // On Android, expo-notifications ignores the tag while the app is open: the older notification would stay.
    if (show && Platform.OS === 'android') await dismiss((request) => idOf(request) === conversation);
    return { shouldShowBanner: alert, shouldShowList: show, shouldPlaySound: alert, shouldSetBadge: show };
  }

  /**
   * Handles a push without a text: removes the notifications of conversations that were read elsewhere, and sets the badge.
   * Returns whether it was such a push.
   */
  async #handleSilent(data: Record<string, unknown> | undefined): Promise<boolean> {
    if (data?.['type'] !== 'chat_message' || (data['kind'] !== 'dismiss' && data['kind'] !== 'badge')) return false;
    const client = await this.#opening;
    if (client.signedIn && client.userId !== data['recipientId']) return true;
    const ids = Array.isArray(data['conversationIds']) ? data['conversationIds'] : [];
    try {
      await client.sync();
      await this.#showUnread(client, ids, Date.parse(String(data['sentAt'])));
    } catch (error) {
      this.#failed('a push is believed', error);
      await dismiss((request) => ids.includes(idOf(request)));
      await Notifications.setBadgeCountAsync(Number(data['badge']));
    }
    return true;
  }

  /**
   * Removes the notifications of other accounts and of what was read, and sets the badge. A phone may have missed the push
   * that says so: iOS limits them, and the app may have been closed by force. `sync`: also if there is none to remove.
   */
  #refresh(sync: boolean): Promise<void> {
    this.#mustSync ||= sync;
    // What happens during a refresh makes one more, not many.
    this.#nextRefresh ??= this.#refreshes.take(() => {
      this.#nextRefresh = null;
      return this.#refreshNow();
    });
    return this.#nextRefresh;
  }

  async #refreshNow(): Promise<void> {
    const sync = this.#mustSync;
    this.#mustSync = false;
    const client = await this.#opening;
    const shown = await dismiss(({ content }) => isForOther(client, content.data));
    if (client.signedIn && (sync || shown.length)) await this.#showUnread(client);
    else if (client.signedIn) await Notifications.setBadgeCountAsync(badgeOf(await client.conversations()));
  }

  /**
   * Removes the notifications of conversations without unread messages, then sets the badge. A badge of 0 removes every
   * notification of the app, so it is set only if nothing is unread.
   *
   * `dismissed` are conversations that a push of the time `sentAt` (ms) removes as well, such as an unread message that has
   * expired. The system may hold such a push back, and show a newer message first: that one stays.
   */
  async #showUnread(client: ChatClient, dismissed: readonly unknown[] = [], sentAt = NaN): Promise<void> {
    let before: Set<string>;
    let shown = await Notifications.getPresentedNotificationsAsync();
    // One that arrives meanwhile may be of a message that the server did not have yet when it was asked.
    do {
      before = new Set(shown.map(versionOf));
      await client.sync();
      shown = await Notifications.getPresentedNotificationsAsync();
    } while (shown.some((notification) => !before.has(versionOf(notification))));
    const conversations = new Map((await client.conversations()).map((each) => [each.id, each]));
    await dismiss((request) => {
      const state = conversations.get(idOf(request));
      const isOver = state ? state.unread === 0 : conversationOf(request) !== undefined;
      const isNewer = state?.lastMessageAt != null && state.lastMessageAt.getTime() > sentAt;
      return isOver || (dismissed.includes(idOf(request)) && !isNewer);
    }, shown);
    await Notifications.setBadgeCountAsync(badgeOf([...conversations.values()]));
  }

  // Errors ---------------------------------------------------------------------------------------

  #refreshSoon(sync = false): void {
    this.#do('the badge', () => this.#refresh(sync));
  }

  /** Does work that nobody waits for. Its errors are reported. */
  #do(what: string, work: () => Promise<unknown>): void {
    work().catch((error: unknown) => this.#failed(what, error));
  }

  #failed(what: string, error: unknown): void {
    logOf(this.#settings.log)(`push: ${what}: ${reasonOf(error)}`);
  }
}

/** Why there are no pushes if this is no phone, or a package that they need is not in this build. */
function missingPart(): PushUnavailable | null {
  const cause = missingOf('expo-constants', 'expo-application', 'expo-device', 'expo-notifications', 'expo-task-manager');
  if (!cause) {
    const isPhone = Platform.OS === 'ios' || Platform.OS === 'android'; // in a browser, expo-notifications throws when it is used
    return isPhone ? null : new PushUnavailable('web', 'only iPhones and Android phones get the pushes of this package');
  }
  // In Expo Go for Android, the import of expo-notifications throws.
  if (!missingOf('expo-constants') && isExpoGo()) return new PushUnavailable('expo_go', EXPO_GO, { cause });
  return new PushUnavailable('missing_module', cause.message, { cause });
}

function isExpoGo(): boolean {
  return Constants.default.executionEnvironment === Constants.ExecutionEnvironment.StoreClient;
}

type Token = Pick<Device, 'pushToken' | 'pushProvider' | 'pushEnvironment'>;

async function expoToken(projectId: string, device?: Expo.DevicePushToken): Promise<Token> {
  const options = { projectId, ...(device ? { devicePushToken: device } : {}) };
  return { pushToken: (await fromExpo(Notifications.getExpoPushTokenAsync(options))).data, pushProvider: 'expo' };
}

async function nativeToken(device?: Expo.DevicePushToken): Promise<Token> {
  const pushToken = String((device ?? (await fromExpo(Notifications.getDevicePushTokenAsync()))).data);
  if (Platform.OS !== 'ios') return { pushToken, pushProvider: 'fcm' };
  // Apple has other servers for the tokens of development builds. A build from the App Store has no environment.
  const environment = await Application.getIosPushNotificationServiceEnvironmentAsync();
  return { pushToken, pushProvider: 'apns', pushEnvironment: environment === 'development' ? 'sandbox' : 'production' };
}

/** What Expo, APNs or FCM answer. Throws PushUnavailable. */
async function fromExpo<T>(token: Promise<T>): Promise<T> {
  try {
    return await token;
  } catch (cause) {
    throw new PushUnavailable('no_token', 'Expo, APNs or FCM gave no push token: is there a network?', { cause });
  }
}

function allows({ granted, ios }: Expo.NotificationPermissionsStatus): boolean {
  return granted || ios?.status === Notifications.IosAuthorizationStatus.PROVISIONAL;
}

function projectIdOf({ expoConfig, easConfig }: typeof Constants.default): string | undefined {
  const { eas } = (expoConfig?.extra ?? {}) as { eas?: { projectId?: string } };
  return eas?.projectId ?? easConfig?.projectId;
}

/** Whether a push is for another account. The person of this phone may have changed since. */
function isForOther(client: ChatClient, data: Record<string, unknown> | undefined): boolean {
  const recipient = data?.['recipientId'];
  return typeof recipient === 'string' && client.userId !== recipient;
}

function badgeOf(conversations: readonly Conversation[]): number {
  return conversations.reduce((total, { unread }) => total + unread, 0);
}

/** Tells a notification from a newer one that replaced it. */
function versionOf({ date, request }: Expo.Notification): string {
  return `${request.identifier} ${date}`;
}

/** Removes some of the notifications that are shown, also those that came while the app was closed. Returns all of them. */
async function dismiss(which: (request: Expo.NotificationRequest) => boolean, shown?: Expo.Notification[]): Promise<Expo.Notification[]> {
  shown ??= await Notifications.getPresentedNotificationsAsync();
  for (const { request } of shown) {
    if (which(request)) await Notifications.dismissNotificationAsync(request.identifier);
  }
  return shown;
}

/** The id of the conversation; on iOS, it is the identifier. */
function idOf(request: Expo.NotificationRequest): string {
  return conversationOf(request) ?? request.identifier;
}

/** Android returns notifications that the system has drawn without their data, but with their tag. */
function conversationOf({ identifier, content }: Expo.NotificationRequest): string | undefined {
  const { data } = content;
  if (data?.['type'] === 'chat_message') return String(data['conversationId']);
  return /^expo-notifications:.*[?&]tag=([0-9a-f-]{36})(&|$)/.exec(identifier)?.[1];
}
