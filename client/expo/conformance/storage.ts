// AsyncStorage in a folder, with a file for each key. For tests: apps have the real one.

import { mkdirSync, readFileSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';

import initSqlJs from 'sql.js/dist/sql-asm.js';

import { inAsyncStorage, type AsyncStorage } from '../src/async-storage.ts';
import type { Database } from '../src/index.ts';

/** Opens or creates a database in a folder. */
export function openInFolder(folder: string): Promise<Database> {
  mkdirSync(folder, { recursive: true });
  const file = (key: string) => `${folder}/${encodeURIComponent(key)}`;
  const storage: AsyncStorage = {
    getItem: async (key) => (readdirSync(folder).includes(encodeURIComponent(key)) ? readFileSync(file(key), 'utf8') : null),
    setItem: async (key, value) => {
      writeFileSync(`${folder}.new`, value); // a kill must not leave half a file
      renameSync(`${folder}.new`, file(key));
    },
    removeItem: async (key) => rmSync(file(key)),
    getAllKeys: async () => readdirSync(folder).map(decodeURIComponent),
  };
  return inAsyncStorage(storage, initSqlJs)('chat');
}
