"""What the database tests share: connections, people and their conversation, and the calls of workers."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import DictRow, dict_row
from psycopg.types.json import Jsonb

from local.supabase.postgres import Postgres

type Connection = psycopg.AsyncConnection[DictRow]
type Row = dict[str, Any]

LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


@asynccontextmanager
async def connected(dsn: str) -> AsyncIterator[Connection]:
    """A connection in autocommit, whose rows are dictionaries. A lock that never comes fails the test."""
    async with await psycopg.AsyncConnection.connect(
        dsn, autocommit=True, row_factory=dict_row, options="-c lock_timeout=10s"
    ) as connection:
        yield connection


class Database:
    """A database of one test, for what happens between connections."""

    def __init__(self, server: Postgres, name: str) -> None:
        self._server = server
        self._name = name
        self._connections = AsyncExitStack()

    async def connect(self, role: str = "postgres") -> Connection:
        """A new connection in autocommit; closed with the database."""
        return await self._connections.enter_async_context(connected(self._server.dsn(self._name, role)))

    async def close(self) -> None:
        """Close all connections."""
        await self._connections.aclose()


async def rows(connection: Connection, query: str, *parameters: Any) -> list[Row]:
    """The rows of a query; parameters are written %s."""
    return await (await connection.execute(query.encode(), parameters or None)).fetchall()


async def row(connection: Connection, query: str, *parameters: Any) -> Row:
    """The only row of a query."""
    [only] = await rows(connection, query, *parameters)
    return only


async def value(connection: Connection, query: str, *parameters: Any) -> Any:
    """The only value of a query."""
    [only] = (await row(connection, query, *parameters)).values()
    return only


async def insert(connection: Connection, table: str, **columns: Any) -> Row:
    """Insert a row as the connection's role; return it as stored."""
    query = sql.SQL("insert into {} ({}) values ({}) returning *").format(
        sql.Identifier(*table.split(".")),
        sql.SQL(", ").join(map(sql.Identifier, columns)),
        sql.SQL(", ").join(sql.Placeholder() * len(columns)),
    )
    [stored] = await (await connection.execute(query, list(columns.values()))).fetchall()
    return stored


@asynccontextmanager
async def acting_as(
    connection: Connection, role: str, user_id: UUID | None = None, **more_claims: str
) -> AsyncIterator[None]:
    """Acts as `role` in a transaction or savepoint, with the claims that PostgREST would set from a user's JWT."""
    claims = Jsonb({"sub": str(user_id), "role": role, **more_claims}) if user_id else ""
    become = "select set_config('role', %s, true), set_config('request.jwt.claims', %s::text, true)"
    async with connection.transaction():
        await connection.execute(become, (role, claims))
        yield
        await connection.execute(become, ("none", ""))


def as_user(connection: Connection, user_id: UUID, **more_claims: str) -> AbstractAsyncContextManager[None]:
    """Acts as a signed-in user."""
    return acting_as(connection, "authenticated", user_id, **more_claims)


@asynccontextmanager
async def refused(connection: Connection, sqlstate: str, reason: str = "") -> AsyncIterator[None]:
    """The block must fail with this SQLSTATE, and its message must contain the reason. The transaction continues."""
    with pytest.raises(psycopg.Error) as error:
        async with connection.transaction():
            yield
    assert error.value.sqlstate == sqlstate, str(error.value)
    assert reason in str(error.value.diag.message_primary)


async def waits_for_lock(
    observer: Connection, waiting: Connection, statement: asyncio.Task[None] | None = None
) -> None:
    """Return once the other connection's statement waits for a lock, or has ended, if it is given and may."""
    async with asyncio.timeout(30):
        while not (statement and statement.done()):
            waits = "select exists (select from pg_locks where pid = %s and not granted)"
            if await value(observer, waits, waiting.info.backend_pid):
                return
            await asyncio.sleep(0.005)  # Postgres has no event for a backend that begins to wait.


