import type { Conversation } from 'chat-push-client';
import { timeOf } from 'chat-push-client/react-native';
import { memo } from 'react';
import { Pressable, Text, View } from 'react-native';

import { start } from '../direction';
import { themed } from '../theme';
import { Avatar } from './Avatar';

interface Props {
  readonly conversation: Conversation;
  readonly onPress: () => void;
}

/** A conversation in the list. It is drawn again only when the conversation changes. */
export const ConversationRow = memo(
  function ConversationRow({ conversation, onPress }: Props) {
    const styles = useStyles();
    const { partner, lastMessage, lastMessageAt, unread } = conversation;
    const name = partner.displayName ?? 'Somebody';
    return (
      <Pressable
        role="link"
        accessibilityLabel={unread ? `${name}, ${unread} unread` : name}
        onPress={onPress}
        style={({ pressed }) => [styles.row, pressed && styles.pressed]}
      >
        <Avatar person={partner} />
        <View style={styles.middle}>
          <Text style={styles.name} numberOfLines={1}>{name}</Text>
          <Text style={[styles.preview, unread > 0 && styles.strong]} numberOfLines={1}>
            {lastMessage ?? 'No messages yet'}
          </Text>
        </View>
        <View style={styles.end}>
          {lastMessageAt && <Text style={styles.time}>{timeOf(lastMessageAt)}</Text>}
          {unread > 0 && <Text style={styles.badge}>{unread}</Text>}
        </View>
      </Pressable>
    );
  },
  (before, after) => before.conversation === after.conversation,
);

const useStyles = themed(({ colors, text }) => ({
  row: { flexDirection: 'row', alignItems: 'center', gap: 12, paddingHorizontal: 16, paddingVertical: 10 },
  pressed: { backgroundColor: colors.surface },
  middle: { flex: 1, gap: 2 },
  name: { color: colors.text, fontSize: text(17), fontWeight: '600', textAlign: start },
  preview: { color: colors.muted, fontSize: text(15), textAlign: start },
  strong: { color: colors.text, fontWeight: '600' },
  end: { alignItems: 'flex-end', gap: 4 },
  time: { color: colors.muted, fontSize: text(13) },
  badge: {
    minWidth: text(22),
    paddingHorizontal: 6,
    paddingVertical: 2,
    borderRadius: text(11),
    overflow: 'hidden',
    backgroundColor: colors.accent,
    color: colors.onAccent,
    fontSize: text(13),
    fontWeight: '600',
    textAlign: 'center',
  },
}));
