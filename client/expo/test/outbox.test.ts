import { deepEqual, equal } from 'node:assert/strict';
import { test } from 'node:test';

import { messageOf, type Row } from '../src/models.ts';
import { Outbox } from '../src/outbox.ts';
import { Server } from '../src/server.ts';
import { ME, OTHER_ROOM, ROOM, has, openPhone, rowOf, type Phone, type Script } from './phone.ts';

const accepts: Script = ({ body }) => [201, [rowOf(body)]];
const rejects = (code: string): [number, object] => [400, { code, message: 'rejected', details: null, hint: null }];

/** Works with the outbox of a phone, and closes it. */
async function sending(phone: Phone, work: (outbox: Outbox) => Promise<void>): Promise<void> {
  const outbox = new Outbox(phone.parts);
  const running = outbox.run();
  try {
    await work(outbox);
  } finally {
    phone.parts.life.close();
    await running;
  }
}

function texts({ requests }: Phone): unknown[] {
  return requests.filter(({ method }) => method === 'POST').map(({ body }) => body['message']);
}

/** For each attempt, how many were stored before it. */
function countAttempts({ parts: { store } }: Phone): number[] {
  const counted: number[] = [];
  const begin = store.beginAttempt.bind(store);
  store.beginAttempt = async (seq, now) => {
    const entry = await begin(seq, now);
    counted.push(entry?.attempts ?? -1);
    return entry;
  };
  return counted;
}

test('messages of one conversation are sent in order', async () => {
  const phone = await openPhone(accepts);
  for (const text of ['one', 'two', 'three']) await phone.parts.store.enterMessage(ROOM, text, [], 1);
  await sending(phone, async () => void (await phone.until(has('three', 'sent'))));
  deepEqual(texts(phone), ['one', 'two', 'three']);
  deepEqual(await phone.parts.store.entries(), []);
});

test('without the server a message waits, with a stored counter, and is sent once the server answers', async () => {
  let failures = 0;
  const phone = await openPhone((request) => (failures++ < 4 ? null : accepts(request)));
  const counted = countAttempts(phone);
  await phone.parts.store.enterMessage(ROOM, 'patience', [], 1);
  await sending(phone, async () => void (await phone.until(has('patience', 'sent'))));
  deepEqual(counted, [0, 1, 2, 3, 4]);
});

test('a message that an earlier attempt has stored counts as sent', async () => {
  const phone = await openPhone(({ method }) =>
    method === 'POST'
      ? [409, { code: '23505', message: 'duplicate', details: null, hint: null }]
      : [200, [rowOf({ room_id: ROOM, sender_id: ME, message: 'once', client_msg_id: id })]],
  );
  const { id } = await phone.parts.store.enterMessage(ROOM, 'once', [], 1);
  await sending(phone, async () => void (await phone.until(has('once', 'sent'))));
  equal((await phone.parts.store.messages(ROOM, null, 10)).length, 1);
});

test('a message that the server rejects blocks no other, and can be retried', async () => {
  let poison = true;
  const phone = await openPhone((request) =>
    poison && request.body['message'] === 'poison' ? rejects('22001') : accepts(request),
  );
  const { store } = phone.parts;
  const { id } = await store.enterMessage(ROOM, 'poison', [], 1);
  await store.enterMessage(ROOM, 'next', [], 1);
  await sending(phone, async (outbox) => {
    await phone.until(has('poison', 'failed'));
    await phone.until(has('next', 'sent'));
    poison = false;
    await store.retry(id);
    outbox.wake();
    await phone.until(has('poison', 'sent'));
  });
});

test('a server that always fails at a message fails it after the attempts of the settings', async () => {
  const phone = await openPhone(() => [500, { code: 'XX000', message: 'bug', details: null, hint: null }]);
  await phone.parts.store.enterMessage(ROOM, 'crash', [], 1);
  await sending(phone, async () => void (await phone.until(has('crash', 'failed'))));
  equal(phone.requests.length, 3);
});

test('a message waits while something between the phone and the server answers', async () => {
  for (const status of [200, 302, 408, 425, 502, 511, 520, 522, 524, 530, 540]) {
    let isBetween = true;
    const phone = await openPhone(accepts);
    const http: typeof fetch = async (_input, init) => {
      if (isBetween) return new Response('<html>a page</html>', { status });
      return new Response(JSON.stringify([rowOf(JSON.parse(String(init?.body)) as Row)]), { status: 201 });
    };
    const parts = { ...phone.parts, server: new Server('http://supabase.test', 'key', phone.parts.server.session, http) };
    const counted = countAttempts(phone);
    await parts.store.enterMessage(ROOM, 'patience', [], 1);
    await sending({ ...phone, parts }, async () => {
      const isPending = async () => (await parts.store.entries())[0]?.state === 'pending';
      while (counted.length < 5 && (await isPending())) await new Promise((resolve) => setTimeout(resolve, 1));
      equal(await isPending(), true); // after more attempts than a server has that fails
      isBetween = false;
      await phone.until(has('patience', 'sent'));
    });
  }
});

