import { PushUnavailable } from 'chat-push-client/expo';
import { useState } from 'react';

import { useAccount } from '../account';
import { Notice } from './Notice';

/**
 * Offers notifications below the person's own message, when it is clear what they are for. The system shows its dialog only
 * once, so this asks before it.
 */
export function AskForPushes({ name }: { readonly name: string }) {
  const { error, ask } = useAccount();
  const [isDone, setIsDone] = useState(false);
  if (isDone || !(error instanceof PushUnavailable && error.reason === 'not_asked')) return null;
  const turnOn = () => {
    setIsDone(true);
    void ask();
  };
  return (
    <Notice
      text={`Get a notification when ${name} answers?`}
      actions={{ 'Turn on': turnOn, 'Not now': () => setIsDone(true) }}
    />
  );
}
