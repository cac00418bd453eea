"""Times of the database functions as messages accumulate.

Three databases in one PostgreSQL have 100,000 devices each, and 10,000, 100,000 and 1,000,000 messages. Each user has
set quiet hours, a sound, a preview and a language, and blocks somebody. Each pass calls each function in each database
with the same amount of work, so that a disturbance of the machine affects all three alike. The times are those of the
call over a connection with warm caches, in milliseconds.
"""

import asyncio
import json
import random
import time
from collections import defaultdict
from contextlib import AsyncExitStack
from typing import Any, LiteralString
from uuid import UUID, uuid4

from psycopg.types.json import Jsonb

from bench.load import (
    MESSAGES_OF_A_ROOM,
    ROOMS,
    Connection,
    Room,
    connect,
    copy_with_messages,
    create_database_with_devices,
    quiet_postgres,
)
from bench.report import Cell, Plot, Result, Target, percentiles

SIZES = (10_000, 100_000, 1_000_000)
WARM_UP, PASSES = 20, 400
READS = 4  # in each pass, because a call of a millisecond is disturbed more easily
BATCH = 10  # messages of a claim, as many as SQS delivers at once

type Times = dict[str, list[float]]


class LoadedDatabase:
    """A database with messages, and the milliseconds of each function in it."""

    def __init__(self, connection: Connection, messages: int) -> None:
        self.times: Times = defaultdict(list)
        self._connection = connection
        self._rooms = messages // MESSAGES_OF_A_ROOM

    async def pass_through(self) -> None:
        """Calls each function, and leaves as many messages as before."""
        notified = await self._write(BATCH)
        await self._send("webhook", notified)
        swept = await self._write(BATCH)
        await self._send("sweep", None)
        await self._receipts(notified)
        await self._prune(notified + swept)
        read = await self._read()
        await self._execute("delete from public.chat_messages where id = any(%s)", notified + swept + read)
        await self._execute(
            "update push.jobs set state = 'idle', next_attempt_at = null, again_at = null, expires_at = null,"
            " lease_id = null, leased_until = null, leased_revision = null where state <> 'idle'"
        )

    async def full_scans(self) -> int:
        """The number of full scans of large tables so far."""
        await self._execute("select pg_stat_force_next_flush()")
        [row] = await self._rows("select sum(seq_scan)::int from pg_stat_user_tables where n_live_tup > 5000")
        return int(row[0])

    async def _send(self, path: str, message_ids: list[UUID] | None) -> None:
        claimed = await self._worker(f"claim_push_jobs, {path}", "claim_push_jobs(%s::uuid[], %s)", message_ids, BATCH)
        results = []
        for job in claimed["jobs"]:
            accepted = [
                {"delivery_id": device["delivery_id"], "status": "accepted", "ticket_id": str(uuid4())}
                for device in job["devices"]
            ]
            results.append(Jsonb({"job_id": job["job_id"], "deliveries": accepted}))
        await self._worker(
            "record_push_results",
            "record_push_results(%s::uuid, %s::timestamptz, %s)",
            *(claimed["lease_id"], claimed["claimed_at"], results),
        )

    async def _receipts(self, message_ids: list[UUID]) -> None:
        await self._execute(
            "update push.deliveries set receipt_due_at = sent_at - interval '1 day' where message_ids && %s and id >"
            " (select max(id) - 1000 from push.deliveries)",
            message_ids,
        )
        due = await self._worker("claim_due_receipts", "claim_due_receipts(%s)", BATCH)
        results = [Jsonb({**receipt, "status": "handed_over", "error": None}) for receipt in due]
        await self._worker("record_push_receipts", "record_push_receipts(%s, %s)", uuid4(), results)

    async def _prune(self, message_ids: list[UUID]) -> None:
        await self._execute(
            "update push.decisions set finished_at = now() - interval '40 days' where message_id = any(%s)", message_ids
        )
        pruned = await self._worker("prune_push", "prune_push()")
        assert pruned["decisions_deleted"] == len(message_ids)

    async def _read(self) -> list[UUID]:
        """Calls the functions for apps. Returns the messages that were written for them."""
        page = "select server_timestamp, id from public.get_messages_paginated(%s, 30, %s, %s)"
        missed = "select * from public.get_missed_messages(%s, now() - interval '7 days')"
        for _ in range(READS):
            room = self._room()
            newest = await self._timed("get_messages_paginated, newest", page, room.id, None, None, person=room.tourist)
            await self._timed("get_messages_paginated, older", page, room.id, *newest[-1], person=room.tourist)
            await self._timed("get_missed_messages", missed, room.tourist, person=room.tourist)
        written = await self._write(BATCH, room)
        read = "select public.mark_messages_read(%s, %s)"
        [[marked]] = await self._timed("mark_messages_read", read, room.guide, room.id, person=room.guide)
        assert marked >= len(written)
        return written

    async def _write(self, count: int, room: Room | None = None) -> list[UUID]:
        """Inserts messages of tourists to their guides, in one conversation or each in a random one."""
        # The same conversations at every size, so that only the number of messages differs.
        rooms = [room or Room(random.randint(1, ROOMS)) for _ in range(count)]
        written = await self._rows(
            "insert into public.chat_messages (room_id, sender_id, message)"
            " select room, tourist, 'Where shall we meet?' from unnest(%s::uuid[], %s::uuid[]) made (room, tourist)"
            " returning id",
            *([room.id for room in rooms], [room.tourist for room in rooms]),
        )
        return [message_id for (message_id,) in written]

    def _room(self) -> Room:
        return Room(random.randint(1, self._rooms))

    async def _worker(self, name: str, call: LiteralString, *parameters: Any) -> Any:
        """Calls a function of the workers, records its time, and returns its answer."""
        [[answer]] = await self._timed(name, f"select public.{call}", *parameters)
        return answer

    async def _timed(
        self, name: str, query: LiteralString, *parameters: Any, person: UUID | None = None
    ) -> list[tuple[Any, ...]]:
        """Runs a query as a user or as a worker, as PostgREST does. Records its time and returns its rows."""
        role = "authenticated" if person else "service_role"
        claims = json.dumps({"role": role, **({"sub": str(person)} if person else {})})
        async with self._connection.transaction():
            await self._execute(
                "select set_config('role', %s, true), set_config('request.jwt.claims', %s, true)", role, claims
            )
            began = time.perf_counter()
            rows = await self._rows(query, *parameters)
            self.times[name].append((time.perf_counter() - began) * 1000)
        return rows

    async def _rows(self, query: LiteralString, *parameters: Any) -> list[tuple[Any, ...]]:
        return await (await self._connection.execute(query, parameters)).fetchall()

    async def _execute(self, query: LiteralString, *parameters: Any) -> None:
        await self._connection.execute(query, parameters)


