import { deepEqual, equal, match, notEqual, rejects } from 'node:assert/strict';
import { test } from 'node:test';

import { useConversation, useConversations } from '../src/react.ts';
import { openClient, server, written } from './client.ts';
import { mount } from './dom.ts';
import { openDatabase } from '../conformance/sqlite.ts';
import { ME, OTHER_ROOM, PARTNER, ROOM, rowOf, type Request } from './phone.ts';

const pages = (requests: Request[]) => requests.filter(({ path }) => path.endsWith('/get_messages_paginated'));
const shown = (requests: Request[]) =>
  requests.filter(({ path }) => path.endsWith('/report_presence')).at(-1)?.body['p_conversation_id'];

test('a list shows what is stored, and what arrives later', async () => {
  const { client } = await openClient(server([]));
  const list = await mount(client, useConversations);
  equal(list.results[0]?.isLoaded, false);
  const { conversations } = await list.until(({ conversations }) => conversations.length === 1);
  deepEqual(conversations.map(({ id }) => id), [ROOM]);
  await list.unmount();
  await client.close();
});

test('a message that has not changed is not drawn again', async () => {
  const messages = written(2);
  const { client } = await openClient(server(messages));
  await client.sync();
  const screen = await mount(client, () => useConversation(ROOM));
  const before = await screen.until((state) => state.messages.length === 2);
  messages.push(...written(1));
  await client.sync();
  const after = await screen.until((state) => state.messages.length === 3);
  equal(after.messages[1], before.messages[0]);
  notEqual(after.messages, before.messages);
  await screen.unmount();
  await client.close();
});

test('a conversation of 10,000 messages is opened with one page, and paged back with one each', async () => {
  const { client, requests } = await openClient(server(written(10_000)));
  await client.sync();
  const screen = await mount(client, () => useConversation(ROOM));
  const { messages, hasOlder, loadOlder } = await screen.until((state) => state.messages.length > 0);
  deepEqual([messages.length, hasOlder, pages(requests).length], [30, true, 1]);
  await screen.until(() => (void loadOlder(), void loadOlder(), true)); // a list asks more often than once
  const back = await screen.until((state) => state.messages.length === 60);
  deepEqual([back.messages.at(-1)?.text, pages(requests).length], ['9940', 2]);
  await screen.unmount();
  await client.close();
});

test('paging back ends at the first message', async () => {
  const { client } = await openClient(server(written(40)));
  await client.sync();
  const screen = await mount(client, () => useConversation(ROOM));
  const { loadOlder } = await screen.until((state) => state.messages.length === 30);
  void loadOlder();
  const all = await screen.until((state) => state.messages.length === 40);
  equal(all.hasOlder, false);
  await screen.unmount();
  await client.close();
});

test('paging back goes on after the server could not be reached', async () => {
  const answers = server(written(100));
  let isDown = false;
  const { client } = await openClient((request) => {
    if (request.path.endsWith('/get_changed_messages')) return [200, []];
    return isDown && request.path.endsWith('/get_messages_paginated') ? null : answers(request);
  });
  const screen = await mount(client, () => useConversation(ROOM));
  const { loadOlder } = await screen.until(({ messages, hasOlder }) => messages.length === 30 && hasOlder);
  isDown = true;
  await loadOlder();
  await screen.until(({ hasOlder }) => !hasOlder);
  isDown = false;
  await client.sync();
  await screen.until(({ hasOlder }) => hasOlder);
  await loadOlder();
  await screen.until(({ messages }) => messages.length === 60);
  await screen.unmount();
  await client.close();
});

test('paging back shows the messages before any number of those that are not sent', async () => {
  const answers = server(written(40));
  const { client } = await openClient((request) => (request.method === 'POST' && request.path.endsWith('/chat_messages') ? null : answers(request)));
  for (let n = 0; n < 65; n++) await client.send(ROOM, 'waits');
  const screen = await mount(client, () => useConversation(ROOM));
  await screen.until(({ messages }) => messages.length === 30);
  const last = () => screen.results.at(-1);
  for (let tries = 0; last()?.hasOlder && tries < 10; tries++) await last()?.loadOlder();
  deepEqual([last()?.messages.length, last()?.hasOlder], [105, false]);
  await screen.unmount();
  await client.close();
});

