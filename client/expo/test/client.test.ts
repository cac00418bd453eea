import { equal, rejects } from 'node:assert/strict';
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { test } from 'node:test';

import { AuthUnknownError } from '@supabase/supabase-js';

import { openDatabase } from '../conformance/sqlite.ts';
import { ChatClient, DatabaseInUse, NotSignedIn, ServerUnreachable, type Settings } from '../src/index.ts';
import { ME, ROOM, auth, openPhone } from './phone.ts';

/** The settings of a client without an account, whose server answers nothing. */
function settings(file = ':memory:') {
  return {
    supabaseUrl: 'http://supabase.test',
    publishableKey: 'sb_publishable_test',
    auth: auth(null),
    database: openDatabase(file),
    log: () => undefined,
    fetch: () => Promise.reject(new TypeError('no network')),
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

test('a page of a proxy ends no session', async () => {
  const error = new AuthUnknownError('<html>a proxy</html>', new SyntaxError());
  const answer = () => Promise.resolve({ data: { session: null }, error });
  const proxied = { ...auth(ME), signInWithPassword: answer, getSession: answer } as unknown as Settings['auth'];
  const client = await ChatClient.open({ ...settings(), auth: proxied });
  await rejects(client.signIn('me@example.com', 'password'), ServerUnreachable);
  await rejects(client.useSession(), ServerUnreachable);
  await client.close();
});

test('a request without a server throws a typed error', async () => {
  const { parts } = await openPhone(() => null);
  await rejects(parts.server.conversations(), ServerUnreachable);
});
