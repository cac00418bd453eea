// What a person chose about notifications. The server keeps it, because it decides which push is sent.

import type { ChatClient } from 'chat-push-client';
import { useChat } from 'chat-push-client/react';
import { useCallback, useEffect, useState } from 'react';

import { supabase } from './supabase';
import { useTask } from './tasks';

export type Preview = 'full' | 'name' | 'none';

export interface QuietHours {
  readonly zone: string;
  readonly from: string; // such as 22:00
  readonly until: string;
}

/** `muted`: until null: until it is unmuted. `sounds`: by conversation. */
export interface Choices {
  readonly muted: readonly { readonly room_id: string; readonly until: string | null }[];
  readonly sounds: Readonly<Record<string, string>>;
  readonly quiet_hours: QuietHours | null;
  readonly while_quiet: 'silent' | 'none';
  readonly preview: Preview;
}

/** The choices, and `change` to do one of the calls below: it reads the choices again. null: not read yet. */
export function useChoices() {
  const [choices, setChoices] = useState<Choices | null>(null);
  const { error, isBusy, run } = useTask();
  const read = useCallback(async () => {
    const { data } = await supabase.rpc('my_notification_preferences').throwOnError();
    setChoices(data as Choices);
  }, []);
  useEffect(() => void run(read), [run, read]);
  const change = (call: () => Promise<unknown>) =>
    void run(async () => {
      await call();
      await read();
    });
  return { choices, error, isBusy, change };
}

/** What is left out stays. */
export async function prefer(choice: Partial<Pick<Choices, 'quiet_hours' | 'while_quiet' | 'preview'>>): Promise<void> {
  await supabase.rpc('set_notification_preferences', { p_preferences: choice }).throwOnError();
}

/** `hours`: from now, or null: until `unmute`. */
export async function mute(conversationId: string, hours: number | null): Promise<void> {
  const until = hours === null ? null : new Date(Date.now() + hours * 3_600_000).toISOString();
  await supabase.rpc('mute_conversation', { p_room_id: conversationId, p_until: until }).throwOnError();
}

export async function unmute(conversationId: string): Promise<void> {
  await supabase.rpc('unmute_conversation', { p_room_id: conversationId }).throwOnError();
}

/** `sound`: none, or null: the default. */
export async function setSound(conversationId: string, sound: 'none' | null): Promise<void> {
  await supabase.rpc('set_conversation_sound', { p_room_id: conversationId, p_sound: sound }).throwOnError();
}

export interface BlockedPerson {
  readonly id: string;
  readonly name: string;
}

/** The blocked people, and `unblock`, which brings their conversation back. */
export function useBlocked() {
  const chat = useChat();
  const [blocked, setBlocked] = useState<readonly BlockedPerson[]>([]);
  const { error, isBusy, run } = useTask();
  const read = useCallback(async () => setBlocked(await blockedPeople()), []);
  useEffect(() => void run(read), [run, read]);
  const unblock = (userId: string) =>
    void run(async () => {
      await supabase.rpc('unblock_user', { p_user_id: userId }).throwOnError();
      await read();
      await chat.sync();
    });
  return { blocked, error, isBusy, unblock };
}

/** Blocks a person. The sync removes the conversation, which the server no longer lists. */
export async function block(chat: ChatClient, userId: string): Promise<void> {
  await supabase.rpc('block_user', { p_user_id: userId }).throwOnError();
  await chat.sync();
}

async function blockedPeople(): Promise<BlockedPerson[]> {
  const { data } = await supabase.rpc('my_blocked_users').throwOnError();
  const ids = (data as { user_id: string }[]).map((each) => each.user_id);
  const { data: people } = await supabase.from('users').select('id, display_name').in('id', ids).throwOnError();
  const names = new Map(people.map(({ id, display_name }) => [id, display_name]));
  return ids.map((id) => ({ id, name: names.get(id) ?? 'Somebody' }));
}
