"""What phones should show, as a pure function of the rows of the chat. It shares nothing with the SQL of the pushes."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from uuid import UUID

from local.chaos.records import Card, LockScreen

MAX_LINES = 3
HIDDEN_LINE = "Open the app to read it"


@dataclass(frozen=True)
class StoredMessage:
    """A row of chat_messages. `is_counted`: False for one of an older database, which no trigger has counted."""

    id: UUID
    room_id: UUID
    sender_id: UUID
    client_msg_id: str | None
    text: str
    server_timestamp: datetime
    is_read: bool
    is_deleted: bool
    is_counted: bool


def lock_screens(
    messages: Iterable[StoredMessage],
    people: Mapping[UUID, tuple[UUID, UUID]],
    names: Mapping[UUID, str],
    written: Set[str],
    muted: Set[tuple[UUID, UUID]] = frozenset(),
    previews: Mapping[UUID, str] = MappingProxyType({}),
) -> dict[UUID, LockScreen]:
    """Returns the lock screen of each user.

    `people`: the two users of each conversation. `written`: client_msg_id of each message of the traffic. What is shown
    of other rows, and of a user without a name here, is not predicted: they are odd, or of an older database. `muted`:
    users, and the conversations that they have muted. `previews`: what users chose; the others have the full one.
    """
    unread: defaultdict[UUID, defaultdict[UUID, list[StoredMessage]]] = defaultdict(lambda: defaultdict(list))
    for message in messages:
        if not message.is_read and not message.is_deleted:
            [recipient] = set(people[message.room_id]) - {message.sender_id}
            if (recipient, message.room_id) not in muted:
                unread[recipient][message.room_id].append(message)
    users = {user for pair in people.values() for user in pair}
    return {user: _lock_screen(unread[user], names, written, previews.get(user, "full")) for user in users}


def _lock_screen(
    rooms: Mapping[UUID, list[StoredMessage]], names: Mapping[UUID, str], written: Set[str], preview: str
) -> LockScreen:
    cards, newest, unknown = {}, {}, set()
    badge: int | None = 0
    for room_id, messages in rooms.items():
        messages.sort(key=lambda message: message.server_timestamp, reverse=True)
        newest[room_id] = messages[0].id
        if any(message.client_msg_id not in written for message in messages) or messages[0].sender_id not in names:
            unknown.add(room_id)
        is_counted = all(message.is_counted for message in messages)
        badge = badge + len(messages) if is_counted and badge is not None else None
        several = len(messages) > 1
        title = names.get(messages[0].sender_id, "") + (f" ({len(messages)})" if several else "")
        if preview == "none":
            title = f"{len(messages)} new messages" if several else "New message"
        body = "\n".join(message.text for message in messages[:MAX_LINES])
        cards[room_id] = Card(room_id, title, body if preview == "full" else HIDDEN_LINE)
    return LockScreen(cards, newest, badge, frozenset(unknown))
