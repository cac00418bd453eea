import { Text, View } from 'react-native';

import { start } from '../direction';
import { themed } from '../theme';
import { Button } from './Button';

interface Props {
  readonly text: string;
  readonly isError?: boolean;
  readonly actions?: Readonly<Record<string, () => void>>;
}

/** A line that screen readers announce, with buttons for what can be done about it. */
export function Notice({ text, isError = false, actions = {} }: Props) {
  const styles = useStyles();
  return (
    <View style={styles.notice}>
      <Text role={isError ? 'alert' : 'status'} style={[styles.text, isError && styles.error]}>{text}</Text>
      {Object.entries(actions).map(([label, onPress]) => (
        <Button key={label} kind="plain" label={label} onPress={onPress} />
      ))}
    </View>
  );
}

const useStyles = themed(({ colors, text }) => ({
  notice: { flexDirection: 'row', flexWrap: 'wrap', alignItems: 'center', paddingHorizontal: 16, backgroundColor: colors.notice },
  text: { flexGrow: 1, flexShrink: 1, paddingVertical: 8, color: colors.text, fontSize: text(15), textAlign: start },
  error: { color: colors.danger },
}));
