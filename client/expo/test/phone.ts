// A phone without Realtime: the store and the loops of the client, on SQLite of Node.js, with a scripted server.

import { openDatabase } from '../conformance/sqlite.ts';
import type { Row, ServerMessage } from '../src/models.ts';
import { Life, type Parts } from '../src/parts.ts';
import { Server } from '../src/server.ts';
import { Session } from '../src/session.ts';
import { TIMING, type Settings } from '../src/settings.ts';
import { Store } from '../src/store.ts';
import type { ChatEvent, Database } from '../src/index.ts';

export const ME = '00000000-0000-4000-8000-00000000000a';
export const PARTNER = '00000000-0000-4000-8000-00000000000b';
export const ROOM = '00000000-0000-4000-8000-0000000000c1';
export const OTHER_ROOM = '00000000-0000-4000-8000-0000000000c2';

/** A request as the server sees it: `path` such as /rest/v1/chat_messages, `query` such as ?id=eq.1, and its body. */
export interface Request {
  readonly method: string;
  readonly path: string;
  readonly query: string;
  readonly body: Row;
}

/** What the server answers: a status and a body; null: no answer. */
export type Script = (request: Request) => readonly [status: number, body: unknown] | null;

export interface Phone {
  readonly parts: Parts;
  readonly events: ChatEvent[];
  readonly requests: Request[];
  /** Resolves with the first event that fulfils the condition, also an earlier one. */
  until(holds: (event: ChatEvent) => boolean): Promise<ChatEvent>;
}

/** Opens a phone. It waits at most some milliseconds between attempts. */
export async function openPhone(script: Script, database: Database = openDatabase(':memory:')): Promise<Phone> {
  const events: ChatEvent[] = [];
  const waiting = new Set<() => void>();
  const emit = (event: ChatEvent) => {
    events.push(event);
    for (const look of waiting) look();
  };
  const store = await Store.open({ database, emit, log: () => undefined, random: (bytes) => crypto.getRandomValues(bytes) });
  await store.put('user_id', ME);
  const session = new Session(auth(ME), () => store.me, () => undefined);
  const requests: Request[] = [];
  const http = scripted(script, requests);
  const parts: Parts = {
    store,
    server: new Server('http://supabase.test', 'sb_publishable_test', session, http),
    timing: { ...TIMING, retryBase: 0.001, retryCap: 0.01, marksDelay: 0.001 },
    attempts: 3,
    emit,
    failed: () => undefined,
    life: new Life(),
  };
  const until = (holds: (event: ChatEvent) => boolean) =>
    new Promise<ChatEvent>((resolve) => {
      const look = () => {
        const found = events.find(holds);
        if (found && (waiting.delete(look) || true)) resolve(found);
      };
      waiting.add(look);
      look();
    });
  return { parts, events, requests, until };
}

/** A `fetch` of which the script is the server. It notes the requests. */
export function scripted(script: Script, requests: Request[]): typeof fetch {
  return async (input, init) => {
    const { pathname: path, search: query } = new URL(String(input));
    const body = init?.body ? (JSON.parse(String(init.body)) as Row) : {};
    const request = { method: init?.method ?? 'GET', path, query, body };
    requests.push(request);
    const answer = script(request);
    if (!answer) throw new TypeError('no network');
    return new Response(JSON.stringify(answer[1]), { status: answer[0] });
  };
}

/** Whether an event says that the message with this text has this status. */
export function has(text: string, status: string): (event: ChatEvent) => boolean {
  return (event) => event.type === 'messageChanged' && event.message.text === text && event.message.status === status;
}

let lastId = 0;

/** The row of chat_messages that the server stores for an insert. */
export function rowOf(insert: Row): Row {
  lastId += 1;
  const at = new Date(Date.UTC(2026, 0, 1) + lastId * 1000).toISOString();
  return {
    id: `00000000-0000-4000-9000-${String(lastId).padStart(12, '0')}`,
    message_type: 'text', attachments: [], client_msg_id: null, server_timestamp: at, changed_at: at,
    edited_at: null, deleted_at: null, delivered_at: null, read_at: null, is_read: false, ...insert,
  };
}

/** A message of the partner, or with the given fields. Times in microseconds. */
export function message(fields: Partial<ServerMessage>): ServerMessage {
  return {
    id: '00000000-0000-4000-9000-ffffffffffff', conversationId: ROOM, senderId: PARTNER, text: 'Hello', attachments: [],
    messageType: 'text', clientMsgId: null, serverTimestamp: 1e15, changedAt: 1e15, editedAt: null, deletedAt: null,
    deliveredAt: null, readAt: null, isRead: false, ...fields,
  };
}

/** The `auth` of an app in which this person is signed in, or nobody. */
export function auth(userId: string | null): Settings['auth'] {
  const session = userId && { access_token: 'token', expires_in: 3600, user: { id: userId } };
  const fake = {
    onAuthStateChange: () => ({ data: { subscription: { unsubscribe: () => undefined } } }),
    getSession: () => Promise.resolve({ data: { session }, error: null }),
  };
  return fake as unknown as Settings['auth'];
}
