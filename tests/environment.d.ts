// The globals that Expo and Node declare.

declare const process: {
  env: Record<string, string | undefined>;
  stdout: { write(text: string): void };
  stdin: AsyncIterable<string> & { setEncoding(encoding: 'utf8'): void };
  exit(code: number): never;
};
