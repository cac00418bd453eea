"""The local database: one SQLite file for each account, with its session, conversations, messages, marks and outbox.

Calls are synchronous: each reads or writes a few rows. What the server has and what waits in the outbox are stored
apart, and laid over each other when they are read. So a row of the server never overwrites what the person has written.
"""

import asyncio
import json
import logging
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Literal
from uuid import UUID, uuid4

from chat_client.database import connect, finish_rescue, rescue, translating
from chat_client.errors import DatabaseCorrupt, UnknownMessage
from chat_client.events import (
    ConversationChanged,
    ConversationRemoved,
    DatabaseRecovered,
    Event,
    MessageChanged,
    MessageRemoved,
)
from chat_client.models import Attachment, Conversation, Entry, Json, Message, Person
from chat_client.rows import EPOCH, conversation_of, entry_of, message_of, micros, optional_micros

_log = logging.getLogger(__name__)

_WIPE = (
    "delete from people",
    "delete from conversations",
    "delete from messages",
    "delete from outbox",
    "delete from delivered_marks",
    "delete from read_marks",
)

_MESSAGES = """
select message.*, entry.kind, entry.text as new_text, entry.attachments as new_attachments, entry.state, entry.error,
  entry.created_at as entered_at
from messages message left join outbox entry on entry.id = message.id
"""

# unread: what the server counted, without what this person has read since, and what came after that count.
_CONVERSATIONS = """
select conversation.*, person.display_name, person.avatar_url, person.role, entry.kind,
  (select json_array(text, attachments, message_type, server_timestamp) from messages
    where conversation_id = conversation.id and deleted_at is null and server_timestamp >= conversation.last_message_at
    order by server_timestamp desc, id limit 1) as newest,
  case when read_up_to >= last_message_at then 0 else max(0, unread - (
    select count(*) from messages where conversation_id = conversation.id and sender_id = partner_id
      and not is_read and deleted_at is null and server_timestamp <= read_up_to)) end
  + (select count(*) from messages where conversation_id = conversation.id and sender_id = partner_id
      and not is_read and deleted_at is null and server_timestamp > max(last_message_at, read_up_to)) as unread_now
from conversations conversation
left join people person on person.id = partner_id
left join outbox entry on entry.id = conversation.id
"""

# A list may have been read before a mark or a deletion whose event has come already.
_UNCOUNT_LATER = """
update conversations set unread = max(0, unread - (
  select count(*) from messages where conversation_id = conversations.id and sender_id = partner_id
    and server_timestamp <= last_message_at
    and min(coalesce(read_at, deleted_at), coalesce(deleted_at, read_at)) > :updated_at))
where id = :id and updated_at = :updated_at
"""


