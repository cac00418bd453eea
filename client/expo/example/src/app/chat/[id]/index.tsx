import type { Message } from 'chat-push-client';
import { useChat, useConversation, useTyping } from 'chat-push-client/react';
import { Composer, MessageList, useReadMark } from 'chat-push-client/react-native';
import { Stack, router, useIsFocused, useLocalSearchParams } from 'expo-router';
import { useCallback, useState } from 'react';
import { KeyboardAvoidingView, Platform } from 'react-native';
import { SafeAreaView } from 'react-native-safe-area-context';

import { AskForPushes } from '../../../components/AskForPushes';
import { Button } from '../../../components/Button';
import { ChatTitle } from '../../../components/ChatTitle';
import { MessageActions } from '../../../components/MessageActions';
import { Notice } from '../../../components/Notice';
import { Offline } from '../../../components/Offline';
import { Photo, PhotoButton, hasPhoto } from '../../../components/Photo';
import { sendPhoto } from '../../../photos';
import { useTask } from '../../../tasks';
import { useTheme } from '../../../theme';
import { words } from '../../../words';

/** A conversation. */
export default function Chat() {
  const { id } = useLocalSearchParams<{ id: string }>();
  const isOnScreen = useIsFocused();
  const chat = useChat();
  const { conversation, messages, isLoaded, isPartnerHere, loadOlder } = useConversation(id, { isOnScreen });
  const { isPartnerTyping, typing } = useTyping(id);
  const [selected, setSelected] = useState<Message | null>(null);
  const [edited, setEdited] = useState<Message | null>(null);
  const { error, fail, run } = useTask();
  const { room } = useTheme();
  const renderContent = useCallback(
    (message: Message) => hasPhoto(message) && <Photo message={message} isMine={message.senderId === chat.userId} />,
    [chat],
  );

  useReadMark(messages, { isOnScreen, onError: fail });

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
        <MessageList
          messages={messages}
          isLoaded={isLoaded}
          me={chat.userId}
          words={words}
          colors={room}
          onEnd={loadOlder}
          onPress={setSelected}
          renderContent={renderContent}
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
        ) : (
          <Composer
            key={edited?.id ?? 'new'}
            words={edited ? { ...words, write: 'Edited message' } : words}
            colors={room}
            initial={edited?.text ?? ''}
            beforeInput={!edited && <PhotoButton onPress={() => void run(() => sendPhoto(chat, id))} />}
            onSubmit={async (text) => {
              typing(false);
              const isDone = await run(() => (edited ? chat.edit(edited.id, text) : chat.send(id, text)));
              if (isDone) setEdited(null);
              return isDone;
            }}
            onType={typing}
            {...(edited && { onCancel: () => setEdited(null) })}
          />
        )}
      </KeyboardAvoidingView>
    </SafeAreaView>
  );
}
