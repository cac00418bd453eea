// Prints the sizes of the package for Expo apps, without its peers, as JSON: what is imported, bytes minified, bytes gzipped.

import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';

import { build } from 'esbuild';

const ENTRIES = ['', '/react', '/react-native', '/expo'];
const STORAGE = '/async-storage'; // instead of expo-sqlite, which is not counted either

async function size(entries) {
  const { outputFiles } = await build({
    stdin: {
      contents: entries.map((entry) => `export * from 'chat-push-client${entry}';`).join('\n'),
      resolveDir: fileURLToPath(new URL('../client/expo', import.meta.url)),
    },
    bundle: true,
    minify: true,
    write: false,
    format: 'esm',
    target: 'es2022',
    jsx: 'automatic',
    conditions: ['chat-push-source'],
    external: ['@supabase/*', 'expo-*', 'react', 'react/*', 'react-native'],
    // Metro has a `require` of its own. esbuild would add one that a browser can run.
    define: { require: 'metroRequire' },
  });
  const { contents } = outputFiles[0];
  return [contents.length, gzipSync(contents).length];
}

const sizes = {};
for (const entry of [...ENTRIES, STORAGE]) sizes[`chat-push-client${entry}`] = await size([entry]);
sizes['all of them, with expo-sqlite'] = await size(ENTRIES);
sizes['all of them, with that storage'] = await size([...ENTRIES, STORAGE]);
console.log(JSON.stringify(sizes));
