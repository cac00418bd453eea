import { useConversations } from 'chat-push-client/react';
import { Link } from 'expo-router';
import { FlatList, Text } from 'react-native';

export default function Chats() {
  const { conversations, error } = useConversations(); // error: the local database cannot be read
  return (
    <FlatList
      data={conversations.filter(({ archived }) => !archived)}
      ListHeaderComponent={<Text>{error?.message}</Text>}
      renderItem={({ item: { id, partner, lastMessage, unread } }) => (
        <Link href={`/chat/${id}`}>
          {partner.displayName} {unread > 0 ? `(${unread})` : ''} {'\n'}
          <Text numberOfLines={1}>{lastMessage}</Text>
        </Link>
      )}
    />
  );
}
