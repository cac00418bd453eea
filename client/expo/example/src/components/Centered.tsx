import { ActivityIndicator, Text, View } from 'react-native';

import { themed } from '../theme';

/** A screen that has nothing else to show yet. */
export function Centered({ title, text, isBusy }: { readonly title: string; readonly text?: string; readonly isBusy?: boolean }) {
  const styles = useStyles();
  return (
    <View style={styles.screen} accessibilityLiveRegion="polite">
      {isBusy && <ActivityIndicator accessibilityLabel={title} />}
      <Text style={styles.title}>{title}</Text>
      {text && <Text style={styles.text}>{text}</Text>}
    </View>
  );
}

const useStyles = themed(({ colors, text }) => ({
  screen: { flex: 1, alignItems: 'center', justifyContent: 'center', gap: 8, padding: 32, backgroundColor: colors.background },
  title: { color: colors.text, fontSize: text(18), fontWeight: '600', textAlign: 'center' },
  text: { color: colors.muted, fontSize: text(16), textAlign: 'center' },
}));
