import { Push, usePush } from 'chat-push-client/expo';
import { router } from 'expo-router';

import { opening } from './client';

const push = new Push(opening);

/** The pushes of this phone. A tap opens its conversation. */
export function useNotifications() {
  return usePush(push, ({ conversationId }) => router.push(`/chat/${conversationId}`));
}
