// The part of react-native that docs/client/push.ts and usePush.ts use.

import type { AlertButton, AppStateStatus } from 'react-native';

const listeners = new Set<(state: AppStateStatus) => void>();

export const Platform = { OS: process.env.PHONE_PLATFORM === 'ios' ? 'ios' : 'android' } as { OS: 'ios' } | { OS: 'android' };

export const AppState = {
  currentState: 'active' as AppStateStatus,
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

/** The alerts that the app has shown. */
export const alerts: { title: string; buttons: AlertButton[] }[] = [];

export const Alert = {
  alert(title: string, _?: string, buttons: AlertButton[] = []): void {
    alerts.push({ title, buttons });
  },
};

export const opened: string[] = [];

export const Linking = { openSettings: async (): Promise<void> => void opened.push('settings') };
