import { useChat } from 'chat-push-client/react';
import { useNetworkState } from 'expo-network';
import { useEffect, useState } from 'react';
import { Text } from 'react-native';

import { themed } from '../theme';

/** A line that says that there is no connection. Writing goes on: messages wait in the outbox. */
export function Offline() {
  const styles = useStyles();
  const chat = useChat();
  const { isConnected } = useNetworkState();
  const [isLost, setIsLost] = useState(false);
  useEffect(
    () => chat.subscribe((event) => event.type === 'connectionChanged' && setIsLost(event.state === 'offline')),
    [chat],
  );
  if (isConnected !== false && !isLost) return null;
  return (
    <Text role="status" style={styles.line}>
      No connection. What you write is sent later.
    </Text>
  );
}

const useStyles = themed(({ colors, text }) => ({
  line: { padding: 8, backgroundColor: colors.warning, color: colors.text, fontSize: text(14), textAlign: 'center' },
}));
