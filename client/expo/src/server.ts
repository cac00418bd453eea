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
import { parsed, personOf, rowOf, text, type Entry, type Person, type Row } from './models.ts';
import type { Session } from './session.ts';

// https://docs.postgrest.org/en/stable/references/errors.html
const TOKEN_CODES = /^PGRST30[1-3]$/;
const LEAST_ID = '00000000-0000-0000-0000-000000000000';

interface Answer {
  readonly data: unknown;
  readonly status: number;
  readonly error: { code?: string; message: string; details: string } | null;
}

type Build = (client: SupabaseClient) => PromiseLike<Answer>;

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

  /** As `rpc`, for a function that returns a text. */
  async text(name: string, values?: Record<string, unknown>): Promise<string> {
    return text({ [name]: await this.rpc(name, values) }, name);
  }

  /** As `rpc`, for a function that returns rows. */
  async rows(name: string, values: Record<string, unknown>): Promise<Row[]> {
    return this.#rows((client) => client.rpc(name, values));
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
      return await this.#row((client) => client.from('chat_messages').insert(row).select());
    } catch (error) {
      if (!(error instanceof Rejected && error.code === '23505')) throw error;
      return this.messageOfClientMsgId(senderId, entry.id);
    }
  }

  /** The row of a message by the id that its sender gave it, or null. */
  messageOfClientMsgId(senderId: string, clientMsgId: string): Promise<Row | null> {
    return this.#row((client) =>
      client.from('chat_messages').select().eq('sender_id', senderId).eq('client_msg_id', clientMsgId),
    );
  }

  /** Edits or deletes an own message. Returns its row; null: there is no such message of this person. */
  updateMessage(id: string, columns: Row): Promise<Row | null> {
    return this.#row((client) => client.from('chat_messages').update(columns).eq('id', id).select());
  }

  /** The row of a conversation, or null. */
  conversation(id: string): Promise<Row | null> {
    return this.#row((client) => client.from('chat_rooms').select().eq('id', id));
  }

  /** Updates a conversation. Returns its row, or null if there is none. */
  updateConversation(id: string, columns: Row): Promise<Row | null> {
    return this.#row((client) => client.from('chat_rooms').update(columns).eq('id', id).select());
  }

  /** The rows of all conversations of the person. */
  async conversations(): Promise<Row[]> {
    const found: Row[] = [];
    for (;;) {
      // A project may return fewer rows at once than are asked for, so only an empty page is the last one.
      const after = found.at(-1)?.['id'] ?? LEAST_ID;
      const page = await this.#rows((client) =>
        client.from('chat_rooms').select().gt('id', after).order('id').limit(500),
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
      const rows = await this.#rows((client) =>
        client.from('users').select('id,display_name,avatar_url,role').in('id', some),
      );
      people.push(...rows.map((row) => personOf(row, 'id')));
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
  async request(build: Build): Promise<unknown> {
    const { session } = this;
    let account: string | null = null;
    try {
      const data = await session.using(async () => {
        account ??= session.account;
        return dataOf(await build(this.#client));
      });
      if (account === session.account) return data;
    } catch (error) {
      if (error instanceof SessionExpired) session.forget();
      throw error;
    }
    throw new NotSignedIn('the person has signed out during the request');
  }

  async #rows(build: Build): Promise<Row[]> {
    const data = await this.request(build);
    if (!Array.isArray(data)) throw new ServerUnreachable('the Data API gave an answer that is no list of rows');
    return data as Row[];
  }

  async #row(build: Build): Promise<Row | null> {
    return (await this.#rows(build))[0] ?? null;
  }
}

/** The data of an answer. Throws what its error means. */
function dataOf({ data, error, status }: Answer): unknown {
  if (!error) return data;
  const code = error.code || String(status);
  if (TOKEN_CODES.test(code) || status === 401) throw new SessionExpired();
  if (code === 'PT429' || status === 429) {
    const details = rowOf(parsed(error.details));
    const Limited = details['limit'] === 'new_contact_limit' ? TooManyContacts : RateLimited;
    throw new Limited(Number(details['retry_after_seconds']) || 10, error.message);
  }
  if (code === 'PT403') {
    const until = rowOf(parsed(error.details))['suspended_until'];
    throw new Suspended(error.message, typeof until === 'string' ? new Date(until) : null);
  }
  // Below 400: no answer, or a page of a network that asks to log in. From 502 on: of a gateway, such as 522 of Cloudflare.
  if (status < 400 || status === 408 || status === 425 || status > 501) {
    throw new ServerUnreachable(`the Data API cannot answer now (${code})`);
  }
  // 405: the database was read-only, such as during a failover.
  if (status >= 500 || status === 405) throw new ServerFailed(`${error.message} (${code})`);
  throw new Rejected(code, error.message);
}
