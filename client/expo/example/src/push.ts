import { Push, usePush } from 'chat-push-client/expo';
import { router, usePathname } from 'expo-router';

import { opening } from './client';

const push = new Push(opening);

/** The pushes of this phone. A tap opens its conversation, unless it is on the screen. */
export function useNotifications() {
  const shown = usePathname();
  return usePush(push, ({ conversationId }) => {
    if (shown !== `/chat/${conversationId}`) router.push(`/chat/${conversationId}`);
  });
}
