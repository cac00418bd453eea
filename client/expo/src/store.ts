// What the local database of one account has: conversations, messages, marks and the outbox.
//
// What the server has and what waits in the outbox are stored apart, and laid over each other when they are read. So a
// row of the server never overwrites what the person has written.

import { Connection, type Database, type Value } from './database.ts';
import { NotSignedIn, UnknownMessage } from './errors.ts';
import type { ChatEvent } from './events.ts';
import { MalformedRow, optional, personOf, rowOf, text, time } from './models.ts';
import type { Attachment, Conversation, Entry, EntryKind, Message, Person, Row, ServerMessage, Status } from './models.ts';
import { newId, type Random } from './ids.ts';
import { Turns } from './waiting.ts';

const FOREVER = Number.MAX_SAFE_INTEGER;

const WIPE = ['people', 'conversations', 'messages', 'outbox', 'delivered_marks', 'read_marks'];

const PENDING = "state = 'pending', error = null, next_try = 0";

const MESSAGES = `
select message.*, entry.kind, entry.text as new_text, entry.state, entry.error, entry.created_at as entered_at
from messages message left join outbox entry on entry.id = message.id`;

// A list may have been read before a mark or a deletion whose event has come already.
const UNCOUNT_LATER = `
update conversations set unread = max(0, unread - (
  select count(*) from messages where conversation_id = conversations.id and sender_id = partner_id
    and server_timestamp <= last_message_at
    and min(coalesce(read_at, deleted_at), coalesce(deleted_at, read_at)) > ?))
where id = ?`;

// unread: what the server counted, without what this person has read since, and what came after that count.
const CONVERSATIONS = `
select conversation.*, person.display_name, person.avatar_url, person.role, entry.kind,
  (select json_array(text, json(attachments), message_type, server_timestamp) from messages
    where conversation_id = conversation.id and deleted_at is null and server_timestamp >= conversation.last_message_at
    order by server_timestamp desc, id limit 1) as newest,
  case when read_up_to >= last_message_at then 0 else max(0, unread - (
    select count(*) from messages where conversation_id = conversation.id and sender_id = partner_id
      and not is_read and deleted_at is null and server_timestamp <= read_up_to)) end
  + (select count(*) from messages where conversation_id = conversation.id and sender_id = partner_id
      and not is_read and deleted_at is null and server_timestamp > max(last_message_at, read_up_to)) as unread_now
from conversations conversation
left join people person on person.id = partner_id
left join outbox entry on entry.id = conversation.id`;

const ENTRIES = `
select seq, id, conversation_id as conversationId, kind, text, attachments, created_at as createdAt, attempts,
  tried_at as triedAt, next_try as nextTry, state, error
from outbox`;

type Key = 'user_id' | 'cursor' | 'device_id';

/** A page of the server: the conversation, its messages, what was stored before, and whether none are older. */
export interface Page {
  readonly conversationId: string;
  readonly messages: readonly ServerMessage[];
  readonly before: Message | null;
  readonly known: ReadonlySet<string>;
  readonly complete: boolean;
}

/** When messages were delivered or read. Times in microseconds. */
export interface Receipts {
  readonly deliveredAt: number | null;
  readonly readAt: number | null;
  readonly isRead: boolean;
  readonly changedAt: number;
}

/** `emit` receives what changed, after it is committed. `deviceId`: undefined if the database keeps it. */
export interface Opening {
  readonly database: Database;
  readonly emit: (event: ChatEvent) => void;
  readonly log: (text: string) => void;
  readonly random: Random;
  readonly deviceId?: string | undefined;
}

/** An open local database. */
export class Store {
  /**
   * A sync, or a read mark that is sent. A mark in the midst of a sync would be in the counters that it reads and not in
   * the messages, and would be counted twice.
   */
  readonly counting = new Turns();
  readonly #sql: Connection;
  readonly #emit: (event: ChatEvent) => void;
  readonly #log: (text: string) => void;
  readonly #newId: () => string;
  readonly #gone = new Set<string>(); // removed messages, which an older answer of the server may still have
  #me: string | null = null;
  #deviceId = '';

