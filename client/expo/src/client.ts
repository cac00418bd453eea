// The chat of one person on one device.

import { Choices } from './choices.ts';
import { Devices, type Device } from './devices.ts';
import { DatabaseError, NotSignedIn, OtherAccount, ServerUnreachable } from './errors.ts';
import { Events, type Listener } from './events.ts';
import { Live } from './live.ts';
import { Marks } from './marks.ts';
import type { Attachment, Conversation, Entry, Message } from './models.ts';
import { Outbox } from './outbox.ts';
import { Life, logOf, reasonOf, type Parts } from './parts.ts';
import { tapOf, type Tap } from './push.ts';
import { Server } from './server.ts';
import { Session } from './session.ts';
import { TIMING, check, type Settings, type Timing } from './settings.ts';
import { Store } from './store.ts';
import { Sync } from './sync.ts';
import { Turns } from './waiting.ts';

/**
 * Sends, syncs and shows the messages of one person.
 *
 * What the app reads comes from the local database, and what it writes goes there first. Background loops bring both
 * sides together, and events say what changed. So an app needs no network, and no error handling for it: only calls
 * that say so throw ServerUnreachable.
 */
export class ChatClient {
  /** What the person chooses: mute, block, report, quiet hours, … */
  readonly choices: Choices;
  readonly #settings: Settings;
  readonly #url: string;
  readonly #timing: Timing;
  readonly #log: (text: string) => void;
  readonly #life = new Life();
  readonly #events: Events;
  readonly #aborts = new Set<AbortController>();
  readonly #store: Store;
  readonly #session: Session;
  readonly #server: Server;
  readonly #outbox: Outbox;
  readonly #marks: Marks;
  readonly #sync: Sync;
  readonly #live: Live;
  readonly #devices: Devices;
  readonly #registrations = new Turns(); // also their end: none may reach the server after a sign-out
  #loops: Promise<unknown> = Promise.resolve();
  #unfollow: () => void = () => undefined;
  #toldEnded = false;
  #closed: Promise<void> = Promise.resolve();

  /**
   * Opens the local database and starts to work, with the session that `auth` has stored, if any: in the foreground, unless
   * the setting `app` says that the app is not visible.
   *
   * Throws TypeError for a wrong setting, DatabaseInUse if another client has the database open, and DatabaseError. If the
   * setting `app` throws, the database is closed.
   */
  static async open(settings: Settings): Promise<ChatClient> {
    const random = check(settings);
    const log = logOf(settings.log);
    const events = new Events((error) => log(`a listener of the app threw ${reasonOf(error)}`));
    const { database, deviceId } = settings;
    const store = await Store.open({ database, emit: events.emit, log, random, deviceId });
    const client = new ChatClient(settings, store, events, log);
    try {
      client.#start();
    } catch (error) {
      await client.close(); // of the setting `app`: the next client has to open the database
      throw error;
    }
    return client;
  }

