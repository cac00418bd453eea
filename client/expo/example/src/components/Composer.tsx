import { useState } from 'react';
import { TextInput, View } from 'react-native';

import { themed, useTheme } from '../theme';
import { Button } from './Button';

interface Props {
  readonly onSend: (text: string) => void;
  readonly onTyping: (isTyping: boolean) => void;
}

/** The line in which a message is written. */
export function Composer({ onSend, onTyping }: Props) {
  const styles = useStyles();
  const { colors } = useTheme();
  const [text, setText] = useState('');
  const send = () => {
    if (!text.trim()) return;
    onSend(text.trim());
    setText('');
  };
  return (
    <View style={styles.line}>
      <TextInput
        accessibilityLabel="Message"
        placeholder="Message"
        placeholderTextColor={colors.muted}
        style={styles.input}
        value={text}
        multiline
        submitBehavior="submit"
        onSubmitEditing={send}
        onChangeText={(next) => {
          setText(next);
          onTyping(next !== '');
        }}
      />
      <Button label="Send" disabled={!text.trim()} onPress={send} />
    </View>
  );
}

const useStyles = themed(({ colors, text }) => ({
  line: {
    flexDirection: 'row',
    alignItems: 'flex-end',
    gap: 8,
    padding: 8,
    borderTopWidth: 1,
    borderTopColor: colors.border,
    backgroundColor: colors.background,
  },
  input: {
    flex: 1,
    minHeight: 44,
    maxHeight: 160,
    paddingHorizontal: 14,
    paddingVertical: 10,
    borderRadius: 22,
    backgroundColor: colors.surface,
    color: colors.text,
    fontSize: text(17),
  },
}));
