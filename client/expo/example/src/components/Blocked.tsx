import { Text, View } from 'react-native';

import { useBlocked } from '../preferences';
import { start } from '../direction';
import { themed } from '../theme';
import { Button } from './Button';
import { Notice } from './Notice';

/** The people whom this person has blocked. */
export function Blocked() {
  const styles = useStyles();
  const { blocked, error, isBusy, unblock } = useBlocked();
  return (
    <View style={styles.list}>
      <Text style={styles.title}>Blocked people</Text>
      {error && <Notice isError text={error} />}
      {!blocked.length && <Text style={styles.text}>Nobody</Text>}
      {blocked.map(({ id, name }) => (
        <View key={id} style={styles.row}>
          <Text style={[styles.text, styles.name]}>{name}</Text>
          <Button kind="plain" label={`Unblock ${name}`} disabled={isBusy} onPress={() => unblock(id)} />
        </View>
      ))}
    </View>
  );
}

const useStyles = themed(({ colors, text }) => ({
  list: { gap: 8 },
  title: { color: colors.text, fontSize: text(17), fontWeight: '600', textAlign: start },
  row: { flexDirection: 'row', flexWrap: 'wrap', alignItems: 'center' },
  name: { flexGrow: 1 },
  text: { color: colors.muted, fontSize: text(16), textAlign: start },
}));
