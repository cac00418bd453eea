// The globals that Expo and Node declare, and the part of node:test that main.ts uses.

declare const process: {
  env: Record<string, string | undefined>;
  stdout: { write(text: string): void };
  stdin: AsyncIterable<string> & { setEncoding(encoding: 'utf8'): void };
  exit(code: number): never;
};

declare module 'node:test' {
  export const mock: { timers: { enable(options: { apis: string[] }): void; tick(milliseconds: number): void } };
}