async def run() -> Result:
    """p50 and p99 of each function by size, with the growth of p99 as target."""
    async with AsyncExitStack() as parts:
        server = await parts.enter_async_context(quiet_postgres())
        print("filling the databases", flush=True)
        people = await create_database_with_devices(server)
        databases = await asyncio.gather(*(copy_with_messages(server, people, messages) for messages in SIZES))
        loaded = [
            LoadedDatabase(await parts.enter_async_context(await connect(server.dsn(database))), messages)
            for database, messages in zip(databases, SIZES, strict=True)
        ]
        for number in range(-WARM_UP, PASSES):
            if number == 0:
                scans_before = await loaded[-1].full_scans()
                for database in loaded:
                    database.times.clear()
            if number % 100 == 0:
                print(f"pass {number} of {PASSES}", flush=True)
            for database in random.sample(loaded, len(loaded)):
                await database.pass_through()
        full_scans = await loaded[-1].full_scans() - scans_before
    return _result([database.times for database in loaded], full_scans)


def _result(times: list[Times], full_scans: int) -> Result:
    rows: list[tuple[Cell, ...]] = []
    targets = []
    for name in times[0]:
        p50, _, p99 = zip(*(percentiles(one[name]) for one in times), strict=True)
        growth = p99[-1] / p99[0]
        rows.append((name, p50[0], p50[-1], *p99, growth))
        targets.append(Target(f"{name}: p99 at 1 M ÷ at 10 k", growth, 1.5))
    targets.append(Target("full scans of a table at 1 M", full_scans, 0))
    return Result(
        columns=("function", "p50 10 k", "p50 1 M", "p99 10 k", "p99 100 k", "p99 1 M", "p99 1 M ÷ 10 k"),
        rows=rows,
        targets=targets,
        plot=Plot("function", ("p99 10 k", "p99 100 k", "p99 1 M"), "milliseconds, p99"),
    )
