import { useChat, useConversation, useTyping } from 'chat-push-client/react';
import { Stack, useIsFocused, useLocalSearchParams } from 'expo-router';
import { useEffect } from 'react';
import { FlatList, KeyboardAvoidingView, Platform } from 'react-native';
import { SafeAreaView } from 'react-native-safe-area-context';

import { Bubble } from '../../../components/Bubble';
import { Composer } from '../../../components/Composer';
import { Offline } from '../../../components/Offline';

/** A conversation. */
export default function Chat() {
  const { id } = useLocalSearchParams<{ id: string }>();
  const isOnScreen = useIsFocused();
  const chat = useChat();
  const { conversation, messages, loadOlder } = useConversation(id, { isOnScreen });
  const { typing } = useTyping(id);
  const newest = messages.find((message) => message.serverTimestamp !== null)?.id;
  useEffect(() => {
    if (newest && isOnScreen) void chat.markRead(newest);
  }, [chat, newest, isOnScreen]);

  return (
    <SafeAreaView edges={['bottom']} style={{ flex: 1 }}>
      <Stack.Screen options={{ title: conversation?.partner.displayName ?? '' }} />
      <KeyboardAvoidingView style={{ flex: 1 }} behavior={Platform.OS === 'ios' ? 'padding' : undefined} keyboardVerticalOffset={90}>
        <Offline />
        <FlatList
          inverted
          data={messages}
          keyExtractor={(message) => message.clientMsgId ?? message.id}
          renderItem={({ item }) => <Bubble message={item} isMine={item.senderId === chat.userId} onPress={() => undefined} />}
          onEndReached={() => void loadOlder()}
        />
        <Composer onSend={(text) => void chat.send(id, text)} onTyping={typing} />
      </KeyboardAvoidingView>
    </SafeAreaView>
  );
}