async def person(connection: Connection, role: str = "tourist", name: str | None = None) -> UUID:
    """Creates a person with an account and a profile. Returns the id."""
    account = await insert(connection, "auth.users", email=f"{uuid4()}@example.com")
    await insert(connection, "public.users", id=account["id"], role=role, display_name=name)
    user_id = account["id"]
    assert isinstance(user_id, UUID)
    return user_id


async def session_of(connection: Connection, user_id: UUID) -> UUID:
    """Signs a user in; returns the id of the new session."""
    session_id = uuid4()
    await insert(connection, "auth.sessions", id=session_id, user_id=user_id)
    return session_id


@dataclass(frozen=True)
class Chat:
    """A conversation of a tourist (user1) with a guide (user2), and a connection that may do everything."""

    connection: Connection
    tourist: UUID
    guide: UUID
    room: UUID

    async def message(self, text: str = "Hello", **columns: Any) -> UUID:
        """Store a message, from the tourist to the guide unless `sender_id` says otherwise; return its id."""
        columns = {"room_id": self.room, "sender_id": self.tourist, **columns}
        stored = await insert(self.connection, "public.chat_messages", message=text, **columns)
        message_id = stored["id"]
        assert isinstance(message_id, UUID)
        return message_id

    async def device(self, **columns: Any) -> Row:
        """Register a device, one more of the guide's unless columns say otherwise; return it as stored."""
        name = f"phone-{uuid4()}"
        columns = {"user_id": self.guide, "device_id": name, "platform": "ios", **columns}
        columns.setdefault("push_token", f"ExponentPushToken[{name}]")
        return await insert(self.connection, "public.user_devices", **columns)

    async def look(self, room: UUID | None, *, is_online: bool = True) -> None:
        """The guide's app reports what is on its screen."""
        await self.connection.execute(
            "insert into public.user_presence (user_id, is_online, current_conversation_id) values (%s, %s, %s)"
            " on conflict (user_id) do update set is_online = excluded.is_online,"
            " current_conversation_id = excluded.current_conversation_id",
            (self.guide, is_online, room),
        )

    async def read(self, **more: Any) -> int:
        """The guide opens the conversation; returns how many messages that marks as read. `more`: further arguments."""
        arguments = {"user_id": self.guide, "conversation_id": self.room, **more}
        named = ", ".join(f"p_{name} => %s" for name in arguments)
        async with as_user(self.connection, self.guide):
            marked = await value(self.connection, f"select public.mark_messages_read({named})", *arguments.values())
        assert isinstance(marked, int)
        return marked

    async def job(self, message_id: UUID) -> Row:
        """The job of a message's conversation, with outcome, reason and finished_at of the message."""
        found = await row(
            self.connection,
            "select (job).*, (decision).outcome, (decision).reason as decision_reason, (decision).finished_at"
            " from push.decision_of(%s)",
            message_id,
        )
        decided = found["outcome"] is not None
        reason = found.pop("decision_reason") or (None if decided else found["reason"])
        return {**found, "state": "done" if decided else found["state"], "reason": reason}

    async def conversation(self, name: str | None = None) -> "Chat":
        """A further conversation of the same guide, with another tourist: a further job."""
        tourist = await person(self.connection, name=name)
        room = await insert(self.connection, "public.chat_rooms", user1_id=tourist, user2_id=self.guide)
        return Chat(self.connection, tourist, self.guide, room["id"])

    async def separate_message(self, text: str = "Hello") -> UUID:
        """Stores a message to the guide in a further conversation, so that it has a job of its own. Returns its id."""
        return await (await self.conversation()).message(text)

    async def see_message(self, message_id: UUID) -> Row:
        return await row(self.connection, "select * from public.chat_messages where id = %s", message_id)

    async def server_time(self) -> datetime:
        """The clock of the database."""
        now = await value(self.connection, "select clock_timestamp()")
        assert isinstance(now, datetime)
        return now

    async def unread_counters(self) -> tuple[int, int]:
        """Unread messages of the tourist and of the guide."""
        room = await self.see_room()
        return room["unread_count_user1"], room["unread_count_user2"]

    async def see_room(self) -> Row:
        return await row(self.connection, "select * from public.chat_rooms where id = %s", self.room)

    async def pass_time(self, seconds: float) -> None:
        """Lets time pass: makes each time that decisions compare with the clock that much older."""
        await self.connection.execute(f"""
            alter table public.user_presence disable trigger stamp_presence;
            update public.user_presence set updated_at = updated_at - interval '{seconds} s';
            alter table public.user_presence enable trigger stamp_presence;
            update private.device_presence set updated_at = updated_at - interval '{seconds} s';
            update public.chat_messages set server_timestamp = server_timestamp - interval '{seconds} s',
              created_at = created_at - interval '{seconds} s';
            update public.user_devices set last_seen_at = last_seen_at - interval '{seconds} s';
            update push.jobs set next_attempt_at = next_attempt_at - interval '{seconds} s',
              decided_up_to = decided_up_to - interval '{seconds} s', again_at = again_at - interval '{seconds} s',
              expires_at = expires_at - interval '{seconds} s', leased_until = leased_until - interval '{seconds} s',
              changed_at = changed_at - interval '{seconds} s';
            update push.decisions set finished_at = finished_at - interval '{seconds} s';
            update push.deliveries set sent_at = sent_at - interval '{seconds} s',
              message_at = message_at - interval '{seconds} s', updated_at = updated_at - interval '{seconds} s',
              receipt_due_at = receipt_due_at - interval '{seconds} s', retry_at = retry_at - interval '{seconds} s',
              answered_at = answered_at - interval '{seconds} s', created_at = created_at - interval '{seconds} s';
            update push.device_states set sounded_at = sounded_at - interval '{seconds} s',
              dismissed_at = array(select at - interval '{seconds} s' from unnest(dismissed_at) at);
            alter table public.message_receipts disable trigger stamp_receipt;
            update public.message_receipts set read_at = read_at - interval '{seconds} s';
            alter table public.message_receipts enable trigger stamp_receipt;
            update private.conversation_preferences set muted_until = muted_until - interval '{seconds} s';
            update private.notification_preferences set snoozed_until = snoozed_until - interval '{seconds} s';
            update push.recipient_rates set free_at = free_at - interval '{seconds} s';
            update push.receipt_runs set began_at = began_at - interval '{seconds} s';
            update push.providers set seen_at = seen_at - interval '{seconds} s',
              succeeded_at = succeeded_at - interval '{seconds} s',
              paused_until = paused_until - interval '{seconds} s';
        """)


