import { Pressable, Text } from 'react-native';

import { themed } from '../theme';

interface Props {
  readonly disabled: boolean;
  readonly onPress: () => void;
}

/** The button before the text input. */
export function PhotoButton({ disabled, onPress }: Props) {
  const styles = useStyles();
  return (
    <Pressable
      role="button"
      accessibilityLabel="Send a photo"
      style={[styles.button, disabled && styles.faint]}
      disabled={disabled}
      onPress={onPress}
    >
      <Text style={styles.plus}>+</Text>
    </Pressable>
  );
}

const useStyles = themed(({ colors, text }) => ({
  button: { minWidth: 44, minHeight: 44, alignItems: 'center', justifyContent: 'center' },
  faint: { opacity: 0.6 },
  plus: { color: colors.link, fontSize: text(28), lineHeight: text(32) },
}));
