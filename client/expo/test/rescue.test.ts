import { deepEqual, equal, rejects } from 'node:assert/strict';
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { test } from 'node:test';

import { openDatabase as openFile } from '../conformance/sqlite.ts';
import { DatabaseCorrupt, DatabaseError, DatabaseFull, DatabaseInUse, openDatabase, type Database } from '../src/index.ts';
import type { Entry } from '../src/models.ts';
import { Store } from '../src/store.ts';
import { ME, ROOM, message } from './phone.ts';

const PAGE = 4096;
const STORED = 'a text of a message';
const TEXT = 'x'.repeat(3000); // one entry of the outbox fills a page

function newFolder(): string {
  return mkdtempSync(`${tmpdir()}/chat-`);
}

/** A file name in a new folder. */
function newFile(): string {
  return `${newFolder()}/chat.db`;
}

/** Opens the store of an app. `log` gets what is logged. */
async function open(file: string, log: string[] = []): Promise<Store> {
  return storeOn(await openDatabase(openLater, file, (text) => void log.push(text)));
}

function storeOn(database: Database): Promise<Store> {
  const silent = () => undefined;
  return Store.open({ database, emit: silent, log: silent, random: (bytes) => crypto.getRandomValues(bytes) });
}

/** An account with a cursor, stored messages, and this many entries in the outbox. Returns what has to survive. */
async function fill(file: string, entries: number) {
  const store = await open(file);
  await store.put('user_id', ME);
  await store.applyMessages([message({ text: STORED })], '2026-01-01T00:00:00Z');
  for (let n = 0; n < entries; n++) await store.enterMessage(ROOM, `entry-${n};${TEXT}`, [], n);
  return closed(store);
}

async function closed(store: Store) {
  const kept = { me: store.me, deviceId: store.deviceId, entries: await store.entries() };
  await store.close();
  return kept;
}

/** Overwrites the page of the file that has this text. */
function damage(file: string, text: string): void {
  const content = readFileSync(file, 'latin1');
  const start = content.indexOf(text) - (content.indexOf(text) % PAGE);
  writeFileSync(file, content.slice(0, start) + '\xff'.repeat(PAGE) + content.slice(start + PAGE), 'latin1');
}

/** The server has this entry of the outbox, so it leaves the outbox. */
async function arrive(store: Store, entry: Entry | undefined): Promise<void> {
  const id = entry?.id ?? '';
  await store.applyMessages([message({ id: `message-${id}`, senderId: ME, clientMsgId: id })]);
}

/** As that of expo-sqlite, which returns a promise. */
function openLater(name: string): Promise<Database> {
  return Promise.resolve(openFile(name));
}

const second = (file: string) => file.replace('chat.db', 'chat-1.db');
const third = (file: string) => file.replace('chat.db', 'chat-2.db');

test('a healthy database is opened, and nothing is logged', async () => {
  const file = newFile();
  const before = await fill(file, 2);
  const log: string[] = [];
  deepEqual(await closed(await open(file, log)), before);
  deepEqual(log, []);
});

test('a file that is no database stays as it is, and an empty database is used from then on', async () => {
  const file = newFile();
  const garbage = 'not a database'.repeat(1000);
  writeFileSync(file, garbage, 'latin1');
  const log: string[] = [];
  const { deviceId } = await closed(await open(file, log));
  deepEqual(log, [`the local database was damaged: ${file} is left as it is, and 0 entries of its outbox go on in ${second(file)}`]);
  equal(readFileSync(file, 'latin1'), garbage);
  equal((await closed(await open(file))).deviceId, deviceId);
});

test('when messages are damaged, account, device and outbox go on, and all messages are loaded again', async () => {
  const file = newFile();
  const before = await fill(file, 3);
  damage(file, STORED);
  const store = await open(file);
  equal(await store.get('cursor'), null);
  deepEqual(await closed(store), before);
});

test('a log of the app that throws stops no rescue', async () => {
  const file = newFile();
  const before = await fill(file, 1);
  damage(file, STORED);
  const database = await openDatabase(openLater, file, () => {
    throw new Error('the log is full');
  });
  deepEqual(await closed(await storeOn(database)), before);
});

test('when a page of the outbox is damaged, the entries before and after it go on with their ids', async () => {
  const file = newFile();
  const before = await fill(file, 9);
  damage(file, 'entry-4;');
  const log: string[] = [];
  const after = await closed(await open(file, log));
  deepEqual(after, { ...before, entries: before.entries.filter(({ text }) => !text.startsWith('entry-4;')) });
  equal(after.entries.length, 8);
  equal(log.length, 1);
});

