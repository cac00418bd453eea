import { deepEqual, equal, match, rejects } from 'node:assert/strict';
import { test } from 'node:test';

import * as asyncStorage from '@react-native-async-storage/async-storage';
import initSqlJs from 'sql.js/dist/sql-asm.js';

import { DatabaseError, DatabaseFull, DatabaseInUse, openDatabase } from '../src/index.ts';
import { inAsyncStorage } from '../src/async-storage.ts';
import { Store } from '../src/store.ts';
import { ME, ROOM, message } from './phone.ts';

// AsyncStorage for browsers, on a localStorage that a test can look into, copy, and fill up.
let stored = new Map<string, string>();
let before: () => void = () => undefined; // called before each change
const localStorage = {
  getItem: (key: string) => stored.get(key) ?? null,
  setItem: (key: string, value: string) => {
    before();
    stored.set(key, value);
  },
  removeItem: (key: string) => {
    before();
    stored.delete(key);
  },
  key: (index: number) => [...stored.keys()][index],
  get length() {
    return stored.size;
  },
};
Object.assign(globalThis, { window: { localStorage } });

// A CommonJS module, as Node imports it.
const { default: AsyncStorage } = asyncStorage.default as unknown as typeof asyncStorage;
const openStored = inAsyncStorage(AsyncStorage, initSqlJs);

/** Opens the store of an app whose AsyncStorage has this. */
async function open(content: Map<string, string>, log: string[] = []): Promise<Store> {
  [stored, before] = [content, () => undefined];
  const silent = () => undefined;
  const database = await openDatabase(openStored, 'chat', (line) => void log.push(line));
  return Store.open({ database, emit: silent, log: silent, random: (bytes) => crypto.getRandomValues(bytes) });
}

/** What is in the store. It is closed. */
async function closed(store: Store) {
  const kept = { me: store.me, deviceId: store.deviceId, entries: await store.entries(), messages: await store.messages(ROOM, null, 5000) };
  await store.close();
  return kept;
}

/** A conversation with this many messages. */
function written(count: number) {
  return Array.from({ length: count }, (_, n) => message({ id: `message-${n}`, text: `This is message ${n} of a long conversation.`, serverTimestamp: 1e15 + n }));
}

/** The storage of an app with an account, messages, and an outbox of five long entries. */
async function filled(): Promise<Map<string, string>> {
  const store = await open(new Map());
  await store.put('user_id', ME);
  await store.applyMessages(written(60));
  for (let n = 0; n < 5; n++) await store.enterMessage(ROOM, `entry-${n};${'x'.repeat(20_000)}`, [], n);
  await store.close();
  return stored;
}

/** How many chunks AsyncStorage has. */
function chunks(): number {
  return [...stored.keys()].filter((key) => /^chat\/\d/.test(key)).length;
}

/** What is in a chunk, or in the list of the chunks. */
function decoded(chunk: string): string {
  return chunk.includes(',') ? '' : atob(chunk);
}

/** Changes many chunks. */
async function changeAll(store: Store): Promise<void> {
  await store.applyMessages(written(60).map((each) => ({ ...each, text: 'changed', changedAt: 2e15 })));
}

test('what was stored is there when the database is opened again', async () => {
  const content = await closed(await open(await filled()));
  deepEqual([content.me, content.entries.length, content.messages.length], [ME, 5, 65]);
  deepEqual(await closed(await open(stored)), content);
});

test('an app that is killed during a change has all of it or nothing of it', async () => {
  const content = await filled();
  const old = await closed(await open(new Map(content)));
  const store = await open(new Map(content));
  const kills: Map<string, string>[] = [];
  before = () => void kills.push(new Map(stored));
  await changeAll(store);
  const changed = await closed(store);
  const left = chunks();

  const found: string[] = [];
  for (const kill of kills) {
    const opened = await open(kill);
    equal(chunks(), left); // and nothing that is not used
    const content = await closed(opened);
    found.push(content.messages.some(({ text }) => text === 'changed') ? 'all' : 'nothing');
    deepEqual(content, found.at(-1) === 'all' ? changed : old);
  }
  deepEqual([...new Set(found)], ['nothing', 'all']);
});

