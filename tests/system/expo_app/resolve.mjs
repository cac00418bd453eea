// Node runs TypeScript as it is. This hook resolves the native modules of Expo to the stand-ins of this folder.

import { registerHooks } from 'node:module';

registerHooks({
  resolve(specifier, context, next) {
    const isNative = /^(expo-.*|react-native)$/.test(specifier);
    return next(isNative ? new URL(`${specifier}.ts`, import.meta.url).href : specifier, context);
  },
});
