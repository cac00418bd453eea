import { deepEqual, equal } from 'node:assert/strict';
import { test } from 'node:test';

import { tapOf } from '../src/index.ts';
import { Events } from '../src/events.ts';
import { messageOf, type Row } from '../src/models.ts';
import { Sync } from '../src/sync.ts';
import { ME, OTHER_ROOM, PARTNER, ROOM, openPhone, rowOf, type Script } from './phone.ts';

const row = (text: string) => rowOf({ room_id: ROOM, sender_id: PARTNER, message: text });

const conversation = (id: string) => ({
  id, user1_id: PARTNER, user2_id: ME, last_message: null, last_message_at: null, updated_at: '2026-01-01T00:00:00Z',
});

/** A server with these pages of changes. */
function withPages(...pages: object[][]): Script {
  return ({ path }) => {
    if (path.endsWith('/sync_cursor')) return [200, '2026-01-01T00:00:00.000001+00:00'];
    return [200, path.endsWith('/get_changed_messages') ? (pages.shift() ?? []) : []];
  };
}

test('a new phone stores the cursor, and does not load the whole past', async () => {
  const { parts, requests } = await openPhone(withPages([row('past')]));
  await new Sync(parts, () => undefined).once();
  equal(await parts.store.get('cursor'), '2026-01-01T00:00:00.000001+00:00');
  equal(requests.some(({ path }) => path.endsWith('/get_changed_messages')), false);
});

test('a sync reads page after page, and begins the next one at the newest change', async () => {
  const [first, second] = [row('one'), row('two')];
  const { parts, requests } = await openPhone(withPages([first], [second]));
  await parts.store.put('cursor', '2025-01-01T00:00:00.000000Z');
  await new Sync(parts, () => undefined).once();
  const pages = requests.filter(({ path }) => path.endsWith('/get_changed_messages'));
  deepEqual(pages.map(({ body }) => body['p_after_id']), [null, first['id'], second['id']]);
  equal((await parts.store.get('cursor'))?.slice(0, 19), String(second['changed_at']).slice(0, 19));
});

test('a page of the overlap alone does not put the cursor back', async () => {
  const { parts } = await openPhone(withPages([row('known')]));
  await parts.store.put('cursor', '2030-01-01T00:00:00.000000Z');
  await new Sync(parts, () => undefined).once();
  equal(await parts.store.get('cursor'), '2030-01-01T00:00:00.000000Z');
});

test('a conversation that begins during a sync stays, and one that the server no longer has goes with its outbox', async () => {
  const { parts } = await openPhone(({ path }) => [200, path.endsWith('/sync_cursor') ? '2026-01-01T00:00:00+00:00' : []]);
  const { store, server } = parts;
  const list = server.conversations.bind(server);
  await store.applyConversations([conversation(OTHER_ROOM)]);
  await store.enterMessage(OTHER_ROOM, 'gone', [], 1);
  server.conversations = async () => {
    const rows = await list();
    await store.applyConversations([conversation(ROOM)]); // as openChat does
    await store.enterMessage(ROOM, 'waits', [], 1);
    return rows;
  };
  await new Sync(parts, () => undefined).once();
  deepEqual((await store.conversations()).map(({ id }) => id), [ROOM]);
  deepEqual((await store.entries()).map(({ text }) => text), ['waits']);
});

test('a page that is asked for more messages than the server returns removes no stored one', async () => {
  const rows = Array.from({ length: 300 }, (_, n) => row(`${n}`));
  const { parts } = await openPhone(({ body }) => [200, rows.slice(-Math.min(Number(body['p_limit']), 200)).reverse()]);
  await parts.store.applyMessages(rows.map(messageOf));
  equal((await new Sync(parts, () => undefined).page(ROOM, null, 250)).length, 200);
  equal((await parts.store.messages(ROOM, null, 1000)).length, 300);
});

test('a message that is deleted for good while an older answer is on its way does not come back', async () => {
  const gone = row('gone');
  const [rows, removals]: [Row[], Promise<void>[]] = [[gone], []];
  const { parts } = await openPhone(({ path }) => {
    if (!/get_(changed_messages|messages_paginated)$/.test(path)) return [200, []];
    const answer = rows.splice(0);
    if (answer.length) removals.push(parts.store.removeMessage(ROOM, String(gone['id'])));
    return [200, answer];
  });
  await parts.store.put('cursor', '2026-01-01T00:00:00.000001+00:00');
  const sync = new Sync(parts, () => undefined);
  await sync.once();
  deepEqual(await parts.store.messages(ROOM, null, 10), []);
  rows.push(gone);
  deepEqual(await sync.page(ROOM, null, 30), []);
  equal(removals.length, 2);
});

test('a malformed message is skipped, and the others are stored', async () => {
  const bad = [{ attachments: 'none' }, { changed_at: null }, { id: 1 }].map((fields) => ({ ...row('bad'), ...fields }));
  const { parts, events } = await openPhone(withPages([...bad.slice(0, 1), row('good'), ...bad]));
  await parts.store.put('cursor', '2025-01-01T00:00:00.000000Z');
  await new Sync(parts, () => undefined).once();
  deepEqual((await parts.store.messages(ROOM, null, 10)).map(({ text }) => text), ['good']);
  equal(events.at(-1)?.type, 'synced');
});

test('a listener that throws ends nothing', () => {
  const reported: unknown[] = [];
  const heard: string[] = [];
  const events = new Events((error) => reported.push(error));
  events.subscribe(() => {
    throw new Error('of the app');
  });
  events.subscribe(({ type }) => heard.push(type));
  events.emit({ type: 'synced' });
  deepEqual([reported.length, heard], [1, ['synced']]);
});

test('a tap opens the conversation of a message, and nothing for other pushes', () => {
  const data = { type: 'chat_message', conversationId: ROOM, messageId: null };
  const tap = { conversationId: ROOM, messageId: null, recipientId: null };
  deepEqual(tapOf(data), tap);
  deepEqual(tapOf({ body: JSON.stringify(data) }), tap);
  for (const other of [null, 'text', {}, { body: '{' }, { ...data, kind: 'badge' }, { ...data, conversationId: 'x' }]) {
    equal(tapOf(other), null);
  }
});
