// Node runs TypeScript as it is. This hook resolves the modules of Expo to the stand-ins of this folder.

import { registerHooks } from 'node:module';

registerHooks({
  resolve(specifier, context, next) {
    const here = /^(expo-.*|react|react-native)$/.test(specifier) || specifier === './supabase';
    if (here) return next(new URL(`${specifier.replace('./', '')}.ts`, import.meta.url).href, context);
    return next(specifier === './push' ? './push.ts' : specifier, context);
  },
});
