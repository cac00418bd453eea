// The part of node:sqlite that sqlite.ts uses.

declare module 'node:sqlite' {
  export class DatabaseSync {
    constructor(file: string);
    exec(statements: string): void;
    prepare(statement: string): {
      run(...values: (string | number | null)[]): { changes: number | bigint };
      all(...values: (string | number | null)[]): Record<string, unknown>[];
    };
    close(): void;
  }
}
