import type { ChatClient } from 'chat-push-client';
import { useState } from 'react';
import { ScrollView, Text } from 'react-native';

import { createAccount } from '../account';
import { themed } from '../theme';
import { problem } from '../words';
import { Button } from './Button';
import { Field } from './Field';

/** Signs in, or creates an account. `onDone`: the client has a session. */
export function SignIn({ client, onDone }: { readonly client: ChatClient; readonly onDone: () => void }) {
  const styles = useStyles();
  const [isNew, setIsNew] = useState(false);
  const [name, setName] = useState('');
  const [email, setEmail] = useState('');
  const [password, setPassword] = useState('');
  const [error, setError] = useState<unknown>(null);
  const [isBusy, setIsBusy] = useState(false);

  const submit = async () => {
    setIsBusy(true);
    setError(null);
    try {
      if (isNew) await createAccount(client, { name: name.trim(), email: email.trim(), password });
      else await client.signIn(email.trim(), password);
      onDone();
    } catch (cause) {
      setError(cause);
      setIsBusy(false);
    }
  };

  return (
    <ScrollView style={styles.screen} contentContainerStyle={styles.content} keyboardShouldPersistTaps="handled">
      <Text role="heading" style={styles.title}>{isNew ? 'Create an account' : 'Sign in'}</Text>
      {isNew && <Field label="Name" value={name} onChangeText={setName} autoComplete="name" />}
      <Field label="E-mail" value={email} onChangeText={setEmail} inputMode="email" autoCapitalize="none" autoComplete="email" />
      <Field
        label="Password"
        value={password}
        onChangeText={setPassword}
        secureTextEntry
        autoComplete={isNew ? 'new-password' : 'current-password'}
        onSubmitEditing={() => void submit()}
      />
      {error !== null && <Text role="alert" style={styles.error}>{problem(error)}</Text>}
      <Button
        label={isNew ? 'Create account' : 'Sign in'}
        disabled={isBusy || !email || !password || (isNew && !name.trim())}
        onPress={() => void submit()}
      />
      <Button
        kind="plain"
        label={isNew ? 'I have an account' : 'I am new here'}
        onPress={() => setIsNew(!isNew)}
      />
    </ScrollView>
  );
}

const useStyles = themed(({ colors, text }) => ({
  screen: { flex: 1, backgroundColor: colors.background },
  content: { flexGrow: 1, justifyContent: 'center', gap: 16, padding: 24, width: '100%', maxWidth: 480, alignSelf: 'center' },
  title: { color: colors.text, fontSize: text(28), fontWeight: '700', textAlign: 'left' },
  error: { color: colors.danger, fontSize: text(16), textAlign: 'left' },
}));
