import { useChat } from 'chat-push-client/react';
import { router, useLocalSearchParams } from 'expo-router';
import { useEffect, useState } from 'react';

import { Centered } from '../../components/Centered';
import { problem } from '../../words';

/** Where an invitation leads: opens the chat with a person. */
export default function With() {
  const chat = useChat();
  const { userId } = useLocalSearchParams<{ userId: string }>();
  const [error, setError] = useState<unknown>(null);
  useEffect(() => {
    chat.openChat(userId).then((id) => router.replace(`/chat/${id}`), setError);
  }, [chat, userId]);
  if (error) return <Centered title="The chat could not be opened" text={problem(error)} />;
  return <Centered isBusy title="Opening the chat…" />;
}
