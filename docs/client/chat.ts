// The chat itself, by supabase-js: each call that an app makes, with all of its arguments. docs/client.md says when.

import { supabase } from './supabase'; // the client that your app has anyway

//#region chat
/** Once, right after the sign-up: before it nobody can write, be written to, or register a phone. */
export const createProfile = async (userId: string, name: string, role: 'tourist' | 'guide') =>
  supabase.from('users').insert({ id: userId, display_name: name, role }).throwOnError();

/** The id of the conversation with somebody; made when there is none. */
export const openConversation = async (userId: string, otherId: string): Promise<string> =>
  (await supabase.rpc('get_or_create_conversation', { p_user1_id: userId, p_user2_id: otherId }).throwOnError()).data;

/** Sends a message. `clientMsgId`: a UUID that the app keeps until this succeeds; sent twice, it is stored once. */
export async function send(userId: string, conversationId: string, text: string, clientMsgId: string): Promise<void> {
  const row = { room_id: conversationId, sender_id: userId, message: text, client_msg_id: clientMsgId };
  const { error } = await supabase.from('chat_messages').insert(row);
  if (error && error.code !== '23505') throw error; // 23505: an earlier attempt has stored it
}

/** Seconds after which a call that was refused as one too many is to be made again; undefined: that is not its fault. */
export const retryAfter = (error: { code?: string; details?: string }): number | undefined =>
  error.code === 'PT429' ? JSON.parse(error.details ?? '{}').retry_after_seconds : undefined;

/** A page of a conversation, newest first. `before`: the last message of the page that is shown already. */
export const page = async (conversationId: string, before?: { server_timestamp: string; id: string }) =>
  (await supabase.rpc('get_messages_paginated', {
    p_conversation_id: conversationId,
    p_limit: 30,
    p_cursor_timestamp: before?.server_timestamp ?? null,
    p_cursor_id: before?.id ?? null,
  }).throwOnError()).data;

/** What came in all conversations since the greatest server_timestamp that the app holds; null: it holds none. */
export const missed = async (userId: string, since: string | null, after?: { id: string }) =>
  (await supabase.rpc('get_missed_messages', {
    p_user_id: userId,
    p_since_timestamp: since,
    p_after_id: after?.id ?? null, // of the last row of the page before, with its server_timestamp as `since`
    p_limit: 500,
  }).throwOnError()).data;
//#endregion
