// A phone with this client, for tests in other languages. It reads commands and writes answers and events, one JSON
// value a line:
//
//   {"id": 1, "call": "send", "values": ["<conversation>", "Hello"]}  →  {"id": 1, "value": {…}}
//                                                                     or {"id": 1, "error": {"name", "code", "message"}}
//   {"event": {"type": "messageChanged", …}}
//
// The first command is open, with {supabaseUrl, publishableKey, apiUrl, database, timing}. `database`: a file; that of
// the session is beside it. The others are the methods of ChatClient. The end of the input closes the client.

import { readFileSync, writeFileSync } from 'node:fs';
import { createInterface } from 'node:readline';

import { createClient } from '@supabase/supabase-js';

import { ChatClient, Rejected, type Timing } from '../src/index.ts';
import { openDatabase } from './sqlite.ts';

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
  timing: Partial<Timing>;
}

let client: ChatClient | null = null;

async function open({ database, ...options }: Options): Promise<object> {
  const { auth } = createClient(options.supabaseUrl, options.publishableKey, {
    auth: { storage: fileStorage(`${database}.session`), detectSessionInUrl: false },
  });
  client = await ChatClient.open({
    ...options,
    auth,
    database: openDatabase(database),
    log: (line) => process.stderr.write(`${line}\n`),
  });
  client.subscribe((event) => write({ event }));
  return { userId: client.userId, signedIn: client.signedIn, deviceId: client.deviceId };
}

async function answer({ id, call, values }: Command): Promise<void> {
  try {
    const value = call === 'open' ? await open(values[0] as Options) : await methodOf(call)(...values);
    write({ id, value: value ?? null });
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    write({ id, error: { name: error.name, message: error.message, code: error instanceof Rejected ? error.code : null } });
  }
}

function methodOf(name: string): (...values: unknown[]) => unknown {
  const method = client?.[name as keyof ChatClient] as unknown;
  if (typeof method !== 'function') throw new TypeError(`an open ChatClient has no method ${name}`);
  return method.bind(client) as (...values: unknown[]) => unknown;
}

function fileStorage(file: string) {
  const stored = new Map<string, string>(JSON.parse(read(file)) as [string, string][]);
  const save = () => writeFileSync(file, JSON.stringify([...stored]));
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
  process.stdout.write(`${JSON.stringify(value)}\n`);
}

const lines = createInterface({ input: process.stdin });
lines.on('line', (line) => void answer(JSON.parse(line) as Command));
lines.on('close', () => void client?.close().then(() => process.exit(0)));
