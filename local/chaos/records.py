"""The records of a chaos run: what the invariants are checked on.

All times are of this machine's clock: commit times of the database, and arrivals at the fake push services.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID


@dataclass(frozen=True)
class Message:
    """A chat message: when it was stored, first read and first deleted."""

    id: UUID
    client_msg_id: str | None  # None: a row from before this column
    room_id: UUID
    sender_id: UUID
    stored_at: datetime
    read_at: datetime | None = None
    read_by: UUID | None = None  # None: unread, or read by the database owner
    deleted_at: datetime | None = None
    deleted_by: UUID | None = None


@dataclass(frozen=True)
class Claim:
    """A worker claimed a push that shows a message. It decided on the state of the database at `at` or later."""

    at: datetime
    committed_at: datetime
    is_alert: bool = True  # False: it only changes a text that is shown


@dataclass(frozen=True)
class Job:
    """What became of a message, and the claims of pushes that show it. `lease_id`: of the job of its conversation."""

    message_id: UUID
    recipient_id: UUID
    state: str = "pending"
    outcome: str | None = None
    reason: str | None = None
    lease_id: UUID | None = None
    claims: tuple[Claim, ...] = ()


@dataclass(frozen=True)
class Delivery:
    """The last state of the push of a message to a device. A push that announces none has an id of its own."""

    message_id: UUID
    device_id: UUID
    status: str
    error: str | None = None
    ticket_id: str | None = None
    awaits_receipt: bool = False


@dataclass(frozen=True)
class Registration:
    """A device of a user was active with a token, from `since` until `until` (None: the end of the run)."""

    device_id: UUID
    user_id: UUID
    push_token: str
    since: datetime
    until: datetime | None = None
    deactivated: bool = False  # the worker deactivated the device, because its token was dead
    ended_by: UUID | None = None  # the signed-in user who ended it; None: a worker


@dataclass(frozen=True)
class Presence:
    """A heartbeat of a user's app. `updated_at` is the timestamp in the row, `at` the time of the commit."""

    user_id: UUID
    at: datetime
    updated_at: datetime
    is_online: bool
    room_id: UUID | None
    by: UUID | None = None  # the signed-in user who wrote it


@dataclass(frozen=True)
class Mute:
    """A user muted a conversation, or ended that."""

    user_id: UUID
    room_id: UUID
    at: datetime
    is_muted: bool


@dataclass(frozen=True)
class Arrival:
    """A notification reached a phone. `lines`: the texts that it shows."""

    push_token: str
    message_id: UUID
    at: datetime
    room_id: UUID | None = None
    lines: tuple[str, ...] = ()
    ticket_id: str = ""
    sounded: bool = False


@dataclass(frozen=True)
class Card:
    """A notification on a lock screen."""

    room_id: UUID
    title: str
    body: str


@dataclass(frozen=True)
class Screen:
    """What a phone shows at the end, to whom, and the number on the icon of the app.

    `installed`: the app was never removed from it. `was_off`: what arrived meanwhile may be lost.
    """

    push_token: str
    user_id: UUID | None
    shown: tuple[Card, ...]
    badge: int
    installed: bool = True
    was_off: bool = False


@dataclass(frozen=True)
class LockScreen:
    """What the phones of a user should show: a card for each conversation with unread messages, and the badge.

    A conversation that the user has muted has neither.

    `newest`: the newest unread message of each conversation. `unknown`: conversations whose text is not predicted, and
    a `badge` of None: it is not predicted, because of rows of an older database.
    """

    cards: Mapping[UUID, Card]
    newest: Mapping[UUID, UUID]
    badge: int | None
    unknown: frozenset[UUID] = frozenset()


@dataclass(frozen=True)
class Answer:
    """The answer to a request of the attacker."""

    request: str
    status: int
    sent_at: datetime
    at: datetime


@dataclass(frozen=True)
class Outage:
    """The database or the Data API was down from `since` until `until`."""

    since: datetime
    until: datetime


@dataclass
class History:
    """Everything that the invariants are checked on."""

    presence_fresh_for: timedelta
    device_limit: int
    sound_interval: timedelta
    written: set[str] = field(default_factory=set)  # client_msg_id of each message that a user wrote
    messages: dict[UUID, Message] = field(default_factory=dict)
    jobs: dict[UUID, Job] = field(default_factory=dict)
    ended_texts: dict[str, datetime] = field(default_factory=dict)  # texts that were edited or deleted, and when
    deliveries: dict[tuple[UUID, UUID], Delivery] = field(default_factory=dict)
    claimed_at: dict[str, datetime] = field(default_factory=dict)  # by ticket, of accepted pushes
    registrations: list[Registration] = field(default_factory=list)
    presence: list[Presence] = field(default_factory=list)
    mutes: list[Mute] = field(default_factory=list)
    arrivals: list[Arrival] = field(default_factory=list)
    screens: list[Screen] = field(default_factory=list)
    lock_screens: dict[UUID, LockScreen] = field(default_factory=dict)  # by user: what the database says
    forbidden: dict[str, str] = field(default_factory=dict)  # by marker: what must not be stored or accepted
    stored: set[str] = field(default_factory=set)  # markers that were stored or accepted
    answers: list[Answer] = field(default_factory=list)
    outages: list[Outage] = field(default_factory=list)
