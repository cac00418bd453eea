// A web server for the exported app.

import { existsSync, readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { extname, join, normalize } from 'node:path';

const TYPES: Readonly<Record<string, string>> = {
  '.html': 'text/html',
  '.js': 'text/javascript',
  '.png': 'image/png',
  '.wasm': 'application/wasm',
};

/**
 * Serves a folder on this machine. A path that is no file is a screen of the app.
 *
 * `values` replace their names in scripts: one bundle is for any project, so that Metro's cache stays valid.
 */
export async function serve(
  folder: string,
  values: Readonly<Record<string, string>>,
): Promise<{ readonly url: string; readonly close: () => void }> {
  const server = createServer((request, response) => {
    const path = normalize(new URL(request.url ?? '/', 'http://localhost').pathname);
    const isFile = extname(path) !== '' && existsSync(join(folder, path));
    const file = join(folder, isFile ? path : 'index.html');
    response.writeHead(200, {
      'Content-Type': TYPES[extname(file)] ?? 'application/octet-stream',
      // expo-sqlite needs a SharedArrayBuffer, which browsers give only to isolated pages.
      'Cross-Origin-Opener-Policy': 'same-origin',
      'Cross-Origin-Embedder-Policy': 'credentialless',
    });
    const content = readFileSync(file);
    response.end(extname(file) === '.js' ? replaced(content.toString(), values) : content);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  return { url: `http://127.0.0.1:${port}`, close: () => server.close() };
}

function replaced(script: string, values: Readonly<Record<string, string>>): string {
  return Object.entries(values).reduce((text, [name, value]) => text.replaceAll(name, value), script);
}
