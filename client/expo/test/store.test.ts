import { deepEqual, equal, rejects, throws } from 'node:assert/strict';
import { test } from 'node:test';

import { DatabaseError, UnknownMessage } from '../src/index.ts';
import { newId } from '../src/ids.ts';
import { MalformedRow, isoOf, messageOf, time } from '../src/models.ts';
import { ME, PARTNER, ROOM, message, openPhone, rowOf } from './phone.ts';

const silent = () => null;

const room = (fields: object) => ({
  id: ROOM, user1_id: PARTNER, user2_id: ME, last_message: 'Hello', last_message_at: '2001-09-09T01:46:40+00:00',
  unread_count_user1: 7, unread_count_user2: 1, archived_by_user1: true, archived_by_user2: false,
  updated_at: '2001-09-09T01:46:40+00:00', ...fields,
});

test('an older version of a message replaces no newer one', async () => {
  const { store } = (await openPhone(silent)).parts;
  await store.applyMessages([message({ text: 'new', changedAt: 1e15 + 2 })]);
  await store.applyMessages([message({ text: 'old', changedAt: 1e15 + 1 })]);
  equal((await store.messages(ROOM, null, 10))[0]?.text, 'new');
});

test('messages of one millisecond keep their order when a page ends between them', async () => {
  const { store } = (await openPhone(silent)).parts;
  await store.applyMessages([1, 2, 3].map((n) => message({ id: `m${n}`, serverTimestamp: 1e15 + n, text: `${n}` })));
  const [newest] = await store.messages(ROOM, null, 1);
  deepEqual((await store.messages(ROOM, newest ?? null, 10)).map(({ text }) => text), ['2', '1']);
});

test('a stored message that a page of the server does not have is removed', async () => {
  const { store } = (await openPhone(silent)).parts;
  await store.applyMessages([message({ id: 'gone', serverTimestamp: 1e15 + 1 }), message({ id: 'kept' })]);
  const known = await store.known(ROOM);
  await store.applyPage({ conversationId: ROOM, messages: [message({ id: 'kept' })], before: null, known, complete: true });
  deepEqual((await store.messages(ROOM, null, 10)).map(({ id }) => id), ['kept']);
});

test('a message of the partner is noted to be marked as delivered, and an own one is not', async () => {
  const { store } = (await openPhone(silent)).parts;
  await store.applyMessages([message({ id: 'theirs' }), message({ id: 'mine', senderId: ME })]);
  deepEqual(await store.deliveredMarks(10), ['theirs']);
});

test('a message that is deleted, or waits to be, cannot be edited', async () => {
  const { store } = (await openPhone(silent)).parts;
  await store.applyMessages([message({ id: 'mine', senderId: ME }), message({ id: 'gone', senderId: ME, deletedAt: 1e15 })]);
  await store.enterDelete('mine', 0);
  for (const id of ['mine', 'gone']) await rejects(store.enterEdit(id, 'new', 0), UnknownMessage);
  deepEqual((await store.entries()).map(({ kind, text }) => [kind, text]), [['delete', '']]);
});

test('an archive flag that is rejected can be discarded, and that of the server returns', async () => {
  const { events, parts } = await openPhone(silent);
  const { store } = parts;
  await store.applyConversations([room({})]);
  await store.enterArchive(ROOM, true, 0);
  const [entry] = await store.nextEntries();
  if (entry) await store.fail(entry, 'rejected');
  events.length = 0;
  await store.discard(ROOM);
  deepEqual(events.map((event) => event.type === 'conversationChanged' && event.conversation.archived), [false]);
});

test('a conversation that was read here shows no unread messages before the server knows it', async () => {
  const { store } = (await openPhone(silent)).parts;
  await store.applyConversations([room({})]);
  await store.applyMessages([message({ id: 'm1' })]);
  equal((await store.conversation(ROOM))?.unread, 1);
  equal(await store.markRead('m1'), true);
  equal((await store.conversation(ROOM))?.unread, 0);
  equal(await store.markRead('m1'), false);
  deepEqual(await store.readMarks(), [{ conversationId: ROOM, messageId: 'm1' }]);
});

test('a list that was read before a mark does not bring the unread messages back', async () => {
  const { store } = (await openPhone(silent)).parts;
  await store.applyMessages(['m1', 'm2'].map((id) => message({ id })));
  const at = 1e15 + 5;
  await store.applyReceipts(ROOM, ['m1'], { deliveredAt: at, readAt: at, isRead: true, changedAt: at });
  for (let time = 1; time <= 2; time++) {
    await store.applyConversations([room({ unread_count_user2: 2 })]);
    equal((await store.conversation(ROOM))?.unread, 1);
  }
});

test('a new message counts as unread before the conversation was read again', async () => {
  const { store } = (await openPhone(silent)).parts;
  await store.applyConversations([room({ unread_count_user2: 0 })]);
  await store.applyMessages([message({ id: 'm2', serverTimestamp: 1e15 + 5, text: ' two\nlines ' })]);
  const conversation = await store.conversation(ROOM);
  deepEqual([conversation?.unread, conversation?.lastMessage], [1, 'two lines']);
});

test('a malformed conversation is skipped, and removes no stored one', async () => {
  const { store } = (await openPhone(silent)).parts;
  await store.applyConversations([room({})]);
  await store.applyConversations([room({ updated_at: 'yesterday' })]);
  equal((await store.conversations()).length, 1);
});

test('a sign-out leaves nothing but the id of the installation', async () => {
  const { store } = (await openPhone(silent)).parts;
  const { deviceId } = store;
  await store.applyMessages([message({})]);
  await store.enterMessage(ROOM, 'waits', [], 1);
  await store.wipe();
  deepEqual([await store.entries(), await store.messages(ROOM, null, 10), store.me], [[], [], null]);
  equal(await store.get('device_id'), deviceId);
});

test('a transaction that fails changes nothing, and the next one works', async () => {
  const { store } = (await openPhone(silent)).parts;
  await rejects(store.applyMessages([message({ id: 'fine' }), message({ id: null as unknown as string })]), DatabaseError);
  deepEqual(await store.messages(ROOM, null, 10), []);
  await store.applyMessages([message({ id: 'fine' })]);
  await rejects(store.message('unknown'), UnknownMessage);
  equal((await store.messages(ROOM, null, 10)).length, 1);
});

test('times keep their microseconds', () => {
  equal(isoOf(time({ at: '2026-01-02T03:04:05.12+00:00' }, 'at')), '2026-01-02T03:04:05.120000Z');
  equal(isoOf(time({ at: '2026-01-02T03:04:05.000001+02:00' }, 'at')), '2026-01-02T01:04:05.000001Z');
  throws(() => time({ at: 'now' }, 'at'), MalformedRow);
  throws(() => messageOf(rowOf({ room_id: ROOM, sender_id: ME, message: 5 })), MalformedRow);
});

test('ids are UUIDs of version 4, and their random bits are those of the secure source', () => {
  equal(newId((bytes) => bytes.fill(0xff)), 'ffffffff-ffff-4fff-bfff-ffffffffffff');
  equal(newId((bytes) => bytes.map((_, index) => index)), '00010203-0405-4607-8809-0a0b0c0d0e0f');
});
