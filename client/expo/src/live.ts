// Live events over Supabase Realtime. They are hints: what is lost here, the next sync brings.
//
// Each connection has a RealtimeClient of its own, which is dropped when a channel is lost. Its own reconnects keep an
// expired token, join a closed channel never again, and wait for ever for a refused socket in some environments.

import { REALTIME_SUBSCRIBE_STATES, RealtimeClient, type RealtimeChannel } from '@supabase/supabase-js';

import { NotSignedIn, ServerUnreachable } from './errors.ts';
import { MalformedRow, messageOf, optional, rowOf, text, time, type Row } from './models.ts';
import type { Parts } from './parts.ts';
import { backoff, type Signal } from './waiting.ts';

/** What the rest of the client does when a channel says something. */
export interface Hooks {
  /** After each join of the person's channel: what was sent before it has to be synced. */
  readonly joined: () => void;
  /** Asks for a sync. */
  readonly sync: () => void;
  /** After a change, because it may have left marks to send. */
  readonly applied: () => void;
}

/** The channel of a conversation. `isLost`: it is to be replaced. */
interface Room {
  readonly id: string;
  readonly channel: RealtimeChannel;
  joined: boolean;
  isLost: boolean;
}

/** Works while `run` runs. */
export class Live {
  readonly #parts: Parts;
  readonly #url: string;
  readonly #key: string;
  readonly #hooks: Hooks;
  readonly #restart: Signal;
  #typist: { room: string; userId: string; timer: ReturnType<typeof setTimeout> } | null = null; // the partner
  #wanted = false;
  #connection: Connection | null = null;
  #room: string | null = null;
  #roomChannel: Room | null = null;
  #roomFailures = 0;
  #roomRetry: ReturnType<typeof setTimeout> | undefined;
  #typedAt = 0; // seconds; 0: the person does not type

  constructor(parts: Parts, url: string, key: string, hooks: Hooks) {
    this.#parts = parts;
    this.#url = `${url}/realtime/v1`;
    this.#key = key;
    this.#hooks = hooks;
    this.#restart = parts.life.signal();
  }

  // What the app says ----------------------------------------------------------------------------

  /** Connects, or connects anew: a phone that slept cannot know whether its connection still works. */
  connect(): void {
    this.#wanted = true;
    this.#connection?.end(null);
    this.#restart.set();
  }

  /** Disconnects, until `connect`. */
  disconnect(): void {
    this.#wanted = false;
    this.#connection?.end(null);
  }