test('a message over the rate limit is sent later, and that attempt does not count', async () => {
  let limited = true;
  const details = JSON.stringify({ retry_after_seconds: 0.01 });
  const phone = await openPhone((request) => {
    if (!limited) return accepts(request);
    limited = false;
    return [429, { code: 'PT429', message: 'too many', details, hint: null }];
  });
  const counted = countAttempts(phone);
  await phone.parts.store.enterMessage(ROOM, 'patience', [], 1);
  await sending(phone, async () => void (await phone.until(has('patience', 'sent'))));
  deepEqual(counted, [0, 0]);
});

test('a message that is edited while it is sent is sent with its old text, and then edited', async () => {
  const phone = await openPhone((request) =>
    request.method === 'PATCH' ? [200, [{ ...stored, ...request.body, changed_at: '2027-01-01T00:00:00Z' }]] : null,
  );
  const { store } = phone.parts;
  const { id } = await store.enterMessage(ROOM, 'old', [], 1);
  const stored = rowOf({ room_id: ROOM, sender_id: ME, message: 'old', client_msg_id: id });
  const [entry] = await store.nextEntries();
  const tried = await store.beginAttempt(entry?.seq ?? 0, 1);
  await store.enterEdit(id, 'new', 2);
  if (tried) await store.finish(tried, null);
  await store.applyMessages([messageOf(stored)]);
  await sending(phone, async () => void (await phone.until(has('new', 'sent'))));
  deepEqual(await store.entries(), []);
});

test('a conversation does not wait for another one', async () => {
  const phone = await openPhone((request) => (request.body['room_id'] === ROOM ? null : accepts(request)));
  await phone.parts.store.enterMessage(ROOM, 'stuck', [], 1);
  await phone.parts.store.enterMessage(OTHER_ROOM, 'free', [], 1);
  await sending(phone, async () => void (await phone.until(has('free', 'sent'))));
});

test('neither a message nor a deletion waits for the deletion of a message that the server may still get', async () => {
  const phone = await openPhone((request) => (request.method === 'POST' ? accepts(request) : [200, []]));
  const { store } = phone.parts;
  for (const text of ['first', 'second']) {
    const { id } = await store.enterMessage(ROOM, text, [], 1);
    const entry = (await store.nextEntries()).at(-1);
    await store.beginAttempt(entry?.seq ?? 0, Date.now() / 1000); // without an answer
    await store.enterDelete(id, 2);
  }
  for (const text of ['third', 'fourth']) await store.enterMessage(ROOM, text, [], 3);
  deepEqual((await store.nextEntries()).map(({ kind }) => kind), ['delete', 'delete', 'send']);
  await sending(phone, async () => void (await phone.until(has('fourth', 'sent'))));
  deepEqual([texts(phone), (await store.entries()).map(({ kind }) => kind)], [['third', 'fourth'], ['delete', 'delete']]);
});

test('the next message waits for the deletion of one that the server has', async () => {
  const { parts } = await openPhone(accepts);
  const { store } = parts;
  const { id } = await store.enterMessage(ROOM, 'first', [], 1);
  const [entry] = await store.nextEntries();
  await store.beginAttempt(entry?.seq ?? 0, 1);
  await store.enterDelete(id, 2);
  await store.enterMessage(ROOM, 'second', [], 3);
  await store.applyMessages([messageOf(rowOf({ room_id: ROOM, sender_id: ME, message: 'first', client_msg_id: id }))]);
  deepEqual((await store.nextEntries()).map(({ kind }) => kind), ['delete']);
});

test('a message that has failed, and that the server may have, is edited and deleted there after it is tried again', async () => {
  const { parts } = await openPhone(accepts);
  const { store } = parts;
  for (const change of ['edit', 'delete']) {
    const { id } = await store.enterMessage(ROOM, 'secret', [], 1);
    const [entry] = await store.nextEntries();
    const tried = await store.beginAttempt(entry?.seq ?? 0, 1);
    if (tried) await store.fail(tried, 'the server failed');
    await store.retry(id);
    await (change === 'edit' ? store.enterEdit(id, 'new', 2) : store.enterDelete(id, 2));
    const stored = messageOf(rowOf({ room_id: ROOM, sender_id: ME, message: 'secret', client_msg_id: id }));
    await store.applyMessages([stored]);
    deepEqual((await store.entries()).map(({ id, kind }) => [id, kind]), [[stored.id, change]]);
    await store.removeMessage(ROOM, stored.id);
  }
});

test('a message that is deleted before it was tried is never sent', async () => {
  const phone = await openPhone(accepts);
  const { store } = phone.parts;
  const { id } = await store.enterMessage(ROOM, 'never', [], 1);
  await store.enterDelete(id, 2);
  await store.enterMessage(ROOM, 'after', [], 3);
  await sending(phone, async () => void (await phone.until(has('after', 'sent'))));
  deepEqual(texts(phone), ['after']);
});
