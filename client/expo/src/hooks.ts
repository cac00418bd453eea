// Hooks that other hooks are made of.

import { useCallback, useEffect, useRef, useSyncExternalStore } from 'react';

/** What is kept outside of React: `state` is the same object until it changes, and then the listeners are called. */
export interface Kept<State> {
  readonly state: () => State;
  readonly subscribe: (listener: () => void) => () => void;
}

export function useKept<State>({ subscribe, state }: Kept<State>): State {
  return useSyncExternalStore(subscribe, state, state);
}

/** A function that stays the same, and calls the function of the latest call. */
export function useLatest<T>(handler: (value: T) => void): (value: T) => void {
  const latest = useRef(handler);
  useEffect(() => {
    latest.current = handler;
  });
  return useCallback((value: T) => latest.current(value), []);
}
