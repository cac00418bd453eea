import type { Person } from 'chat-push-client';
import { Image, Text, View } from 'react-native';

import { themed } from '../theme';

/** The picture of a person, or the first letter of the name. The name stands beside it. */
export function Avatar({ person }: { readonly person: Person }) {
  const styles = useStyles();
  if (person.avatarUrl) return <Image source={{ uri: person.avatarUrl }} style={styles.circle} alt="" />;
  return (
    <View style={styles.circle} aria-hidden>
      <Text style={styles.letter}>{[...(person.displayName ?? '?')][0]}</Text>
    </View>
  );
}

const useStyles = themed(({ colors, text }) => ({
  circle: {
    width: text(48),
    height: text(48),
    borderRadius: text(24),
    alignItems: 'center',
    justifyContent: 'center',
    backgroundColor: colors.accent,
  },
  letter: { color: colors.onAccent, fontSize: text(20), fontWeight: '600' },
}));