  /** Ends the wait for the next attempt. */
  hurry(): void {
    if (!this.#connection) this.#restart.set();
  }

  /** Joins the channel of the conversation on the screen, for typing and presence. null: leaves it. */
  lookAt(conversationId: string | null): void {
    if (conversationId === this.#room) return;
    this.#room = conversationId;
    this.#typedAt = 0;
    this.#visit();
  }

  /** Leaves the channel of a conversation, if it is on the screen: a server asks for the right only at a join. */
  leave(conversationId: string): void {
    if (conversationId === this.#room) this.lookAt(null);
  }

  /** Tells the partner that this person types or has stopped. Call it at each key: few are sent. */
  async typing(isTyping: boolean): Promise<void> {
    const now = Date.now() / 1000;
    const { store, timing } = this.#parts;
    if (!this.#roomChannel?.joined) return;
    // A clock that was put back must not end the events.
    if (isTyping ? Math.abs(now - this.#typedAt) < timing.typingInterval : !this.#typedAt) return;
    this.#typedAt = isTyping ? now : 0;
    const payload = { user_id: store.me, is_typing: isTyping };
    await this.#roomChannel.channel.send({ type: 'broadcast', event: 'typing', payload });
  }

  /** Passes the renewed access token to the channels, which would be closed when the old one expires. */
  async useToken(): Promise<void> {
    await this.#connection?.realtime.setAuth();
  }

  // Supervision ----------------------------------------------------------------------------------

  /** Keeps the connection until the client is closed. */
  async run(): Promise<void> {
    const { life, server, timing, failed } = this.#parts;
    let failures = 0;
    while (!life.isClosed()) {
      if (!this.#wanted || !server.session.signedIn) {
        failures = 0;
        await this.#restart.wait();
        continue;
      }
      this.#restart.clear();
      const began = Date.now() / 1000;
      try {
        await this.#stayConnected();
        failures = 0;
      } catch (error) {
        failed('the live connection was lost', error);
        if (error instanceof NotSignedIn) continue;
        // A server that accepts and then drops must not be called again at once.
        failures = Date.now() / 1000 - began > timing.stableConnection ? 1 : failures + 1;
        await this.#restart.wait(backoff(failures, timing));
      }
    }
    this.#stoppedTyping();
  }

  /** Returns when the app disconnects or connects anew. Throws ServerUnreachable when the connection is lost. */
  async #stayConnected(): Promise<void> {
    const { store, server, timing, emit, life } = this.#parts;
    const realtime = new RealtimeClient(this.#url, {
      params: { apikey: this.#key },
      accessToken: () => Promise.resolve(server.session.current),
      timeout: timing.requestTimeout * 1000,
    });
    const connection = new Connection(realtime);
    const token = await server.session.token(); // a join without it would be one of nobody
    try {
      await realtime.setAuth();
      if (!this.#wanted || life.isClosed()) return;
      this.#connection = connection;
      const channel = realtime.channel(`user:${store.me}`, { config: { private: true } });
      let last: Promise<void> = Promise.resolve();
      for (const event of ['message', 'receipts', 'conversation']) {
        channel.on('broadcast', { event }, ({ payload }) => {
          last = last.then(() => this.#apply(event, payload as Row)); // in order; it does not throw
        });
      }
      const joined = () => {
        emit({ type: 'connectionChanged', state: 'online' });
        connection.isOnline = true;
        this.#hooks.joined();
        this.#visit();
      };
      connection.join(channel, joined, (reason) => connection.end(new ServerUnreachable(reason)));
      await connection.ended;
    } catch (error) {
      if (!connection.isOnline && /token|jwt/i.test(String(error))) await server.session.renew(token);
      throw error;
    } finally {
      this.#connection = null;
      this.#roomChannel = null;
      clearTimeout(this.#roomRetry);
      this.#stoppedTyping();
      // Without waiting: a socket that died silently answers no goodbye.
      realtime.disconnect().catch((error: unknown) => this.#parts.failed('Realtime was not disconnected', error));
      if (connection.isOnline) emit({ type: 'connectionChanged', state: 'offline' });
    }
  }

  /** Leaves the channel of the last conversation, and joins that of the one on the screen. */
  #visit(): void {
    const connection = this.#connection;
    if (!connection?.isOnline) return;
    connection.visits = connection.visits
      .then(() => this.#enter(connection))
      .catch((error: unknown) => this.#parts.failed('the channel of the conversation was not joined', error));
  }

  async #enter(connection: Connection): Promise<void> {
    const last = this.#roomChannel;
    if (last?.id === this.#room && !last.isLost) return;
    this.#roomChannel = null;
    this.#stoppedTyping();
    // To its end: until then, the RealtimeClient returns the old channel for a conversation that is opened again.
    if (last) await connection.leave(last.channel);
    const { me } = this.#parts.store;
    const id = this.#room;
    if (this.#connection !== connection || id === null || me === null) return;
    const channel = connection.realtime.channel(`room:${id}`, { config: { private: true, presence: { key: me } } });
    const room: Room = { id, channel, joined: false, isLost: false };
    this.#roomChannel = room;
    channel.on('broadcast', { event: 'typing' }, ({ payload }) => this.#applyTyping(id, rowOf(payload)));
    channel.on('presence', { event: 'sync' }, () => {
      const userIds = Object.keys(channel.presenceState());
      if (this.#roomChannel === room) this.#parts.emit({ type: 'presenceChanged', conversationId: id, userIds });
    });
    const joined = () => {
      room.joined = true;
      this.#roomFailures = 0;
      // After each join: the server has forgotten it with the channel.
      channel.track({ user_id: me }).catch((error: unknown) => this.#parts.failed('presence was not tracked', error));
    };
    connection.join(channel, joined, (reason) => this.#lostRoom(connection, room, reason));
  }

  /** Joins the channel of the conversation again, after a while: the server may refuse it, and nothing else. */
  #lostRoom(connection: Connection, room: Room, reason: string): void {
    const { timing, failed } = this.#parts;
    if (this.#connection !== connection || this.#roomChannel !== room) return;
    failed(`the conversation ${room.id}`, new ServerUnreachable(reason));
    room.joined = false;
    this.#roomFailures += 1;
    const delay = backoff(this.#roomFailures, timing);
    const again = () => {
      // The RealtimeClient may have joined it again by itself.
      if (this.#roomChannel !== room || room.joined) return;
      room.isLost = true;
      this.#visit();
    };
    clearTimeout(this.#roomRetry); // of a former one
    this.#roomRetry = setTimeout(again, delay * 1000);
  }

  // Events ---------------------------------------------------------------------------------------

  /** Applies an event of the person's channel. One that cannot be read is logged, and a sync replaces it. */
  async #apply(event: string, payload: Row): Promise<void> {
    const { server, failed } = this.#parts;
    if (!server.session.signedIn) return; // It came with the sign-out.
    try {
      const record = rowOf(payload['record']);
      if (event === 'message') await this.#applyMessage(payload['operation'], record);
      else if (event === 'receipts') await this.#applyReceipts(payload);
      else if (payload['operation'] === 'DELETE') {
        await this.#parts.store.removeConversation(text(record, 'id'));
      } else this.#hooks.sync();
    } catch (error) {
      failed(`the event ${event} was not applied`, error);
      this.#hooks.sync();
    }
  }

  async #applyMessage(operation: unknown, record: Row): Promise<void> {
    const { store } = this.#parts;
    const id = text(record, 'id');
    if (operation === 'DELETE') {
      await store.removeMessage(text(record, 'room_id'), id);
    } else if (!('sender_id' in record)) {
      this.#hooks.sync(); // The message is too large for an event.
    } else {
      const message = messageOf(record);
      const unknown = await store.applyMessages([message]);
      if (unknown.size || message.deletedAt !== null) this.#hooks.sync(); // New, or it needs another preview.
      this.#stoppedTyping(message.senderId);
      this.#hooks.applied();
    }
  }

  async #applyReceipts(payload: Row): Promise<void> {
    const ids = payload['message_ids'];
    if (!Array.isArray(ids)) throw new MalformedRow('message_ids is not an array');
    await this.#parts.store.applyReceipts(text(payload, 'room_id'), ids as string[], {
      deliveredAt: optional(payload, 'delivered_at', time),
      readAt: optional(payload, 'read_at', time),
      isRead: payload['is_read'] === true,
      changedAt: time(payload, 'changed_at'),
    });
  }

  #applyTyping(room: string, payload: Row): void {
    const userId = payload['user_id'];
    if (typeof userId !== 'string' || userId === this.#parts.store.me) return;
    if (!payload['is_typing']) {
      this.#stoppedTyping(userId);
      return;
    }
    const isKnown = this.#typist?.userId === userId;
    clearTimeout(this.#typist?.timer);
    // A phone that dies while its user types sends no end.
    const timer = setTimeout(() => this.#stoppedTyping(), this.#parts.timing.typingTimeout * 1000);
    this.#typist = { room, userId, timer };
    if (!isKnown) this.#parts.emit({ type: 'typingChanged', conversationId: room, userId, isTyping: true });
  }

  /** Notes that this person has stopped to type; if not set, that anybody has. */
  #stoppedTyping(stopped?: string): void {
    if (!this.#typist) return;
    const { room, userId, timer } = this.#typist;
    if (stopped !== undefined && stopped !== userId) return;
    clearTimeout(timer);
    this.#typist = null;
    this.#parts.emit({ type: 'typingChanged', conversationId: room, userId, isTyping: false });
  }
}

/** A connection to Realtime. It ends with the channel of the person. */
class Connection {
  readonly realtime: RealtimeClient;
  readonly ended: Promise<void>;
  isOnline = false;
  visits: Promise<void> = Promise.resolve(); // one channel of a conversation after the other
  readonly #left = new Set<RealtimeChannel>();
  /** Ends it: null on purpose, else because it was lost. */
  end!: (error: Error | null) => void;

  constructor(realtime: RealtimeClient) {
    this.realtime = realtime;
    this.ended = new Promise((resolve, reject) => {
      this.end = (error) => (error ? reject(error) : resolve());
    });
    this.ended.catch(() => undefined); // a loss before anybody waits
  }

  /** Joins a channel. Calls `joined` after it, or `lost` with the reason, also when it is lost later. */
  join(channel: RealtimeChannel, joined: () => void, lost: (reason: string) => void): void {
    channel.subscribe((status, error) => {
      if (this.#left.has(channel)) return;
      if (status !== REALTIME_SUBSCRIBE_STATES.SUBSCRIBED) lost(`the channel was lost: ${status} ${error?.message ?? ''}`);
      else {
        joined();
        // The session may have been renewed during the join, which did not reach this channel.
        this.realtime.setAuth().catch(() => undefined); // the next heartbeat does it again
      }
    });
  }

  /** Leaves a channel. Its end is not that of the connection. */
  async leave(channel: RealtimeChannel): Promise<void> {
    this.#left.add(channel);
    await this.realtime.removeChannel(channel);
  }
}
