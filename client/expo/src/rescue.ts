// Opens the local database. If its file is damaged, the account and the outbox go on in another file.

import { Connection, type Database, type Value } from './database.ts';
import { DatabaseCorrupt } from './errors.ts';
import type { Row } from './models.ts';
import { logOf } from './parts.ts';

/**
 * Opens the database `name`, such as `openDatabase(SQLite.openDatabaseAsync, 'chat.db')`.
 *
 * A damaged file stays as it is, for support. The account and the entries of the outbox that can be read are copied to
 * the file chat-1.db, which is used from then on; if that one is damaged as well, to chat-2.db. The messages come again
 * from the server. `log` gets a line about it; console.warn if not set.
 *
 * Throws DatabaseInUse if a client has the database open, and DatabaseError.
 */
export async function openDatabase(
  open: (name: string) => Promise<Database>,
  name: string,
  log?: (text: string) => void,
): Promise<Database> {
  const opened: File[] = [];
  const file = async (number: number) => {
    const named = number ? name.replace(/(\.\w+)?$/, (extension) => `-${number}${extension}`) : name;
    const database = await open(named);
    const next = { name: named, database, sql: new Connection(database) };
    opened.push(next);
    await next.sql.lock();
    return next;
  };
  let used: File | undefined;
  try {
    let last = await file(0);
    // The last file that is in use counts: an earlier one may be deleted, or be readable again.
    for (let number = 1; number < 100; number++) {
      const next = await file(number);
      if (await isNew(next.sql)) {
        used = (await isHealthy(last.sql)) ? last : await rescue(last, next, logOf(log));
        return used.database;
      }
      last = next;
    }
    throw new DatabaseCorrupt(`all files from ${name} to ${last.name} are damaged`);
  } finally {
    for (const each of opened) if (each !== used) await each.sql.close().catch(() => undefined);
  }
}

interface File {
  readonly name: string;
  readonly database: Database;
  readonly sql: Connection;
}

/** Whether no rescue into this file was completed. One that was killed has left at most empty tables. */
async function isNew(sql: Connection): Promise<boolean> {
  return sql.reading(async () => {
    if (!(await sql.one("select 1 from sqlite_schema where name = 'meta'"))) return true;
    return !(await sql.one("select 1 from meta where key = 'rescued_from'"));
  }).catch(ifDamaged(false));
}

async function isHealthy(sql: Connection): Promise<boolean> {
  return sql.reading(async () => (await sql.one('pragma quick_check(1)'))?.['quick_check'] === 'ok').catch(ifDamaged(false));
}

/** Copies what can be read, in one transaction. Returns `to`. */
async function rescue(from: File, to: File, log: (text: string) => void): Promise<File> {
  // Without the cursor: the messages are gone, so this is a new phone.
  const meta: (Row | undefined)[] = [{ key: 'rescued_from', value: from.name }];
  for (const key of ['user_id', 'device_id']) meta.push(await readable(from.sql, 'select * from meta where key = ?', key));
  const entries = await readableEntries(from.sql);
  await to.sql.prepare();
  await to.sql.transaction(async () => {
    for (const row of meta) if (row) await insert(to.sql, 'meta', row);
    for (const row of entries) await insert(to.sql, 'outbox', row);
  });
  log(`the local database was damaged: ${from.name} is left as it is, and ${entries.length} entries of its outbox go on in ${to.name}`);
  return to;
}

/** The entries of the outbox from the first one up to the damage, and from the last one back to it. */
async function readableEntries(sql: Connection): Promise<Row[]> {
  const entries = new Map<unknown, Row>();
  for (const [beyond, start] of [['> ? order by seq', 0], ['< ? order by seq desc', Number.MAX_SAFE_INTEGER]] as const) {
    const query = `select * from outbox where seq ${beyond} limit 1`;
    let row = await readable(sql, query, start);
    // Rows of a damaged file may be in a wrong order: each is read once.
    while (row && !entries.has(row['seq'])) {
      entries.set(row['seq'], row);
      row = await readable(sql, query, Number(row['seq']));
    }
  }
  return [...entries.values()];
}

/** The first row of a query; undefined if there is none, or if it cannot be read. */
async function readable(sql: Connection, query: string, ...values: Value[]): Promise<Row | undefined> {
  return sql.reading(() => sql.one(query, ...values)).catch(ifDamaged(undefined));
}

/** `or ignore`: an entry whose content is damaged as well, such as one without an id, is no entry. */
async function insert(sql: Connection, table: string, row: Row): Promise<void> {
  const columns = Object.keys(row);
  const values = Object.values(row) as Value[];
  await sql.run(`insert or ignore into ${table} (${columns.join()}) values (${columns.map(() => '?').join()})`, ...values);
}

function ifDamaged<T>(result: T): (error: unknown) => T {
  return (error) => {
    if (error instanceof DatabaseCorrupt) return result;
    throw error;
  };
}
