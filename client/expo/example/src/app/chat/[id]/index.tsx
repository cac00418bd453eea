import type { Message } from 'chat-push-client';
import { useChat } from 'chat-push-client/react';
import { ChatRoom } from 'chat-push-client/react-native';
import { Stack, router, useIsFocused, useLocalSearchParams } from 'expo-router';
import { useCallback, useState } from 'react';
import { SafeAreaView } from 'react-native-safe-area-context';

import { AskForPushes } from '../../../components/AskForPushes';
import { Button } from '../../../components/Button';
import { ChatTitle } from '../../../components/ChatTitle';
import { Notice } from '../../../components/Notice';
import { Offline } from '../../../components/Offline';
import { PhotoButton } from '../../../components/PhotoButton';
import { Report } from '../../../components/Report';
import { sendPhoto } from '../../../photos';
import { useTask } from '../../../tasks';
import { useTheme } from '../../../theme';

/** A conversation. */
export default function Chat() {
  const { id } = useLocalSearchParams<{ id: string }>();
  const chat = useChat();
  const [reported, setReported] = useState<Message | null>(null);
  const { error, fail, isBusy, run } = useTask();
  const { room } = useTheme();
  const actions = useCallback(
    (message: Message) =>
      message.senderId === chat.userId ? [] : [{ title: 'Report', isDangerous: true, onPress: () => setReported(message) }],
    [chat],
  );
  return (
    <SafeAreaView edges={['bottom']} style={{ flex: 1 }}>
      <ChatRoom
        conversationId={id}
        isOnScreen={useIsFocused()}
        colors={room}
        actions={actions}
        beforeInput={<PhotoButton disabled={isBusy} onPress={() => void run(() => sendPhoto(chat, id))} />}
        onError={fail}
      >
        {({ conversation, messages, isPartnerHere }) => {
          const name = conversation?.partner.displayName ?? '';
          return (
            <>
              <Stack.Screen
                options={{
                  title: name,
                  headerTitle: () => <ChatTitle name={name} isHere={isPartnerHere} />,
                  headerRight: () => (
                    <Button kind="plain" label="Details" onPress={() => router.push(`/chat/${id}/details`)} />
                  ),
                }}
              />
              <Offline />
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
              {reported && (
                <Report
                  key={reported.id}
                  report={(reason) => chat.choices.reportMessage(reported.id, reason)}
                  onClose={() => setReported(null)}
                />
              )}
            </>
          );
        }}
      </ChatRoom>
    </SafeAreaView>
  );
}
