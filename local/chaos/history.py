"""Records a chaos run in the database by triggers, and reads the records of the database and of the phones.

A trigger writes in the transaction of the change. So a change is recorded even if its answer was lost.
"""

from collections.abc import Collection, Iterable, Mapping, Set
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg

from local.chaos.lock_screens import StoredMessage, lock_screens
from local.chaos.records import (
    Arrival,
    Card,
    Claim,
    Delivery,
    History,
    Job,
    LockScreen,
    Message,
    Mute,
    Presence,
    Registration,
    Screen,
)
from local.cloud import LocalCloud
from local.providers.phones import Phone
from local.supabase.postgres import SUPERUSER


async def record_history(cloud: LocalCloud) -> None:
    """Installs the triggers that record each change from now on."""
    await cloud.postgres.execute_file(Path(__file__).with_name("history.sql"))


async def read_history(
    cloud: LocalCloud, written: Iterable[str], forbidden: Mapping[str, str], were_off: Collection[str]
) -> History:
    """Returns the recorded history and what reached the phones.

    `written`: the client_msg_id of each message that a user wrote. `forbidden`: what must not be stored, by marker.
    `were_off`: tokens of phones that were switched off for a time. Their users open the app now.
    """
    async with await psycopg.AsyncConnection.connect(cloud.postgres.dsn(role=SUPERUSER)) as connection:
        settings = await connection.execute(
            "select presence_fresh_for, device_limit, sound_interval from push.settings"
        )
        [presence_fresh_for, device_limit, sound_interval] = await settings.fetchone() or ()
        changes = await connection.execute(
            "select relation, operation, by_user, record, pg_xact_commit_timestamp(xmin)"
            " from chaos.history order by seq"
        )
        reader = _Reader(History(presence_fresh_for, device_limit, sound_interval, set(written)))
        async for relation, operation, by_user, record, at in changes:
            reader.read(relation, operation, by_user, record, at)
        reader.history.forbidden.update(forbidden)
        reader.history.lock_screens = await _lock_screens(connection, reader.history.written)
        found = await (await connection.execute(_STORED, (list(forbidden),))).fetchall()
        reader.history.stored |= {marker for (marker,) in found}
    reader.history.registrations += reader.active.values()
    for phone in cloud.phones.values():
        was_off = phone.token in were_off
        if was_off and phone.account:
            truth = reader.history.lock_screens[UUID(phone.account)]
            phone.open({str(room) for room in truth.cards}, truth.badge or 0, cloud.service_of(phone).now())
        _read_phone(reader.history, phone, was_off)
    return reader.finish()


# A marker is at the beginning of a value. The rest may be long, so it is not searched.
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


async def _lock_screens(connection: psycopg.AsyncConnection, written: Set[str]) -> dict[UUID, LockScreen]:
    messages = await connection.execute(
        # Only the rows of older_database.py have no created_at.
        "select id, room_id, sender_id, client_msg_id, message, server_timestamp, is_read is true,"
        " deleted_at is not null, created_at is not null from public.chat_messages"
    )
    rooms = await connection.execute("select id, user1_id, user2_id from public.chat_rooms")
    names = await connection.execute("select id, display_name from public.users where length(display_name) < 40")
    muted = await connection.execute(
        "select user_id, room_id from private.conversation_preferences where muted_until > now()"
    )
    previews = await connection.execute("select user_id, preview from private.notification_preferences")
    return lock_screens(
        [StoredMessage(*row) for row in await messages.fetchall()],
        {room: (one, two) for room, one, two in await rooms.fetchall()},
        dict(await names.fetchall()),
        written,
        set(await muted.fetchall()),
        dict(await previews.fetchall()),
    )


def _read_phone(history: History, phone: Phone, was_off: bool) -> None:
    cards = tuple(
        Card(UUID(arrival.conversation_id), str(arrival.message["title"]), str(arrival.message["body"]))
        for arrival in phone.shown
        if arrival.conversation_id and arrival.recipient_id == phone.account
    )
    user_id = UUID(phone.account) if phone.account else None
    # On Android a push with text tells the number, but does not set it.
    badge = phone.badge if phone.platform == "ios" else phone.told_badge
    history.screens.append(Screen(phone.token, user_id, cards, badge, phone.uninstalled is None, was_off))
    # A phone that was off gets a push long after its claim.
    history.arrivals += [
        Arrival(
            phone.token,
            UUID(arrival.message_id),
            arrival.at,
            UUID(arrival.conversation_id),
            tuple(str(arrival.message.get("body")).split("\n")),
            arrival.ticket_id,
            arrival.sounded,
        )
        for arrival in phone.arrived
        if arrival.message_id and arrival.conversation_id and not was_off
    ]


