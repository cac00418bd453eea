"""Records a chaos run in the database by triggers, and reads the records of the database and of the phones.

A trigger writes in the transaction of the change. So a change is recorded even if its answer was lost.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg

from local.chaos.records import Arrival, Claim, Delivery, History, Job, Message, Presence, Registration, Screen
from local.cloud import LocalCloud
from local.providers.phones import Phone
from local.supabase.postgres import SUPERUSER


async def record_history(cloud: LocalCloud) -> None:
    """Installs the triggers that record each change from now on."""
    await cloud.postgres.execute_file(Path(__file__).with_name("history.sql"))


async def read_history(cloud: LocalCloud, written: Iterable[str], forbidden: Mapping[str, str]) -> History:
    """Returns the recorded history and what reached the phones.

    `written`: the client_msg_id of each message that a user wrote. `forbidden`: what must not be stored, by marker.
    """
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
    reader.history.registrations += reader.active.values()
    for phone in cloud.expo.phones.values():
        _read_phone(reader.history, phone)
    return reader.history


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


def _read_phone(history: History, phone: Phone) -> None:
    shown = tuple(UUID(arrival.message_id) for arrival in phone.shown if arrival.message_id)
    history.screens.append(Screen(phone.token, shown, phone.uninstalled is None))
    history.arrivals += [
        Arrival(phone.token, UUID(arrival.message_id), arrival.at) for arrival in phone.arrived if arrival.message_id
    ]


class _Reader:
    """Builds the history from the changes of rows, which it gets in the order of their commits per row."""

    def __init__(self, history: History, lease_for: timedelta) -> None:
        self.history = history
        self.active: dict[UUID, Registration] = {}  # by device
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
            # claim_push_jobs doubles the lease for each earlier claim whose worker never reported.
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
