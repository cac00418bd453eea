import { ChatRoom } from 'chat-push-client/react-native';
import { useIsFocused, useLocalSearchParams } from 'expo-router';

export default function Chat() {
  const { id } = useLocalSearchParams<{ id: string }>();
  return <ChatRoom conversationId={id} isOnScreen={useIsFocused()} />;
}
