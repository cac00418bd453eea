// What a push opens when it is tapped. docs/client.md of the project describes the data of a push.

import { parsed, rowOf } from './models.ts';

/** The conversation that a push opens. `messageId`: its newest message when the push was sent, if it has one. */
export interface Tap {
  readonly conversationId: string;
  readonly messageId: string | null;
  readonly recipientId: string | null;
}

/**
 * What the data of a push open. null: it is no push of the chat, or one without a text, or it is malformed.
 *
 * `data` is what Expo delivers, or what FCM or APNs deliver: with the same data as JSON or an object in `body`.
 */
export function tapOf(data: unknown): Tap | null {
  const body = rowOf(data)['body'] ?? data;
  const fields = rowOf(typeof body === 'string' ? parsed(body) : body); // a push of somebody else may have any body
  if (fields['type'] !== 'chat_message' || fields['kind'] === 'dismiss' || fields['kind'] === 'badge') return null;
  const conversationId = uuid(fields['conversationId']);
  if (!conversationId) return null;
  return { conversationId, messageId: uuid(fields['messageId']), recipientId: uuid(fields['recipientId']) };
}

function uuid(value: unknown): string | null {
  return typeof value === 'string' && /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(value) ? value : null;
}
