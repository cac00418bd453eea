import { useState } from 'react';
import { View } from 'react-native';

import { useTask } from '../tasks';
import { themed } from '../theme';
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
  readonly report: (reason: string) => Promise<unknown>;
  readonly onClose: () => void;
}

/** Asks for the reason, then tells the moderators. */
export function Report({ report, onClose }: Props) {
  const styles = useStyles();
  const [isReported, setIsReported] = useState(false);
  const { error, isBusy, run } = useTask();
  const choose = (reason: string | null) =>
    void run(async () => {
      if (reason) await report(reason);
      setIsReported(true);
    });
  if (isReported) return <Notice text="Reported. A moderator looks at it." actions={{ Close: onClose }} />;
  return (
    <View style={styles.form}>
      {error && <Notice isError text={error} />}
      <Choice<string | null> label="What is wrong?" options={REASONS} value={null} disabled={isBusy} onChange={choose} />
      <Button kind="plain" label="Cancel" onPress={onClose} />
    </View>
  );
}

const useStyles = themed(() => ({
  form: { gap: 8, padding: 16 },
}));
