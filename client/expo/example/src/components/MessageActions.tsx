import type { Message } from 'chat-push-client';
import { useChat } from 'chat-push-client/react';
import { Text, View } from 'react-native';

import { start } from '../direction';
import { themed } from '../theme';
import { Button } from './Button';
import { Report } from './Report';

interface Props {
  readonly message: Message;
  readonly isMine: boolean;
  readonly onEdit: () => void;
  readonly onDo: (work: () => Promise<unknown>) => void;
  readonly onClose: () => void;
}

/** What can be done with a message: one of another person is reported; an own one that has failed is tried again or given up. */
export function MessageActions({ message, isMine, onEdit, onDo, onClose }: Props) {
  const styles = useStyles();
  const chat = useChat();
  const hasFailed = message.status === 'failed';
  return (
    <View style={styles.bar}>
      <Text style={styles.text} numberOfLines={1}>{hasFailed ? `Not sent: ${message.error}` : message.text || 'Photo'}</Text>
      <View style={styles.buttons}>
        {hasFailed && <Button kind="plain" label="Try again" onPress={() => onDo(() => chat.retry(message.id))} />}
        {hasFailed && <Button kind="danger" label="Discard" onPress={() => onDo(() => chat.discard(message.id))} />}
        {!isMine && <Report label="Report" report={(reason) => chat.choices.reportMessage(message.id, reason)} />}
        {isMine && !hasFailed && message.text !== '' && <Button kind="plain" label="Edit" onPress={onEdit} />}
        {isMine && !hasFailed && <Button kind="danger" label="Delete" onPress={() => onDo(() => chat.delete(message.id))} />}
        <Button kind="plain" label="Cancel" onPress={onClose} />
      </View>
    </View>
  );
}

const useStyles = themed(({ colors, text }) => ({
  bar: { paddingHorizontal: 8, paddingTop: 8, borderTopWidth: 1, borderTopColor: colors.border },
  text: { paddingHorizontal: 16, color: colors.muted, fontSize: text(15), textAlign: start },
  buttons: { flexDirection: 'row', flexWrap: 'wrap' },
}));
