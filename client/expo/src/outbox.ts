// Sends what the local database's outbox has: messages, edits, deletions and archive flags.
//
// Entries of one conversation go one after the other, in order; conversations do not wait for each other. An entry that
// the server rejects has failed: it stays until the app retries or discards it, and the next one goes. So does the next one
// of the deletion of a message that the server may still get.

import {
  DatabaseError,
  NotSignedIn,
  RateLimited,
  Rejected,
  ServerFailed,
  ServerUnreachable,
  TooManyContacts,
} from './errors.ts';
import { messageOf, type Entry, type Row, type ServerMessage } from './models.ts';
import type { Parts } from './parts.ts';
import { backoff, type Signal } from './waiting.ts';

// A request that timed out may still be stored, but not later than any server lets a statement run.
const UNCERTAIN_SECONDS = 60;

/** Works while `run` runs. `clock`: the phone's, in seconds since 1970. */
export class Outbox {
  readonly #parts: Parts;
  readonly #clock: () => number;
  readonly #changed: Signal;
  readonly #sending = new Map<string, Promise<void>>(); // conversation to its request
  #pause = 0; // seconds
  #pausedUntil = 0; // by the rate limit, which is one for all conversations, or a full disk

  constructor(parts: Parts, clock: () => number = () => Date.now() / 1000) {
    this.#parts = parts;
    this.#clock = clock;
    this.#changed = parts.life.signal();
  }

  /** An entry is new, or changed. */
  wake(): void {
    this.#changed.set();
  }

  /** The server can be reached again: tries everything that is pending now. */
  async makeDue(): Promise<void> {
    await this.#parts.store.makeDue();
    this.wake();
  }

  /** Sends until the client is closed, and then waits for the requests that run. */
  async run(): Promise<void> {
    const { life, timing, failed } = this.#parts;
    while (!life.isClosed()) {
      let delay: number | null;
      try {
        delay = await this.#startDue();
      } catch (error) {
        failed('the outbox was not read', error);
        delay = timing.retryCap;
      }
      if (!life.isClosed()) await this.#changed.wait(delay);
    }
    await Promise.all(this.#sending.values());
  }

  /** Starts to send what is due. Returns the seconds until more is due; null: not before `wake`. */
  async #startDue(): Promise<number | null> {
    const { store, server, timing } = this.#parts;
    if (!server.session.signedIn) return null;
    // Before the entries are read: what has ended since is started at the next wake, not twice.
    const busy = new Set(this.#sending.keys());
    const waits: number[] = [];
    for (const entry of await store.nextEntries()) {
      if (busy.has(entry.conversationId)) continue;
      const now = this.#clock();
      // A phone's clock that was put back must not make an entry wait for hours.
      const longest = now + Math.max(timing.retryCap, this.#pause);
      const due = Math.min(Math.max(entry.nextTry, this.#pausedUntil), longest);
      if (due > now) waits.push(due - now);
      else {
        busy.add(entry.conversationId);
        this.#sending.set(entry.conversationId, this.#send(entry));
      }
    }
    return waits.length ? Math.min(...waits) : null;
  }

  async #send(entry: Entry): Promise<void> {
    try {
      await this.#attempt(entry);
    } catch (error) {
      if (error instanceof DatabaseError) this.#pauseAll(this.#parts.timing.retryCap);
      this.#parts.failed(`the ${entry.kind} of ${entry.id} was not sent`, error);
    } finally {
      this.#sending.delete(entry.conversationId);
      this.wake();
    }
  }

  async #attempt({ seq }: Entry): Promise<void> {
    const { store, timing, attempts, failed } = this.#parts;
    const entry = await store.beginAttempt(seq, this.#clock());
    if (!entry) return;
    try {
      await this.#try(entry);
    } catch (error) {
      const isLast = error instanceof ServerFailed && entry.attempts + 1 >= attempts;
      if (error instanceof Rejected || error instanceof TooManyContacts || isLast) {
        await store.fail(entry, error.message);
      } else if (error instanceof RateLimited) {
        this.#pauseAll(error.retryAfter);
        await store.postpone(entry, this.#pausedUntil, false);
      } else if (error instanceof NotSignedIn) {
        await store.postpone(entry, 0, false);
      } else {
        await store.postpone(entry, this.#clock() + backoff(entry.attempts + 1, timing));
      }
      failed(`the ${entry.kind} of ${entry.id} was not sent`, error);
    }
  }

  #pauseAll(seconds: number): void {
    this.#pause = seconds;
    this.#pausedUntil = this.#clock() + seconds;
  }

  async #try(entry: Entry): Promise<void> {
    const { store, server } = this.#parts;
    if (entry.kind === 'send') {
      await store.finish(entry, sent(await server.sendMessage(store.someone(), entry)));
    } else if (entry.kind === 'edit') {
      await store.finish(entry, sent(await server.updateMessage(entry.id, { message: entry.text })));
    } else if (entry.kind === 'delete') {
      await this.#delete(entry);
    } else {
      await this.#archive(entry);
    }
  }

  async #delete(entry: Entry): Promise<void> {
    const { store, server } = this.#parts;
    if ((await store.known(entry.conversationId)).has(entry.id)) {
      await store.finish(entry, sent(await server.updateMessage(entry.id, { deleted_at: 'now' })));
      return;
    }
    // It was deleted while it was sent, and it is not known whether the server has it.
    const row = await server.messageOfClientMsgId(store.someone(), entry.id);
    if (row) {
      await store.applyMessages([sent(row)]); // It renames the entry, which is tried again.
    } else if (entry.triedAt && Math.abs(this.#clock() - entry.triedAt) < UNCERTAIN_SECONDS) {
      throw new ServerUnreachable('the message may still arrive');
    } else {
      await store.finish(entry, null);
    }
  }

  async #archive(entry: Entry): Promise<void> {
    const { store, server } = this.#parts;
    const row = await server.conversation(entry.conversationId);
    if (!row) throw new Rejected('not_found', 'the conversation does not exist');
    const column = `archived_by_user${row['user1_id'] === store.someone() ? 1 : 2}`;
    const updated = await server.updateConversation(entry.conversationId, { [column]: entry.kind === 'archive' });
    if (updated) await store.applyConversations([updated]);
    await store.finish(entry, null);
  }
}

function sent(row: Row | null): ServerMessage {
  if (!row) throw new Rejected('not_found', 'the message does not exist');
  return messageOf(row);
}
