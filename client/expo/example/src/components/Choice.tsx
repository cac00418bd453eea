import { Pressable, Text, View } from 'react-native';

import { start } from '../direction';
import { themed } from '../theme';

interface Props<T> {
  readonly label: string;
  readonly options: readonly (readonly [value: T, label: string])[];
  readonly value: T;
  readonly disabled?: boolean;
  readonly onChange: (value: T) => void;
}

/** One of a few options. */
export function Choice<T>({ label, options, value, disabled = false, onChange }: Props<T>) {
  const styles = useStyles();
  return (
    <View role="radiogroup" accessibilityLabel={label} style={styles.group}>
      <Text style={styles.label}>{label}</Text>
      <View style={styles.options}>
        {options.map(([option, text]) => (
          <Pressable
            key={text}
            role="radio"
            aria-checked={option === value}
            disabled={disabled}
            onPress={() => onChange(option)}
            style={[styles.option, option === value && styles.chosen]}
          >
            <Text style={[styles.text, option === value && styles.chosenText]}>{text}</Text>
          </Pressable>
        ))}
      </View>
    </View>
  );
}

const useStyles = themed(({ colors, text }) => ({
  group: { gap: 8 },
  label: { color: colors.text, fontSize: text(17), fontWeight: '600', textAlign: start },
  options: { flexDirection: 'row', flexWrap: 'wrap', gap: 8 },
  option: { minHeight: 44, justifyContent: 'center', paddingHorizontal: 14, paddingVertical: 8, borderRadius: 22, backgroundColor: colors.surface },
  chosen: { backgroundColor: colors.accent },
  text: { color: colors.text, fontSize: text(16) },
  chosenText: { color: colors.onAccent, fontWeight: '600' },
}));
