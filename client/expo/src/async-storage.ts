// The local database of an app without a native SQLite: SQLite in JavaScript (sql.js), with AsyncStorage as its disk.

import type { Database, Value } from './database.ts';
import { DatabaseInUse } from './errors.ts';
import { Turns } from './waiting.ts';

/** The part of AsyncStorage that is used. Versions 2 and 3 have it. */
export interface AsyncStorage {
  getItem(key: string): Promise<string | null>;
  setItem(key: string, value: string): Promise<void>;
  removeItem(key: string): Promise<void>;
  getAllKeys(): Promise<readonly string[]>;
}

/** The part of sql.js that is used. */
export interface SqlJs {
  readonly Database: new (file: Uint8Array) => SqlJsDatabase;
}

/** A database of sql.js. */
export interface SqlJsDatabase {
  run(statements: string, values?: Value[]): SqlJsDatabase;
  each(query: string, values: Value[], callback: (row: object) => void, done: () => void): unknown;
  getRowsModified(): number;
  export(): Uint8Array;
  close(): void;
}

// Bytes, 4 pages of SQLite. Smaller chunks cost less with each commit, and more when the database is opened.
const CHUNK = 16384;

/**
 * What opens a database, for `openDatabase`: `openDatabase(inAsyncStorage(AsyncStorage, initSqlJs), 'chat')`. The keys of
 * this database begin with its name and a slash.
 *
 * A change that AsyncStorage does not store throws DatabaseFull, and is undone. A chunk that it has lost is damage. Throws
 * DatabaseInUse if the database is open, in a browser also in another window.
 */
export function inAsyncStorage(storage: AsyncStorage, initSqlJs: () => Promise<SqlJs>): (name: string) => Promise<Database> {
  return async (name) => {
    const { Database: Sqlite } = await initSqlJs();
    const prefix = `${name}/`;
    const unlock = await lock(prefix);
    const file = new StoredFile(storage, prefix);
    const turns = new Turns();
    let sqlite: SqlJsDatabase | undefined;

    const call = <T>(work: (sqlite: SqlJsDatabase) => T, changes = true) =>
      turns.take(async () => {
        let result: T;
        try {
          sqlite ??= opened(new Sqlite(await file.read()));
          result = work(sqlite);
        } catch (cause) {
          throw new Error(`error code 1: ${(cause as Error).message}`, { cause }); // as that of expo-sqlite
        }
        if (!changes || !runs(sqlite, 'begin; rollback')) return result; // within a transaction, no other one begins
        try {
          await file.write(sqlite.export());
          opened(sqlite);
        } catch (cause) {
          sqlite.close();
          sqlite = undefined; // it goes on with what is stored
          throw new Error('error code 13', { cause }); // as that of a full disk: it becomes DatabaseFull
        }
        return result;
      });
    const run = (statements: string, values?: Value[]) =>
      call((db) => ({ changes: db.run(statements, values).getRowsModified() }));

    return {
      execAsync: (statements) => run(statements.replace('= wal', '= memory')), // a log would not be exported
      runAsync: run,
      getAllAsync: (query, values) =>
        call((db) => {
          const rows: object[] = [];
          db.each(query, values, (row) => rows.push(row), () => undefined);
          return rows;
        }, false),
      closeAsync: () => call((db) => db.close(), false).finally(unlock), // each later call throws
    };
  };
}

/** Sets what SQLite forgets when it opens a file, which it does with each export. */
function opened(sqlite: SqlJsDatabase): SqlJsDatabase {
  // The journal is for rollbacks only. One in a file would need random numbers, which Hermes does not have.
  runs(sqlite, 'pragma secure_delete = on; pragma journal_mode = memory'); // not if the file is damaged: the next query says so
  return sqlite;
}

/** Whether SQLite runs the statements. */
function runs(sqlite: SqlJsDatabase, statements: string): boolean {
  try {
    sqlite.run(statements);
    return true;
  } catch {
    return false;
  }
}

/**
 * A file in chunks. A change writes the chunks that differ under new keys, then the list of all chunks, and then removes the
 * old ones. So a kill at any point leaves the file as it was before or after the change.
 */
class StoredFile {
  readonly #storage: AsyncStorage;
  readonly #prefix: string;
  /** The highest number that a chunk has had, and the number of each chunk. */
  #list: string[] = [];
  #chunks: (string | null)[] = [];

  constructor(storage: AsyncStorage, prefix: string) {
    this.#storage = storage;
    this.#prefix = prefix;
  }

  async read(): Promise<Uint8Array> {
    this.#list = ((await this.#storage.getItem(this.#prefix)) ?? '0').split(',');
    this.#chunks = await Promise.all(this.#list.slice(1).map((number) => this.#storage.getItem(this.#prefix + number)));
    await this.#tidy();
    // Where a chunk is lost or damaged, SQLite finds no page: none is valid with these bytes.
    const file = new Uint8Array(this.#chunks.length * CHUNK).fill(0xff);
    this.#chunks.forEach((chunk, index) => file.set(bytesOf(chunk), index * CHUNK));
    return file;
  }

  async write(file: Uint8Array): Promise<void> {
    let last = Number(this.#list[0]);
    const list: string[] = [];
    const chunks: string[] = [];
    for (let at = 0; at < file.length; at += CHUNK) {
      const chunk = base64(file.subarray(at, at + CHUNK));
      let number = this.#list[chunks.length + 1];
      if (number === undefined || chunk !== this.#chunks[chunks.length]) {
        number = String(++last);
        await this.#storage.setItem(this.#prefix + number, chunk);
      } else if (at === 0) return; // its first page counts the changes: there is none
      list.push(number);
      chunks.push(chunk);
    }
    if (!list.length) return; // a new file
    list.unshift(String(last));
    await this.#storage.setItem(this.#prefix, list.join());
    this.#list = list;
    this.#chunks = chunks;
    await this.#tidy().catch(() => undefined); // the next change tries it again
  }

  /** Removes the chunks that are not in the list. A key of the app may begin with the name, too. */
  async #tidy(): Promise<void> {
    for (const key of await this.#storage.getAllKeys()) {
      const number = key.slice(this.#prefix.length);
      if (key.startsWith(this.#prefix) && Number(number) && !this.#list.includes(number)) await this.#storage.removeItem(key);
    }
  }
}

function base64(bytes: Uint8Array): string {
  return btoa(String.fromCharCode.apply(null, bytes as unknown as number[])); // much faster than a spread on Hermes
}

/** The bytes of a chunk. None if it is no base64. */
function bytesOf(chunk: string | null): Uint8Array {
  try {
    return Uint8Array.from(atob(chunk ?? '-').slice(0, CHUNK), (character) => character.charCodeAt(0));
  } catch {
    return new Uint8Array();
  }
}

const inUse = new Set<string>();

/** Returns what unlocks. Throws DatabaseInUse. */
async function lock(name: string): Promise<() => void> {
  // Of a browser: they hold for all windows, and end with the one that has them.
  const { locks } = navigator as { locks?: LockManager };
  const unlock = await new Promise<(() => void) | null>((resolve, reject) => {
    if (locks) {
      const hold = (lock: Lock | null) => lock && new Promise<void>((release) => resolve(release));
      locks.request(name, { ifAvailable: true }, hold).then(() => resolve(null), reject);
    } else {
      resolve(inUse.has(name) ? null : () => void inUse.delete(name));
      inUse.add(name);
    }
  });
  if (!unlock) throw new DatabaseInUse('another client has opened the local database');
  return unlock;
}
