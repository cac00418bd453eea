import { Pressable, Text } from 'react-native';

import { themed } from '../theme';

/** The button before the text input. */
export function PhotoButton({ onPress }: { readonly onPress: () => void }) {
  const styles = useStyles();
  return (
    <Pressable role="button" accessibilityLabel="Send a photo" style={styles.button} onPress={onPress}>
      <Text style={styles.plus}>+</Text>
    </Pressable>
  );
}

const useStyles = themed(({ colors, text }) => ({
  button: { minWidth: 44, minHeight: 44, alignItems: 'center', justifyContent: 'center' },
  plus: { color: colors.link, fontSize: text(28), lineHeight: text(32) },
}));
