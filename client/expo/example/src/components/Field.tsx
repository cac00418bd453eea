import { Text, TextInput, View, type TextInputProps } from 'react-native';

import { start } from '../direction';
import { themed, useTheme } from '../theme';

/** A text field with its label. */
export function Field({ label, ...input }: { readonly label: string } & TextInputProps) {
  const { colors } = useTheme();
  const styles = useStyles();
  return (
    <View style={styles.field}>
      <Text style={styles.label}>{label}</Text>
      <TextInput accessibilityLabel={label} placeholderTextColor={colors.muted} style={styles.input} {...input} />
    </View>
  );
}

const useStyles = themed(({ colors, text }) => ({
  field: { gap: 6, flexShrink: 1 },
  label: { color: colors.muted, fontSize: text(14), textAlign: start },
  input: {
    minHeight: 44,
    paddingHorizontal: 12,
    paddingVertical: 8,
    borderWidth: 1,
    borderColor: colors.border,
    borderRadius: 12,
    color: colors.text,
    fontSize: text(16),
  },
}));
