import type { ChatClient } from 'chat-push-client';

import { supabase } from './supabase';

interface NewAccount {
  readonly name: string;
  readonly email: string;
  readonly password: string;
}

/** Creates an account with its profile, and signs in. Throws what Supabase answers, and what `useSession` throws. */
export async function createAccount(client: ChatClient, { name, email, password }: NewAccount): Promise<void> {
  const { data, error } = await supabase.auth.signUp({ email, password });
  if (error) throw error;
  if (!data.user || !data.session) throw new Error('Open the link in the e-mail that we have sent you, and sign in.');
  await supabase.from('users').insert({ id: data.user.id, display_name: name, role: 'tourist' }).throwOnError();
  await client.useSession();
}
