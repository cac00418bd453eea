// Node runs .ts as it is, but not .tsx. And it has no phone: React Native is that for browsers, which draws into happy-dom.

import { readFileSync } from 'node:fs';
import { registerHooks } from 'node:module';
import { fileURLToPath } from 'node:url';

import { transformSync } from 'esbuild';

registerHooks({
  resolve(specifier, context, next) {
    return next(specifier === 'react-native' ? 'react-native-web' : specifier, context);
  },
  load(url, context, next) {
    if (!url.endsWith('.tsx')) return next(url, context);
    const options = { loader: 'tsx', jsx: 'automatic', target: 'es2022' };
    const { code } = transformSync(readFileSync(fileURLToPath(url), 'utf8'), options);
    return { format: 'module', source: code, shortCircuit: true };
  },
});
