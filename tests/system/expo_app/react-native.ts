// The part of react-native that chat-push-client/expo uses.

import type { AppStateStatus } from 'react-native';

const listeners = new Set<(state: AppStateStatus) => void>();

export const Platform = { OS: process.env['PHONE_PLATFORM'] ?? 'android' } as { OS: 'ios' } | { OS: 'android' };

export const AppState = {
  currentState: (process.env['STARTED'] === 'in the background' ? 'background' : 'active') as AppStateStatus,
  addEventListener(_: 'change', listener: (state: AppStateStatus) => void): { remove(): void } {
    listeners.add(listener);
    return { remove: () => void listeners.delete(listener) };
  },
};

/** The user leaves the app or returns to it. */
export function moveTo(state: AppStateStatus): void {
  AppState.currentState = state;
  listeners.forEach((listener) => listener(state));
}
