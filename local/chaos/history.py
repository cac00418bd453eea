"""What happened in a chaos run: the database's own account of it, and what reached the phones.

Times are those of commits (the database keeps them, track_commit_timestamp), and of arrivals at the fake Expo service;
both clocks are this machine's.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg

from local.cloud import LocalCloud
from local.providers.phones import Phone
from local.supabase.postgres import SUPERUSER


@dataclass(frozen=True)
class Message:
    """A chat message; when it was stored, and first read and deleted."""

    id: UUID
    client_msg_id: str | None  # older rows have none
    room_id: UUID
    sender_id: UUID
    stored_at: datetime
    read_at: datetime | None = None
    read_by: UUID | None = None  # None: nobody, or the owner of the database
    deleted_at: datetime | None = None
    deleted_by: UUID | None = None


@dataclass(frozen=True)
class Claim:
    """A worker took the job of a message in order to send it. It saw nothing older than `at`."""

    at: datetime
    committed_at: datetime


@dataclass(frozen=True)
class Job:
    """The push job of a message, as it ended; `done_at`: when it did so last."""

    message_id: UUID
    recipient_id: UUID
    state: str = "pending"
    outcome: str | None = None
    reason: str | None = None
    lease_id: UUID | None = None
    done_at: datetime | None = None
    claims: tuple[Claim, ...] = ()


@dataclass(frozen=True)
class Delivery:
    """What is known of a message and a device at the end."""

    message_id: UUID
    device_id: UUID
    status: str
    error: str | None = None
    ticket_id: str | None = None
    awaits_receipt: bool = False


@dataclass(frozen=True)
class Registration:
    """A device of a person was active with a token, from a time until another (None: to the end)."""

    device_id: UUID
    user_id: UUID
    push_token: str
    since: datetime
    until: datetime | None = None
    deactivated: bool = False  # it ended because the token was found dead, not by anybody's wish
    ended_by: UUID | None = None  # the signed-in person who ended it; None: a worker


@dataclass(frozen=True)
class Presence:
    """What a person's app said of itself; `updated_at` is the server's stamp, `at` the commit."""

    user_id: UUID
    at: datetime
    updated_at: datetime
    is_online: bool
    room_id: UUID | None
    by: UUID | None = None  # whoever wrote it


@dataclass(frozen=True)
class Arrival:
    """A notification reached a phone."""

    push_token: str
    message_id: UUID
    at: datetime


@dataclass(frozen=True)
class Screen:
    """What a phone shows at the end; `installed`: the app was never removed from it."""

    push_token: str
    shown: tuple[UUID, ...]
    installed: bool = True


@dataclass(frozen=True)
class Answer:
    """What a request of the attacker was answered."""

    request: str
    status: int
    asked_at: datetime
    at: datetime


@dataclass(frozen=True)
class Outage:
    """The database or its API was stopped and started again."""

    since: datetime
    until: datetime


@dataclass
class History:
    """Everything by which a run is judged."""

    presence_fresh_for: timedelta
    device_limit: int
    written: set[str] = field(default_factory=set)  # client_msg_id of all that people wrote
    messages: dict[UUID, Message] = field(default_factory=dict)
    jobs: dict[UUID, Job] = field(default_factory=dict)
    deliveries: dict[tuple[UUID, UUID], Delivery] = field(default_factory=dict)
    registrations: list[Registration] = field(default_factory=list)
    presence: list[Presence] = field(default_factory=list)
    arrivals: list[Arrival] = field(default_factory=list)
    screens: list[Screen] = field(default_factory=list)
    forbidden: dict[str, str] = field(default_factory=dict)  # what nobody may write, by a marker in it
    stored: set[str] = field(default_factory=set)  # markers of those that were stored or accepted all the same
    answers: list[Answer] = field(default_factory=list)
    outages: list[Outage] = field(default_factory=list)


async def keep_history(cloud: LocalCloud) -> None:
    """Lets the database remember each change from now on."""
    await cloud.postgres.execute_file(Path(__file__).with_name("history.sql"))


async def read_history(cloud: LocalCloud, written: Iterable[str], forbidden: Mapping[str, str]) -> History:
    """What the database remembers and the phones got, up to now."""
    async with await psycopg.AsyncConnection.connect(cloud.postgres.dsn(role=SUPERUSER)) as connection:
        settings = await connection.execute("select presence_fresh_for, device_limit, lease_for from push.settings")
        [presence_fresh_for, device_limit, lease_for] = await settings.fetchone() or ()
        changes = await connection.execute(
            "select relation, operation, by_user, record, pg_xact_commit_timestamp(xmin)"
            " from chaos.history order by seq"
        )
        reader = _Reader(History(presence_fresh_for, device_limit, set(written)), lease_for)
        async for relation, operation, by_user, record, at in changes:
            reader.read(relation, operation, by_user, record, at)
        reader.history.forbidden.update(forbidden)
        found = await (await connection.execute(_STORED, (list(forbidden),))).fetchall()
        reader.history.stored |= {marker for (marker,) in found}
    reader.history.registrations += reader.open.values()
    for phone in cloud.expo.phones.values():
        _read_phone(reader.history, phone)
    return reader.history


# A marker is at the beginning of what it marks, and the rest may be long.
_STORED = """
select marker from unnest(%s::text[]) marker where exists (
  select from (
    select concat_ws(' ', id, room_id, client_msg_id, left(message, 100), server_timestamp at time zone 'utc',
      created_at at time zone 'utc') as written from public.chat_messages
    union all select concat_ws(' ', id, left(last_message, 100), created_at at time zone 'utc') from public.chat_rooms
    union all select concat_ws(' ', left(display_name, 100), left(avatar_url, 100), left(locale, 100)) from public.users
    union all select concat_ws(' ', device_id, push_token, last_seen_at at time zone 'utc') from public.user_devices
  ) everything where strpos(written, marker) > 0)
