// The calls of supabase-js that an app without chat-push-client makes, with all arguments. docs/client.md says when to make them.

import { supabase } from './supabase'; // your app's Supabase client

//#region chat
/** Call it once, right after the sign-up. An account without a profile cannot send, receive, or register a phone. */
export const createProfile = async (userId: string, name: string, role: 'tourist' | 'guide') =>
  supabase.from('users').insert({ id: userId, display_name: name, role }).throwOnError();

/** Returns the id of the conversation with another person. Creates the conversation if there is none. */
export const openConversation = async (userId: string, otherId: string): Promise<string> =>
  (await supabase.rpc('get_or_create_conversation', { p_user1_id: userId, p_user2_id: otherId }).throwOnError()).data;

/** Sends a message. `clientMsgId` is a UUID. Keep it for each retry, so that the message is stored once. */
export async function send(userId: string, conversationId: string, text: string, clientMsgId: string): Promise<void> {
  const row = { room_id: conversationId, sender_id: userId, message: text, client_msg_id: clientMsgId };
  const { error } = await supabase.from('chat_messages').insert(row);
  if (error && error.code !== '23505') throw error; // 23505: an earlier attempt stored the message
}

/** Returns the seconds to wait after a rate limit error, or undefined for any other error. */
export const retryAfter = (error: { code?: string; details?: string }): number | undefined =>
  error.code === 'PT429' ? JSON.parse(error.details ?? '{}').retry_after_seconds : undefined;

/** Returns a page of a conversation, newest first. `before` is the last message of the page before. */
export const page = async (conversationId: string, before?: { server_timestamp: string; id: string }) =>
  (await supabase.rpc('get_messages_paginated', {
    p_conversation_id: conversationId,
    p_limit: 30, // at most 200
    p_cursor_timestamp: before?.server_timestamp ?? null,
    p_cursor_id: before?.id ?? null,
  }).throwOnError()).data;

/** Returns the first cursor of a new phone. Ask for it before the first conversations are loaded, and keep it. */
export const firstCursor = async (): Promise<string> => (await supabase.rpc('sync_cursor').throwOnError()).data;

type Message = { id: string; changed_at: string; [column: string]: unknown };

/**
 * Brings the messages of all conversations that were sent, edited, deleted or marked since the cursor, oldest change first.
 * `store` saves a page: it replaces messages by their id, and the cursor, in one transaction. Messages that the app has may
 * come again.
 */
export async function sync(
  userId: string,
  cursor: string,
  store: (messages: Message[], cursor: string) => Promise<void>,
): Promise<void> {
  const limit = 500;
  let last: Message | undefined;
  let messages: Message[];
  do {
    const { data } = await supabase.rpc('get_changed_messages', {
      p_user_id: userId,
      p_since: last?.changed_at ?? cursor,
      p_after_id: last?.id ?? null,
      p_limit: limit,
    }).throwOnError();
    messages = data;
    last = messages.at(-1);
    if (last) await store(messages, last.changed_at);
  } while (messages.length === limit);
}

/** Reports that messages are on this device. Call it for messages from Realtime, syncs, and pushes. */
export const markDelivered = async (userId: string, messageIds: string[], deviceId: string) =>
  supabase
    .rpc('mark_messages_delivered', { p_user_id: userId, p_message_ids: messageIds, p_device_id: deviceId })
    .throwOnError();

/** Marks a conversation as read up to its newest stored message on the screen; null: the whole conversation. */
export const markRead = async (userId: string, conversationId: string, newest: string | null, deviceId: string) =>
  supabase.rpc('mark_messages_read', {
    p_user_id: userId,
    p_conversation_id: conversationId,
    p_up_to_message_id: newest,
    p_device_id: deviceId,
  }).throwOnError();

/** Call it every 20 seconds in the foreground, with the conversation on the screen or null, and once at its end. */
export const reportPresence = async (deviceId: string, isOnline: boolean, conversationId: string | null) =>
  supabase.rpc('report_presence', {
    p_device_id: deviceId,
    p_state: isOnline ? 'online' : 'offline',
    p_conversation_id: conversationId,
  }).throwOnError();
//#endregion

//#region choices
/** Until a time, or null: until unmute. */
export const mute = async (conversationId: string, until: Date | null) =>
  supabase.rpc('mute_conversation', { p_room_id: conversationId, p_until: until?.toISOString() ?? null }).throwOnError();

export const unmute = async (conversationId: string) =>
  supabase.rpc('unmute_conversation', { p_room_id: conversationId }).throwOnError();

/** The name of a sound of the app, none, or null: the default. */
export const setSound = async (conversationId: string, sound: string | null) =>
  supabase.rpc('set_conversation_sound', { p_room_id: conversationId, p_sound: sound }).throwOnError();

/** Accepts the conversation of a stranger, as an answer does. Until then, accepted_by_user1 or 2 of its row, that of the signed-in user, is false. */
export const accept = async (conversationId: string) =>
  supabase.rpc('accept_conversation', { p_room_id: conversationId }).throwOnError();

export const block = async (userId: string) => supabase.rpc('block_user', { p_user_id: userId }).throwOnError();

export const unblock = async (userId: string) => supabase.rpc('unblock_user', { p_user_id: userId }).throwOnError();

/** Returns the blocked users, the newest first. */
export const blocked = async (): Promise<{ user_id: string; blocked_at: string }[]> =>
  (await supabase.rpc('my_blocked_users').throwOnError()).data;

/** One of the reasons of the app, and perhaps details. Returns the id of the report. */
export const reportMessage = async (messageId: string, reason: string, details?: string): Promise<string> =>
  (await supabase.rpc('report_message', { p_message_id: messageId, p_reason: reason, p_details: details ?? null }).throwOnError()).data;

export const reportUser = async (userId: string, reason: string, details?: string): Promise<string> =>
  (await supabase.rpc('report_user', { p_user_id: userId, p_reason: reason, p_details: details ?? null }).throwOnError()).data;

/** Returns until when the signed-in user may not write, or undefined for any other error. null: nobody knows. */
export const suspendedUntil = (error: { code?: string; details?: string }): string | null | undefined =>
  error.code === 'PT403' ? JSON.parse(error.details ?? '{}').suspended_until : undefined;

type Preview = 'full' | 'name' | 'none';
type Preferences = {
  snoozed_until?: string | null;
  quiet_hours?: { zone: string; from: string; until: string; days?: number[] } | null;
  while_quiet?: 'silent' | 'none';
  preview?: Preview;
};

/** What is left out stays. */
export const setPreferences = async (preferences: Preferences) =>
  supabase.rpc('set_notification_preferences', { p_preferences: preferences }).throwOnError();

/** What this device shows; null: what setPreferences says. */
export const setDevicePreview = async (deviceId: string, preview: Preview | null) =>
  supabase.rpc('set_device_preview', { p_device_id: deviceId, p_preview: preview }).throwOnError();

/** Returns what a settings screen shows. */
export const preferences = async () => (await supabase.rpc('my_notification_preferences').throwOnError()).data;
//#endregion
