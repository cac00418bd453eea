// What the client stores and returns: messages, conversations and people. All times are the server's.

import { ServerFailed } from './errors.ts';

export type Attachment = Readonly<Record<string, unknown>>; // such as {type: 'image', url: 'https://…'}
export type Status = 'pending' | 'failed' | 'sent' | 'delivered' | 'read';
export type Row = Record<string, unknown>;
export type Preview = 'full' | 'name' | 'none';

/**
 * A message, sent or not.
 *
 * `id`: the id of the server; until it is sent, its clientMsgId. `serverTimestamp`: its place in the order; null until
 * it is sent. `status`: pending and failed also for an edit or a deletion that is not sent. `error`: why not.
 */
export interface Message {
  readonly id: string;
  readonly conversationId: string;
  readonly senderId: string;
  readonly text: string;
  readonly attachments: readonly Attachment[];
  readonly messageType: string;
  readonly clientMsgId: string | null;
  readonly serverTimestamp: Date | null;
  readonly editedAt: Date | null;
  readonly deletedAt: Date | null;
  readonly deliveredAt: Date | null;
  readonly readAt: Date | null;
  readonly isRead: boolean;
  readonly status: Status;
  readonly error: string | null;
}

/** The profile of a person. `displayName`: null if the profile is not known yet. */
export interface Person {
  readonly id: string;
  readonly displayName: string | null;
  readonly avatarUrl: string | null;
  readonly role: string | null;
}

/**
 * A conversation, as the list of conversations shows it. `lastMessage`: one line, at most 200 characters.
 *
 * `isRequest`: the partner has written, and this person has neither answered nor accepted it.
 */
export interface Conversation {
  readonly id: string;
  readonly partner: Person;
  readonly lastMessage: string | null;
  readonly lastMessageAt: Date | null;
  readonly unread: number;
  readonly archived: boolean;
  readonly isRequest: boolean;
}

/** A person whom this person blocks. */
export interface BlockedPerson {
  readonly userId: string;
  readonly blockedAt: Date;
}

/** Local times, from 00:00 to 24:00, on the weekdays on which they begin: 1 is Monday; all, if days is left out. */
export interface QuietHours {
  readonly zone: string; // of the IANA database
  readonly from: string;
  readonly until: string;
  readonly days?: readonly number[];
}

/** What setNotificationPreferences changes; null removes it. */
export interface PreferenceChanges {
  readonly snoozedUntil?: Date | null;
  readonly quietHours?: QuietHours | null;
  readonly whileQuiet?: 'silent' | 'none';
  readonly preview?: Preview;
}

/**
 * What this person chose.
 *
 * `muted`: the conversations that are muted now, and until when; null: until it is ended. `sounds`: by conversation.
 * `devicePreviews`: of devices that differ from `preview`, by device id.
 */
export interface NotificationPreferences {
  readonly muted: Readonly<Record<string, Date | null>>;
  readonly sounds: Readonly<Record<string, string>>;
  readonly snoozedUntil: Date | null;
  readonly quietHours: QuietHours | null;
  readonly whileQuiet: 'silent' | 'none';
  readonly preview: Preview;
  readonly devicePreviews: Readonly<Record<string, Preview>>;
}

export type EntryKind = 'send' | 'edit' | 'delete' | 'archive' | 'unarchive';

/**
 * What waits in the outbox: a message to send, an edit, a deletion, or the archive flag of a conversation.
 *
 * `id`: the id of the message; of one to send its clientMsgId; of an archive flag that of the conversation.
 * `attempts`: how often it was tried. `nextTry`: when it is tried again, in seconds since 1970 by the phone's clock.
 */
export interface Entry {
  readonly seq: number;
  readonly id: string;
  readonly conversationId: string;
  readonly kind: EntryKind;
  readonly text: string;
  readonly attachments: readonly Attachment[];
  readonly createdAt: number;
  readonly attempts: number;
  readonly triedAt: number;
  readonly nextTry: number;
  readonly state: 'pending' | 'failed';
  readonly error: string | null;
}

/** A message as the server has it. Times are microseconds since 1970: a Date would lose the order of a millisecond. */
export interface ServerMessage {
  readonly id: string;
  readonly conversationId: string;
  readonly senderId: string;
  readonly text: string;
  readonly attachments: readonly Attachment[];
  readonly messageType: string;
  readonly clientMsgId: string | null;
  readonly serverTimestamp: number;
  readonly changedAt: number;
  readonly editedAt: number | null;
  readonly deletedAt: number | null;
  readonly deliveredAt: number | null;
  readonly readAt: number | null;
  readonly isRead: boolean;
}

