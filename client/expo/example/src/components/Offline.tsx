import { useChat } from 'chat-push-client/react';
import { useNetworkState } from 'expo-network';
import { useEffect, useState } from 'react';

import { Notice } from './Notice';

/** A line that says that there is no connection. Writing goes on: messages wait in the outbox. */
export function Offline() {
  const chat = useChat();
  const { isConnected } = useNetworkState();
  const [isLost, setIsLost] = useState(false);
  useEffect(
    () => chat.subscribe((event) => event.type === 'connectionChanged' && setIsLost(event.state === 'offline')),
    [chat],
  );
  if (isConnected !== false && !isLost) return null;
  return <Notice text="No connection. What you write is sent later." />;
}