class Store:
    """An open local database. `emit` receives what changed, after it is committed."""

    def __init__(self, path: Path, emit: Callable[[Event], None]) -> None:
        """Opens or creates the file. A damaged one is moved aside, and its outbox and session are kept if readable.

        Raises DatabaseInUse if another client has it open, DatabaseFull, and OSError if the folder is not writable.
        """
        #: Held by a sync, and while a read mark is sent. A mark in the midst of a sync would be in the counters that it
        #: reads and not in the messages, and would be counted twice.
        self.counting = asyncio.Lock()
        #: Removed messages, which an older answer of the server may still have.
        self._gone: set[UUID] = set()
        self._emit = emit
        self._path = path
        finish_rescue(path)  # of a process that was killed
        try:
            self._connection = connect(path)
        except DatabaseCorrupt:
            moved_to, saved = rescue(path)
            self._connection = connect(path)
            _log.error(
                "the local database was damaged: moved to %s, %s entries of the outbox saved", moved_to.name, saved
            )
            emit(DatabaseRecovered(moved_to, saved))

    def close(self) -> None:
        """Closes the file. Another client may open it then."""
        self._connection.close()

    # Account ------------------------------------------------------------------------------------

    def get(self, key: Literal["user_id", "session", "cursor", "device_id"]) -> str | None:
        """A stored value, or None."""
        row = self._one("select value from meta where key = ?", key)
        return None if row is None else str(row["value"])

    def put(self, key: Literal["user_id", "session", "cursor", "device_id"], value: str) -> None:
        """Stores a value."""
        with self._transaction():
            self._set(key, value)

    def remove(self, key: Literal["session"]) -> None:
        """Removes a value."""
        with self._transaction():
            self._connection.execute("delete from meta where key = ?", (key,))

    @property
    def me(self) -> UUID | None:
        """The account whose data the file has."""
        user_id = self.get("user_id")
        return UUID(user_id) if user_id else None

    def device_id(self) -> str:
        """The id of this installation. It survives a sign-out."""
        if (stored := self.get("device_id")) is None:
            self.put("device_id", stored := str(uuid4()))
        return stored

    def wipe(self) -> None:
        """Removes all data of the account, also what waits in the outbox. Only the id of the installation stays."""
        with self._transaction():
            for statement in _WIPE:
                self._connection.execute(statement)
            self._connection.execute("delete from meta where key <> 'device_id'")
        # With secure_delete, no text is left in the file. The log that is written before it has some until it is cut.
        self._connection.execute("pragma wal_checkpoint(truncate)")

    # Messages -----------------------------------------------------------------------------------

    def messages(self, conversation_id: UUID, before: Message | None = None, limit: int = 30) -> list[Message]:
        """Messages of a conversation, newest first: those that are not sent, then those of the server.

        `before`: only messages that are older than this one, which the server has.
        """
        waiting = []
        if before is None:
            waiting = self._all(
                "select * from outbox where conversation_id = ? and kind = 'send' order by seq desc limit ?",
                conversation_id,
                limit,
            )
        at = micros(before.server_timestamp) if before and before.server_timestamp else 1 << 62
        rows = self._all(
            f"{_MESSAGES} where message.conversation_id = ? and (server_timestamp < ? or (server_timestamp = ?"
            " and message.id > ?)) order by server_timestamp desc, message.id limit ?",
            conversation_id,
            at,
            at,
            before.id if before else "",
            limit - len(waiting),
        )
        return [self._unsent(row) for row in waiting] + [message_of(row) for row in rows]

    def message(self, message_id: UUID) -> Message:
        """A message by its id, or by the id that it had before it was sent. Raises UnknownMessage."""
        row = self._one(f"{_MESSAGES} where message.id = ?", message_id)
        if row is None and (sent := self._sent(message_id)):
            row = self._one(f"{_MESSAGES} where message.id = ?", sent)
        if row is not None:
            return message_of(row)
        entry = self._one("select * from outbox where id = ? and kind = 'send'", message_id)
        if entry is None:
            raise UnknownMessage(f"no message {message_id}")
        return self._unsent(entry)

    def apply_messages(self, messages: Iterable[Message], cursor: datetime | None = None) -> set[UUID]:
        """Stores messages of the server, each if it is newer than the stored version, and the sync cursor with them.

        Messages of others are noted to be marked as delivered. A message that the outbox was sending leaves it.
        Returns the conversations that are not stored yet.
        """
        changed: set[UUID] = set()
        with self._transaction() as events:
            for message in messages:
                if message.id not in self._gone and self._apply(message, events):
                    changed.add(message.conversation_id)
            if cursor is not None:
                self._set("cursor", cursor.isoformat())
            return self._emit_conversations(changed, events)

    def apply_page(
        self, conversation_id: UUID, page: Sequence[Message], before: Message | None, known: set[UUID], complete: bool
    ) -> None:
        """Stores a page of get_messages_paginated. Removes stored messages of its range that the page does not have.

        `known`: what was stored before the page was requested. `complete`: no older messages exist.
        """
        self.apply_messages(page)
        oldest = 0 if complete or not page else min(micros(m.server_timestamp) for m in page if m.server_timestamp)
        if not page and not complete:
            return
        newest = micros(before.server_timestamp) if before and before.server_timestamp else 1 << 62
        gone = known - {message.id for message in page}
        with self._transaction() as events:
            for row in self._all(
                "select id from messages where conversation_id = ? and server_timestamp > ? and server_timestamp < ?",
                conversation_id,
                oldest,
                newest,
            ):
                if UUID(row["id"]) in gone:
                    self._remove_message(conversation_id, UUID(row["id"]), events)

    def known(self, conversation_id: UUID) -> set[UUID]:
        """The ids of all stored messages of a conversation."""
        return {
            UUID(row["id"]) for row in self._all("select id from messages where conversation_id = ?", conversation_id)
        }

    def remove_message(self, conversation_id: UUID, message_id: UUID) -> None:
        """Removes a message that no longer exists on the server."""
        self._gone.add(message_id)
        with self._transaction() as events:
            self._remove_message(conversation_id, message_id, events)
            self._emit_conversations({conversation_id}, events)

    def apply_marks(
        self, conversation_id: UUID, message_ids: Iterable[UUID], delivered_at: datetime | None,
        read_at: datetime | None, is_read: bool, changed_at: datetime,
    ) -> None:  # fmt: skip
        """Stores that messages were delivered or read.

        Their changed_at stays, because an edit before it may not be stored yet.
        """
        with self._transaction() as events:
            for message_id in message_ids:
                row = self._one("select * from messages where id = ?", message_id)
                if row is None or (row["is_read"] and row["delivered_at"]):
                    continue
                if is_read and not row["is_read"]:
                    self._uncount(row, changed_at)
                self._connection.execute(
                    "update messages set delivered_at = coalesce(delivered_at, ?), read_at = coalesce(read_at, ?),"
                    " is_read = is_read or ? where id = ?",
                    (optional_micros(delivered_at), optional_micros(read_at), is_read, str(message_id)),
                )
                events.append(MessageChanged(self.message(message_id)))
            self._emit_conversations({conversation_id}, events)

    # Conversations ------------------------------------------------------------------------------

    def conversations(self) -> list[Conversation]:
        """All conversations, those with the newest message first."""
        listed = [conversation_of(row) for row in self._all(_CONVERSATIONS)]
        return sorted(listed, key=lambda each: each.last_message_at or EPOCH, reverse=True)

    def conversation(self, conversation_id: UUID) -> Conversation | None:
        """A conversation by its id, or None if it is not stored."""
        row = self._one(f"{_CONVERSATIONS} where conversation.id = ?", conversation_id)
        return None if row is None else conversation_of(row)

    def apply_conversations(self, rows: Sequence[Json], *, known: Iterable[UUID] = ()) -> None:
        """Stores rows of chat_rooms. `known`: those of these conversations that are not among the rows are removed."""
        me = self.me
        with self._transaction() as events:
            before = {each.id: each for each in self.conversations()}
            for row in rows:
                try:
                    self._apply_conversation(row, me)
                except (KeyError, TypeError, ValueError) as error:
                    _log.warning("malformed conversation %s: %s", row.get("id"), type(error).__name__)
            after = {each.id: each for each in self.conversations()}
            events.extend(ConversationChanged(each) for each in after.values() if before.get(each.id) != each)
            found = {row.get("id") for row in rows}
            for each in known:
                if str(each) not in found:
                    self._remove_conversation(each, events)

    def remove_conversation(self, conversation_id: UUID) -> None:
        """Removes a conversation and its messages."""
        with self._transaction() as events:
            self._remove_conversation(conversation_id, events)

    def partners_without_profile(self) -> list[UUID]:
        """The partners of whom no profile is stored."""
        rows = self._all(
            "select distinct partner_id from conversations where partner_id not in (select id from people)"
        )
        return [UUID(row["partner_id"]) for row in rows]

    def apply_people(self, people: Iterable[Person]) -> None:
        """Stores profiles."""
        with self._transaction() as events:
            for person in people:
                self._connection.execute(
                    "insert into people values (?, ?, ?, ?) on conflict (id) do update set"
                    " display_name = excluded.display_name, avatar_url = excluded.avatar_url, role = excluded.role",
                    (str(person.id), person.display_name, person.avatar_url, person.role),
                )
                for row in self._all(f"{_CONVERSATIONS} where partner_id = ?", person.id):
                    events.append(ConversationChanged(conversation_of(row)))

    # Outbox -------------------------------------------------------------------------------------

    def enter_message(self, conversation_id: UUID, text: str, attachments: Sequence[Attachment], now: float) -> Message:
        """Enters a new message into the outbox, and returns it."""
        message_id = uuid4()
        with self._transaction() as events:
            self._connection.execute(
                "insert into outbox (id, conversation_id, kind, text, attachments, created_at)"
                " values (?, ?, 'send', ?, ?, ?)",
                (str(message_id), str(conversation_id), text, json.dumps(list(attachments)), now),
            )
            message = self.message(message_id)
            events.append(MessageChanged(message, is_new=True))
        return message

    def enter_edit(self, message_id: UUID, text: str, now: float) -> Message:
        """Enters an edit of an own message, or changes the message that waits to be sent. Raises UnknownMessage."""
        message = self.message(message_id)
        if message.deleted_at is not None:
            raise UnknownMessage(f"the message {message_id} is deleted")
        with self._transaction() as events:
            changed = self._connection.execute(
                "update outbox set text = ?, edited = edited or attempts > 0, state = 'pending', error = null,"
                " next_try = 0 where id = ? and kind <> 'delete'",
                (text, str(message.id)),
            )
            if changed.rowcount == 0:
                self._enter(message, "edit", text, now)
            message = self.message(message.id)
            events.append(MessageChanged(message))
        return message

    def enter_delete(self, message_id: UUID, now: float) -> None:
        """Enters the deletion of an own message. One that was never tried is removed.

        Raises UnknownMessage.
        """
        message = self.message(message_id)
        with self._transaction() as events:
            entry = self._one("select * from outbox where id = ?", message.id)
            if entry is not None and entry["kind"] == "send" and entry["attempts"] == 0:
                self._connection.execute("delete from outbox where seq = ?", (entry["seq"],))
                events.append(MessageRemoved(message.conversation_id, message.id))
            elif entry is not None:
                self._connection.execute(
                    "update outbox set kind = 'delete', text = '', attachments = '[]', state = 'pending', error = null,"
                    " next_try = 0 where seq = ?",
                    (entry["seq"],),
                )
                events.append(
                    MessageRemoved(message.conversation_id, message.id)
                    if entry["kind"] == "send"
                    else MessageChanged(self.message(message.id))
                )
            else:
                self._enter(message, "delete", "", now)
                events.append(MessageChanged(self.message(message.id)))

    def enter_archive(self, conversation_id: UUID, archived: bool, now: float) -> None:
        """Enters the archive flag of a conversation."""
        with self._transaction() as events:
            self._connection.execute(
                "insert into outbox (id, conversation_id, kind, created_at) values (?, ?, ?, ?)"
                " on conflict (id) do update set kind = excluded.kind, attempts = 0, next_try = 0, state = 'pending',"
                " error = null",
                (str(conversation_id), str(conversation_id), "archive" if archived else "unarchive", now),
            )
            self._emit_conversations({conversation_id}, events)

    def retry(self, message_id: UUID) -> None:
        """Makes a failed entry pending again. Raises UnknownMessage if none has failed for this message."""
        with self._transaction() as events:
            changed = self._connection.execute(
                # Not 0 attempts: an earlier one may have stored the message.
                "update outbox set state = 'pending', attempts = 1, next_try = 0, error = null"
                " where id = ? and state = 'failed'",
                (str(message_id),),
            )
            if changed.rowcount == 0:
                raise UnknownMessage(f"nothing has failed for the message {message_id}")
            events.extend(self._message_event(message_id))

    def discard(self, message_id: UUID) -> None:
        """Removes a failed entry: the message, or its edit or deletion. Raises UnknownMessage if none has failed."""
        with self._transaction() as events:
            entry = self._one("select * from outbox where id = ? and state = 'failed'", message_id)
            if entry is None:
                raise UnknownMessage(f"nothing has failed for the message {message_id}")
            self._connection.execute("delete from outbox where seq = ?", (entry["seq"],))
            if entry["kind"] == "send":
                events.append(MessageRemoved(UUID(entry["conversation_id"]), message_id))
            else:
                events.extend(self._message_event(message_id))
            self._emit_conversations({UUID(entry["conversation_id"])}, events)

    def entries(self) -> list[Entry]:
        """All entries of the outbox, oldest first."""
        return [entry_of(row) for row in self._all("select * from outbox order by seq")]

    def next_entries(self) -> list[Entry]:
        """The oldest pending entry of each conversation, whether or not it is due.

        The deletion of a message that may still arrive is one of its own: other messages do not wait for it.
        """
        rows = self._all(
            "select * from outbox where seq in"
            " (select min(seq) from outbox where state = 'pending'"
            " group by conversation_id, iif(kind = 'delete' and tried_at > 0, seq, 0)) order by seq"
        )
        return [entry_of(row) for row in rows]

    def begin_attempt(self, entry: Entry, now: float) -> Entry | None:
        """Notes, before the request, that an entry is tried. `tried_at` is the time of the last attempt to send it.

        Returns the entry as it was before; None: it is not pending any more, for example after a sign-out.
        """
        with self._transaction():
            row = self._one(
                "select * from outbox where id = ? and kind = ? and state = 'pending'", str(entry.id), entry.kind
            )
            if row is None:
                return None
            self._connection.execute(
                "update outbox set attempts = attempts + 1, tried_at = case kind when 'send' then ? else tried_at end,"
                " edited = edited and kind = 'send' where id = ?",
                (now, str(entry.id)),
            )
            return entry_of(row)

    def postpone(self, entry: Entry, until: float, *, count: bool = True) -> None:
        """Sets when an entry is tried again. `count`: whether the attempt counts; the rate limit does not."""
        with self._transaction():
            self._connection.execute(
                "update outbox set next_try = ?, attempts = attempts - ? where id = ? and kind = ?",
                (until, not count, str(entry.id), entry.kind),
            )

    def make_due(self) -> None:
        """Ends the wait of all pending entries, because the server can be reached again."""
        with self._transaction():
            self._connection.execute("update outbox set next_try = 0 where state = 'pending'")

    def fail(self, entry: Entry, error: str) -> None:
        """Notes that the server will never accept an entry as it is. One that was changed meanwhile stays pending."""
        with self._transaction() as events:
            self._connection.execute(
                "update outbox set state = 'failed', error = ? where id = ? and kind = ? and text = ?",
                (error, str(entry.id), entry.kind, entry.text),
            )
            events.extend(self._message_event(entry.id))

    def finish(self, entry: Entry, message: Message | None) -> None:
        """Removes an entry that the server has accepted, and stores its answer. One that was edited meanwhile stays."""
        with self._transaction() as events:
            if entry.kind != "send":
                self._connection.execute(
                    "delete from outbox where id = ? and kind = ? and not edited", (str(entry.id), entry.kind)
                )
            if message is not None and not self._apply(message, events):
                events.append(MessageChanged(self.message(message.id)))
            self._emit_conversations({entry.conversation_id}, events)

    # Marks --------------------------------------------------------------------------------------

    def delivered_marks(self, limit: int) -> list[UUID]:
        """Messages that have arrived here, of which the server does not know it."""
        return [UUID(row["message_id"]) for row in self._all("select message_id from delivered_marks limit ?", limit)]

    def remove_delivered_marks(self, message_ids: Iterable[UUID]) -> None:
        """Removes marks that the server has."""
        with self._transaction():
            self._connection.executemany(
                "delete from delivered_marks where message_id = ?", [(str(each),) for each in message_ids]
            )

    def mark_read(self, message: Message) -> bool:
        """Notes that the conversation was read up to this message. Returns whether that is news."""
        if message.server_timestamp is None:
            return False
        at, conversation_id = micros(message.server_timestamp), str(message.conversation_id)
        marked = self._one(
            "select read_up_to from conversations where id = ? union all"
            " select server_timestamp from read_marks where conversation_id = ? order by 1 desc",
            conversation_id,
            conversation_id,
        )
        if marked is not None and marked["read_up_to"] >= at:
            return False
        with self._transaction() as events:
            self._connection.execute("update conversations set read_up_to = ? where id = ?", (at, conversation_id))
            self._connection.execute(
                "insert or replace into read_marks values (?, ?, ?)", (conversation_id, str(message.id), at)
            )
            self._emit_conversations({message.conversation_id}, events)
        return True

    def read_marks(self) -> list[tuple[UUID, UUID]]:
        """Conversations, and the message up to which each was read, of which the server does not know it."""
        rows = self._all("select conversation_id, message_id from read_marks")
        return [(UUID(row["conversation_id"]), UUID(row["message_id"])) for row in rows]

    def remove_read_mark(self, conversation_id: UUID, message_id: UUID) -> None:
        """Removes a mark that the server has, unless the person has read on."""
        with self._transaction():
            self._connection.execute(
                "delete from read_marks where conversation_id = ? and message_id = ?",
                (str(conversation_id), str(message_id)),
            )

    # Internals ----------------------------------------------------------------------------------

    @contextmanager
    def _transaction(self) -> Iterator[list[Event]]:
        events: list[Event] = []
        with translating(), self._connection:  # commits, or rolls back
            self._connection.execute("begin immediate")
            yield events
        for event in events:
            self._emit(event)

    def _all(self, query: str, *values: object) -> list[sqlite3.Row]:
        with translating():
            return self._connection.execute(query, [str(v) if isinstance(v, UUID) else v for v in values]).fetchall()

    def _one(self, query: str, *values: object) -> sqlite3.Row | None:
        rows = self._all(query, *values)
        return rows[0] if rows else None

    def _set(self, key: str, value: str) -> None:
        self._connection.execute("insert or replace into meta values (?, ?)", (key, value))

    def _apply(self, message: Message, events: list[Event]) -> bool:
        old = self._one("select * from messages where id = ?", message.id)
        assert message.server_timestamp is not None
        assert message.changed_at is not None
        if old is not None and old["changed_at"] >= micros(message.changed_at):
            return False
        me = self.me
        if old is not None and not old["is_read"] and not old["deleted_at"] and (message.is_read or message.deleted_at):
            self._uncount(old, message.changed_at)
        self._connection.execute(
            "insert or replace into messages values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                str(message.id),
                str(message.conversation_id),
                str(message.sender_id),
                message.text,
                json.dumps(list(message.attachments)),
                message.message_type,
                message.client_msg_id,
                micros(message.server_timestamp),
                micros(message.changed_at),
                optional_micros(message.edited_at),
                optional_micros(message.deleted_at),
                optional_micros(message.delivered_at),
                optional_micros(message.read_at),
                message.is_read,
            ),
        )
        replaces = None
        if message.sender_id != me and message.delivered_at is None and message.deleted_at is None:
            self._connection.execute("insert or ignore into delivered_marks values (?)", (str(message.id),))
        elif message.sender_id == me and message.client_msg_id is not None:
            replaces = self._settle(message)
        is_new = old is None and replaces is None
        events.append(MessageChanged(self.message(message.id), replaces, is_new=is_new))
        return True

    def _settle(self, message: Message) -> UUID | None:
        """Ends the send of a message that the server has. What was changed meanwhile becomes an edit or a deletion."""
        entry = self._one("select * from outbox where id = ? and id <> ?", message.client_msg_id, message.id)
        if entry is None:
            return None
        if entry["kind"] == "send" and not entry["edited"]:
            self._connection.execute("delete from outbox where seq = ?", (entry["seq"],))
        else:
            self._connection.execute(
                "update outbox set id = ?, kind = case kind when 'send' then 'edit' else kind end, attempts = 0,"
                " next_try = 0, edited = 0, state = 'pending', error = null where seq = ?",
                (str(message.id), entry["seq"]),
            )
        return UUID(entry["id"])

    def _sent(self, client_msg_id: UUID) -> UUID | None:
        row = self._one(
            "select id from messages where client_msg_id = ?"
            " and sender_id = (select value from meta where key = 'user_id')",
            client_msg_id,
        )
        return UUID(row["id"]) if row else None

    def _uncount(self, row: sqlite3.Row, changed_at: datetime) -> None:
        """Takes a message that was read or deleted out of the counter, if the server's count is older than that."""
        self._connection.execute(
            "update conversations set unread = max(0, unread - 1)"
            " where id = ? and partner_id = ? and last_message_at >= ? and updated_at < ?",
            (row["conversation_id"], row["sender_id"], row["server_timestamp"], micros(changed_at)),
        )

    def _apply_conversation(self, row: Json, me: UUID | None) -> None:
        number = 1 if UUID(row["user1_id"]) == me else 2
        last_at = row["last_message_at"]
        updated_at = micros(datetime.fromisoformat(row["updated_at"]))
        self._connection.execute(
            "insert into conversations"
            " (id, partner_id, last_message, last_message_at, unread, archived, is_request, updated_at)"
            " values (?, ?, ?, ?, ?, ?, ?, ?) on conflict (id) do update set partner_id = excluded.partner_id,"
            " last_message = excluded.last_message, last_message_at = excluded.last_message_at,"
            " unread = excluded.unread, archived = excluded.archived, is_request = excluded.is_request,"
            " updated_at = excluded.updated_at"
            " where excluded.updated_at >= updated_at",
            (
                str(UUID(row["id"])),
                str(UUID(row[f"user{3 - number}_id"])),
                row["last_message"],
                micros(datetime.fromisoformat(last_at)) if last_at else 0,
                int(row[f"unread_count_user{number}"]),
                bool(row[f"archived_by_user{number}"]),
                bool(row[f"accepted_by_user{3 - number}"]) and not row[f"accepted_by_user{number}"],
                updated_at,
            ),
        )
        self._connection.execute(_UNCOUNT_LATER, {"id": str(UUID(row["id"])), "updated_at": updated_at})

    def _remove_conversation(self, conversation_id: UUID, events: list[Event]) -> None:
        for statement in (
            "delete from messages where conversation_id = ?",
            "delete from read_marks where conversation_id = ?",
            "delete from outbox where conversation_id = ?",
        ):
            self._connection.execute(statement, (str(conversation_id),))
        if self._connection.execute("delete from conversations where id = ?", (str(conversation_id),)).rowcount:
            events.append(ConversationRemoved(conversation_id))

    def _remove_message(self, conversation_id: UUID, message_id: UUID, events: list[Event]) -> None:
        self._connection.execute("delete from delivered_marks where message_id = ?", (str(message_id),))
        self._connection.execute("delete from outbox where id = ?", (str(message_id),))
        if self._connection.execute("delete from messages where id = ?", (str(message_id),)).rowcount:
            events.append(MessageRemoved(conversation_id, message_id))

    def _enter(self, message: Message, kind: str, text: str, now: float) -> None:
        self._connection.execute(
            "insert into outbox (id, conversation_id, kind, text, created_at) values (?, ?, ?, ?, ?)",
            (str(message.id), str(message.conversation_id), kind, text, now),
        )

    def _message_event(self, message_id: UUID) -> list[Event]:
        try:
            return [MessageChanged(self.message(message_id))]
        except UnknownMessage:  # an archive flag, or a message that was deleted before it was sent
            return []

    def _emit_conversations(self, changed: set[UUID], events: list[Event]) -> set[UUID]:
        unknown = set()
        for conversation_id in changed:
            conversation = self.conversation(conversation_id)
            if conversation is None:
                unknown.add(conversation_id)
            else:
                events.append(ConversationChanged(conversation))
        return unknown

    def _unsent(self, row: sqlite3.Row) -> Message:
        me = self.me
        assert me is not None
        return Message(
            id=UUID(row["id"]),
            conversation_id=UUID(row["conversation_id"]),
            sender_id=me,
            text=row["text"],
            attachments=tuple(json.loads(row["attachments"])),
            client_msg_id=row["id"],
            status=row["state"],
            error=row["error"],
        )
