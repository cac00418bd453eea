"""Stands in for pg_net's background worker: sends the HTTP requests that net.http_post queued (sql/pg_net.sql).

Its semantics are those of pg_net 0.20.4, read in its src/worker.c and src/core.c: a request starts at COMMIT;
there is one attempt, no retry after any failure, and no order; both tables are UNLOGGED, so that a crash of
the server loses requests.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import aiohttp
import psycopg

BATCH_SIZE = 200  # pg_net.batch_size
PAUSE_SECONDS = 1.0  # between two batches, to spare the CPU

_CONSUME = """
    delete from net.http_request_queue
    where id in (select id from net.http_request_queue order by id limit %s)
    returning id, url, headers, body, timeout_milliseconds
"""
_RECORD = """
    insert into net._http_response (id, status_code, content, headers, content_type, timed_out, error_msg)
    values (%s, %s, %s, %s, %s, %s, %s)
"""
type _Connection = psycopg.AsyncConnection[tuple[int, str, dict[str, str], bytes, int]]


@dataclass(frozen=True)
class _Response:
    id: int
    status: int | None = None
    content: str | None = None
    headers: str | None = None
    content_type: str | None = None
    timed_out: bool = False
    error: str | None = None


class PgNet:
    """The running worker: what it has sent, and the faults to inject."""

    def __init__(self, dsn: str) -> None:
        self.requests = 0  # HTTP requests made
        self.lost = 0  # requests dropped by `lose`
        self._dsn = dsn
        self._to_lose = 0
        self._to_duplicate = 0
        self._running = asyncio.Event()
        self._running.set()

    def lose(self, count: int = 1) -> None:
        """Drops the next `count` requests without a trace, as a crash of the server does."""
        self._to_lose += count

    def duplicate(self, count: int = 1) -> None:
        """Lets the worker fail after each of the next `count` batches: it rolls back and sends the batch again."""
        self._to_duplicate += count

    def pause(self) -> None:
        """Leaves requests in the queue until `resume`."""
        self._running.clear()

    def resume(self) -> None:
        """Sends again, beginning with what was queued in the meantime."""
        self._running.set()

    async def connect(self) -> _Connection:
        """The worker's connection, listening for commits that queued requests."""
        connection: _Connection = await psycopg.AsyncConnection.connect(self._dsn, autocommit=True)
        await connection.execute("listen pg_net")
        return connection

    async def work(self, connection: _Connection) -> None:
        """Makes requests forever; connects again when the server was restarted."""
        async with aiohttp.ClientSession(
            # curl repeats a POST on a dead kept connection. New connections make that unnecessary.
            connector=aiohttp.TCPConnector(limit=0, force_close=True),
            headers={"User-Agent": "pg_net/0.20.4"},
            skip_auto_headers=["Accept-Encoding"],
        ) as session:
            while True:
                with suppress(psycopg.OperationalError):
                    async with connection:
                        await self._serve(connection, session)
                connection = await self._reconnect()

    async def _reconnect(self) -> _Connection:
        while True:
            try:
                return await self.connect()
            except psycopg.OperationalError:
                await asyncio.sleep(0.1)  # there is no event for a server that is back

    async def _serve(self, connection: _Connection, session: aiohttp.ClientSession) -> None:
        # Only the first commit after the worker woke ends its pause early. So pg_net sends within milliseconds
        # when idle, but once a second under load (`should_wake` in worker.c).
        woken = True  # a restarted worker first sends what is left in the queue
        while True:
            if not woken:
                await self._commit(connection)
            woken = False
            consumed = True
            while consumed:
                await self._running.wait()
                consumed = await self._send_batch(connection, session)
                if woken:
                    await asyncio.sleep(PAUSE_SECONDS)
                else:
                    woken = await self._commit(connection, PAUSE_SECONDS)

    async def _commit(self, connection: _Connection, seconds: float | None = None) -> bool:
        """Waits for a commit that queued requests; False if none came within `seconds`."""
        return bool([notify async for notify in connection.notifies(timeout=seconds, stop_after=1)])

    async def _send_batch(self, connection: _Connection, session: aiohttp.ClientSession) -> bool:
        """Sends up to 200 requests in parallel and waits for the slowest; False if there were none."""
        async with connection.transaction(), connection.cursor() as cursor:
            await cursor.execute(_CONSUME, (BATCH_SIZE,))
            batch = sorted(await cursor.fetchall())  # by id: the first queued is the first to be lost
            lost, self._to_lose = batch[: self._to_lose], max(0, self._to_lose - len(batch))
            self.lost += len(lost)
            responses = await asyncio.gather(*(self._send(session, *request) for request in batch[len(lost) :]))
            if self._to_duplicate and responses:
                self._to_duplicate -= 1
                raise psycopg.Rollback
            for response in responses:
                await cursor.execute(_RECORD, tuple(vars(response).values()))
        return bool(batch)

    async def _send(
        self,
        session: aiohttp.ClientSession,
        id: int,
        url: str,
        headers: dict[str, str],
        body: bytes,
        milliseconds: int,
    ) -> _Response:
        self.requests += 1
        try:
            async with session.post(
                url, data=body, headers=headers, timeout=aiohttp.ClientTimeout(milliseconds / 1000)
            ) as answer:
                content = await answer.text(errors="replace")
                received = json.dumps(dict(answer.headers))
                content_type = answer.headers.get("Content-Type")
                return _Response(id, answer.status, content, received, content_type)
        except TimeoutError:
            return _Response(id, timed_out=True, error=f"Timeout of {milliseconds} ms reached")
        except (
            aiohttp.ClientError,
            ValueError,
        ) as error:  # ValueError: a URL or header that HTTP does not allow
            return _Response(id, error=str(error))


@asynccontextmanager
async def pg_net(dsn: str) -> AsyncIterator[PgNet]:
    """The worker of the database `dsn`, which has sql/pg_net.sql, running in the background."""
    net = PgNet(dsn)
    worker = asyncio.create_task(net.work(await net.connect()))
    try:
        yield net
    finally:
        worker.cancel()
        with suppress(asyncio.CancelledError):
            await worker
