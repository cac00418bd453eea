import { Pressable, Text } from 'react-native';

import { themed } from '../theme';

interface Props {
  readonly label: string;
  readonly onPress: () => void;
  readonly kind?: 'filled' | 'plain' | 'danger';
  readonly disabled?: boolean;
}

export function Button({ label, onPress, kind = 'filled', disabled = false }: Props) {
  const styles = useStyles();
  return (
    <Pressable
      role="button"
      onPress={onPress}
      disabled={disabled}
      style={({ pressed }) => [styles.button, kind === 'filled' && styles.filled, (pressed || disabled) && styles.faint]}
    >
      <Text style={[styles.label, styles[kind === 'filled' ? 'onFilled' : kind]]}>{label}</Text>
    </Pressable>
  );
}

const useStyles = themed(({ colors, text }) => ({
  button: { minHeight: 44, justifyContent: 'center', paddingHorizontal: 16, paddingVertical: 10, borderRadius: 12 },
  filled: { backgroundColor: colors.accent },
  faint: { opacity: 0.6 },
  label: { fontSize: text(16), fontWeight: '600', textAlign: 'center' },
  onFilled: { color: colors.onAccent },
  plain: { color: colors.link },
  danger: { color: colors.danger },
}));
