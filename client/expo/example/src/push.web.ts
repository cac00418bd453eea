import type { usePush } from 'chat-push-client/expo';

import { opening } from './client';

const none: ReturnType<typeof usePush> = {
  isRegistered: false,
  error: null,
  ask: () => Promise.resolve(),
  signOut: async () => (await opening).signOut(),
};

/** Browsers get no pushes of Expo. */
export const useNotifications = () => none;