"""


def _read_phone(history: History, phone: Phone) -> None:
    shown = tuple(UUID(arrival.message_id) for arrival in phone.shown if arrival.message_id)
    history.screens.append(Screen(phone.token, shown, phone.uninstalled is None))
    history.arrivals += [
        Arrival(phone.token, UUID(arrival.message_id), arrival.at) for arrival in phone.arrived if arrival.message_id
    ]


class _Reader:
    """Builds a history from changes, each row's in their order."""

    def __init__(self, history: History, lease_for: timedelta) -> None:
        self.history = history
        self.open: dict[UUID, Registration] = {}  # by device: active until now
        self._lease_for = lease_for

    def read(self, relation: str, operation: str, by: UUID | None, record: dict[str, Any], at: datetime) -> None:
        match relation:
            case "chat_messages":
                self._message(record, at, by)
            case "jobs":
                self._job(record, at)
            case "deliveries":
                self._delivery(record)
            case "user_devices":
                self._device(record, at, by, gone=operation == "DELETE")
            case "user_presence":
                self._presence(record, at, by)

    def _message(self, record: dict[str, Any], at: datetime, by: UUID | None) -> None:
        message_id = UUID(record["id"])
        message = self.history.messages.get(message_id) or Message(
            message_id, record["client_msg_id"], UUID(record["room_id"]), UUID(record["sender_id"]), at
        )
        if record["is_read"] and message.read_at is None:
            message = replace(message, read_at=at, read_by=by)
        if record["deleted_at"] and message.deleted_at is None:
            message = replace(message, deleted_at=at, deleted_by=by)
        self.history.messages[message_id] = message

    def _job(self, record: dict[str, Any], at: datetime) -> None:
        message_id = UUID(record["message_id"])
        before = self.history.jobs.get(message_id) or Job(message_id, UUID(record["recipient_id"]))
        lease_id = UUID(record["lease_id"]) if record["lease_id"] else None
        claims = before.claims
        if lease_id and lease_id != before.lease_id:
            # A lease is twice as long each time that no worker reported.
            leased_for = self._lease_for * 2 ** record["expired_leases"]
            claimed_at = datetime.fromisoformat(record["leased_until"]) - leased_for
            claims = (*claims, Claim(claimed_at, at))
        self.history.jobs[message_id] = replace(
            before,
            state=record["state"],
            outcome=record["outcome"],
            reason=record["reason"],
            lease_id=lease_id,
            done_at=at if record["state"] == "done" else None,
            claims=claims,
        )

    def _delivery(self, record: dict[str, Any]) -> None:
        delivery = Delivery(
            UUID(record["message_id"]),
            UUID(record["device_id"]),
            record["status"],
            record["error"],
            record["ticket_id"],
            record["receipt_due_at"] is not None,
        )
        self.history.deliveries[delivery.message_id, delivery.device_id] = delivery

    def _device(self, record: dict[str, Any], at: datetime, by: UUID | None, *, gone: bool) -> None:
        device_id, token = UUID(record["id"]), record["push_token"]
        active = record["is_active"] and token is not None and not gone
        known = self.open.get(device_id)
        if known and active and known.push_token == token:
            return
        if known:
            self._end(known, at, by, deactivated=not gone and not active and known.push_token == token)
        if active:
            # A phone belongs to its last login, whatever the database makes of the one before.
            for other in [other for other in self.open.values() if other.push_token == token]:
                self._end(other, at, by)
            self.open[device_id] = Registration(device_id, UUID(record["user_id"]), token, at)

    def _end(self, registration: Registration, at: datetime, by: UUID | None, *, deactivated: bool = False) -> None:
        self.history.registrations.append(replace(registration, until=at, deactivated=deactivated, ended_by=by))
        del self.open[registration.device_id]

    def _presence(self, record: dict[str, Any], at: datetime, by: UUID | None) -> None:
        room = record["current_conversation_id"]
        updated_at = datetime.fromisoformat(record["updated_at"])
        self.history.presence.append(
            Presence(UUID(record["user_id"]), at, updated_at, record["is_online"], UUID(room) if room else None, by)
        )