async def start_chat(connection: Connection) -> Chat:
    """A tourist, a guide and their conversation, without devices and messages."""
    tourist = await person(connection, name="Tom Tourist")
    guide = await person(connection, "guide", name="Gina Guide")
    room = await insert(connection, "public.chat_rooms", user1_id=tourist, user2_id=guide)
    return Chat(connection, tourist, guide, room["id"])


# The workers' calls ----------------------------------------------------------------------------


async def claim(
    connection: Connection,
    *message_ids: UUID,
    limit: int = 100,
    wait_seconds: float = 7200,
    providers: Sequence[str] = ("expo",),
) -> Row:
    """claim_push_jobs for these messages, or for all that are due."""
    async with acting_as(connection, "service_role"):
        claimed = await value(
            connection,
            "select public.claim_push_jobs(%s, %s, %s, p_providers => %s)",
            list(message_ids) or None,
            limit,
            wait_seconds,
            list(providers),
        )
    assert isinstance(claimed, dict)
    return claimed


async def claim_one(connection: Connection, message_id: UUID) -> tuple[Row, Row]:
    """Claim a message that is to be sent; return the claim and its only job."""
    claimed = await claim(connection, message_id)
    [job] = claimed["jobs"]
    return claimed, job


async def is_active(chat: Chat, device: Row) -> bool:
    active = await value(chat.connection, "select is_active from public.user_devices where id = %s", device["id"])
    assert isinstance(active, bool)
    return active


