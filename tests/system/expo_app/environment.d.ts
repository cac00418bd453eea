// The globals that Expo and Node declare.

declare const process: {
  env: Record<string, string | undefined>;
  stdout: { write(text: string): void };
  stdin: AsyncIterable<string> & { setEncoding(encoding: 'utf8'): void };
  exit(code: number): never;
};

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
