// What a screen shows: read from the local database, and read again when an event says that it has changed. No React.
//
// Any number of events within a frame make one reading, and one new state. What has not changed keeps its identity, so
// that a list draws only the rows that have.

import type { ChatClient } from './client.ts';
import type { ChatEvent } from './events.ts';
import type { Kept } from './hooks.ts';
import type { Conversation, Message } from './models.ts';

const FRAME = 16; // ms
const PAGE = 30; // messages

/** All conversations, newest first, also the archived ones. `isLoaded`: the local database was read. */
export interface ConversationsState {
  readonly conversations: readonly Conversation[];
  readonly isLoaded: boolean;
  readonly error: Error | null;
}

/**
 * A conversation on the screen.
 *
 * `messages`: newest first, as an inverted list shows them. `isLoaded`: the local database was read. `hasOlder`:
 * `loadOlder` may bring more. `isPartnerHere`: the partner looks at this conversation, too. `error`: why the newest
 * messages could not be read; without a network there is none, and what is stored is shown.
 */
export interface ConversationState {
  readonly conversation: Conversation | null;
  readonly messages: readonly Message[];
  readonly isLoaded: boolean;
  readonly hasOlder: boolean;
  readonly isPartnerHere: boolean;
  readonly error: Error | null;
}

/** A state that is kept up to date while anybody is subscribed to it. */
abstract class View<State> implements Kept<State> {
  protected readonly client: ChatClient;
  readonly #listeners = new Set<() => void>();
  #state: State;
  #unsubscribe: (() => void) | null = null;

  constructor(client: ChatClient, state: State) {
    this.client = client;
    this.#state = state;
  }

  /** The state. It is the same object until it changes. */
  readonly state = (): State => this.#state;

