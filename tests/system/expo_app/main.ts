// A chat app without a screen. It reads commands from stdin: on each line a JSON array [command, ...arguments].

import { openDatabase } from '../../../client/expo/conformance/sqlite.ts';
import { ChatClient, Rejected, type Tap } from '../../../client/expo/src/index.ts';
import { Push, PushUnavailable, deviceId, expoApp } from '../../../client/expo/src/expo.ts';
import { serve } from '../../node_app.ts';
import * as notifications from './expo-notifications.ts';
import { items } from './expo-secure-store.ts';
import { pushInBackground } from './expo-task-manager.ts';
import { moveTo } from './react-native.ts';
import { holdAnswer, network, overNetwork, releaseAnswer, supabase, untilHeld } from './supabase.ts';

const { env } = process;
const opened: (Tap & { kind?: string })[] = [];
let networkChanged: (isConnected: boolean) => void = () => undefined;
let push: Push | undefined;
const chat = await ChatClient.open({
  supabaseUrl: env['EXPO_PUBLIC_SUPABASE_URL'] ?? '',
  publishableKey: env['EXPO_PUBLIC_SUPABASE_PUBLISHABLE_KEY'] ?? '',
  apiUrl: env['EXPO_PUBLIC_CHAT_PUSH_URL'] ?? '',
  auth: supabase.auth,
  database: openDatabase(':memory:'),
  app: expoApp({
    network: (changed) => {
      networkChanged = changed;
      return () => undefined;
    },
  }),
  deviceId: await deviceId(),
  fetch: overNetwork,
  timing: { heartbeat: 0.3, marksDelay: 0.01, retryBase: 0.1, retryCap: 1 },
  log: () => undefined,
});

function start(): Push {
  const tokens = env['TOKENS'] === 'native' ? 'native' : 'expo';
  push ??= new Push(chat, { tokens, provisional: env['PROVISIONAL'] === 'yes', log: () => undefined });
  return push;
}

const commands: Record<string, (...values: any[]) => unknown> = {
  signUp: async (email: string, password: string) => {
    const { error } = await supabase.auth.signUp({ email, password });
    if (error) throw error;
    return chat.useSession();
  },
  createProfile: async (name: string) => {
    await supabase.from('users').insert({ id: chat.userId, display_name: name, role: 'guide' }).throwOnError();
  },
  start: () => void start(),
  startTwice: () => {
    start().onTap((tap) => opened.push(tap));
    start().onTap((tap) => opened.push(tap));
  },
  follow: () => void start().onTap((tap) => opened.push(tap)),
  status: () => {
    const { isRegistered, error } = start().status();
    return { isRegistered, reason: error instanceof PushUnavailable ? error.reason : (error?.name ?? null) };
  },
  ask: () => start().ask(),
  register: () => start().register(),
  signOut: () => start().signOut(),
  signedIn: () => chat.signedIn,
  deviceId: () => chat.deviceId,
  restoreBackup: () => items.clear(), // what is kept for this device only is not in it
  newDeviceId: () => deviceId(),
  openChat: (otherId: string) => chat.openChat(otherId),
  lookAt: (conversation: string | null) => chat.lookAt(conversation),
  markRead: (message: string) => chat.markRead(message),
  sync: () => chat.sync(),
  unread: async (conversation: string) => (await chat.conversation(conversation))?.unread ?? null,
  phone: (changes = {}) => Object.assign(notifications.phone, changes),
  rollToken: notifications.rollToken,
  moveTo,
  network: (changes: Partial<typeof network>) => {
    Object.assign(network, changes);
    if (changes.isThere !== undefined) networkChanged(changes.isThere);
  },
  holdAnswer,
  untilHeld,
  releaseAnswer,
  arrive: notifications.arrive,
  pushInBackground,
  tap: notifications.tap,
  opened: async () => {
    await supabase.auth.getSession(); // what follows from a tap without a request has happened now
    return opened.map(({ conversationId }) => conversationId);
  },
};

await serve(commands, (error) =>
  error instanceof PushUnavailable ? error.reason : error instanceof Rejected ? error.code : null,
);
