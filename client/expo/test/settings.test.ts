import { match, rejects } from 'node:assert/strict';
import { test } from 'node:test';

import { openDatabase } from '../conformance/sqlite.ts';
import { ChatClient, type Settings } from '../src/index.ts';
import { auth } from './phone.ts';

const settings = (): Settings => ({
  supabaseUrl: 'http://127.0.0.1:9', publishableKey: 'sb_publishable_test', auth: auth(null), database: openDatabase(':memory:'),
});

/** Opens a client with one wrong setting, and checks that the error names it. */
async function refused(name: string, changes: Record<string, unknown>): Promise<void> {
  await rejects(ChatClient.open({ ...settings(), ...changes }), (error: Error) => {
    match(error.message, new RegExp(name));
    return error instanceof TypeError;
  });
}

test('a missing or wrong setting is an error that names it', async () => {
  await refused('supabaseUrl', { supabaseUrl: undefined }); // a variable that was not set when the app was built
  await refused('supabaseUrl', { supabaseUrl: 'example.com' });
  await refused('apiUrl', { apiUrl: '' });
  await refused('publishableKey', { publishableKey: '' });
  await refused('secret', { publishableKey: 'sb_secret_x' });
  await refused('auth', { auth: undefined });
  await refused('database', { database: undefined });
  await refused('deviceId', { deviceId: '' });
});

test('an engine without a secure source of random numbers needs the setting app', async () => {
  const { crypto } = globalThis;
  Object.defineProperty(globalThis, 'crypto', { value: undefined, configurable: true, writable: true });
  try {
    await refused('expoApp', {});
  } finally {
    Object.defineProperty(globalThis, 'crypto', { value: crypto, configurable: true, writable: true });
  }
});
