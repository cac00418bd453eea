// Node runs TypeScript as it is. The stand-ins of this folder replace React Native and the packages of Expo.

import { createRequire, registerHooks } from 'node:module';

registerHooks({
  resolve(specifier, context, next) {
    return next(specifier === 'react-native' ? new URL('react-native.ts', import.meta.url).href : specifier, context);
  },
});

const require = createRequire(import.meta.url);

/** As Metro has it in each module. A package that the build lacks throws. */
globalThis.require = (name) => {
  if (name === process.env.MISSING) throw new Error(`Cannot find native module '${name}'`);
  return require(`./${name}.ts`);
};
