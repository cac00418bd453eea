"""What the client stores and returns: messages, conversations and people. All times are the server's, in UTC."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, NotRequired, TypedDict
from uuid import UUID

type Json = dict[str, Any]
type Attachment = Mapping[str, Any]  # such as {"type": "image", "url": "https://…"}
type Status = Literal["pending", "failed", "sent", "delivered", "read"]
type Preview = Literal["full", "name", "none"]

# Local times, from 00:00 to 24:00, on the weekdays on which they begin: 1 is Monday; all, if days is left out.
QuietHours = TypedDict("QuietHours", {"zone": str, "from": str, "until": str, "days": NotRequired[list[int]]})


@dataclass(frozen=True, kw_only=True)
class Message:
    """A message, sent or not.

    `id`: the id of the server; until it is sent, its client_msg_id. `server_timestamp`: its place in the order; None
    until it is sent. `status`: pending and failed also for an edit or a deletion that is not sent. `error`: why not.
    """

    id: UUID
    conversation_id: UUID
    sender_id: UUID
    text: str = field(repr=False)
    attachments: tuple[Attachment, ...] = field(default=(), repr=False)
    message_type: str = "text"
    client_msg_id: str | None = None
    server_timestamp: datetime | None = None
    changed_at: datetime | None = None
    edited_at: datetime | None = None
    deleted_at: datetime | None = None
    delivered_at: datetime | None = None
    read_at: datetime | None = None
    is_read: bool = False
    status: Status = "sent"
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class Person:
    """The profile of a person. `display_name`: None if the profile is not known yet."""

    id: UUID
    display_name: str | None = None
    avatar_url: str | None = None
    role: str | None = None


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """A conversation, as the list of conversations shows it. `last_message`: one line, at most 200 characters.

    `is_request`: the partner has written, and this person has neither answered nor accepted it.
    """

    id: UUID
    partner: Person
    last_message: str | None = field(repr=False)
    last_message_at: datetime | None
    unread: int
    archived: bool
    is_request: bool


@dataclass(frozen=True, kw_only=True)
class BlockedPerson:
    """A person whom this person blocks."""

    user_id: UUID
    blocked_at: datetime


class PreferenceChanges(TypedDict, total=False):
    """What set_notification_preferences changes; None removes it."""

    snoozed_until: datetime | None
    quiet_hours: QuietHours | None
    while_quiet: Literal["silent", "none"]
    preview: Preview


@dataclass(frozen=True, kw_only=True)
class NotificationPreferences:
    """What this person chose.

    `muted`: the conversations that are muted now, and until when; None: until it is ended. `sounds`: by conversation.
    `device_previews`: of devices that differ from `preview`, by device id.
    """

    muted: Mapping[UUID, datetime | None]
    sounds: Mapping[UUID, str]
    snoozed_until: datetime | None
    quiet_hours: QuietHours | None
    while_quiet: Literal["silent", "none"]
    preview: Preview
    device_previews: Mapping[str, Preview]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What waits in the outbox: a message to send, an edit, a deletion, or the archive flag of a conversation.

    `id`: the id of the message; of one to send its client_msg_id; of an archive flag that of the conversation.
    `attempts`: how often it was tried. `next_try`: when it is tried again, in seconds since 1970 by the phone's clock.
    """

    id: UUID
    conversation_id: UUID
    kind: Literal["send", "edit", "delete", "archive", "unarchive"]
    text: str = field(default="", repr=False)
    attachments: tuple[Attachment, ...] = field(default=(), repr=False)
    created_at: float
    attempts: int = 0
    tried_at: float = 0
    next_try: float = 0
    state: Literal["pending", "failed"] = "pending"
    error: str | None = None


def message_of(row: Mapping[str, Any]) -> Message:
    """The message in a row of chat_messages. Raises ValueError if the row is malformed."""
    try:
        attachments = row["attachments"]
        if not isinstance(attachments, list):
            raise ValueError("attachments is not an array")
        delivered_at, read_at = _time(row["delivered_at"]), _time(row["read_at"])
        is_read = bool(row["is_read"])
        return Message(
            id=UUID(row["id"]),
            conversation_id=UUID(row["room_id"]),
            sender_id=UUID(row["sender_id"]),
            text=_text(row["message"]),
            attachments=tuple(attachments),
            message_type=row["message_type"] or "text",
            client_msg_id=row["client_msg_id"],
            server_timestamp=_required_time(row["server_timestamp"]),
            changed_at=_required_time(row["changed_at"]),
            edited_at=_time(row["edited_at"]),
            deleted_at=_time(row["deleted_at"]),
            delivered_at=delivered_at,
            read_at=read_at,
            is_read=is_read,
            status=status_of(is_read, delivered_at),
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"malformed message {row.get('id')}: {type(error).__name__} {error}") from error


def blocked_person_of(row: Mapping[str, Any]) -> BlockedPerson:
    """The person in a row of my_blocked_users."""
    return BlockedPerson(user_id=UUID(row["user_id"]), blocked_at=_required_time(row["blocked_at"]))


def preferences_of(found: Mapping[str, Any]) -> NotificationPreferences:
    """What my_notification_preferences returns."""
    return NotificationPreferences(
        muted={UUID(one["room_id"]): _time(one["until"]) for one in found["muted"]},
        sounds={UUID(room): sound for room, sound in found["sounds"].items()},
        snoozed_until=_time(found["snoozed_until"]),
        quiet_hours=found["quiet_hours"],
        while_quiet=found["while_quiet"],
        preview=found["preview"],
        device_previews=found["device_previews"],
    )


def status_of(is_read: bool, delivered_at: datetime | None) -> Status:
    """The status of a message that is sent."""
    return "read" if is_read else "delivered" if delivered_at else "sent"


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("message is not a text")
    return value


def _time(value: str | None) -> datetime | None:
    return None if value is None else _required_time(value)


def _required_time(value: str) -> datetime:
    return datetime.fromisoformat(value).astimezone(UTC)
