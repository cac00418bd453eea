// The part of react-native that docs/client/push.ts and usePush.ts use.

export type AppStateStatus = 'active' | 'background' | 'inactive';

const listeners = new Set<(state: AppStateStatus) => void>();

export const Platform: { OS: 'ios' | 'android' | 'web' } = { OS: 'android' };

export const AppState = {
  currentState: 'active' as AppStateStatus,
  addEventListener(_: 'change', listener: (state: AppStateStatus) => void): { remove(): void } {
    listeners.add(listener);
    return { remove: () => void listeners.delete(listener) };
  },
};

/** The person leaves the app, or comes back. */
export function moveTo(state: AppStateStatus): void {
  AppState.currentState = state;
  listeners.forEach((listener) => listener(state));
}

/** What the app has asked, and where its buttons lead. */
export const alerts: { title: string; buttons: { text: string; onPress?: () => void }[] }[] = [];

export const Alert = {
  alert(title: string, _: string, buttons: { text: string; style?: 'cancel'; onPress?: () => void }[]): void {
    alerts.push({ title, buttons });
  },
};

export const opened: string[] = [];

export const Linking = { openSettings: async (): Promise<void> => void opened.push('settings') };