  private constructor(settings: Settings, store: Store, events: Events, log: (text: string) => void) {
    this.#settings = settings;
    this.#url = settings.supabaseUrl.replace(/\/+$/, '');
    this.#timing = { ...TIMING, ...settings.timing };
    this.#log = log;
    this.#events = events;
    this.#store = store;
    const { publishableKey, auth, apiUrl, attempts = 8 } = settings;
    const http = (input: RequestInfo | URL, init?: RequestInit) => this.#fetch(input, init);
    this.#session = new Session(auth, () => store.me, () => this.#sessionChanged());
    this.#server = new Server(this.#url, publishableKey, this.#session, http);
    const parts: Parts = {
      store,
      server: this.#server,
      timing: this.#timing,
      attempts,
      emit: events.emit,
      failed: (what, error) => this.#failed(what, error),
      life: this.#life,
    };
    this.#outbox = new Outbox(parts);
    this.#marks = new Marks(parts);
    this.#sync = new Sync(parts, () => this.#marks.wake());
    this.#live = new Live(parts, this.#url, publishableKey, {
      joined: () => this.#reachable(),
      sync: () => this.#sync.request(),
      applied: () => this.#marks.wake(),
    });
    this.#devices = new Devices(parts, http, apiUrl);
    this.choices = new Choices(store, this.#server, this.#sync, (conversationId) => this.#live.leave(conversationId));
  }

  /** Stops, and closes the local database. What waits in the outbox goes when it is opened again. */
  async close(): Promise<void> {
    if (!this.#life.isClosed()) {
      this.#unfollow();
      this.#live.disconnect();
      this.#life.close();
      this.#session.close();
      for (const abort of this.#aborts) abort.abort();
      this.#closed = this.#loops.then(() => this.#store.close());
    }
    await this.#closed;
  }

  // Account --------------------------------------------------------------------------------------

  /** The account whose data is stored, signed in or with an expired session. null: none. */
  get userId(): string | null {
    return this.#store.me;
  }

  /** Whether there is a session. */
  get signedIn(): boolean {
    return this.#session.signedIn;
  }

  /** The id of this installation. */
  get deviceId(): string {
    return this.#store.deviceId;
  }

  /** Whether a file is in the storage of the project. The server of another one learns who reads a message, and when. */
  isStored(url: string): boolean {
    return url.startsWith(`${this.#url}/storage/v1/`);
  }

  /**
   * Signs in, and returns the id of the person. `auth` stores the session: the next start needs no sign-in.
   *
   * Throws SignInRejected, ServerUnreachable, RateLimited, and OtherAccount if the database has data of somebody else.
   */
  async signIn(email: string, password: string): Promise<string> {
    const userId = await this.#session.signIn(email, password);
    // It must not stay in `auth`, which the app uses, too.
    if (this.#store.me !== null && this.#store.me !== userId) await this.#session.signOut();
    return this.#adopt(userId);
  }

  /**
   * Uses the session of `auth`, after the app itself has signed in with it. Returns the id of the person.
   *
   * Throws NotSignedIn, ServerUnreachable and OtherAccount.
   */
  async useSession(): Promise<string> {
    const userId = await this.#session.load();
    if (userId === null) throw new NotSignedIn('nobody is signed in: call signIn, or sign in with auth');
    return this.#adopt(userId);
  }

  /**
   * Unregisters the device, ends the session, and removes all local data of the account, also the outbox.
   *
   * Without the server the local data is removed all the same. The device may then get pushes until its token is replaced.
   * So `giveUpToken` is called then, which deletes the push token of the installation. If it throws, the person stays signed
   * in, and signOut throws ServerUnreachable: otherwise the phone would show the pushes of this account to the next person.
   */
  async signOut(giveUpToken?: () => Promise<void>): Promise<void> {
    this.background();
    this.#toldEnded = true; // by the person
    if (this.#session.signedIn) await this.#devices.report(); // A device that is not registered reports nothing.
    await this.#registrations.take(async () => {
      try {
        if (this.#session.signedIn && this.#settings.apiUrl !== undefined) await this.#devices.unregister();
      } catch (error) {
        this.#failed('the device was not unregistered', error);
        await this.#giveUp(giveUpToken);
      }
      try {
        await this.#session.signOut();
      } catch (error) {
        this.#failed('the session was ended on this device only', error);
      }
      await this.#store.wipe();
    });
  }

  // App ------------------------------------------------------------------------------------------

  /** Calls the listener with what changes from now on. Subscribe before you read. Returns a function that ends it. */
  subscribe(listener: Listener): () => void {
    return this.#events.subscribe(listener);
  }

  /** The app is visible: renews an old session, connects anew, syncs, and sends what waits. Call it at each return. */
  foreground(): void {
    if (!this.#session.signedIn) return;
    this.#sync.pause(false);
    this.#devices.setForeground(true);
    this.#background('foreground', async () => {
      try {
        await this.#session.renewIfOld();
      } finally {
        // The app may have left the screen meanwhile.
        if (this.#devices.isForeground()) {
          this.#live.connect();
          this.#reachable();
        }
      }
    });
  }

  /** The app is not visible: disconnects, because the system will stop its timers, and reports it. */
  background(): void {
    this.#sync.pause(true);
    this.#devices.setForeground(false);
    this.#live.disconnect();
  }

  /** Says whether the phone has a network. With one, the client tries at once what waits. */
  networkChanged(isConnected: boolean): void {
    if (!isConnected || !this.#session.signedIn) return;
    this.#live.hurry();
    this.#reachable();
  }

  /** The conversation that `lookAt` named. null: none, or the app is in the background. */
  get onScreen(): string | null {
    return this.#devices.onScreen;
  }

  /** Says which conversation is on the screen, if any: for presence, typing, and pushes that need no sound. */
  lookAt(conversationId: string | null): void {
    this.#devices.lookAt(conversationId);
    this.#live.lookAt(conversationId);
  }

  /** Says that the person types in the conversation on the screen. Call it at each key; few events are sent. */
  typing(isTyping = true): void {
    this.#background('typing', () => this.#live.typing(isTyping));
  }

  /** Syncs now, and resolves when the local database is up to date. Throws ServerUnreachable and NotSignedIn. */
  sync(): Promise<void> {
    return this.#sync.once();
  }

  /** What a tapped push opens, and starts a sync. null: it is no push of a message, or one for another account. */
  openPush(data: unknown): Tap | null {
    const tap = tapOf(data);
    if (!tap || (tap.recipientId !== null && tap.recipientId !== this.#store.me)) return null;
    this.#sync.request();
    return tap;
  }

  // Conversations --------------------------------------------------------------------------------

  /** All conversations, newest first, with previews and unread counters. */
  conversations(): Promise<Conversation[]> {
    return this.#store.conversations();
  }

  /** A conversation, or null if it is not stored. */
  conversation(conversationId: string): Promise<Conversation | null> {
    return this.#store.conversation(conversationId);
  }

  /**
   * The id of the conversation with a person. It is created if there is none.
   *
   * A known conversation needs no server. Else throws ServerUnreachable, Rejected and NotSignedIn.
   */
  async openChat(otherId: string): Promise<string> {
    const known = (await this.#store.conversations()).find((each) => each.partner.id === otherId);
    if (known) return known.id;
    const people = { p_user1_id: this.#store.someone(), p_user2_id: otherId };
    const id = await this.#server.text('get_or_create_conversation', people);
    await this.#sync.conversation(id);
    return id;
  }

  /** Archives a conversation for this person, or brings it back. A new message brings it back, too. */
  async archive(conversationId: string, archived = true): Promise<void> {
    this.#store.someone();
    await this.#entered(this.#store.enterArchive(conversationId, archived, now()));
  }

  // Messages -------------------------------------------------------------------------------------

  /** Messages of the local database, newest first; `before`: only those older than this one. */
  messages(conversationId: string, before: Message | null = null, limit = 30): Promise<Message[]> {
    return this.#store.messages(conversationId, before, limit);
  }

  /**
   * As `messages`, after a page was read from the server. Without the server, what the local database has: `offline` is
   * called then.
   *
   * Call it when a conversation is opened, and with the oldest message on the screen to page back. A page has at most 200
   * messages. Throws Rejected and NotSignedIn.
   */
  async loadMessages(
    conversationId: string,
    before: Message | null = null,
    limit = 30,
    offline?: () => void,
  ): Promise<Message[]> {
    try {
      return await this.#sync.page(conversationId, before, limit);
    } catch (error) {
      if (!(error instanceof ServerUnreachable)) throw error;
      offline?.();
      return this.#store.messages(conversationId, before, limit);
    }
  }

  /** A message by its id, or by the id that it had before it was sent. Throws UnknownMessage. */
  message(messageId: string): Promise<Message> {
    return this.#store.message(messageId);
  }

  /**
   * Puts a message into the outbox, and returns it: pending. It survives a crash, and is sent once.
   *
   * Throws NotSignedIn if nobody has ever signed in, and DatabaseFull.
   */
  async send(conversationId: string, text: string, attachments: readonly Attachment[] = []): Promise<Message> {
    this.#store.someone();
    return this.#entered(this.#store.enterMessage(conversationId, text, attachments, now()));
  }

  /** Replaces the text of an own message, sent or not. Throws UnknownMessage, also if it is deleted. */
  edit(messageId: string, text: string): Promise<Message> {
    return this.#entered(this.#store.enterEdit(messageId, text, now()));
  }

  /** Deletes an own message for both people, sent or not. Throws UnknownMessage. */
  delete(messageId: string): Promise<void> {
    return this.#entered(this.#store.enterDelete(messageId, now()));
  }

  /** What is not sent, oldest first, with the reason of what has failed. */
  outbox(): Promise<Entry[]> {
    return this.#store.entries();
  }

  /** Tries a failed message, edit or deletion again. Throws UnknownMessage if none has failed. */
  retry(messageId: string): Promise<void> {
    return this.#entered(this.#store.retry(messageId));
  }

  /** Gives up a failed message, edit or deletion. Throws UnknownMessage if none has failed. */
  discard(messageId: string): Promise<void> {
    return this.#entered(this.#store.discard(messageId));
  }

  /** Says that its conversation was read up to this message: the newest that is visible on the screen. */
  async markRead(messageId: string): Promise<void> {
    if (await this.#store.markRead(messageId)) this.#marks.wake();
  }

  // Devices --------------------------------------------------------------------------------------

  /**
   * Registers this device for pushes. Repeat it after each sign-in, and when the token changes.
   *
   * Throws Rejected, whose code is one of docs/client.md, RateLimited, ServerUnreachable and NotSignedIn.
   */
  registerDevice(device: Device): Promise<void> {
    return this.#registrations.take(() => this.#devices.register(device));
  }

  /** Ends the pushes to this device. Throws what `registerDevice` throws. */
  unregisterDevice(): Promise<void> {
    return this.#devices.unregister();
  }

  // Internals ------------------------------------------------------------------------------------

  #start(): void {
    const parts = [this.#outbox, this.#marks, this.#sync, this.#live, this.#devices];
    this.#loops = Promise.all(
      parts.map((part) => part.run().catch((error: unknown) => this.#failed('a part ended', error))),
    );
    const { app } = this.#settings;
    if (app) {
      this.#unfollow = app.follow({
        active: (isActive) => (isActive ? this.foreground() : this.background()),
        network: (isConnected) => this.networkChanged(isConnected),
      });
    }
    if (app?.isActive() ?? true) this.foreground();
    else this.#sync.pause(true);
  }

  async #giveUp(giveUpToken: (() => Promise<void>) | undefined): Promise<void> {
    try {
      await giveUpToken?.();
    } catch (error) {
      this.#toldEnded = false;
      this.foreground();
      throw new ServerUnreachable('without the server, this phone keeps its push token and would get pushes', { cause: error });
    }
  }

  /** The outbox has changed when this has ended. */
  async #entered<T>(change: Promise<T>): Promise<T> {
    const result = await change;
    this.#outbox.wake();
    return result;
  }

  async #adopt(userId: string): Promise<string> {
    if (this.#store.me !== null && this.#store.me !== userId) {
      throw new OtherAccount('the local database belongs to another account: call signOut, or use another file');
    }
    await this.#store.put('user_id', userId);
    this.#toldEnded = false;
    if (this.#settings.app?.isActive() ?? true) this.foreground();
    this.#events.emit({ type: 'signedIn', userId });
    return userId;
  }

  /** The server can probably be reached: sends and asks for all that waits. */
  #reachable(): void {
    this.#sync.request();
    this.#marks.wake();
    this.#background('outbox', () => this.#outbox.makeDue());
  }

  #sessionChanged(): void {
    if (this.#session.signedIn) {
      this.#background('the new token for Realtime', () => this.#live.useToken());
    } else if (!this.#toldEnded && this.#store.me !== null) {
      this.#toldEnded = true;
      this.#live.disconnect();
      this.#events.emit({ type: 'sessionEnded' });
    }
  }

  /** Does work that nobody waits for. Its errors are reported. */
  #background(what: string, work: () => Promise<void>): void {
    if (!this.#life.isClosed()) work().catch((error: unknown) => this.#failed(`${what} failed`, error));
  }

  #failed(what: string, error: unknown): void {
    if (this.#life.isClosed()) return;
    if (error instanceof DatabaseError) this.#events.emit({ type: 'databaseFailed', error });
    this.#log(`${what}: ${reasonOf(error)}`);
  }

  async #fetch(input: RequestInfo | URL, init?: RequestInit): Promise<Response> {
    const abort = new AbortController();
    const timer = setTimeout(() => abort.abort(), this.#timing.requestTimeout * 1000);
    this.#aborts.add(abort);
    if (this.#life.isClosed()) abort.abort();
    try {
      const answer = await (this.#settings.fetch ?? fetch)(input, { ...init, signal: abort.signal });
      return new Response((await answer.text()) || null, answer); // its body within the time, too
    } finally {
      clearTimeout(timer);
      this.#aborts.delete(abort);
    }
  }
}

function now(): number {
  return Date.now() / 1000;
}
