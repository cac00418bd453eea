import type { Message } from 'chat-push-client';
import { memo } from 'react';
import { Image, Pressable, Text, View } from 'react-native';

import { themed } from '../theme';
import { statusWords, when } from '../words';

interface Props {
  readonly message: Message;
  readonly isMine: boolean;
  readonly onPress: (message: Message) => void;
}

/** A message. It is drawn again only when it changes. A press shows what can be done with it. */
export const Bubble = memo(function Bubble({ message, isMine, onPress }: Props) {
  const styles = useStyles();
  const photo = message.attachments.find(({ type, url }) => type === 'image' && typeof url === 'string');
  const isDeleted = message.deletedAt !== null;
  const ink = isMine ? styles.mine : styles.theirs;
  const quiet = isMine ? styles.mineQuiet : styles.theirsQuiet;
  return (
    <Pressable
      testID="message"
      disabled={isDeleted}
      role={isDeleted ? undefined : 'button'}
      onPress={() => onPress(message)}
      style={[styles.bubble, isMine ? styles.right : styles.left]}
    >
      {photo && <Image source={{ uri: String(photo.url) }} style={styles.photo} resizeMode="cover" accessibilityLabel="Photo" />}
      {isDeleted && <Text style={[styles.text, quiet, styles.deleted]}>Deleted</Text>}
      {message.text !== '' && !isDeleted && <Text style={[styles.text, ink]}>{message.text}</Text>}
      <View style={styles.foot}>
        <Text style={[styles.small, quiet]}>
          {[
            message.editedAt && !isDeleted ? 'Edited' : null,
            message.serverTimestamp && when(message.serverTimestamp),
            isMine ? statusWords[message.status] : null,
          ]
            .filter(Boolean)
            .join(' · ')}
        </Text>
      </View>
    </Pressable>
  );
});

const useStyles = themed(({ colors, text }) => ({
  bubble: { maxWidth: '80%', marginHorizontal: 12, marginVertical: 3, paddingHorizontal: 12, paddingVertical: 8, borderRadius: 18 },
  right: { alignSelf: 'flex-end', backgroundColor: colors.accent, borderBottomEndRadius: 4 },
  left: { alignSelf: 'flex-start', backgroundColor: colors.surface, borderBottomStartRadius: 4 },
  photo: { width: 220, maxWidth: '100%', aspectRatio: 4 / 3, marginBottom: 6, borderRadius: 10 },
  text: { fontSize: text(17), lineHeight: text(23) },
  deleted: { fontStyle: 'italic' },
  mine: { color: colors.onAccent },
  mineQuiet: { color: colors.onAccentMuted },
  theirs: { color: colors.text },
  theirsQuiet: { color: colors.muted },
  foot: { flexDirection: 'row', justifyContent: 'flex-end' },
  small: { fontSize: text(12) },
}));
