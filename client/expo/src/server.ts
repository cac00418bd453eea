// The Data API. This module alone knows its client, its errors and its JSON.

import { createClient, type SupabaseClient } from '@supabase/supabase-js';

import {
  NotSignedIn,
  RateLimited,
  Rejected,
  ServerFailed,
  ServerUnreachable,
  SessionExpired,
  Suspended,
  TooManyContacts,
} from './errors.ts';
import { optional, text, type Entry, type Person, type Row } from './models.ts';
import type { Session } from './session.ts';

// https://docs.postgrest.org/en/stable/references/errors.html and https://www.postgresql.org/docs/current/errcodes-appendix.html
const TOKEN_CODES = new Set(['PGRST301', 'PGRST302', 'PGRST303']);
const TEMPORARY_CODES = new Set(['PGRST000', 'PGRST001', 'PGRST002', 'PGRST003']);
const TEMPORARY_CLASSES = new Set(['08', '25', '40', '53', '55', '57', '58', 'XX']);
const TEMPORARY_STATUSES = new Set([0, 408, 425, 502, 503, 504]);
const LEAST_ID = '00000000-0000-0000-0000-000000000000';

interface Answer {
  readonly data: unknown;
  readonly status: number;
  readonly error: { code?: string; message: string; details: string } | null;
}

/** The server does not accept the access token (any more). */
class TokenRejected extends Error {}

/** A project of Supabase, for one person. */
export class Server {
  readonly session: Session;
  readonly #client: SupabaseClient;