for (const when of ['before', 'after'] as const) {
  test(`an app that is killed ${when} a rescue is committed loses nothing and repeats nothing`, async () => {
    const file = newFile();
    const before = await fill(file, 3);
    damage(file, STORED);
    const folder = newFolder();
    // What a kill leaves: the files as they are at that moment.
    const kill = () => cpSync(file.replace('/chat.db', ''), folder, { recursive: true });
    const killed = (name: string): Promise<Database> => {
      const database = openFile(name);
      const execAsync = async (statements: string) => {
        if (statements === 'commit' && when === 'before') kill();
        await database.execAsync(statements);
        if (statements === 'commit' && when === 'after') kill();
      };
      return Promise.resolve({ ...database, execAsync });
    };
    await (await openDatabase(killed, file, () => undefined)).closeAsync();

    const left = `${folder}/chat.db`;
    const log: string[] = [];
    const store = await open(left, log);
    equal(log.length, when === 'before' ? 1 : 0);
    deepEqual(await store.entries(), before.entries);
    await arrive(store, before.entries[0]);
    const after = { ...before, entries: before.entries.slice(1) };
    deepEqual(await closed(store), after);
    deepEqual(await closed(await open(left)), after);
    equal(readFileSync(third(left), 'latin1'), '');
  });
}

test('a rescued outbox does not come again when the damaged file is readable again, or deleted', async () => {
  const file = newFile();
  await fill(file, 2);
  const healthy = readFileSync(file, 'latin1');
  damage(file, STORED);
  const store = await open(file);
  for (const entry of await store.entries()) await arrive(store, entry);
  const after = await closed(store);
  writeFileSync(file, healthy, 'latin1');
  deepEqual(await closed(await open(file)), after);
  rmSync(file);
  deepEqual(await closed(await open(file)), after);
});

test('a rescued outbox does not come again after a sign-out', async () => {
  const file = newFile();
  const { deviceId } = await fill(file, 2);
  damage(file, STORED);
  const store = await open(file);
  await store.wipe();
  await store.close();
  deepEqual(await closed(await open(file)), { me: null, deviceId, entries: [] });
});

test('when the second file is damaged as well, its outbox goes on in a third one, and not that of the first', async () => {
  const file = newFile();
  const { entries } = await fill(file, 3);
  damage(file, STORED);
  const store = await open(file);
  await arrive(store, entries[0]);
  await store.applyMessages([message({ text: STORED })]);
  const before = await closed(store);
  damage(second(file), STORED);
  deepEqual(await closed(await open(file)), before);
  writeFileSync(third(file), 'not a database'.repeat(1000), 'latin1');
  deepEqual((await closed(await open(file))).entries, []);
});

test('a database that is damaged while it is open throws DatabaseCorrupt, and its outbox goes on when it is opened again', async () => {
  const file = newFile();
  const before = await fill(file, 2);
  const database = await openDatabase(openLater, file);
  const store = await storeOn(database);
  damage(file, STORED);
  await database.execAsync('pragma shrink_memory'); // SQLite reads the file again
  await rejects(store.messages(ROOM, null, 10), DatabaseCorrupt);
  await store.close();
  deepEqual(await closed(await open(file)), before);
});

test('nobody rescues a database that a client has open', async () => {
  const file = newFile();
  await fill(file, 2);
  const store = await open(file);
  damage(file, STORED);
  await rejects(open(file), DatabaseInUse);
  await store.close();
  equal((await closed(await open(file))).entries.length, 2);
});

test('of two that rescue a database at once, one is refused', async () => {
  const file = newFile();
  const before = await fill(file, 2);
  damage(file, STORED);
  const slow = (name: string): Promise<Database> => {
    const database = openFile(name);
    const getAllAsync: Database['getAllAsync'] = async (query, values) => {
      const rows = await database.getAllAsync(query, values);
      // The first one has seen that the next file is new. Now the second one comes.
      if (query.includes('sqlite_schema')) await rejects(open(file), DatabaseInUse);
      return rows;
    };
    return Promise.resolve({ ...database, getAllAsync });
  };
  deepEqual(await closed(await storeOn(await openDatabase(slow, file, () => undefined))), before);
});

test('what expo-sqlite says of an error means the same as the code of SQLite', async () => {
  const failing = (message: string): Database => ({
    ...openFile(':memory:'),
    execAsync: () => Promise.reject(new Error(message)),
  });
  await rejects(storeOn(failing('database is locked')), DatabaseInUse); // execAsync
  await rejects(storeOn(failing('Error code 13: database or disk is full')), DatabaseFull); // iOS, web
  await rejects(storeOn(failing('Error code \u000b: database disk image is malformed')), DatabaseCorrupt); // Android
  await rejects(storeOn(failing('file is not a database')), DatabaseCorrupt);
  await rejects(storeOn(failing('Error code \n: disk I/O error')), DatabaseError);
});
