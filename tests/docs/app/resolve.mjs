// Node runs TypeScript as it is. This hook resolves the app's Supabase client.

import { registerHooks } from 'node:module';

registerHooks({
  resolve(specifier, context, next) {
    return next(specifier === './supabase' ? new URL('supabase.ts', import.meta.url).href : specifier, context);
  },
});