/** The row is not one of the table that it should be of. The message has no content of it. */
export class MalformedRow extends ServerFailed {}

/** The message in a row of chat_messages. Throws MalformedRow. */
export function messageOf(row: Row): ServerMessage {
  if (!Array.isArray(row['attachments'])) throw new MalformedRow('attachments is not an array');
  return {
    id: text(row, 'id'),
    conversationId: text(row, 'room_id'),
    senderId: text(row, 'sender_id'),
    text: text(row, 'message'),
    attachments: row['attachments'] as Attachment[],
    messageType: optional(row, 'message_type', text) ?? 'text',
    clientMsgId: optional(row, 'client_msg_id', text),
    serverTimestamp: time(row, 'server_timestamp'),
    changedAt: time(row, 'changed_at'),
    editedAt: optional(row, 'edited_at', time),
    deletedAt: optional(row, 'deleted_at', time),
    deliveredAt: optional(row, 'delivered_at', time),
    readAt: optional(row, 'read_at', time),
    isRead: row['is_read'] === true,
  };
}

/** The person whose profile is in a row, and whose id is in this column. Throws MalformedRow. */
export function personOf(row: Row, idColumn: string): Person {
  return {
    id: text(row, idColumn),
    displayName: optional(row, 'display_name', text),
    avatarUrl: optional(row, 'avatar_url', text),
    role: optional(row, 'role', text),
  };
}

/** The person in a row of my_blocked_users. Throws MalformedRow. */
export function blockedPersonOf(row: Row): BlockedPerson {
  return { userId: text(row, 'user_id'), blockedAt: date(row, 'blocked_at') };
}

/** What my_notification_preferences returns. Throws MalformedRow. */
export function preferencesOf(found: Row): NotificationPreferences {
  const muted = (found['muted'] as Row[]).map((one) => [text(one, 'room_id'), optional(one, 'until', date)]);
  return {
    muted: Object.fromEntries(muted) as Record<string, Date | null>,
    sounds: found['sounds'] as Record<string, string>,
    snoozedUntil: optional(found, 'snoozed_until', date),
    quietHours: found['quiet_hours'] as QuietHours | null,
    whileQuiet: found['while_quiet'] as 'silent' | 'none',
    preview: found['preview'] as Preview,
    devicePreviews: found['device_previews'] as Record<string, Preview>,
  };
}

/** The value of a JSON text; null: it is none. */
export function parsed(json: string): unknown {
  try {
    return JSON.parse(json);
  } catch {
    return null;
  }
}

/** An object as it is; anything else as one without fields. */
export function rowOf(value: unknown): Row {
  return typeof value === 'object' && value !== null ? (value as Row) : {};
}

function date(row: Row, column: string): Date {
  return new Date(time(row, column) / 1000);
}

/** The text in a column. Throws MalformedRow. */
export function text(row: Row, column: string): string {
  const value = row[column];
  if (typeof value !== 'string') throw new MalformedRow(`${column} is not a text`);
  return value;
}

/** The time in a column, in microseconds since 1970. Throws MalformedRow. */
export function time(row: Row, column: string): number {
  const [, whole, fraction = '', zone] = /^(.+?)(?:\.(\d{1,6}))?(Z|[+-]\d\d:\d\d)$/.exec(text(row, column)) ?? [];
  const milliseconds = Date.parse(`${whole?.replace(' ', 'T')}${zone}`);
  if (Number.isNaN(milliseconds)) throw new MalformedRow(`${column} is not a time`);
  return milliseconds * 1000 + Number(fraction.padEnd(6, '0'));
}

/** The value of a column that may be null. Throws MalformedRow. */
export function optional<T>(row: Row, column: string, read: (row: Row, column: string) => T): T | null {
  return row[column] == null ? null : read(row, column);
}

/** A time in microseconds since 1970, as the Data API reads it. */
export function isoOf(micros: number): string {
  const seconds = Math.floor(micros / 1e6);
  const whole = new Date(seconds * 1000).toISOString().slice(0, 19);
  return `${whole}.${String(micros - seconds * 1e6).padStart(6, '0')}Z`;
}