  private constructor({ database, emit, log, random }: Opening) {
    this.#sql = new Connection(database);
    this.#emit = emit;
    this.#log = log;
    this.#newId = () => newId(random);
  }

  /** Prepares the database. Throws DatabaseError. */
  static async open(opening: Opening): Promise<Store> {
    const store = new Store(opening);
    await store.#sql.prepare();
    store.#me = await store.get('user_id');
    store.#deviceId = opening.deviceId ?? (await store.get('device_id')) ?? store.#newId();
    await store.put('device_id', store.#deviceId);
    return store;
  }

  /** Closes the database, after what runs. */
  close(): Promise<void> {
    return this.#sql.close();
  }

  // Account --------------------------------------------------------------------------------------

  /** The account whose data the database has. */
  get me(): string | null {
    return this.#me;
  }

  /** As `me`. Throws NotSignedIn. */
  someone(): string {
    if (this.#me === null) throw new NotSignedIn('nobody is signed in: call signIn');
    return this.#me;
  }

  /** The id of this installation. It survives a sign-out. */
  get deviceId(): string {
    return this.#deviceId;
  }

  /** A stored value, or null. */
  get(key: Key): Promise<string | null> {
    return this.#sql.reading(async () => (await this.#texts('select value from meta where key = ?', key))[0] ?? null);
  }

  /** Stores a value. */
  async put(key: Key, value: string): Promise<void> {
    await this.#sql.transaction(() => this.#set(key, value));
    if (key === 'user_id') this.#me = value;
  }

  /**
   * Removes all data of the account, also what waits in the outbox. Only the id of the installation stays, and that this
   * file has replaced a damaged one, whose outbox would come again otherwise.
   */
  async wipe(): Promise<void> {
    await this.#sql.transaction(async () => {
      for (const table of WIPE) await this.#sql.run(`delete from ${table}`);
      await this.#sql.run("delete from meta where key not in ('device_id', 'rescued_from')");
      this.#me = null;
    });
    // With secure_delete, no text is left in the file. The log that is written before it has some until it is cut.
    await this.#sql.reading(() => this.#sql.all('pragma wal_checkpoint(truncate)'));
  }

  // Messages -------------------------------------------------------------------------------------

