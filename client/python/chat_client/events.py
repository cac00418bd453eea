"""What the client tells the app. An event is a hint to read again: the local database has the state."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from uuid import UUID

from chat_client.errors import DatabaseError
from chat_client.models import Conversation, Message

_LARGEST_QUEUE = 10_000  # events of an app that does not read them


@dataclass(frozen=True)
class MessageChanged:
    """A message is new or has another content or status.

    `replaces`: the id that it had before it was sent. `is_new`: this device has not had it before.
    """

    message: Message
    replaces: UUID | None = None
    is_new: bool = False


@dataclass(frozen=True)
class MessageRemoved:
    """A message no longer exists: it was discarded, or a backend deleted it for good."""

    conversation_id: UUID
    message_id: UUID


@dataclass(frozen=True)
class ConversationChanged:
    """A conversation is new, or its preview, counter or archive flag changed."""

    conversation: Conversation


@dataclass(frozen=True)
class ConversationRemoved:
    """A conversation no longer exists, or this person is no longer part of it."""

    conversation_id: UUID


@dataclass(frozen=True)
class TypingChanged:
    """The partner started or stopped to write."""

    conversation_id: UUID
    user_id: UUID
    is_typing: bool


@dataclass(frozen=True)
class PresenceChanged:
    """Who looks at the conversation on the screen now, with this person."""

    conversation_id: UUID
    user_ids: frozenset[UUID]


@dataclass(frozen=True)
class ConnectionChanged:
    """Live events arrive (online), or the client tries to connect again (offline)."""

    state: Literal["online", "offline"]


@dataclass(frozen=True)
class Synced:
    """The local database has all that the server had at the start of this sync."""


@dataclass(frozen=True)
class SessionEnded:
    """The session could not be renewed. Ask the person to sign in; the outbox waits."""


@dataclass(frozen=True)
class DatabaseRecovered:
    """The local database was damaged. It was moved to `moved_to`; `saved` entries of its outbox are in the new one."""

    moved_to: Path
    saved: int


@dataclass(frozen=True)
class DatabaseFailed:
    """The local database could not be written, such as on a full disk. The client tries again."""

    error: DatabaseError


@dataclass(frozen=True)
class EventsDropped:
    """The app did not read its events: some were dropped. Read the conversations and messages on the screen again."""


type Event = (
    MessageChanged
    | MessageRemoved
    | ConversationChanged
    | ConversationRemoved
    | TypingChanged
    | PresenceChanged
    | ConnectionChanged
    | Synced
    | SessionEnded
    | DatabaseRecovered
    | DatabaseFailed
    | EventsDropped
)


class Events:
    """Passes events to any number of readers. A slow reader, or one that fails, delays no other part of the client."""

    def __init__(self) -> None:
        self._queues: set[asyncio.Queue[Event | None]] = set()
        self._closed = False
        self._early: list[Event] = []

    def emit(self, event: Event) -> None:
        """Passes an event to the readers. Without any, it keeps only what the database does not show."""
        if not self._queues and isinstance(event, DatabaseRecovered | DatabaseFailed | SessionEnded):
            self._early.append(event)
        for queue in self._queues:
            if queue.qsize() >= _LARGEST_QUEUE:
                while not queue.empty():
                    queue.get_nowait()
                queue.put_nowait(EventsDropped())
            queue.put_nowait(event)

    def close(self) -> None:
        """Ends the iterators of all readers."""
        self._closed = True
        for queue in self._queues:
            queue.put_nowait(None)

    def subscribe(self) -> AsyncIterator[Event]:
        """The events from now on. The iterator ends when the client is closed."""
        queue: asyncio.Queue[Event | None] = asyncio.Queue()
        if self._closed:
            queue.put_nowait(None)
        self._queues.add(queue)
        for event in self._early:
            queue.put_nowait(event)
        self._early.clear()
        return self._read(queue)

    async def _read(self, queue: asyncio.Queue[Event | None]) -> AsyncIterator[Event]:
        try:
            while (event := await queue.get()) is not None:
                yield event
        finally:
            self._queues.discard(queue)
