// An app with docs/client/chat.ts and no screen. It reads commands from stdin: a JSON array [command, ...arguments] a line.

import * as chat from '../../../docs/client/chat.ts';
import { serve } from '../../node_app.ts';
import { supabase } from './supabase.ts';

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
};

await serve(commands, (error) => (error as { code?: string }).code ?? null);