# What record_push_results returns when it recorded all results and each lease was held.
ALL_RECORDED = {"deactivated": 0, "held": 0, "lost_leases": [], "unrecorded": [], "later": False}


def delivery_ids(job: Row) -> list[int]:
    """The deliveries of a claimed job, one for each device."""
    return [device["delivery_id"] for device in job["devices"]]


def decision(claimed: Row) -> str:
    """Returns what a claim of one message decided, and why."""
    if claimed["jobs"]:
        return "send"
    if claimed["deferred"]:
        return "deferred"
    [finished] = claimed["finished"]
    return f"{finished['outcome']}: {finished['reason']}"


def worker_report(job: Row, *answers: str, **more: Any) -> Row:
    """A worker's report of a job: a status or a permanent error for each device. `more`: fields of each device."""
    deliveries = []
    for device, answer in zip(job["devices"], answers or ["accepted"] * len(job["devices"]), strict=True):
        known = answer in ("accepted", "handed_over", "retry", "maybe_sent", "configuration_fault")
        deliveries.append(
            {
                "delivery_id": device["delivery_id"],
                "status": answer if known else "failed",
                "error": None if known else answer,
                "ticket_id": f"ticket of {device['push_token']}" if answer in ("accepted", "handed_over") else None,
                **more,
            }
        )
    return {"job_id": job["job_id"], "deliveries": deliveries}


async def record(
    connection: Connection, claimed: Row, *results: Row, unused: int = 0, reports: Sequence[Row] = ()
) -> Row:
    """record_push_results under the lease of a claim."""
    async with acting_as(connection, "service_role"):
        answer = await value(
            connection,
            "select public.record_push_results(%s::uuid, %s::timestamptz, %s, %s, %s)",
            claimed["lease_id"],
            claimed["claimed_at"],
            [Jsonb(result) for result in results],
            unused,
            [Jsonb(report) for report in reports],
        )
    assert isinstance(answer, dict)
    return answer


async def due_receipts(connection: Connection, limit: int = 1000) -> list[Row]:
    """claim_due_receipts."""
    async with acting_as(connection, "service_role"):
        due = await value(connection, "select public.claim_due_receipts(%s)", limit)
    assert isinstance(due, list)
    return due


def receipt(due: Row, answer: str = "handed_over") -> Row:
    """A worker's report of a receipt: `handed_over`, `missing`, or an error of Expo's."""
    statuses = dict.fromkeys(("MessageRateExceeded", "ExpoError", "ProviderError"), "retry")
    statuses |= dict.fromkeys(("InvalidCredentials", "MismatchSenderId"), "configuration_fault")
    if answer in ("handed_over", "missing"):
        return {**due, "status": answer, "error": None}
    return {**due, "status": statuses.get(answer, "failed"), "error": answer}


async def record_receipts(connection: Connection, run_id: UUID, *receipts: Row) -> Row:
    """record_push_receipts."""
    async with acting_as(connection, "service_role"):
        counts = await value(
            connection, "select public.record_push_receipts(%s, %s)", run_id, [Jsonb(receipt) for receipt in receipts]
        )
    assert isinstance(counts, dict)
    return counts


async def finish_run(connection: Connection, run_id: UUID) -> Row:
    """finish_receipt_run."""
    async with acting_as(connection, "service_role"):
        finished = await value(connection, "select public.finish_receipt_run(%s)", run_id)
    assert isinstance(finished, dict)
    return finished


async def prune(connection: Connection, limit: int = 1000) -> Row:
    """prune_push."""
    async with acting_as(connection, "service_role"):
        pruned = await value(connection, "select public.prune_push(%s)", limit)
    assert isinstance(pruned, dict)
    return pruned


async def explain(connection: Connection, message_id: UUID) -> Any:
    """explain_push of a message."""
    async with acting_as(connection, "service_role"):
        return await value(connection, "select public.explain_push(%s)", message_id)