  constructor(url: string, key: string, session: Session, http: typeof fetch) {
    this.session = session;
    this.#client = createClient(url, key, {
      accessToken: () => Promise.resolve(session.current),
      db: { retry: false }, // the outbox and the loops decide that
      global: { fetch: http },
    }) as SupabaseClient;
  }

  /** Calls a function of the database, and returns its result. Throws what `request` throws. */
  rpc(name: string, values: Record<string, unknown> = {}): Promise<unknown> {
    return this.request((client) => client.rpc(name, values));
  }

  /** As `rpc`, for a function that returns rows. */
  async rows(name: string, values: Record<string, unknown>): Promise<Row[]> {
    return rowsOf(await this.rpc(name, values));
  }

  /**
   * Inserts a message. Returns its row; null: the person has no message with this client_msg_id after all.
   *
   * A message that an earlier attempt has stored counts as sent: its row is returned.
   */
  async sendMessage(senderId: string, entry: Entry): Promise<Row | null> {
    const row = {
      room_id: entry.conversationId,
      sender_id: senderId,
      message: entry.text,
      attachments: entry.attachments,
      client_msg_id: entry.id,
    };
    try {
      return first(await this.request((client) => client.from('chat_messages').insert(row).select()));
    } catch (error) {
      if (!(error instanceof Rejected && error.code === '23505')) throw error;
      return this.messageOfClientMsgId(senderId, entry.id);
    }
  }

  /** The row of a message by the id that its sender gave it, or null. */
  async messageOfClientMsgId(senderId: string, clientMsgId: string): Promise<Row | null> {
    return first(
      await this.request((client) =>
        client.from('chat_messages').select().eq('sender_id', senderId).eq('client_msg_id', clientMsgId),
      ),
    );
  }

  /** Edits or deletes an own message. Returns its row; null: there is no such message of this person. */
  async updateMessage(id: string, columns: Row): Promise<Row | null> {
    return first(await this.request((client) => client.from('chat_messages').update(columns).eq('id', id).select()));
  }

  /** The row of a conversation, or null. */
  async conversation(id: string): Promise<Row | null> {
    return first(await this.request((client) => client.from('chat_rooms').select().eq('id', id)));
  }

  /** Updates a conversation. Returns its row, or null if there is none. */
  async updateConversation(id: string, columns: Row): Promise<Row | null> {
    return first(await this.request((client) => client.from('chat_rooms').update(columns).eq('id', id).select()));
  }

  /** The rows of all conversations of the person. */
  async conversations(): Promise<Row[]> {
    const found: Row[] = [];
    for (;;) {
      // A project may return fewer rows at once than are asked for, so only an empty page is the last one.
      const after = found.at(-1)?.['id'] ?? LEAST_ID;
      const page = rowsOf(
        await this.request((client) => client.from('chat_rooms').select().gt('id', after).order('id').limit(500)),
      );
      if (!page.length) return found;
      found.push(...page);
    }
  }

  /** The profiles of these people, as far as the person may see them. */
  async people(ids: readonly string[]): Promise<Person[]> {
    const people: Person[] = [];
    for (let start = 0; start < ids.length; start += 100) {
      const some = ids.slice(start, start + 100); // they are in the URL
      const rows = rowsOf(
        await this.request((client) => client.from('users').select('id,display_name,avatar_url,role').in('id', some)),
      );
      for (const row of rows) {
        people.push({
          id: text(row, 'id'),
          displayName: optional(row, 'display_name', text),
          avatarUrl: optional(row, 'avatar_url', text),
          role: optional(row, 'role', text),
        });
      }
    }
    return people;
  }

  /** The presence of a device that is not registered: it counts for the person as a whole. */
  async reportPresenceOfPerson(me: string, online: boolean, conversationId: string | null): Promise<void> {
    const row = { user_id: me, is_online: online, current_conversation_id: conversationId };
    await this.request((client) => client.from('user_presence').upsert(row));
  }

  /**
   * Makes a request with the session, and returns its data. A session that has expired is renewed once.
   *
   * The data of one account never reach another: after a sign-out meanwhile, it throws NotSignedIn.
   * Throws Rejected, RateLimited, ServerFailed, ServerUnreachable, SessionExpired and NotSignedIn.
   */
  async request(build: (client: SupabaseClient) => PromiseLike<Answer>): Promise<unknown> {
    const { session } = this;
    const token = await session.token();
    const account = session.account;
    let data: unknown;
    try {
      data = dataOf(await build(this.#client));
    } catch (rejected) {
      if (!(rejected instanceof TokenRejected)) throw rejected;
      await session.renew(token);
      data = await this.#again(build);
    }
    if (account !== session.account) throw new NotSignedIn('the person has signed out during the request');
    return data;
  }

  async #again(build: (client: SupabaseClient) => PromiseLike<Answer>): Promise<unknown> {
    try {
      return dataOf(await build(this.#client));
    } catch (rejected) {
      if (!(rejected instanceof TokenRejected)) throw rejected;
      this.session.forget();
      throw new SessionExpired('the session has ended: sign in again');
    }
  }
}

/** The data of an answer. Throws what its error means. */
function dataOf({ data, error, status }: Answer): unknown {
  if (!error) return data;
  const code = error.code ?? '';
  if (TOKEN_CODES.has(code) || status === 401) throw new TokenRejected(error.message);
  if (code === 'PT429' || status === 429) {
    const details = jsonOf(error.details);
    const Limited = details['limit'] === 'new_contact_limit' ? TooManyContacts : RateLimited;
    throw new Limited(Number(details['retry_after_seconds']) || 10, error.message);
  }
  if (code === 'PT403') {
    const until = jsonOf(error.details)['suspended_until'];
    throw new Suspended(error.message, typeof until === 'string' ? new Date(until) : null);
  }
  if (TEMPORARY_STATUSES.has(status) || TEMPORARY_CODES.has(code)) {
    throw new ServerUnreachable(`the Data API cannot answer now (${code || status})`);
  }
  if (status >= 500 || (code.length === 5 && TEMPORARY_CLASSES.has(code.slice(0, 2)))) {
    throw new ServerFailed(`${error.message} (${code || status})`);
  }
  throw new Rejected(code || String(status), error.message);
}

function jsonOf(details: string): Row {
  try {
    return (JSON.parse(details) as Row | null) ?? {};
  } catch {
    return {};
  }
}

function rowsOf(data: unknown): Row[] {
  if (!Array.isArray(data)) throw new ServerUnreachable('the Data API gave an answer that is no list of rows');
  return data as Row[];
}

function first(data: unknown): Row | null {
  return rowsOf(data)[0] ?? null;
}
