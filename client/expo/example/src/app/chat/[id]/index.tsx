import type { Message } from 'chat-push-client';
import { useChat, useConversation, useTyping } from 'chat-push-client/react';
import { Stack, router, useIsFocused, useLocalSearchParams } from 'expo-router';
import { useEffect, useState } from 'react';
import { FlatList, KeyboardAvoidingView, Platform } from 'react-native';
import { SafeAreaView } from 'react-native-safe-area-context';

import { AskForPushes } from '../../../components/AskForPushes';
import { Bubble } from '../../../components/Bubble';
import { Button } from '../../../components/Button';
import { ChatTitle } from '../../../components/ChatTitle';
import { Composer } from '../../../components/Composer';
import { MessageActions } from '../../../components/MessageActions';
import { Notice } from '../../../components/Notice';
import { Offline } from '../../../components/Offline';
import { sendPhoto } from '../../../photos';
import { useTask } from '../../../tasks';

/** A conversation. */
export default function Chat() {
  const { id } = useLocalSearchParams<{ id: string }>();
  const isOnScreen = useIsFocused();
  const chat = useChat();
  const { conversation, messages, isPartnerHere, loadOlder } = useConversation(id, { isOnScreen });
  const { isPartnerTyping, typing } = useTyping(id);
  const [selected, setSelected] = useState<Message | null>(null);
  const [edited, setEdited] = useState<Message | null>(null);
  const { error, run } = useTask();

  const newest = messages.find((message) => message.serverTimestamp !== null)?.id;
  useEffect(() => {
    if (newest && isOnScreen) void run(() => chat.markRead(newest));
  }, [chat, run, newest, isOnScreen]);

  const name = conversation?.partner.displayName ?? '';
  return (
    <SafeAreaView edges={['bottom']} style={{ flex: 1 }}>
      <Stack.Screen
        options={{
          title: name,
          headerTitle: () => <ChatTitle name={name} isTyping={isPartnerTyping} isHere={isPartnerHere} />,
          headerRight: () => <Button kind="plain" label="Details" onPress={() => router.push(`/chat/${id}/details`)} />,
        }}
      />
      <KeyboardAvoidingView
        style={{ flex: 1 }}
        behavior={Platform.OS === 'ios' ? 'padding' : undefined}
        keyboardVerticalOffset={90} // the header
      >
        <Offline />
        <FlatList
          inverted
          data={messages}
          keyExtractor={(message) => message.clientMsgId ?? message.id}
          renderItem={({ item }) => (
            <Bubble message={item} isMine={item.senderId === chat.userId} onPress={setSelected} />
          )}
          onEndReached={() => void loadOlder()}
        />
        {conversation?.isRequest && (
          <Notice
            text={`${name} is new to you.`}
            actions={{
              Accept: () => void run(() => chat.choices.acceptConversation(id)),
              Block: () =>
                void run(async () => {
                  await chat.choices.blockUser(conversation.partner.id);
                  router.dismissTo('/');
                }),
            }}
          />
        )}
        {error && <Notice isError text={error} />}
        {messages.some((message) => message.senderId === chat.userId) && <AskForPushes name={name} />}
        {selected ? (
          <MessageActions
            message={selected}
            isMine={selected.senderId === chat.userId}
            onEdit={() => {
              setEdited(selected);
              setSelected(null);
            }}
            onDo={(work) => {
              void run(work);
              setSelected(null);
            }}
            onClose={() => setSelected(null)}
          />
        ) : edited ? (
          <Composer
            label="Edited message"
            button="Save"
            initial={edited.text}
            onSend={(text) => {
              void run(() => chat.edit(edited.id, text));
              setEdited(null);
            }}
            onCancel={() => setEdited(null)}
          />
        ) : (
          <Composer
            label="Message"
            button="Send"
            onSend={(text) => void run(() => chat.send(id, text))}
            onTyping={typing}
            onPhoto={() => void run(() => sendPhoto(chat, id))}
          />
        )}
      </KeyboardAvoidingView>
    </SafeAreaView>
  );
}
