// app/chat/[id].tsx, with components of your own

import { useChat, useConversation, useTyping } from 'chat-push-client/react';
import { useReadMark } from 'chat-push-client/react-native';
import { useIsFocused, useLocalSearchParams } from 'expo-router';
import { useState } from 'react';
import { Button, FlatList, Text, TextInput, View } from 'react-native';

export default function Chat() {
  const { id } = useLocalSearchParams<{ id: string }>();
  const chat = useChat();
  const isOnScreen = useIsFocused();
  const { messages, loadOlder } = useConversation(id, { isOnScreen });
  const { isPartnerTyping, typing } = useTyping(id);
  const [text, setText] = useState('');
  useReadMark(messages, { isOnScreen });

  const send = () => {
    chat.send(id, text).then(() => setText(''), console.warn); // the message is shown at once, also without a network
    typing(false);
  };
  return (
    <View style={{ flex: 1 }}>
      <FlatList
        inverted
        data={messages}
        keyExtractor={(message) => message.senderId + (message.clientMsgId ?? message.id)}
        onEndReached={() => void loadOlder()}
        renderItem={({ item: { senderId, text, deletedAt, status } }) => (
          <Text style={{ textAlign: senderId === chat.userId ? 'right' : 'left' }}>
            {deletedAt ? 'Message deleted' : text} {senderId === chat.userId && status}
          </Text>
        )}
      />
      <Text>{isPartnerTyping && 'types…'}</Text>
      <TextInput
        value={text}
        onChangeText={(next) => {
          setText(next);
          typing();
        }}
      />
      <Button title="Send" onPress={send} disabled={!text.trim()} />
    </View>
  );
}
