// The part of Node.js that the tests and the driver use. Its own types would also be in scope of the package, where
// they hide what React Native does not have.

declare const process: {
  argv: string[];
  pid: number;
  stdin: object;
  stdout: { write(text: string): void };
  stderr: { write(text: string): void };
  exit(code: number): never;
  env: Record<'EXPO_PUBLIC_SUPABASE_URL' | 'EXPO_PUBLIC_SUPABASE_PUBLISHABLE_KEY' | 'EXPO_PUBLIC_CHAT_PUSH_URL', string | undefined>;
};

declare module 'node:fs' {
  export function cpSync(from: string, to: string, options: { recursive: true }): void;
  export function mkdirSync(path: string, options: { recursive: true }): void;
  export function mkdtempSync(prefix: string): string;
  export function readFileSync(file: string, encoding: 'utf8' | 'latin1'): string;
  export function readdirSync(path: string): string[];
  export function renameSync(from: string, to: string): void;
  export function rmSync(file: string): void;
  export function writeFileSync(file: string, content: string, encoding?: 'latin1'): void;
}

declare module 'node:os' {
  export function tmpdir(): string;
}

declare module 'node:readline' {
  export function createInterface(options: { input: object }): {
    on(event: 'line', listener: (line: string) => void): void;
    on(event: 'close', listener: () => void): void;
  };
}

declare module 'node:test' {
  export function test(name: string, work: () => Promise<void> | void): void;
  export const mock: {
    timers: { enable(options: { apis: string[] }): void; tick(milliseconds: number): void; reset(): void };
  };
}

declare module 'node:assert/strict' {
  export function deepEqual(actual: unknown, expected: unknown): void;
  export function notEqual(actual: unknown, expected: unknown): void;
  export function equal(actual: unknown, expected: unknown): void;
  export function match(text: string, pattern: RegExp): void;
  type Expected = (abstract new (...values: never[]) => Error) | ((error: Error) => boolean);
  export function rejects(promise: Promise<unknown>, expected: Expected): Promise<void>;
  export function throws(work: () => unknown, expected: Expected): void;
}
