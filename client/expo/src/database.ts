// The local database: its interface, its schema, and what its errors mean.

import { DatabaseCorrupt, DatabaseError, DatabaseFull, DatabaseInUse } from './errors.ts';
import type { Row } from './models.ts';
import { Turns } from './waiting.ts';

export type Value = string | number | null;

/** An open SQLite database. That of expo-sqlite (SQLiteDatabase) is one as it is. */
export interface Database {
  execAsync(statements: string): Promise<unknown>;
  runAsync(statement: string, values: Value[]): Promise<{ changes: number }>;
  getAllAsync(query: string, values: Value[]): Promise<unknown[]>;
  closeAsync(): Promise<unknown>;
}

// Times are microseconds since 1970 by the server's clock; those of outbox are seconds by the phone's.
// messages and conversations are what the server has; outbox and read_up_to are laid over them when they are read.
//
// meta: user_id, cursor, device_id, rescued_from: the damaged file whose outbox this one got.
// conversations: unread counts the messages up to last_message_at, 0 if there are none; read_up_to is what this person has read here,
// which the server may not know yet.
// outbox: at most one entry for each message, so a later edit replaces an earlier one; edited: changed since an attempt, which may
// have stored the older text.
// delivered_marks, read_marks: what the server does not have yet.
//
// The comments are not in the SQL, because apps would load them.
const SCHEMA = `
create table if not exists meta (
  key text primary key,
  value text not null
) without rowid;

create table if not exists people (
  id text primary key,
  display_name text,
  avatar_url text,
  role text
) without rowid;

create table if not exists conversations (
  id text primary key,
  partner_id text not null,
  last_message text,
  last_message_at integer not null,
  unread integer not null,
  archived integer not null,
  is_request integer not null,
  updated_at integer not null,
  read_up_to integer not null default 0
) without rowid;

create table if not exists messages (
  id text primary key,
  conversation_id text not null,
  sender_id text not null,
  text text not null,
  attachments text not null,
  message_type text not null,
  client_msg_id text,
  server_timestamp integer not null,
  changed_at integer not null,
  edited_at integer,
  deleted_at integer,
  delivered_at integer,
  read_at integer,
  is_read integer not null
) without rowid;
create index if not exists messages_by_time on messages (conversation_id, server_timestamp, id);
create index if not exists messages_by_client_msg_id on messages (client_msg_id);

create table if not exists outbox (
  seq integer primary key autoincrement,
  id text not null unique,
  conversation_id text not null,
  kind text not null,
  text text not null default '',
  attachments text not null default '[]',
  created_at real not null,
  attempts integer not null default 0,
  tried_at real not null default 0,
  next_try real not null default 0,
  edited integer not null default 0,
  state text not null default 'pending',
  error text
);

create table if not exists delivered_marks (message_id text primary key) without rowid;
create table if not exists read_marks (
  conversation_id text primary key,
  message_id text not null,
  server_timestamp integer not null
) without rowid;
`;

/** Statements on a database, one after the other, and transactions that nothing comes between. */
export class Connection {
  readonly #database: Database;
  readonly #turns = new Turns();

  constructor(database: Database) {
    this.#database = database;
  }

  /** Keeps others away from the file from the first statement on. */
  async lock(): Promise<void> {
    // Whoever opens the file first keeps it until it is closed: two clients would send everything twice.
    // In a browser, which has no shared memory for SQLite, a file with a write-ahead log cannot be read otherwise.
    await translating(() => this.#database.execAsync('pragma busy_timeout = 0; pragma locking_mode = exclusive;'));
  }

  /** Creates the tables. Throws DatabaseInUse, DatabaseCorrupt and DatabaseFull. */
  async prepare(): Promise<void> {
    await this.lock();
    await translating(() =>
      this.#database.execAsync(
        // A message that the person saw as pending is on the disk, even if the power fails.
        `pragma journal_mode = wal; pragma synchronous = full; pragma secure_delete = on; begin immediate; ${SCHEMA} commit;`,
      ),
    );
  }

  async close(): Promise<void> {
    await this.reading(() => this.#database.closeAsync());
  }

  /** Runs `work` when all before it has ended, in a transaction. */
  transaction<T>(work: () => Promise<T>): Promise<T> {
    return this.reading(async () => {
      await this.#database.execAsync('begin immediate');
      try {
        const result = await work();
        await this.#database.execAsync('commit');
        return result;
      } catch (error) {
        // SQLite itself has rolled back when the disk is full: then there is nothing to roll back.
        await this.#database.execAsync('rollback').catch(() => undefined);
        throw error;
      }
    });
  }

  /** Runs `work`, which only reads, when all before it has ended. */
  reading<T>(work: () => Promise<T>): Promise<T> {
    return this.#turns.take(() => translating(work));
  }

  /** Within `transaction`: executes a statement. Returns how many rows it has changed. */
  async run(statement: string, ...values: Value[]): Promise<number> {
    return (await this.#database.runAsync(statement, values)).changes;
  }

  /** Within `transaction` or `reading`: the rows of a query. */
  async all(query: string, ...values: Value[]): Promise<Row[]> {
    return (await this.#database.getAllAsync(query, values)) as Row[];
  }

  /** As `all`, its first row. */
  async one(query: string, ...values: Value[]): Promise<Row | undefined> {
    return (await this.all(query, ...values))[0];
  }
}

async function translating<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    const code = codeOf(error);
    if (code === null) throw error;
    const options = { cause: error };
    if (code === 5 || code === 6) throw new DatabaseInUse('another client has opened the local database', options);
    if (code === 13) throw new DatabaseFull('the local database cannot grow: the disk is full', options);
    if (code === 11 || code === 26) throw new DatabaseCorrupt('the local database is damaged', options);
    throw new DatabaseError(`the local database failed (SQLite error ${code})`, options);
  }
}

/** What SQLite says. execAsync of expo-sqlite tells nothing else; on Android its other methods have the code as a character. */
const TEXTS = [
  [/database (table |schema )?is locked/, 5],
  [/database disk image is malformed|malformed database schema/, 11],
  [/database or disk is full/, 13],
  [/file is not a database/, 26],
] as const;

/** The primary result code of SQLite: node:sqlite has a field for it. */
function codeOf(error: unknown): number | null {
  if (!(error instanceof Error)) return null;
  const { errcode } = error as { errcode?: unknown };
  if (typeof errcode === 'number') return errcode & 0xff;
  const known = TEXTS.find(([text]) => text.test(error.message));
  if (known) return known[1];
  const named = /error code:? (\d+|.)/is.exec(error.message)?.[1];
  if (named === undefined) return null;
  return (/\d/.test(named) ? Number(named) : named.charCodeAt(0)) & 0xff;
}