  /** Messages of a conversation, newest first: those that are not sent, then those of the server. */
  messages(conversationId: string, before: Message | null, limit: number): Promise<Message[]> {
    return this.#sql.reading(async () => {
      const waiting = before
        ? []
        : await this.#sql.all(
            "select * from outbox where conversation_id = ? and kind = 'send' order by seq desc limit ?",
            conversationId,
            limit,
          );
      const at = before ? await this.#timeOf(before) : FOREVER;
      const rows = await this.#sql.all(
        `${MESSAGES} where message.conversation_id = ? and (server_timestamp < ? or (server_timestamp = ?
          and message.id > ?)) order by server_timestamp desc, message.id limit ?`,
        conversationId,
        at,
        at,
        before?.id ?? '',
        limit - waiting.length,
      );
      return [...waiting.map((row) => this.#unsent(row)), ...rows.map(messageFrom)];
    });
  }

  /** A message by its id, or by the id that it had before it was sent. Throws UnknownMessage. */
  message(messageId: string): Promise<Message> {
    return this.#sql.reading(() => this.#message(messageId));
  }

  /** When the server stored a message, in microseconds. */
  timeOf(message: Message): Promise<number> {
    return this.#sql.reading(() => this.#timeOf(message));
  }

  /**
   * Stores messages of the server, each if it is newer than the stored version, and the sync cursor with them.
   *
   * Messages of others are noted to be marked as delivered. A message that the outbox was sending leaves it. Returns
   * the conversations that are not stored yet.
   */
  applyMessages(messages: readonly ServerMessage[], cursor: string | null = null): Promise<Set<string>> {
    return this.#transaction(async (events) => {
      const changed = new Set<string>();
      for (const message of messages) {
        if (!this.#gone.has(message.id) && (await this.#apply(message, events))) changed.add(message.conversationId);
      }
      if (cursor !== null) await this.#set('cursor', cursor);
      return this.#noteConversations(changed, events);
    });
  }

  /** Stores a page of get_messages_paginated. Removes stored messages of its range that the page does not have. */
  async applyPage(page: Page): Promise<void> {
    await this.applyMessages(page.messages);
    const oldest = page.complete ? 0 : Math.min(FOREVER, ...page.messages.map((message) => message.serverTimestamp));
    const found = new Set(page.messages.map((message) => message.id));
    await this.#transaction(async (events) => {
      const newest = page.before ? await this.#timeOf(page.before) : FOREVER;
      const stored = await this.#texts(
        'select id from messages where conversation_id = ? and server_timestamp > ? and server_timestamp < ?',
        page.conversationId,
        oldest,
        newest,
      );
      for (const id of stored) {
        if (page.known.has(id) && !found.has(id)) await this.#removeMessage(page.conversationId, id, events);
      }
    });
  }

  /** The ids of all stored messages of a conversation. */
  known(conversationId: string): Promise<Set<string>> {
    return this.#sql.reading(
      async () => new Set(await this.#texts('select id from messages where conversation_id = ?', conversationId)),
    );
  }

  /** Removes a message that no longer exists on the server. */
  removeMessage(conversationId: string, messageId: string): Promise<void> {
    this.#gone.add(messageId);
    return this.#transaction(async (events) => {
      await this.#removeMessage(conversationId, messageId, events);
      await this.#noteConversations([conversationId], events);
    });
  }

  /** Stores that messages were delivered or read. Their changed_at stays: an edit before it may not be stored yet. */
  applyReceipts(conversationId: string, messageIds: readonly string[], receipts: Receipts): Promise<void> {
    return this.#transaction(async (events) => {
      for (const id of messageIds) {
        const row = await this.#sql.one('select * from messages where id = ?', id);
        if (!row || (row['is_read'] && row['delivered_at'])) continue;
        if (receipts.isRead && !row['is_read']) await this.#uncount(row, receipts.changedAt);
        await this.#sql.run(
          `update messages set delivered_at = coalesce(delivered_at, ?), read_at = coalesce(read_at, ?),
            is_read = is_read or ? where id = ?`,
          receipts.deliveredAt,
          receipts.readAt,
          Number(receipts.isRead),
          id,
        );
        await this.#changed(id, events);
      }
      await this.#noteConversations([conversationId], events);
    });
  }

  // Conversations --------------------------------------------------------------------------------

  /** All conversations, those with the newest message first. */
  conversations(): Promise<Conversation[]> {
    return this.#sql.reading(() => this.#conversations());
  }

  /** A conversation by its id, or null if it is not stored. */
  conversation(conversationId: string): Promise<Conversation | null> {
    return this.#sql.reading(() => this.#conversation(conversationId));
  }

  /** Stores rows of chat_rooms. Removes the conversations of `known` that are not among them. */
  applyConversations(rows: readonly Row[], known: readonly string[] = []): Promise<void> {
    return this.#transaction(async (events) => {
      const before = new Map((await this.#sql.all(CONVERSATIONS)).map((row) => [text(row, 'id'), row]));
      for (const row of rows) {
        try {
          await this.#applyConversation(row, before.get(text(row, 'id')));
        } catch (error) {
          if (!(error instanceof MalformedRow)) throw error;
          this.#log(`malformed conversation: ${error.message}`);
        }
      }
      for (const conversation of await this.#conversations()) {
        const row = before.get(conversation.id);
        if (!row || JSON.stringify(conversationFrom(row)) !== JSON.stringify(conversation)) {
          events.push({ type: 'conversationChanged', conversation });
        }
      }
      const found = new Set(rows.map((row) => row['id']));
      for (const id of known) if (!found.has(id)) await this.#removeConversation(id, events);
    });
  }

  /** Removes a conversation and its messages. */
  removeConversation(conversationId: string): Promise<void> {
    return this.#transaction((events) => this.#removeConversation(conversationId, events));
  }

  /** The partners of whom no profile is stored. */
  partnersWithoutProfile(): Promise<string[]> {
    return this.#sql.reading(() =>
      this.#texts('select distinct partner_id from conversations where partner_id not in (select id from people)'),
    );
  }

  /** Stores profiles. */
  applyPeople(people: readonly Person[]): Promise<void> {
    return this.#transaction(async (events) => {
      for (const { id, displayName, avatarUrl, role } of people) {
        await this.#sql.run('insert or replace into people values (?, ?, ?, ?)', id, displayName, avatarUrl, role);
        await this.#noteConversations(await this.#texts('select id from conversations where partner_id = ?', id), events);
      }
    });
  }

  // Outbox ---------------------------------------------------------------------------------------

  /** Enters a new message into the outbox, and returns it. `now`: seconds, as in all methods of the outbox. */
  enterMessage(
    conversationId: string,
    content: string,
    attachments: readonly Attachment[],
    now: number,
  ): Promise<Message> {
    return this.#transaction(async (events) => {
      const id = this.#newId();
      await this.#enter(id, conversationId, 'send', content, now, attachments);
      return this.#changed(id, events, true);
    });
  }

  /** Enters an edit of an own message, or changes the message that waits to be sent. Throws UnknownMessage. */
  enterEdit(messageId: string, content: string, now: number): Promise<Message> {
    return this.#transaction(async (events) => {
      const { id, conversationId, deletedAt } = await this.#message(messageId);
      if (deletedAt) throw new UnknownMessage(`the message ${id} is deleted`);
      const changed = await this.#sql.run(
        `update outbox set text = ?, edited = edited or attempts > 0, ${PENDING} where id = ?`,
        content,
        id,
      );
      if (!changed) await this.#enter(id, conversationId, 'edit', content, now);
      return this.#changed(id, events);
    });
  }

  /** Enters the deletion of an own message. One that was never tried is removed. Throws UnknownMessage. */
  enterDelete(messageId: string, now: number): Promise<void> {
    return this.#transaction(async (events) => {
      const { id, conversationId } = await this.#message(messageId);
      const entry = await this.#sql.one('select * from outbox where id = ?', id);
      const isUnsent = entry?.['kind'] === 'send';
      if (isUnsent && entry['attempts'] === 0) await this.#sql.run('delete from outbox where id = ?', id);
      else await this.#enter(id, conversationId, 'delete', '', now);
      if (isUnsent) events.push({ type: 'messageRemoved', conversationId, messageId: id });
      else await this.#changed(id, events);
    });
  }

  /** Enters the archive flag of a conversation. */
  enterArchive(conversationId: string, archived: boolean, now: number): Promise<void> {
    return this.#transaction(async (events) => {
      await this.#enter(conversationId, conversationId, archived ? 'archive' : 'unarchive', '', now);
      await this.#noteConversations([conversationId], events);
    });
  }

  /** Makes a failed entry pending again. Throws UnknownMessage if none has failed for this message. */
  retry(messageId: string): Promise<void> {
    return this.#transaction(async (events) => {
      const changed = await this.#sql.run(
        // Not 0: the server may have the message, for a later edit or deletion.
        `update outbox set attempts = 1, ${PENDING} where id = ? and state = 'failed'`,
        messageId,
      );
      if (!changed) throw new UnknownMessage(`nothing has failed for the message ${messageId}`);
      await this.#noteMessage(messageId, events);
    });
  }

  /** Removes a failed entry: the message, or its edit or deletion. Throws UnknownMessage if none has failed. */
  discard(messageId: string): Promise<void> {
    return this.#transaction(async (events) => {
      const entry = await this.#sql.one("select * from outbox where id = ? and state = 'failed'", messageId);
      if (!entry) throw new UnknownMessage(`nothing has failed for the message ${messageId}`);
      await this.#sql.run('delete from outbox where id = ?', messageId);
      const conversationId = text(entry, 'conversation_id');
      if (entry['kind'] === 'send') events.push({ type: 'messageRemoved', conversationId, messageId });
      else await this.#noteMessage(messageId, events);
      await this.#noteConversations([conversationId], events);
    });
  }

  /** All entries of the outbox, oldest first. */
  entries(): Promise<Entry[]> {
    return this.#sql.reading(async () => (await this.#sql.all(`${ENTRIES} order by seq`)).map(entryFrom));
  }

  /**
   * The oldest pending entry of each conversation, whether or not it is due.
   *
   * A deletion of a message that the server may still get is one beside it: no other entry waits for that.
   */
  nextEntries(): Promise<Entry[]> {
    return this.#sql.reading(async () => {
      const rows = await this.#sql.all(
        `${ENTRIES} where seq in
          (select min(seq) from outbox where state = 'pending'
            group by conversation_id, iif(kind = 'delete' and tried_at > 0, seq, 0)) order by seq`,
      );
      return rows.map(entryFrom);
    });
  }

  /**
   * Notes, before the request, that an entry is tried. `triedAt` is the time of the last attempt to send it.
   *
   * Returns the entry as it is now, with the attempts before; null if it was removed since it was read.
   */
  beginAttempt(seq: number, now: number): Promise<Entry | null> {
    return this.#sql.transaction(async () => {
      const row = await this.#sql.one(`${ENTRIES} where seq = ? and state = 'pending'`, seq);
      if (!row) return null;
      await this.#sql.run(
        `update outbox set attempts = attempts + 1, tried_at = case kind when 'send' then ? else tried_at end,
          edited = edited and kind = 'send' where seq = ?`,
        now,
        seq,
      );
      return entryFrom(row);
    });
  }

  /** Sets when an entry is tried again. `count`: whether the attempt counts; the rate limit does not. */
  async postpone(entry: Entry, until: number, count = true): Promise<void> {
    await this.#execute(
      'update outbox set next_try = ?, attempts = attempts - ? where id = ? and kind = ?',
      until,
      Number(!count),
      entry.id,
      entry.kind,
    );
  }

  /** Ends the wait of all pending entries, because the server can be reached again. */
  async makeDue(): Promise<void> {
    await this.#execute("update outbox set next_try = 0 where state = 'pending'");
  }

  /** Notes that the server will never accept an entry as it is. One that was changed meanwhile stays pending. */
  fail(entry: Entry, error: string): Promise<void> {
    return this.#transaction(async (events) => {
      await this.#sql.run(
        "update outbox set state = 'failed', error = ? where id = ? and kind = ? and text = ?",
        error,
        entry.id,
        entry.kind,
        entry.text,
      );
      await this.#noteMessage(entry.id, events);
    });
  }

  /** Removes an entry that the server has accepted, and stores its answer. One that was edited meanwhile stays. */
  finish(entry: Entry, message: ServerMessage | null): Promise<void> {
    return this.#transaction(async (events) => {
      if (entry.kind !== 'send') {
        await this.#sql.run('delete from outbox where id = ? and kind = ? and not edited', entry.id, entry.kind);
      }
      if (message && !(await this.#apply(message, events))) await this.#changed(message.id, events);
      await this.#noteConversations([entry.conversationId], events);
    });
  }

  // Marks ----------------------------------------------------------------------------------------

  /** Messages that have arrived here, of which the server does not know it. */
  deliveredMarks(limit: number): Promise<string[]> {
    return this.#sql.reading(() => this.#texts('select message_id from delivered_marks limit ?', limit));
  }

  /** Removes marks that the server has. */
  async removeDeliveredMarks(messageIds: readonly string[]): Promise<void> {
    await this.#execute(
      'delete from delivered_marks where message_id in (select value from json_each(?))',
      JSON.stringify(messageIds),
    );
  }

  /** Notes that a conversation was read up to a message. Returns whether that is news. Throws UnknownMessage. */
  markRead(messageId: string): Promise<boolean> {
    return this.#transaction(async (events) => {
      const message = await this.#message(messageId);
      const { id, conversationId } = message;
      if (!message.serverTimestamp) return false;
      const at = await this.#timeOf(message);
      const marked = await this.#sql.one(
        `select max(at) as at from (select read_up_to as at from conversations where id = ?
          union all select server_timestamp from read_marks where conversation_id = ?)`,
        conversationId,
        conversationId,
      );
      if (Number(marked?.['at'] ?? -1) >= at) return false;
      await this.#sql.run('update conversations set read_up_to = ? where id = ?', at, conversationId);
      await this.#sql.run('insert or replace into read_marks values (?, ?, ?)', conversationId, id, at);
      await this.#noteConversations([conversationId], events);
      return true;
    });
  }

  /** Conversations, and the message up to which each was read, of which the server does not know it. */
  readMarks(): Promise<{ conversationId: string; messageId: string }[]> {
    return this.#sql.reading(async () => {
      const rows = await this.#sql.all('select conversation_id as conversationId, message_id as messageId from read_marks');
      return rows.map((row) => ({ ...row }) as { conversationId: string; messageId: string });
    });
  }

  /** Removes a mark that the server has, unless the person has read on. */
  async removeReadMark(conversationId: string, messageId: string): Promise<void> {
    await this.#execute('delete from read_marks where conversation_id = ? and message_id = ?', conversationId, messageId);
  }

  // Within a transaction or reading --------------------------------------------------------------

  /** A transaction of one statement. */
  async #execute(statement: string, ...values: Value[]): Promise<void> {
    await this.#sql.transaction(() => this.#sql.run(statement, ...values));
  }

  async #transaction<T>(work: (events: ChatEvent[]) => Promise<T>): Promise<T> {
    const events: ChatEvent[] = [];
    const result = await this.#sql.transaction(() => work(events));
    for (const event of events) this.#emit(event);
    return result;
  }

  async #set(key: Key, value: string): Promise<void> {
    await this.#sql.run('insert or replace into meta values (?, ?)', key, value);
  }

  /** The texts of a query of one column. */
  async #texts(query: string, ...values: Value[]): Promise<string[]> {
    return (await this.#sql.all(query, ...values)).map((row) => Object.values(row)[0] as string);
  }

  async #message(messageId: string): Promise<Message> {
    const row =
      (await this.#sql.one(`${MESSAGES} where message.id = ?`, messageId)) ??
      (await this.#sql.one(
        `${MESSAGES} where message.client_msg_id = ? and message.sender_id = ?`,
        messageId,
        this.#me,
      ));
    if (row) return messageFrom(row);
    const entry = await this.#sql.one("select * from outbox where id = ? and kind = 'send'", messageId);
    if (!entry) throw new UnknownMessage(`no message ${messageId}`);
    return this.#unsent(entry);
  }

  async #timeOf(message: Message): Promise<number> {
    const row = await this.#sql.one('select server_timestamp from messages where id = ?', message.id);
    // One that was removed since: its Date has milliseconds only.
    return row ? Number(row['server_timestamp']) : (message.serverTimestamp?.getTime() ?? FOREVER / 1000) * 1000;
  }

  async #apply(message: ServerMessage, events: ChatEvent[]): Promise<boolean> {
    const old = await this.#sql.one('select * from messages where id = ?', message.id);
    if (old && Number(old['changed_at']) >= message.changedAt) return false;
    if (old && !old['is_read'] && !old['deleted_at'] && (message.isRead || message.deletedAt !== null)) {
      await this.#uncount(old, message.changedAt);
    }
    await this.#sql.run(
      'insert or replace into messages values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)',
      message.id,
      message.conversationId,
      message.senderId,
      message.text,
      JSON.stringify(message.attachments),
      message.messageType,
      message.clientMsgId,
      message.serverTimestamp,
      message.changedAt,
      message.editedAt,
      message.deletedAt,
      message.deliveredAt,
      message.readAt,
      Number(message.isRead),
    );
    let replaces: string | null = null;
    if (message.senderId !== this.#me && message.deliveredAt === null && message.deletedAt === null) {
      await this.#sql.run('insert or ignore into delivered_marks values (?)', message.id);
    } else if (message.senderId === this.#me && message.clientMsgId !== null) {
      replaces = await this.#settle(message.id, message.clientMsgId);
    }
    await this.#changed(message.id, events, !old && replaces === null, replaces);
    return true;
  }

  /** Ends the send of a message that the server has. What was changed meanwhile becomes an edit or a deletion. */
  async #settle(messageId: string, clientMsgId: string): Promise<string | null> {
    const entry = await this.#sql.one('select * from outbox where id = ? and id <> ?', clientMsgId, messageId);
    if (!entry) return null;
    if (entry['kind'] === 'send' && !entry['edited']) {
      await this.#sql.run('delete from outbox where id = ?', clientMsgId);
    } else {
      await this.#sql.run(
        `update outbox set id = ?, kind = case kind when 'send' then 'edit' else kind end, edited = 0, attempts = 0,
          tried_at = 0, ${PENDING} where id = ?`,
        messageId,
        clientMsgId,
      );
    }
    return clientMsgId;
  }

  /** Takes a message that was read or deleted out of the counter, if the server's count is older than that. */
  async #uncount(row: Row, changedAt: number): Promise<void> {
    await this.#sql.run(
      `update conversations set unread = max(0, unread - 1)
        where id = ? and partner_id = ? and last_message_at >= ? and updated_at < ?`,
      text(row, 'conversation_id'),
      text(row, 'sender_id'),
      Number(row['server_timestamp']),
      changedAt,
    );
  }

  async #conversations(): Promise<Conversation[]> {
    const listed = (await this.#sql.all(CONVERSATIONS)).map(conversationFrom);
    return listed.sort((one, other) => Number(other.lastMessageAt) - Number(one.lastMessageAt));
  }

  async #conversation(conversationId: string): Promise<Conversation | null> {
    const row = await this.#sql.one(`${CONVERSATIONS} where conversation.id = ?`, conversationId);
    return row ? conversationFrom(row) : null;
  }

  /** `old`: what is stored of it. */
  async #applyConversation(row: Row, old: Row | undefined): Promise<void> {
    const [me, other] = row['user1_id'] === this.#me ? [1, 2] : [2, 1];
    const updatedAt = time(row, 'updated_at');
    if (old && Number(old['updated_at']) > updatedAt) return;
    await this.#sql.run(
      'insert or replace into conversations values (?, ?, ?, ?, ?, ?, ?, ?, ?)',
      text(row, 'id'),
      text(row, `user${other}_id`),
      optional(row, 'last_message', text),
      optional(row, 'last_message_at', time) ?? 0,
      Number(row[`unread_count_user${me}`] ?? 0),
      Number(row[`archived_by_user${me}`] === true),
      Number(row[`accepted_by_user${other}`] === true && row[`accepted_by_user${me}`] === false),
      updatedAt,
      Number(old?.['read_up_to'] ?? 0),
    );
    await this.#sql.run(UNCOUNT_LATER, updatedAt, text(row, 'id'));
  }

  async #removeConversation(conversationId: string, events: ChatEvent[]): Promise<void> {
    for (const table of ['messages', 'read_marks', 'outbox']) {
      await this.#sql.run(`delete from ${table} where conversation_id = ?`, conversationId);
    }
    if (await this.#sql.run('delete from conversations where id = ?', conversationId)) {
      events.push({ type: 'conversationRemoved', conversationId });
    }
  }

  async #removeMessage(conversationId: string, messageId: string, events: ChatEvent[]): Promise<void> {
    await this.#sql.run('delete from delivered_marks where message_id = ?', messageId);
    await this.#sql.run('delete from outbox where id = ?', messageId);
    if (await this.#sql.run('delete from messages where id = ?', messageId)) {
      events.push({ type: 'messageRemoved', conversationId, messageId });
    }
  }

  /** Enters it into the outbox. It replaces the entry that waits for the same id. */
  async #enter(
    id: string,
    conversationId: string,
    kind: EntryKind,
    content: string,
    now: number,
    attachments: readonly Attachment[] = [],
  ): Promise<void> {
    await this.#sql.run(
      `insert into outbox (id, conversation_id, kind, text, created_at, attachments) values (?, ?, ?, ?, ?, ?)
        on conflict (id) do update
          set kind = excluded.kind, text = excluded.text, attachments = excluded.attachments, attempts = 0, ${PENDING}`,
      id,
      conversationId,
      kind,
      content,
      now,
      JSON.stringify(attachments),
    );
  }

  /** Notes that a message has changed, and returns it. */
  async #changed(messageId: string, events: ChatEvent[], isNew = false, replaces: string | null = null): Promise<Message> {
    const message = await this.#message(messageId);
    events.push({ type: 'messageChanged', message, replaces, isNew });
    return message;
  }

  async #noteMessage(messageId: string, events: ChatEvent[]): Promise<void> {
    try {
      await this.#changed(messageId, events);
    } catch (error) {
      // An archive flag, or a message that was deleted before it was sent.
      if (!(error instanceof UnknownMessage)) throw error;
    }
  }

  /** Notes that conversations have changed. Returns those that are not stored. */
  async #noteConversations(changed: Iterable<string>, events: ChatEvent[]): Promise<Set<string>> {
    const unknown = new Set<string>();
    for (const id of changed) {
      const conversation = await this.#conversation(id);
      if (conversation) events.push({ type: 'conversationChanged', conversation });
      else unknown.add(id);
    }
    return unknown;
  }

  /** The message of an entry, which has no times of the server. */
  #unsent(entry: Row): Message {
    return messageFrom({ ...entry, sender_id: this.#me ?? '', client_msg_id: entry['id'], message_type: 'text' });
  }
}

