// A client on SQLite of Node.js, with a scripted server and without Realtime.

import { ChatClient, type Database, type Settings } from '../src/index.ts';
import { openDatabase } from '../conformance/sqlite.ts';
import { ME, PARTNER, ROOM, auth, rowOf, scripted, type Request, type Script } from './phone.ts';
import type { Row } from '../src/models.ts';

export interface OpenClient {
  readonly client: ChatClient;
  readonly requests: Request[];
}

/** Opens a client in which ME is signed in. Close it at the end of the test. */
export async function openClient(script: Script, database: Database = openDatabase(':memory:'), settings: Partial<Settings> = {}): Promise<OpenClient> {
  const requests: Request[] = [];
  const client = await ChatClient.open({
    supabaseUrl: 'http://127.0.0.1:9', // discard: nothing listens there
    publishableKey: 'sb_publishable_test',
    auth: auth(ME),
    database,
    fetch: scripted(script, requests),
    log: () => undefined,
    timing: { retryBase: 1000, retryCap: 1000, requestTimeout: 2, marksDelay: 0.01 },
    ...settings,
  });
  await client.useSession();
  return { client, requests };
}

/** A server with one conversation, of PARTNER and ME, and what was written in it, which the test may add to. */
export function server(messages: Row[]): Script {
  const room = {
    id: ROOM, user1_id: PARTNER, user2_id: ME, last_message: null, last_message_at: null, unread_count_user1: 0,
    unread_count_user2: 0, archived_by_user1: false, archived_by_user2: false, updated_at: '2026-01-01T00:00:00Z',
  };
  let synced = 0;
  return ({ method, path, query, body }) => {
    const call = path.split('/').at(-1);
    if (call === 'sync_cursor') return [200, '2026-01-01T00:00:00.000001+00:00'];
    if (call === 'get_changed_messages') return [200, messages.slice(synced, (synced = messages.length))];
    if (call === 'get_messages_paginated') {
      const end = messages.findIndex(({ id }) => id === body['p_cursor_id']);
      return [200, messages.slice(0, end < 0 ? undefined : end).reverse().slice(0, Number(body['p_limit']))];
    }
    if (call === 'chat_messages' && method === 'POST') {
      messages.push(rowOf(body));
      synced = messages.length;
      return [201, messages.slice(-1)];
    }
    const isEnd = query.includes(`gt.${ROOM}`);
    return [200, call === 'chat_rooms' && !isEnd ? [room] : []];
  };
}

/** This many messages of the partner. */
export function written(count: number): Row[] {
  return Array.from({ length: count }, (_, n) => rowOf({ room_id: ROOM, sender_id: PARTNER, message: `${n}` }));
}
