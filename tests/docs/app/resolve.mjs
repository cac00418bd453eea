// Node finds the stand-ins of this folder where a phone has Expo's modules, and runs TypeScript as it is.

import { registerHooks } from 'node:module';

registerHooks({
  resolve(specifier, context, next) {
    const here = /^(expo-.*|react|react-native)$/.test(specifier) || specifier === './supabase';
    if (here) return next(new URL(`${specifier.replace('./', '')}.ts`, import.meta.url).href, context);
    return next(specifier === './push' ? './push.ts' : specifier, context);
  },
});
