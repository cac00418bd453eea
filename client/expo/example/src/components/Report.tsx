import { useState } from 'react';
import { View } from 'react-native';

import { useTask } from '../tasks';
import { Button } from './Button';
import { Choice } from './Choice';
import { Notice } from './Notice';

// Those of private.chat_settings.report_reasons.
const REASONS = [
  ['spam', 'Spam'],
  ['harassment', 'Harassment'],
  ['hate', 'Hate'],
  ['violence', 'Violence'],
  ['sexual', 'Sexual content'],
  ['fraud', 'Fraud'],
  ['illegal', 'Something illegal'],
  ['other', 'Something else'],
] as const;

interface Props {
  readonly label: string;
  readonly report: (reason: string) => Promise<unknown>;
}

/** Asks for the reason, then tells the moderators. */
export function Report({ label, report }: Props) {
  const [state, setState] = useState<'closed' | 'asking' | 'reported'>('closed');
  const { error, isBusy, run } = useTask();
  const choose = (reason: string | null) =>
    void run(async () => {
      if (reason) await report(reason);
      setState('reported');
    });
  if (state === 'reported') return <Notice text="Reported. A moderator looks at it." />;
  if (state === 'closed') return <Button kind="danger" label={label} onPress={() => setState('asking')} />;
  return (
    <View>
      {error && <Notice isError text={error} />}
      <Choice<string | null> label="What is wrong?" options={REASONS} value={null} disabled={isBusy} onChange={choose} />
    </View>
  );
}
