// SQLite of Node.js, as expo-sqlite has it. For tests: apps use expo-sqlite.

import { DatabaseSync } from 'node:sqlite';

import type { Database, Value } from '../src/index.ts';

/** Opens or creates a database file; ':memory:' is one without a file. */
export function openDatabase(file: string): Database {
  const sqlite = new DatabaseSync(file);
  return {
    execAsync: async (statements: string) => sqlite.exec(statements),
    runAsync: async (statement: string, values: Value[]) => ({
      changes: Number(sqlite.prepare(statement).run(...values).changes),
    }),
    getAllAsync: async (query: string, values: Value[]) => sqlite.prepare(query).all(...values),
    closeAsync: async () => sqlite.close(),
  };
}
