import { deepEqual, equal, match, rejects, throws } from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';

import { ChatError } from '../src/index.ts';
import { openClient } from './client.ts';

interface Package {
  readonly peerDependencies: Record<string, string>;
}

// A build with two packages less: one is not installed, and the native module of another is not there.
const required: string[] = [];
Object.assign(globalThis, {
  require: (name: string) => {
    required.push(name);
    if (name === 'expo-crypto') throw new Error("Cannot find module 'expo-crypto'");
    if (name === 'expo-notifications') throw new Error("Cannot find native module 'ExpoPushTokenManager'");
    return { default: {}, ExecutionEnvironment: { StoreClient: 'storeClient' }, getItemAsync: () => Promise.resolve(null) };
  },
});
const { MissingModule, Push, PushUnavailable, deviceId, expoApp } = await import('../src/expo.ts');

/** The error of a package that is not in the build. */
function isMissing(name: string) {
  return (error: unknown) =>
    error instanceof ChatError &&
    error instanceof MissingModule &&
    error.package === name &&
    error.message.includes(`npx expo install ${name}`) &&
    error.message.includes('build the app again') &&
    String(error.cause).includes('Cannot find');
}

test('each package of Expo is looked for when the package is imported, so that the background task is defined in time', () => {
  const { peerDependencies } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url).pathname, 'utf8')) as Package;
  deepEqual(required.sort(), Object.keys(peerDependencies).filter((name) => name.startsWith('expo-')));
});

test('the settings of a client throw the error that names the missing package', async () => {
  throws(() => expoApp(), isMissing('expo-crypto'));
  await rejects(deviceId(), isMissing('expo-crypto'));
});

test('without expo-notifications a person can sign out while the server cannot be reached', async () => {
  const { client } = await openClient(() => null, undefined, { apiUrl: 'http://api.test' });
  await new Push(client, { log: () => undefined }).signOut();
  equal(client.userId, null);
  await client.close();
});

test('a log of the app that throws stops no pushes', () => {
  const log = () => {
    throw new Error('the log is full');
  };
  equal(new Push(new Promise(() => undefined), { log }).status().error?.name, 'PushUnavailable');
});

test('pushes without a package say in their status, in ask and once in the log what is missing', async () => {
  const log: string[] = [];
  const push = new Push(new Promise(() => undefined), { log: (text) => log.push(text) });
  const isReported = (error: unknown) =>
    error instanceof PushUnavailable && error.reason === 'missing_module' && isMissing('expo-notifications')(error.cause);
  equal(push.status().isRegistered, false);
  equal(isReported(push.status().error), true);
  await rejects(push.ask(), isReported);
  push.onTap(() => undefined)();
  equal(log.length, 1);
  match(log[0]!, /npx expo install expo-notifications/);
});
