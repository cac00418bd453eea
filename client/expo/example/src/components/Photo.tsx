import type { Message } from 'chat-push-client';
import { Image, Pressable, Text } from 'react-native';

import { themed } from '../theme';

/** The photo of a message, and its text. */
export function Photo({ message, isMine }: { readonly message: Message; readonly isMine: boolean }) {
  const styles = useStyles();
  return (
    <>
      <Image source={{ uri: photoOf(message) }} style={styles.photo} resizeMode="cover" accessibilityLabel="Photo" />
      {message.text !== '' && <Text style={isMine ? styles.mine : styles.theirs}>{message.text}</Text>}
    </>
  );
}

export function hasPhoto(message: Message): boolean {
  return photoOf(message) !== undefined;
}

/** The button before the text input. */
export function PhotoButton({ onPress }: { readonly onPress: () => void }) {
  const styles = useStyles();
  return (
    <Pressable role="button" accessibilityLabel="Send a photo" style={styles.button} onPress={onPress}>
      <Text style={styles.plus}>+</Text>
    </Pressable>
  );
}

function photoOf({ attachments }: Message): string | undefined {
  return attachments.map(({ type, url }) => (type === 'image' && typeof url === 'string' ? url : undefined)).find(Boolean);
}

const useStyles = themed(({ colors, text }) => ({
  photo: { width: 220, maxWidth: '100%', aspectRatio: 4 / 3, borderRadius: 10 },
  mine: { marginTop: 6, color: colors.onAccent, fontSize: text(16) },
  theirs: { marginTop: 6, color: colors.text, fontSize: text(16) },
  button: { minWidth: 44, minHeight: 44, alignItems: 'center', justifyContent: 'center' },
  plus: { color: colors.link, fontSize: text(28), lineHeight: text(32) },
}));
