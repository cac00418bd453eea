// What an Expo app needs beside the client: the phone, pushes, and the hook for them.

import { useEffect, useMemo } from 'react';

import { useKept, useLatest } from './hooks.ts';
import type { Push, PushStatus } from './notifications.ts';
import type { Tap } from './push.ts';

export { MissingModule } from './modules.ts';
export { Push, PushUnavailable } from './notifications.ts';
export type { PushSettings, PushStatus, PushUnavailableReason } from './notifications.ts';
export { deviceId, expoApp, type Network } from './phone.ts';

/**
 * Whether this phone gets pushes, and `ask` for the moment when the person sees why. Call it in the root layout.
 *
 * `open` is called for each tapped push, also the one that started the app. `ask` does not throw: `error` says why not.
 */
export function usePush(
  push: Push,
  open?: (tap: Tap) => void,
): PushStatus & { readonly ask: () => Promise<void>; readonly signOut: () => Promise<void> } {
  const latest = useLatest((tap: Tap) => open?.(tap));
  useEffect(() => push.onTap(latest), [push, latest]);
  const status = useKept({ subscribe: push.subscribe, state: push.status });
  return useMemo(() => ({ ...status, ask: () => push.ask().catch(() => undefined), signOut: push.signOut }), [status, push]);
}
