// A chat app without a screen. It reads commands from stdin: on each line a JSON array [command, ...arguments].

import { mock } from 'node:test';

import * as push from '../../../docs/client/push.ts';
import * as chat from '../../../docs/client/chat.ts';
import { askForPushes, useConversation, usePush } from '../../../docs/client/usePush.ts';
import * as notifications from './expo-notifications.ts';
import { visited } from './expo-router.ts';
import { pushInBackground } from './expo-task-manager.ts';
import { alerts, moveTo, opened } from './react-native.ts';
import { states, unmount } from './react.ts';
import { holdAnswer, network, releaseAnswer, supabase, untilHeld } from './supabase.ts';

mock.timers.enable({ apis: ['setInterval'] });

async function userId(): Promise<string> {
  const { data } = await supabase.auth.getSession();
  return data.session?.user.id ?? '';
}

const commands: Record<string, (...values: any[]) => unknown> = {
  signUp: async (email: string, password: string) => {
    const { error } = await supabase.auth.signUp({ email, password });
    if (error) throw error;
    return userId();
  },
  createProfile: async (name: string) => {
    await chat.createProfile(await userId(), name, 'guide');
  },
  openChat: async (otherId: string) => chat.openConversation(await userId(), otherId),
  send: async (conversation: string, text: string, id: string) => chat.send(await userId(), conversation, text, id),
  sendOrWait: async (conversation: string, text: string, id: string) => {
    try {
      await chat.send(await userId(), conversation, text, id);
    } catch (error) {
      return chat.retryAfter(error as { code?: string; details?: string });
    }
  },
  page: chat.page,
  firstCursor: chat.firstCursor,
  sync: async (cursor: string) => {
    const stored: unknown[] = [];
    await chat.sync(await userId(), cursor, async (messages, next) => void stored.push({ messages, cursor: next }));
    return stored;
  },
  start: () => void usePush(),
  ask: askForPushes,
  alerts: () => alerts,
  press: (text: string) => alerts.at(-1)?.buttons.find((button) => button.text === text)?.onPress?.(),
  opened: () => opened,
  registrations: () => states,
  phone: (changes = {}) => Object.assign(notifications.phone, changes),
  registerPhone: push.registerPhone,
  rollToken: notifications.rollToken,
  logOut: push.logOut,
  signedIn: async () => Boolean(await userId()),
  open: async (conversation: string, newest?: string) => useConversation(await userId(), conversation, newest),
  leave: unmount,
  switchTo: (from: string, to: string) => {
    const leaveFirst = push.lookAt(from);
    push.lookAt(to);
    leaveFirst();
  },
  moveTo,
  passSeconds: (seconds: number) => mock.timers.tick(seconds * 1000),
  network: (changes: Partial<typeof network>) => Object.assign(network, changes),
  holdAnswer,
  untilHeld,
  releaseAnswer,
  arrive: notifications.arrive,
  pushInBackground,
  tap: notifications.tap,
  visited: async () => {
    await userId(); // supabase-js answers in order, so earlier calls of getSession have their answers now
    return visited;
  },
  markDelivered: async (messages: string[]) => push.markDelivered(await userId(), messages),
  markRead: async (conversation: string, newest?: string) => push.markRead(await userId(), conversation, newest),
};

process.stdin.setEncoding('utf8');
let rest = '';
for await (const chunk of process.stdin) {
  const lines = (rest + chunk).split('\n');
  rest = lines.pop() ?? '';
  for (const line of lines) {
    const [command, ...values] = JSON.parse(line);
    try {
      process.stdout.write(`${JSON.stringify({ value: (await commands[command](...values)) ?? null })}\n`);
    } catch (error) {
      const { code = '', status = null, message } = error as push.PushError;
      process.stdout.write(`${JSON.stringify({ error: { code, status, message } })}\n`);
    }
  }
}
process.exit(0);
