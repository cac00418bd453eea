import { deepEqual, equal, rejects } from 'node:assert/strict';
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { test } from 'node:test';

import { AuthUnknownError } from '@supabase/supabase-js';

import { openDatabase } from '../conformance/sqlite.ts';
import { ChatClient, DatabaseInUse, NotSignedIn, ServerUnreachable, type Settings } from '../src/index.ts';
import { MissingModule } from '../src/modules.ts';
import { ME, ROOM, auth, openPhone } from './phone.ts';

/** The settings of a client without an account, whose server answers nothing. */
function settings(file = ':memory:') {
  return {
    supabaseUrl: 'http://supabase.test',
    publishableKey: 'sb_publishable_test',
    auth: auth(null),
    database: openDatabase(file),
    log: () => undefined,
    fetch: (): Promise<Response> => Promise.reject(new TypeError('no network')),
  };
}

test('a wrong setting is named', async () => {
  await rejects(ChatClient.open({ ...settings(), supabaseUrl: 'supabase.test' }), TypeError);
  await rejects(ChatClient.open({ ...settings(), publishableKey: 'sb_secret_key' }), TypeError);
  await rejects(ChatClient.open({ ...settings(), apiUrl: '' }), TypeError);
});

test('a client without an account works, and says what it needs', async () => {
  const client = await ChatClient.open(settings());
  equal(client.signedIn, false);
  await rejects(client.send(ROOM, 'Hello'), NotSignedIn);
  await rejects(client.sync(), NotSignedIn);
  equal(client.openPush({ type: 'chat_message', conversationId: ROOM })?.conversationId, ROOM);
  await client.close();
});

test('a second client on one database is refused', async () => {
  const file = `${mkdtempSync(`${tmpdir()}/chat-`)}/chat.db`;
  const client = await ChatClient.open(settings(file));
  await rejects(ChatClient.open(settings(file)), DatabaseInUse);
  await client.close();
  await (await ChatClient.open(settings(file))).close();
});

test('a page of a network that asks to log in registers no device', async () => {
  const fetch = () => Promise.resolve(new Response('<html>Log in</html>', { headers: { 'Content-Type': 'text/html' } }));
  const client = await ChatClient.open({ ...settings(), auth: auth(ME), apiUrl: 'http://api.test', fetch });
  await client.useSession();
  await rejects(client.registerDevice({ pushToken: 'token', platform: 'ios' }), ServerUnreachable);
  await rejects(client.unregisterDevice(), ServerUnreachable);
  await client.close();
});

test('a sign-out waits for a registration that the server may still get, and none follows it', async () => {
  const device = { pushToken: 'token', platform: 'ios' } as const;
  const calls: string[] = [];
  let answer: () => void = () => undefined;
  let late: Promise<void> | undefined;
  const fetch = async (input: RequestInfo | URL, init?: RequestInit) => {
    if (!String(input).startsWith('http://api.test')) return new Response('null');
    calls.push(init?.method ?? '');
    if (init?.method === 'POST') await new Promise<void>((resolve) => (answer = resolve));
    else late = rejects(client.registerDevice(device), NotSignedIn);
    calls.push('answered');
    return new Response();
  };
  const signOut = () => Promise.resolve({ error: null });
  const gus = { ...auth(ME), signOut } as unknown as Settings['auth'];
  const client = await ChatClient.open({ ...settings(), auth: gus, apiUrl: 'http://api.test', fetch });
  await client.useSession();
  const registered = client.registerDevice(device);
  while (!calls.length) await new Promise(setImmediate);
  const ended = client.signOut();
  for (let turn = 0; turn < 50; turn++) await new Promise(setImmediate); // the sign-out goes as far as it can
  answer();
  await Promise.all([registered, ended]);
  await late;
  deepEqual(calls, ['POST', 'answered', 'DELETE', 'answered']);
  await client.close();
});

test('a page of a proxy ends no session', async () => {
  const error = new AuthUnknownError('<html>a proxy</html>', new SyntaxError());
  const answer = () => Promise.resolve({ data: { session: null }, error });
  const proxied = { ...auth(ME), signInWithPassword: answer, getSession: answer } as unknown as Settings['auth'];
  const client = await ChatClient.open({ ...settings(), auth: proxied });
  await rejects(client.signIn('me@example.com', 'password'), ServerUnreachable);
  await rejects(client.useSession(), ServerUnreachable);
  await client.close();
});

test('a body that never ends is a timeout, and holds up neither a sync nor the end of the client', async () => {
  const fetch = (_input: unknown, { signal }: RequestInit = {}) => {
    const start = (controller: ReadableStreamDefaultController) => {
      const end = () => controller.error(signal?.reason);
      if (signal?.aborted) end();
      else signal?.addEventListener('abort', end);
    };
    return Promise.resolve(new Response(new ReadableStream({ start })));
  };
  const client = await ChatClient.open({ ...settings(), auth: auth(ME), fetch, timing: { requestTimeout: 0.01 } });
  await client.useSession();
  await rejects(client.sync(), ServerUnreachable);
  await client.close();
});

test('a log that throws ends nothing', async () => {
  const log = () => {
    throw new Error('of the app');
  };
  const client = await ChatClient.open({ ...settings(), auth: auth(ME), log, timing: { retryBase: 0.001, retryCap: 0.001 } });
  await client.useSession();
  const { id } = await client.send(ROOM, 'Hello');
  while (((await client.outbox())[0]?.attempts ?? 0) < 2) await new Promise((resolve) => setTimeout(resolve, 1));
  await client.delete(id);
  await client.close(); // an error that nobody handles would fail this test
});

test('a phone that cannot be followed leaves the local database free', async () => {
  const file = `${mkdtempSync(`${tmpdir()}/chat-`)}/chat.db`;
  const follow = () => {
    throw new MissingModule('expo-network', null);
  };
  await rejects(ChatClient.open({ ...settings(file), app: { isActive: () => true, follow } }), MissingModule);
  await (await ChatClient.open(settings(file))).close();
});

test('each close ends when the local database is closed', async () => {
  const database = openDatabase(':memory:');
  let isClosed = false;
  const closeAsync = () => database.closeAsync().then(() => (isClosed = true));
  const client = await ChatClient.open({ ...settings(), database: { ...database, closeAsync } });
  const first = client.close();
  await client.close();
  equal(isClosed, true);
  await first;
});

test('a request without a server throws a typed error', async () => {
  const { parts } = await openPhone(() => null);
  await rejects(parts.server.conversations(), ServerUnreachable);
});
