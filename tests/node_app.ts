// Lets a test use an app in Node.js: a command is a line of stdin, a JSON array [name, ...values]; its answer a line of stdout.

/** Runs commands until stdin ends, and then ends the process. `codeOf`: what tells an error from others of its class. */
export async function serve(
  commands: Record<string, (...values: any[]) => unknown>,
  codeOf: (error: Error) => string | null,
): Promise<never> {
  process.stdin.setEncoding('utf8');
  let rest = '';
  for await (const chunk of process.stdin) {
    const lines = (rest + chunk).split('\n');
    rest = lines.pop() ?? '';
    for (const line of lines) {
      const [name, ...values] = JSON.parse(line);
      try {
        process.stdout.write(`${JSON.stringify({ value: (await commands[name]?.(...values)) ?? null })}\n`);
      } catch (error) {
        const { name: type, message } = error as Error;
        process.stdout.write(`${JSON.stringify({ error: { name: type ?? 'Error', code: codeOf(error as Error), message } })}\n`);
      }
    }
  }
  process.exit(0);
}
