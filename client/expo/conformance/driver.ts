// A phone with this client, for the scenarios of client/conformance, which describes the protocol.

import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { createInterface } from 'node:readline';

import { createClient } from '@supabase/supabase-js';

import { ChatClient, Rejected, type Timing } from '../src/index.ts';
import { openDatabase } from './sqlite.ts';
import { openInFolder } from './storage.ts';

interface Command {
  id: number;
  call: string;
  values: unknown[];
}

interface Options {
  supabaseUrl: string;
  publishableKey: string;
  apiUrl: string;
  database: string;
  attempts: number;
  timing: Partial<Timing>;
}

let client: ChatClient | null = null;
let close: () => Promise<void> = async () => undefined;

async function open({ database, ...options }: Options): Promise<void> {
  // `auth` keeps its session beside the database.
  const { auth } = createClient(options.supabaseUrl, options.publishableKey, {
    auth: { storage: fileStorage(`${database}.session`), detectSessionInUrl: false },
  });
  const opened = await ChatClient.open({
    ...options,
    auth,
    database: process.argv[2] === 'async-storage' ? await openInFolder(`${database}.stored`) : openDatabase(database),
    log: (line) => process.stderr.write(`${line}\n`),
  });
  client = opened;
  close = async () => {
    await auth.stopAutoRefresh();
    await opened.close();
  };
  opened.subscribe((event) => write({ event: { ...event, type: event.type.replace(/[A-Z]/g, toSnake) } }));
}

async function answer({ id, call, values }: Command): Promise<void> {
  try {
    write({ id, value: (await run(call, values)) ?? null });
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    write({ id, error: { name: error.name, message: error.message, code: error instanceof Rejected ? error.code : null } });
  }
}

async function run(call: string, values: unknown[]): Promise<unknown> {
  if (call === 'open') return open(renamed(values[0], toCamel) as Options);
  if (call === 'close') return close();
  const name = call.replace(/_[a-z]/g, toCamel);
  const part = [client, client?.choices].find((each) => each && name in each) as Record<string, unknown> | undefined;
  const method = part?.[name];
  if (typeof method !== 'function') throw new TypeError(`an open ChatClient has no method ${call}`);
  return method.apply(part, values.map(parsed)) as unknown;
}

/** The value as the client takes it: times are Dates, and fields have its names. */
function parsed(value: unknown): unknown {
  if (typeof value === 'string') return /^\d{4}-\d\d-\d\dT[\d:.]+(Z|\+00:00)$/.test(value) ? new Date(value) : value;
  if (Array.isArray(value)) return value.map(parsed);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([name, each]) => [name.replace(/_[a-z]/g, toCamel), parsed(each)]),
  );
}

function toSnake(capital: string): string {
  return `_${capital.toLowerCase()}`;
}

function toCamel(separated: string): string {
  return separated.slice(1).toUpperCase();
}

/** The value with other names of all fields. */
function renamed(value: unknown, rename: typeof toSnake): unknown {
  if (Array.isArray(value)) return value.map((each) => renamed(each, rename));
  if (typeof value !== 'object' || value === null || value instanceof Date) return value;
  const separator = rename === toSnake ? /[A-Z]/g : /_[a-z]/g;
  return Object.fromEntries(
    Object.entries(value).map(([name, each]) => [name.replace(separator, rename), renamed(each, rename)]),
  );
}

function fileStorage(file: string) {
  const stored = new Map<string, string>(JSON.parse(read(file)) as [string, string][]);
  const save = () => {
    writeFileSync(`${file}.new`, JSON.stringify([...stored])); // a kill must not leave half a file
    renameSync(`${file}.new`, file);
  };
  return {
    getItem: (key: string) => stored.get(key) ?? null,
    setItem: (key: string, value: string) => {
      stored.set(key, value);
      save();
    },
    removeItem: (key: string) => {
      stored.delete(key);
      save();
    },
  };
}

function read(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return '[]'; // the first start
  }
}

function write(value: object): void {
  process.stdout.write(`${JSON.stringify(renamed(value, toSnake))}\n`);
}

const lines = createInterface({ input: process.stdin });
lines.on('line', (line) => void answer(JSON.parse(line) as Command));
lines.on('close', () => void close().then(() => process.exit(0)));
write({ started: process.pid });
