// Brings the local database up to date. It is the truth: live events are only faster.
//
// A sync reads all messages that changed since the cursor, which is a time of the server, with an overlap that the
// server adds. It runs on start, on foreground, after each (re)join of the live channel, and now and then.

import { MalformedRow, isoOf, messageOf, text, time, type Message, type Row } from './models.ts';
import type { Parts } from './parts.ts';
import { backoff, type Signal } from './waiting.ts';

const PAGE = 500;

/** Works while `run` runs. `applied` is called after each change, because it may have left marks to send. */
export class Sync {
  readonly #parts: Parts;
  readonly #applied: () => void;
  readonly #requested: Signal;
  #paused = false;

  constructor(parts: Parts, applied: () => void) {
    this.#parts = parts;
    this.#applied = applied;
    this.#requested = parts.life.signal();
  }

  /** Asks for a sync soon. Several requests may become one. */
  request(): void {
    this.#requested.set();
  }

  /** Ends or begins the syncs that nobody asks for: an app in the background needs none. */
  pause(paused: boolean): void {
    this.#paused = paused;
  }

  /** Syncs on request, and at times, until the client is closed. */
  async run(): Promise<void> {
    const { life, server, timing, failed } = this.#parts;
    let failures = 0;
    while (!life.isClosed()) {
      const delay = failures ? backoff(failures, timing) : timing.syncInterval;
      await this.#requested.wait(this.#paused ? null : delay);
      if (life.isClosed() || !server.session.signedIn) continue;
      try {
        await this.once();
        failures = 0;
      } catch (error) {
        failures += 1;
        failed('the sync failed', error);
      }
    }
  }

  /** Syncs now, after one that runs. Throws ServerUnreachable, Rejected, NotSignedIn and DatabaseError. */
  once(): Promise<void> {
    return this.#parts.store.counting.take(() => this.#sync());
  }

  async #sync(): Promise<void> {
    const { store, server, emit } = this.#parts;
    const cursor = await store.get('cursor');
    if (cursor === null) {
      // A new phone does not load the whole past: the list, and each conversation when it is opened.
      await store.put('cursor', await server.text('sync_cursor'));
    } else {
      await this.#readChanges(cursor);
    }
    // After the messages: the counters of a conversation must not be older than they are.
    // A conversation that begins while they are read may not be among them: only those that were known can be gone.
    const known = (await store.conversations()).map(({ id }) => id);
    await store.applyConversations(await server.conversations(), known);
    await this.#readPeople();
    this.#applied();
    emit({ type: 'synced' });
  }

  async #readChanges(cursor: string): Promise<void> {
    const { store, server } = this.#parts;
    let newest = time({ cursor }, 'cursor');
    let since = cursor;
    let after: string | null = null;
    for (;;) {
      const rows = await server.rows('get_changed_messages', {
        p_user_id: store.me,
        p_since: since,
        p_after_id: after,
        p_limit: PAGE,
      });
      const last = this.#readable(rows, (row) => ({ id: text(row, 'id'), at: time(row, 'changed_at') })).at(-1);
      if (!last) return;
      since = isoOf(last.at);
      after = last.id;
      newest = Math.max(newest, last.at); // the first page overlaps: its last row may be older than the cursor
      await store.applyMessages(this.#readable(rows, messageOf), isoOf(newest));
    }
  }

  /** Reads a conversation from the server into the local database. Throws what `page` throws. */
  async conversation(id: string): Promise<void> {
    const { store, server } = this.#parts;
    const row = await server.conversation(id);
    if (!row) return;
    await store.applyConversations([row]);
    await this.#readPeople();
  }

  async #readPeople(): Promise<void> {
    const { store, server } = this.#parts;
    await store.applyPeople(await server.people(await store.partnersWithoutProfile()));
  }

  /**
   * Reads a page of a conversation, newest first, from the server into the local database: at most 200 messages.
   *
   * Throws ServerUnreachable, Rejected and NotSignedIn.
   */
  async page(conversationId: string, before: Message | null, limit: number): Promise<Message[]> {
    const { store, server } = this.#parts;
    limit = Math.min(limit, 200); // the server's: a page that is shorter than the limit is the last one
    const known = await store.known(conversationId);
    const rows = await server.rows('get_messages_paginated', {
      p_conversation_id: conversationId,
      p_limit: limit,
      p_cursor_timestamp: before ? isoOf(await store.timeOf(before)) : null,
      p_cursor_id: before?.id ?? null,
    });
    const complete = rows.length < limit;
    await store.applyPage({ conversationId, messages: this.#readable(rows, messageOf), before, known, complete });
    this.#applied();
    return store.messages(conversationId, before, limit);
  }

  /** What is read from rows. Malformed rows are logged, without their content, and left out. */
  #readable<T>(rows: readonly Row[], read: (row: Row) => T): T[] {
    return rows.flatMap((row) => {
      try {
        return [read(row)];
      } catch (error) {
        if (!(error instanceof MalformedRow)) throw error;
        this.#parts.failed('a malformed message was skipped', error);
        return [];
      }
    });
  }
}