class _Reader:
    """Builds the history from the changes of rows, which it gets in the order of their commits per row."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.active: dict[UUID, Registration] = {}  # by device
        self._leases: dict[int, tuple[UUID, UUID | None]] = {}  # recipient and lease, by job
        self._jobs: dict[UUID, int] = {}  # by message
        self._texts: dict[UUID, str] = {}  # by message

    def read(self, relation: str, operation: str, by: UUID | None, record: dict[str, Any], at: datetime) -> None:
        match relation:
            case "chat_messages":
                self._message(record, at, by)
            case "jobs":
                lease = UUID(record["lease_id"]) if record["lease_id"] and operation != "DELETE" else None
                self._leases[record["id"]] = UUID(record["recipient_id"]), lease
            case "decisions":
                self._decision(record)
            case "deliveries":
                self._delivery(record, at)
            case "user_devices":
                self._device(record, at, by, gone=operation == "DELETE")
            case "user_presence":
                self._presence(record, at, by)
            case "conversation_preferences":
                user, room = UUID(record["user_id"]), UUID(record["room_id"])
                self.history.mutes.append(Mute(user, room, at, record["muted_until"] is not None))

    def finish(self) -> History:
        """The history, with the last lease of each job."""
        for message_id, job_id in self._jobs.items():
            _, lease_id = self._leases[job_id]
            self.history.jobs[message_id] = replace(self.history.jobs[message_id], lease_id=lease_id)
        return self.history

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
        text = self._texts.get(message_id)
        if text and text != record["text"]:
            self.history.ended_texts[text] = at
        self._texts[message_id] = record["text"]

    def _decision(self, record: dict[str, Any]) -> None:
        message_id = UUID(record["message_id"])
        self._jobs[message_id] = record["job_id"]
        before = self.history.jobs.get(message_id) or Job(message_id, self._leases[record["job_id"]][0])
        state = "done" if record["outcome"] else "pending"
        self.history.jobs[message_id] = replace(before, state=state, outcome=record["outcome"], reason=record["reason"])

    def _delivery(self, record: dict[str, Any], at: datetime) -> None:
        announced = [UUID(message_id) for message_id in record["message_ids"]]
        if record["is_accepted"] and record["ticket_id"]:
            self.history.claimed_at[record["ticket_id"]] = datetime.fromisoformat(record["sent_at"])
        if record["status"] == "sending":
            claim = Claim(datetime.fromisoformat(record["sent_at"]), at, is_alert=record["kind"] == "alert")
            for message_id in {*announced, *map(UUID, record["line_ids"])}:
                job = self.history.jobs.get(message_id) or Job(message_id, self._leases[record["job_id"]][0])
                self.history.jobs[message_id] = replace(job, claims=(*job.claims, claim))
        for message_id in announced or [UUID(int=record["id"])]:
            delivery = Delivery(
                message_id,
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
        known = self.active.get(device_id)
        if known and active and known.push_token == token:
            return
        if known:
            self._end(known, at, by, deactivated=not gone and not active and known.push_token == token)
        if active:
            # A token belongs to its last login. The database may keep or delete the earlier registration.
            for other in [other for other in self.active.values() if other.push_token == token]:
                self._end(other, at, by)
            self.active[device_id] = Registration(device_id, UUID(record["user_id"]), token, at)

    def _end(self, registration: Registration, at: datetime, by: UUID | None, *, deactivated: bool = False) -> None:
        self.history.registrations.append(replace(registration, until=at, deactivated=deactivated, ended_by=by))
        del self.active[registration.device_id]

    def _presence(self, record: dict[str, Any], at: datetime, by: UUID | None) -> None:
        room = record["current_conversation_id"]
        updated_at = datetime.fromisoformat(record["updated_at"])
        self.history.presence.append(
            Presence(UUID(record["user_id"]), at, updated_at, record["is_online"], UUID(room) if room else None, by)
        )
