import type { ChatClient } from 'chat-push-client';
import { useState } from 'react';
import { ScrollView, Text } from 'react-native';

import { createAccount } from '../newAccount';
import { useTask } from '../tasks';
import { start } from '../direction';
import { themed } from '../theme';
import { Button } from './Button';
import { Field } from './Field';
import { Notice } from './Notice';

/** Signs in, or creates an account. */
export function SignIn({ client }: { readonly client: ChatClient }) {
  const styles = useStyles();
  const [isNew, setIsNew] = useState(false);
  const [name, setName] = useState('');
  const [email, setEmail] = useState('');
  const [password, setPassword] = useState('');
  const { error, isBusy, run } = useTask();
  const submit = () =>
    void run(async () => {
      if (isNew) await createAccount(client, { name: name.trim(), email: email.trim(), password });
      else await client.signIn(email.trim(), password);
    });

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
        onSubmitEditing={submit}
      />
      {error && <Notice isError text={error} />}
      <Button
        label={isNew ? 'Create account' : 'Sign in'}
        disabled={isBusy || !email || !password || (isNew && !name.trim())}
        onPress={submit}
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
  title: { color: colors.text, fontSize: text(28), fontWeight: '700', textAlign: start },
}));
