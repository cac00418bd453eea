// Who is signed in on this device.

import { ChatProvider } from 'chat-push-client/react';
import { createContext, use, useContext, useEffect, useState, type ReactNode } from 'react';

import { opening } from './client';
import { SignIn } from './components/SignIn';
import { useNotifications } from './push';

type Account = ReturnType<typeof useNotifications>;

const Context = createContext<Account | null>(null);

/** The pushes and the sign-out of the person. Throws Error outside of SignedIn. */
export function useAccount(): Account {
  const account = useContext(Context);
  if (!account) throw new Error('useAccount needs <SignedIn> above it');
  return account;
}

/** Shows its children to a signed-in person, and the sign-in to everybody else. A link opens after the sign-in. */
export function SignedIn({ children }: { readonly children: ReactNode }) {
  const client = use(opening);
  const account = useNotifications();
  const [signedIn, setSignedIn] = useState(client.signedIn);
  useEffect(
    () =>
      client.subscribe(({ type }) => {
        if (type === 'signedIn') setSignedIn(true);
        else if (type === 'sessionEnded') setSignedIn(false);
      }),
    [client],
  );
  if (!signedIn) return <SignIn client={client} />;
  const signOut = () => account.signOut().then(() => setSignedIn(false));
  return (
    <Context.Provider value={{ ...account, signOut }}>
      <ChatProvider client={client}>{children}</ChatProvider>
    </Context.Provider>
  );
}
