import { useState } from 'react';
import { Platform, Pressable, Text, TextInput, View } from 'react-native';

import { themed, useTheme } from '../theme';
import { Button } from './Button';

interface Props {
  readonly label: string;
  readonly button: string;
  readonly initial?: string;
  readonly onSend: (text: string) => void;
  readonly onTyping?: (isTyping: boolean) => void;
  readonly onPhoto?: () => void;
  readonly onCancel?: () => void;
}

/** The line in which a message is written. */
export function Composer({ label, button, initial = '', onSend, onTyping, onPhoto, onCancel }: Props) {
  const styles = useStyles();
  const { colors } = useTheme();
  const [text, setText] = useState(initial);
  const send = () => {
    if (!text.trim()) return;
    onSend(text.trim());
    setText('');
    onTyping?.(false);
  };
  return (
    <View style={styles.line}>
      {onPhoto && (
        <Pressable role="button" accessibilityLabel="Send a photo" style={styles.photo} onPress={onPhoto}>
          <Text style={styles.plus}>+</Text>
        </Pressable>
      )}
      <TextInput
        accessibilityLabel={label}
        placeholder={label}
        placeholderTextColor={colors.muted}
        style={styles.input}
        value={text}
        autoFocus={initial !== ''}
        multiline
        {...(Platform.OS === 'web' && { numberOfLines: 1 })} // a textarea has two
        submitBehavior="submit"
        onSubmitEditing={send}
        onChangeText={(next) => {
          setText(next);
          onTyping?.(next !== '');
        }}
      />
      {onCancel && <Button kind="plain" label="Cancel" onPress={onCancel} />}
      <Button label={button} disabled={!text.trim()} onPress={send} />
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
  photo: { minWidth: 44, minHeight: 44, alignItems: 'center', justifyContent: 'center' },
  plus: { color: colors.link, fontSize: text(28), lineHeight: text(32) },
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