// Rows -------------------------------------------------------------------------------------------

function messageFrom(row: Row): Message {
  const kind = row['kind'];
  const isDeleted = kind === 'delete';
  const sent: Status = row['is_read'] ? 'read' : row['delivered_at'] ? 'delivered' : 'sent';
  return {
    id: text(row, 'id'),
    conversationId: text(row, 'conversation_id'),
    senderId: text(row, 'sender_id'),
    text: isDeleted ? '' : text(row, kind === 'edit' ? 'new_text' : 'text'),
    attachments: isDeleted ? [] : (JSON.parse(text(row, 'attachments')) as unknown[]).map(rowOf),
    messageType: text(row, 'message_type'),
    clientMsgId: optional(row, 'client_msg_id', text),
    serverTimestamp: date(row['server_timestamp']),
    editedAt: date(row['edited_at']),
    // Until the server has set it, the time is the phone's.
    deletedAt: date(row['deleted_at']) ?? (isDeleted ? new Date(Number(row['entered_at']) * 1000) : null),
    deliveredAt: date(row['delivered_at']),
    readAt: date(row['read_at']),
    isRead: Boolean(row['is_read']),
    status: kind ? (text(row, 'state') as Status) : sent,
    error: optional(row, 'error', text),
  };
}

function conversationFrom(row: Row): Conversation {
  let lastMessage = optional(row, 'last_message', text);
  let lastAt = row['last_message_at'];
  if (row['newest'] !== null) {
    const newest = JSON.parse(text(row, 'newest')) as [string, Attachment[], string, number];
    const [content, attachments, messageType] = newest;
    lastAt = newest[3];
    // What the list shows for a message without text: its kind.
    const kind = attachments.length ? attachments[0]?.['type'] : messageType;
    lastMessage = Array.from(content.trim().replace(/\s+/g, ' ')).slice(0, 200).join('') || `[${typeof kind === 'string' ? kind : 'attachment'}]`;
  }
  return {
    id: text(row, 'id'),
    partner: personOf(row, 'partner_id'),
    lastMessage,
    lastMessageAt: date(lastAt || null),
    unread: Number(row['unread_now']),
    isRequest: Boolean(row['is_request']),
    archived: row['kind'] === null ? Boolean(row['archived']) : row['kind'] === 'archive',
  };
}

/** The entry in a row of ENTRIES. */
function entryFrom(row: Row): Entry {
  return { ...row, attachments: JSON.parse(text(row, 'attachments')) as Attachment[] } as unknown as Entry;
}

function date(micros: unknown): Date | null {
  return typeof micros === 'number' ? new Date(Math.floor(micros / 1000)) : null;
}
