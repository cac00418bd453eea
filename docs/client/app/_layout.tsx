import { usePush } from 'chat-push-client/expo';
import { ChatProvider } from 'chat-push-client/react';
import { Stack, router, usePathname } from 'expo-router';
import { Suspense, use } from 'react';

import { opening, push } from '../client';

export default function Layout() {
  return (
    <Suspense fallback={null}>
      <WithChat />
    </Suspense>
  );
}

function WithChat() {
  const client = use(opening); // an error of it goes to the ErrorBoundary of the app
  const shown = usePathname();
  usePush(push, ({ conversationId }) => {
    if (shown !== `/chat/${conversationId}`) router.push(`/chat/${conversationId}`);
  });
  return (
    <ChatProvider client={client}>
      <Stack>
        <Stack.Screen name="index" options={{ title: 'Chats' }} />
      </Stack>
    </ChatProvider>
  );
}
