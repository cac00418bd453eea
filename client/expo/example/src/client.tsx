// The chat client of this app, and who is signed in.

import { ChatClient } from 'chat-push-client';
import { ChatProvider } from 'chat-push-client/react';
import * as Network from 'expo-network';
import * as SQLite from 'expo-sqlite';
import { createContext, useContext, useEffect, useState, type ReactNode } from 'react';
import { AppState, Platform } from 'react-native';

import { Centered } from './components/Centered';
import { apiUrl, publishableKey, supabaseUrl } from './config';
import { SignIn } from './components/SignIn';
import { supabase } from './supabase';
import { problem } from './words';

const Account = createContext<{ readonly signOut: () => Promise<void> } | null>(null);

/** The account of the person. Throws Error outside of SignedIn. */
export function useAccount() {
  const account = useContext(Account);
  if (!account) throw new Error('useAccount needs <SignedIn> above it');
  return account;
}

/** Shows its children to a signed-in person, and the sign-in to everybody else. The URL stays: it opens afterwards. */
export function SignedIn({ children }: { readonly children: ReactNode }) {
  const { client, error } = useOpenClient();
  if (error) return <Centered title="The chat could not be opened" text={problem(error)} />;
  if (!client) return <Centered isBusy title="Opening your chats…" />;
  return <WithClient client={client}>{children}</WithClient>;
}

function WithClient({ client, children }: { readonly client: ChatClient; readonly children: ReactNode }) {
  const [signedIn, setSignedIn] = useState(client.signedIn);
  useEffect(() => client.subscribe((event) => event.type === 'sessionEnded' && setSignedIn(false)), [client]);
  useEffect(() => followPhone(client), [client]);
  if (!signedIn) return <SignIn client={client} onDone={() => setSignedIn(true)} />;
  const signOut = async () => {
    await client.signOut();
    setSignedIn(false);
  };
  return (
    <Account.Provider value={{ signOut }}>
      <ChatProvider client={client}>{children}</ChatProvider>
    </Account.Provider>
  );
}

function useOpenClient() {
  const [state, setState] = useState<{ client: ChatClient | null; error: unknown }>({ client: null, error: null });
  useEffect(() => {
    // Fast refresh runs this again: the next client can open the database when the last one has closed it.
    const opening = last.then(open);
    opening.then(
      (client) => setState({ client, error: null }),
      (error: unknown) => setState({ client: null, error }),
    );
    return () => {
      last = opening.then((client) => client.close()).catch(() => undefined); // it was not opened
    };
  }, []);
  return state;
}

let last: Promise<unknown> = Promise.resolve();

async function open(): Promise<ChatClient> {
  return ChatClient.open({
    supabaseUrl,
    publishableKey,
    auth: supabase.auth,
    database: await SQLite.openDatabaseAsync('chat.db'),
    // Browsers get no pushes of Expo, so they register nowhere.
    ...(apiUrl && Platform.OS !== 'web' ? { apiUrl } : {}),
  });
}

/** Tells the client what only the phone knows. Returns a function that ends it. */
function followPhone(client: ChatClient): () => void {
  const states = AppState.addEventListener('change', (state) => {
    if (state === 'active') client.foreground();
    else if (state === 'background') client.background();
  });
  const network = Network.addNetworkStateListener(({ isConnected }) => client.networkChanged(isConnected === true));
  return () => {
    states.remove();
    network.remove();
  };
}