test('a change that does not fit into the storage throws DatabaseFull and is undone, and the next one works', async () => {
  const content = await filled();
  const old = await closed(await open(new Map(content)));
  for (let writes = 0; ; writes++) {
    const store = await open(new Map(content));
    let left = writes;
    before = () => {
      if (left-- === 0) throw new Error('QuotaExceededError');
    };
    const error = await changeAll(store).catch((error: unknown) => error);
    if (error) {
      equal(error instanceof DatabaseFull, true);
      deepEqual(await store.messages(ROOM, null, 5000), old.messages);
      await changeAll(store);
    }
    await store.close();
    equal((await closed(await open(stored))).messages.filter(({ text }) => text === 'changed').length, 60);
    if (!error) break;
  }
});

for (const damage of ['lost', 'no base64']) {
  test(`when a chunk is ${damage}, the entries of the outbox in the others go on with their ids`, async () => {
    const content = await filled();
    const { entries, deviceId } = await closed(await open(new Map(content)));
    const [key] = [...content].find(([, chunk]) => decoded(chunk).includes('entry-2;'))!;
    if (damage === 'lost') content.delete(key);
    else content.set(key, 'äöü');
    const store = await open(content);
    equal(store.deviceId, deviceId);
    const kept = (await closed(store)).entries;
    deepEqual(kept, entries.filter((entry) => kept.some(({ id }) => id === entry.id)));
    const texts = kept.map(({ text }) => text.slice(0, 7));
    deepEqual(['entry-0', 'entry-2', 'entry-4'].map((text) => texts.includes(text)), [true, false, true]);
    deepEqual((await closed(await open(stored))).entries, kept);
  });
}

test('a message in a conversation of 500 writes only the chunks that it changes', async () => {
  const store = await open(new Map());
  await store.applyMessages(written(500));
  const old = new Map(stored);
  await store.enterMessage(ROOM, 'Hello', [], 1);
  const changed = [...stored.keys()].filter((key) => stored.get(key) !== old.get(key));
  equal(chunks() > 12, true);
  equal(changed.length <= 6, true);
  await store.close();
});

test('what is deleted is not in the storage any more', async () => {
  const store = await open(await filled());
  await store.wipe();
  await store.close();
  equal([...stored.values()].some((chunk) => /entry-|long conversation/.test(decoded(chunk))), false);
});

test('a key of the app that begins with the name of the database stays', async () => {
  stored.set('chat/theme', 'dark');
  await open(stored).then((store) => store.close());
  equal(stored.get('chat/theme'), 'dark');
  stored.delete('chat/theme');
});

test('a lost chunk that has only the end of a text is damage', async () => {
  await open(new Map()).then((store) => store.close());
  let database = await openStored('long');
  await database.execAsync('create table long (text)');
  await database.runAsync('insert into long values (?)', ['x'.repeat(7 * 4092 + 490)]); // fills pages 2 to 9
  await database.closeAsync();
  deepEqual([...stored.keys()].filter((key) => key.startsWith('long/')).length, 4);
  stored.delete(`long/${stored.get('long/')!.split(',').at(-1)}`);
  database = await openStored('long');
  match(JSON.stringify(await database.getAllAsync('pragma quick_check(1)', [])), /invalid page number/);
  await database.closeAsync();
});

test('the database has no write-ahead log, which would need random numbers and would not be stored', async () => {
  stored = new Map();
  const database = await openStored('chat');
  await database.execAsync('create table one (a)');
  await database.execAsync('pragma journal_mode = wal');
  deepEqual([...stored.keys()], ['chat/1', 'chat/']);
  deepEqual(decoded(stored.get('chat/1')!).slice(18, 20), '\x01\x01'); // of a file with such a log: 2
  await database.closeAsync();
});

test('in a browser, a database that another window has open throws DatabaseInUse', async () => {
  await navigator.locks.request('chat/', { ifAvailable: true }, () => rejects(open(new Map()), DatabaseInUse));
  await closed(await open(new Map()));
});

for (const engine of ['a browser', 'React Native']) {
  test(`in ${engine}, a database is open once`, async () => {
    if (engine === 'React Native') Object.defineProperty(navigator, 'locks', { value: undefined });
    const store = await open(await filled());
    await rejects(open(stored), DatabaseInUse);
    await store.close();
    await rejects(store.put('cursor', 'x'), DatabaseError);
    await closed(await open(stored));
  });
}
