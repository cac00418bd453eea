// A chat client for Supabase and Chat Push: sends, syncs and shows messages, also without a network.

export type { Choices } from './choices.ts';
export { ChatClient } from './client.ts';
export type { Database, Value } from './database.ts';
export type { Device } from './devices.ts';
export * from './errors.ts';
export type { ChatEvent, Listener } from './events.ts';
export type { Random } from './ids.ts';
export type {
  Attachment,
  BlockedPerson,
  Conversation,
  Entry,
  EntryKind,
  Message,
  NotificationPreferences,
  Person,
  PreferenceChanges,
  Preview,
  QuietHours,
  Status,
} from './models.ts';
export { tapOf, type Tap } from './push.ts';
export { openDatabase } from './rescue.ts';
export type { App, Settings, Timing } from './settings.ts';
