import { useChat, useConversations } from 'chat-push-client/react';
import { Stack, router } from 'expo-router';
import { useState } from 'react';
import { FlatList, View } from 'react-native';

import { Button } from '../components/Button';
import { Centered } from '../components/Centered';
import { ConversationRow } from '../components/ConversationRow';
import { Notice } from '../components/Notice';
import { Offline } from '../components/Offline';
import { invite } from '../invite';
import { useTask } from '../tasks';
import { problem } from '../words';

/** All conversations. */
export default function Conversations() {
  const chat = useChat();
  const { conversations, isLoaded, error: unread } = useConversations();
  const [isCopied, setIsCopied] = useState(false);
  const { error, run } = useTask();
  const shown = conversations.filter((conversation) => !conversation.archived);
  return (
    <View style={{ flex: 1 }}>
      <Stack.Screen
        options={{
          title: 'Chats',
          headerRight: () => <Button kind="plain" label="Settings" onPress={() => router.push('/settings')} />,
        }}
      />
      <Offline />
      {isLoaded && !shown.length ? (
        <Centered title="No chats yet" text="Send somebody your invitation. Whoever opens it can write to you." />
      ) : (
        <FlatList
          data={shown}
          keyExtractor={(conversation) => conversation.id}
          renderItem={({ item }) => (
            <ConversationRow conversation={item} onPress={() => router.push(`/chat/${item.id}`)} />
          )}
        />
      )}
      {error && <Notice isError text={error} />}
      {unread && <Notice isError text={problem(unread)} />}
      <Button
        kind="plain"
        label={isCopied ? 'Copied. Send the link to somebody' : 'Invite somebody'}
        onPress={() => void run(async () => setIsCopied(await invite(chat.userId)))}
      />
    </View>
  );
}