  /** Calls the listener after each change. Returns a function that ends it. */
  readonly subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener);
    if (!this.#unsubscribe) {
      this.#unsubscribe = this.client.subscribe((event) => this.noted(event));
      this.opened();
    }
    return () => {
      this.#listeners.delete(listener);
      if (this.#listeners.size) return;
      this.#unsubscribe?.();
      this.#unsubscribe = null;
    };
  };

  /** The first listener has come. */
  protected abstract opened(): void;

  /** Something has happened. */
  protected abstract noted(event: ChatEvent): void;

  protected isOpen(): boolean {
    return this.#unsubscribe !== null;
  }

  protected set(state: State): void {
    this.#state = state;
    for (const listener of [...this.#listeners]) listener();
  }
}

/** A state that is read from the local database. */
abstract class StoredView<State extends { readonly error: Error | null }> extends View<State> {
  #timer: ReturnType<typeof setTimeout> | undefined;
  #isReading = false;
  #changes = 0;

  /** Reads the state. Its error is shown beside the last state. */
  protected abstract read(): Promise<State>;

  /** Reads the state again, soon. */
  protected refresh(): void {
    this.#changes += 1;
    if (!this.#isReading) this.#timer ??= setTimeout(() => void this.readNow(), FRAME);
  }

  /** Reads the state now, or again after the reading that runs. */
  protected async readNow(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#changes += 1;
    if (this.#isReading || !this.isOpen()) return;
    this.#isReading = true;
    const before = this.#changes;
    let state: State;
    try {
      state = await this.read();
    } catch (error) {
      state = { ...this.state(), error: error as Error };
    }
    this.#isReading = false;
    if (!this.isOpen()) return;
    this.set(state);
    if (this.#changes > before) this.refresh();
  }
}

/** The list of conversations. */
export class ConversationsView extends StoredView<ConversationsState> {
  constructor(client: ChatClient) {
    super(client, { conversations: [], isLoaded: false, error: null });
  }

  protected override opened(): void {
    void this.readNow();
  }

  protected override noted({ type }: ChatEvent): void {
    // A new message changes the preview of its conversation, which may come without an event of its own.
    if (/^(conversation|message)(Changed|Removed)$/.test(type)) this.refresh();
  }

  protected override async read(): Promise<ConversationsState> {
    const conversations = kept(this.state().conversations, await this.client.conversations());
    return { conversations, isLoaded: true, error: null };
  }
}

/** A conversation, from its newest message down to the oldest that the person has paged back to. */
export class ConversationView extends StoredView<ConversationState> {
  readonly #id: string;
  #limit = PAGE;
  #isEnd: boolean | null = null; // whether there are no older messages; null: not known
  #hereIds: readonly string[] = [];
  #error: Error | null = null;
  #isStale = false; // a page could not be read from the server
  #older: Promise<void> | null = null;

  constructor(client: ChatClient, id: string) {
    super(client, {
      conversation: null,
      messages: [],
      isLoaded: false,
      hasOlder: false,
      isPartnerHere: false,
      error: null,
    });
    this.#id = id;
  }

  /** Reads the next older page, also from the server. It resolves when it is shown, and does not throw. */
  readonly loadOlder = (): Promise<void> => {
    this.#older ??= this.#loadOlder().finally(() => (this.#older = null));
    return this.#older;
  };

  protected override opened(): void {
    this.#hereIds = []; // the channel of the conversation says it when it is joined
    void this.readNow().then(() => this.#loadNewest());
  }

  protected override noted(event: ChatEvent): void {
    if (event.type === 'connectionChanged') {
      this.#hereIds = [];
      if (event.state === 'online') this.#reload();
      else this.refresh();
    } else if (event.type === 'synced') {
      if (this.#isStale) this.#reload();
    } else if (this.#isHere(event)) {
      if (event.type === 'presenceChanged') this.#hereIds = event.userIds;
      else if (event.type === 'messageChanged' && event.isNew && this.#isShown(event.message)) this.#limit += 1;
      this.refresh();
    }
  }

  protected override async read(): Promise<ConversationState> {
    const conversation = await this.client.conversation(this.#id);
    const messages = kept(this.state().messages, await this.client.messages(this.#id, null, this.#limit));
    return {
      conversation,
      messages,
      isLoaded: true,
      hasOlder: this.#isEnd === null ? messages.length >= PAGE : !this.#isEnd,
      isPartnerHere: conversation !== null && this.#hereIds.includes(conversation.partner.id),
      error: this.#error,
    };
  }

  #isHere(event: ChatEvent): boolean {
    if (event.type === 'messageChanged') return event.message.conversationId === this.#id;
    if (event.type === 'conversationChanged') return event.conversation.id === this.#id;
    return 'conversationId' in event && event.conversationId === this.#id && event.type !== 'typingChanged';
  }

  /** Whether a new message makes the range that is shown longer. An older one does not, which a page has brought. */
  #isShown({ serverTimestamp }: Message): boolean {
    const oldest = this.state().messages.at(-1)?.serverTimestamp;
    return serverTimestamp === null || (oldest != null && serverTimestamp >= oldest);
  }

  /** The server can be reached again. */
  #reload(): void {
    this.#isStale = false;
    this.#isEnd = null; // without the server, the stored messages ended it
    void this.#loadNewest();
  }

  async #loadNewest(): Promise<void> {
    const length = await this.#load(null);
    if (length !== null) this.#isEnd = length < PAGE || this.#isEnd === true;
    await this.readNow();
  }

  async #loadOlder(): Promise<void> {
    const { messages } = this.state();
    if (!messages.length) return;
    const oldest = messages.findLast((message) => message.serverTimestamp !== null);
    // Where none is sent, the next ones are stored: in the outbox, or below it.
    const length = oldest ? await this.#load(oldest) : messages.length < this.#limit ? 0 : PAGE;
    if (length !== null) this.#isEnd = length < PAGE;
    this.#limit = Math.max(this.#limit, messages.length + (length ?? 0));
    await this.readNow();
  }

  /** Reads a page. Returns its length; null: it could not be read. */
  async #load(before: Message | null): Promise<number | null> {
    try {
      const page = await this.client.loadMessages(this.#id, before, PAGE, () => (this.#isStale = true));
      this.#error = null;
      return page.length;
    } catch (error) {
      this.#error = error as Error;
      this.#isStale = true;
      return null;
    }
  }
}

/** Whether the partner types. */
export class TypingView extends View<boolean> {
  readonly #id: string;

  constructor(client: ChatClient, id: string) {
    super(client, false);
    this.#id = id;
  }

  protected override opened(): void {
    this.set(false); // its end may have come while nobody listened
  }

  protected override noted(event: ChatEvent): void {
    if (event.type === 'typingChanged' && event.conversationId === this.#id) this.set(event.isTyping);
  }
}

/** The new items, but each that equals a former one is that former one; and the former list if all do. */
function kept<T extends { readonly id: string }>(former: readonly T[], items: readonly T[]): readonly T[] {
  const byId = new Map(former.map((item) => [item.id, item]));
  const result = items.map((item) => {
    const before = byId.get(item.id);
    return before && JSON.stringify(before) === JSON.stringify(item) ? before : item;
  });
  return result.length === former.length && result.every((item, index) => item === former[index]) ? former : result;
}
