// The part of react-native that docs/client/push.ts uses.

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
