import { ChatRoom } from 'chat-push-client/react-native';
import { Stack, useIsFocused, useLocalSearchParams } from 'expo-router';

export default function Chat() {
  const { id } = useLocalSearchParams<{ id: string }>();
  return (
    <ChatRoom conversationId={id} isOnScreen={useIsFocused()}>
      {({ conversation }) => <Stack.Screen options={{ title: conversation?.partner.displayName ?? '' }} />}
    </ChatRoom>
  );
}
