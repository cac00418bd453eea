// What the client has to know of a phone, from Expo and React Native.

import { AppState } from 'react-native';

import { Crypto, SecureStore } from './modules.ts';
import type { App } from './settings.ts';

/** Calls `changed` with each change of the network. Returns a function that ends it. */
export type Network = (changed: (isConnected: boolean) => void) => () => void;

/**
 * The setting `app` of a client: the app comes to the foreground and leaves it, and its network comes and goes.
 *
 * `network` is one line of the app, of expo-network or of NetInfo:
 * `(changed) => { const each = addNetworkStateListener((state) => changed(state.isConnected === true)); return () => each.remove(); }`
 * or `(changed) => NetInfo.addEventListener((state) => changed(state.isConnected === true))`. Without it, the client tries
 * again after a while. Throws MissingModule without expo-crypto.
 */
export function expoApp({ network }: { readonly network?: Network } = {}): App {
  const { getRandomValues } = Crypto; // now, so that its error names the package before anything is sent
  return {
    random: (bytes) => getRandomValues(bytes),
    isActive: () => AppState.currentState !== 'background', // iOS shows a dialog or the app switcher: inactive
    follow: (changed) => {
      const state = AppState.addEventListener('change', (now) => {
        if (now !== 'inactive') changed.active(now !== 'background');
      });
      const endNetwork = network?.((isConnected) => changed.network(isConnected));
      return () => {
        state.remove();
        endNetwork?.();
      };
    },
  };
}

/**
 * The setting `deviceId` of a client: the id of this installation. No backup restores it, so no two phones share one.
 *
 * Throws MissingModule without expo-secure-store and expo-crypto.
 */
export async function deviceId(): Promise<string> {
  const options = { keychainAccessible: SecureStore.AFTER_FIRST_UNLOCK_THIS_DEVICE_ONLY };
  const stored = await SecureStore.getItemAsync('chat-push.device-id', options);
  if (stored) return stored;
  const created = Crypto.randomUUID();
  await SecureStore.setItemAsync('chat-push.device-id', created, options);
  return created;
}
