// What the client tells the app. An event is a hint to read again: the local database has the state.

import type { DatabaseError } from './errors.ts';
import type { Conversation, Message } from './models.ts';

export type ChatEvent =
  /** A message is new on this device, or has another content or status. `replaces`: its id before it was sent. */
  | { type: 'messageChanged'; message: Message; replaces: string | null; isNew: boolean }
  /** A message no longer exists: it was discarded, or a backend deleted it for good. */
  | { type: 'messageRemoved'; conversationId: string; messageId: string }
  /** A conversation is new, or its preview, counter or archive flag changed. */
  | { type: 'conversationChanged'; conversation: Conversation }
  /** A conversation no longer exists, or this person is no longer part of it. */
  | { type: 'conversationRemoved'; conversationId: string }
  /** The partner started or stopped to write. */
  | { type: 'typingChanged'; conversationId: string; userId: string; isTyping: boolean }
  /** Who looks at the conversation on the screen now, with this person. */
  | { type: 'presenceChanged'; conversationId: string; userIds: readonly string[] }
  /** Live events arrive (online), or the client tries to connect again (offline). */
  | { type: 'connectionChanged'; state: 'online' | 'offline' }
  /** The local database has all that the server had at the start of this sync. */
  | { type: 'synced' }
  /** A person has signed in on this phone: register it for pushes. */
  | { type: 'signedIn'; userId: string }
  /** The session could not be renewed. Ask the person to sign in; the outbox waits. */
  | { type: 'sessionEnded' }
  /** The local database could not be written, such as on a full disk. The client tries again. */
  | { type: 'databaseFailed'; error: DatabaseError };

export type Listener = (event: ChatEvent) => void;

/** Passes events to any number of listeners. One that throws ends nothing: `report` gets its error. */
export class Events {
  readonly #listeners = new Set<Listener>();
  readonly #report: (error: unknown) => void;
  #early: ChatEvent[] = [];

  constructor(report: (error: unknown) => void) {
    this.#report = report;
  }

  /** Passes an event on. Without a listener, it keeps only what the database does not show. */
  readonly emit = (event: ChatEvent): void => {
    if (!this.#listeners.size && (event.type === 'sessionEnded' || event.type === 'databaseFailed')) {
      this.#early.push(event);
    }
    for (const listener of [...this.#listeners]) this.#tell(listener, event);
  };

  /** Calls the listener with the events from now on. Returns a function that ends it. */
  subscribe(listener: Listener): () => void {
    this.#listeners.add(listener);
    for (const event of this.#early.splice(0)) this.#tell(listener, event);
    return () => this.#listeners.delete(listener);
  }

  #tell(listener: Listener, event: ChatEvent): void {
    try {
      listener(event);
    } catch (error) {
      this.#report(error);
    }
  }
}