test('a message that is sent is shown at once, pending, and never twice', async () => {
  const { client } = await openClient(server([]));
  await client.sync();
  const screen = await mount(client, () => useConversation(ROOM));
  await screen.until(({ conversation }) => conversation !== null);
  await client.send(ROOM, 'Hello');
  await screen.until(({ messages }) => messages[0]?.status === 'sent');
  const statuses = screen.results.map(({ messages }) => messages.map(({ status }) => status));
  deepEqual([...new Set(statuses.map(String))].filter((each) => each !== 'pending'), ['', 'sent']);
  await screen.unmount();
  await client.close();
});

test('messages that arrive push no shown message out of the list', async () => {
  const messages = written(30);
  const { client } = await openClient(server(messages));
  await client.sync();
  const screen = await mount(client, () => useConversation(ROOM));
  await screen.until((state) => state.messages.length === 30);
  messages.push(...written(5));
  await client.sync();
  const after = await screen.until((state) => state.messages.length === 35);
  equal(after.messages.at(-1)?.text, '0');
  await screen.unmount();
  await client.close();
});

test('a conversation that the server refuses has an error, and shows what is stored', async () => {
  const answers = server([]);
  const { client } = await openClient((request) =>
    request.path.endsWith('/get_messages_paginated') ? [403, { code: '42501', message: 'no' }] : answers(request),
  );
  const screen = await mount(client, () => useConversation(ROOM));
  const { error, messages } = await screen.until((state) => state.error !== null);
  deepEqual([error?.name, messages], ['Rejected', []]);
  await screen.unmount();
  await client.close();
});

test('a local database that cannot be read is an error of each hook, until it can be read again', async () => {
  const database = openDatabase(':memory:');
  const messages = written(1);
  const { client } = await openClient(server(messages), database);
  await client.sync();
  const { getAllAsync } = database;
  database.getAllAsync = () => Promise.reject(new Error('disk I/O error'));
  const [list, screen] = [await mount(client, useConversations), await mount(client, () => useConversation(ROOM))];
  match(String((await list.until(({ error }) => error !== null)).error), /disk/);
  match(String((await screen.until(({ error }) => error !== null)).error), /disk/);
  database.getAllAsync = getAllAsync;
  messages.push(...written(1));
  await client.sync();
  await list.until(({ error, isLoaded }) => error === null && isLoaded);
  await screen.until(({ error, messages }) => error === null && messages.length === 2);
  await list.unmount();
  await screen.unmount();
  await client.close();
});

test('the screen on top is the one that is on the screen, also when the one below is left late', async () => {
  const { client, requests } = await openClient(server([]));
  const reported = async (id: string | null) => {
    while (shown(requests) !== id) await new Promise((resolve) => setTimeout(resolve, 5));
  };
  const below = await mount(client, () => useConversation(ROOM));
  await reported(ROOM);
  const above = await mount(client, () => useConversation(OTHER_ROOM));
  await reported(OTHER_ROOM);
  await below.unmount();
  await above.draw(() => useConversation(OTHER_ROOM, { isOnScreen: false }));
  await reported(null);
  await above.draw(() => useConversation(OTHER_ROOM, { isOnScreen: true }));
  await reported(OTHER_ROOM);
  await above.unmount();
  await reported(null);
  await client.close();
});

test('in StrictMode, which mounts twice, a conversation is shown and followed', async () => {
  const messages = written(1);
  const { client } = await openClient(server(messages));
  await client.sync();
  const screen = await mount(client, () => useConversation(ROOM), true);
  await screen.until((state) => state.messages.length === 1);
  messages.push(rowOf({ room_id: ROOM, sender_id: PARTNER, message: 'later' }));
  await client.sync();
  await screen.until((state) => state.messages[0]?.text === 'later');
  await screen.unmount();
  await client.close();
});

test('a client that is closed below its screens ends nothing', async () => {
  const { client } = await openClient(server(written(1)));
  equal(client.userId, ME);
  const screen = await mount(client, () => useConversation(ROOM));
  await client.close();
  await screen.unmount();
});

test('a hook without a ChatProvider says what is missing', async () => {
  await rejects(mount(null, useConversations), Error);
});
