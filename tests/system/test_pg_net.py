"""The stand-in for pg_net guarantees what pg_net guarantees, and no more."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import psycopg
import pytest
from aiohttp import web
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from local.http_server import serving
from local.processes import free_port, temporary_folder
from local.supabase.pg_net import PgNet, pg_net
from local.supabase.postgres import SUPERUSER, Postgres, postgres
from local.supabase.project import create_database


@dataclass
class Receiver:
    """A web server that records requests. It answers with `status` after `delay` seconds, if `answering` is set."""

    url: str
    status: int = 200
    delay: float = 0
    answering: asyncio.Event = field(default_factory=asyncio.Event)
    received: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.answering.set()

    _arrival: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def handle(self, request: web.Request) -> web.Response:
        async with self._arrival:
            self.received.append((dict(request.headers), await request.read()))
            self._arrival.notify_all()
        await asyncio.sleep(self.delay)
        await self.answering.wait()
        return web.json_response({"ok": True}, status=self.status)

    async def bodies(self, count: int) -> list[bytes]:
        """Waits for `count` requests, and returns their bodies."""
        async with asyncio.timeout(30), self._arrival:
            await self._arrival.wait_for(lambda: len(self.received) >= count)
        return [body for _, body in self.received]


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    port = free_port()
    receiver = Receiver(f"http://127.0.0.1:{port}/hook")
    app = web.Application()
    app.router.add_route("*", "/hook", receiver.handle)
    async with serving(app, port):
        yield receiver


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[Postgres]:
    with temporary_folder() as folder:
        async with postgres(folder) as server:
            await create_database(server, "hooks")
            yield server


@dataclass
class Database:
    """A database with pg_net, used as a role of the application."""

    dsn: str

    async def post(self, url: str, *bodies: object, commit: bool = True, timeout_milliseconds: int = 5000) -> None:
        async with await psycopg.AsyncConnection.connect(self.dsn) as connection:
            await connection.execute("set role authenticated")
            for body in bodies:
                await connection.execute(
                    "select net.http_post(%s, %s, timeout_milliseconds => %s)",
                    (url, Jsonb(body), timeout_milliseconds),
                )
            if not commit:
                await connection.rollback()

    async def responses(self) -> list[dict[str, object]]:
        return await self._rows("select status_code, timed_out, error_msg from net._http_response order by id")

    async def queue_length(self) -> int:
        return len(await self._rows("select id from net.http_request_queue"))

    async def _rows(self, query: str) -> list[dict[str, object]]:
        async with await psycopg.AsyncConnection.connect(self.dsn, row_factory=dict_row) as connection:
            return await (await connection.execute(query.encode())).fetchall()


@pytest.fixture
async def database(server: Postgres) -> Database:
    async with await psycopg.AsyncConnection.connect(server.dsn("hooks", SUPERUSER)) as connection:
        await connection.execute("truncate net.http_request_queue, net._http_response")
    return Database(server.dsn("hooks"))


@pytest.fixture
async def net(database: Database) -> AsyncIterator[PgNet]:
    async with pg_net(database.dsn) as net:
        yield net


async def recorded(database: Database, count: int) -> list[dict[str, object]]:
    """Waits for `count` recorded responses, and returns them."""
    async with asyncio.timeout(30):
        while len(responses := await database.responses()) < count:  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0.02)
    return responses


async def test_a_pg_net_request_is_sent_at_commit_and_not_before(
    net: PgNet, database: Database, receiver: Receiver
) -> None:
    async with await psycopg.AsyncConnection.connect(database.dsn) as connection:
        await connection.execute("select net.http_post(%s, %s)", (receiver.url, Jsonb("first")))
        await database.post(receiver.url, "second")
        assert await receiver.bodies(1) == [b'"second"']
        await connection.commit()
        assert await receiver.bodies(2) == [b'"second"', b'"first"']


async def test_a_rolled_back_pg_net_request_is_never_sent(net: PgNet, database: Database, receiver: Receiver) -> None:
    await database.post(receiver.url, {"n": 1}, commit=False)
    await database.post(receiver.url, {"n": 2})
    assert await receiver.bodies(1) == [b'{"n": 2}']


async def test_a_request_has_the_wire_format_of_pg_net(net: PgNet, database: Database, receiver: Receiver) -> None:
    body = {"record": {"id": 1, "text": "Grüße 📷"}, "old_record": None, "type": "INSERT"}
    async with await psycopg.AsyncConnection.connect(database.dsn) as connection:
        await connection.execute(
            """select net.http_post(%s, %s, '{"a b": "ü&="}', '{"X-Webhook-Secret": "s3cret"}')""",
            (f"{receiver.url}?x=1", Jsonb(body)),
        )
    [sent] = await receiver.bodies(1)
    headers, _ = receiver.received[0]
    # jsonb orders keys by length, then by bytes. It writes a space after colon and comma.
    expected = '{"type": "INSERT", "record": {"id": 1, "text": "Grüße 📷"}, "old_record": null}'
    assert sent == expected.encode()
    assert {name: headers[name] for name in ("Content-Type", "X-Webhook-Secret", "User-Agent", "Accept")} == {
        "Content-Type": "application/json",
        "X-Webhook-Secret": "s3cret",
        "User-Agent": "pg_net/0.20.4",
        "Accept": "*/*",
    }


async def test_a_content_type_other_than_json_aborts_the_transaction(database: Database) -> None:
    async with await psycopg.AsyncConnection.connect(database.dsn) as connection:
        with pytest.raises(psycopg.errors.RaiseException, match="Content-Type"):
            await connection.execute(
                """select net.http_post('http://127.0.0.1', headers => '{"content-type": "text/plain"}')"""
            )


async def test_pg_net_records_a_server_error_and_does_not_retry(
    net: PgNet, database: Database, receiver: Receiver
) -> None:
    receiver.status = 503
    await database.post(receiver.url, {})
    assert await recorded(database, 1) == [{"status_code": 503, "timed_out": False, "error_msg": None}]
    assert (net.requests, await database.queue_length()) == (1, 0)


async def test_pg_net_records_a_refused_connection_and_does_not_retry(net: PgNet, database: Database) -> None:
    await database.post(f"http://127.0.0.1:{free_port()}/", {})
    [response] = await recorded(database, 1)
    assert (response["status_code"], response["timed_out"]) == (None, False)
    assert response["error_msg"]
    assert (net.requests, await database.queue_length()) == (1, 0)


async def test_a_pg_net_timeout_is_recorded_although_the_receiver_got_the_request(
    net: PgNet, database: Database, receiver: Receiver
) -> None:
    receiver.delay = 1
    await database.post(receiver.url, {}, timeout_milliseconds=100)
    assert await recorded(database, 1) == [
        {"status_code": None, "timed_out": True, "error_msg": "Timeout of 100 ms reached"}
    ]
    assert len(receiver.received) == 1


async def test_a_lost_pg_net_request_leaves_no_trace(net: PgNet, database: Database, receiver: Receiver) -> None:
    net.lose(2)
    await database.post(receiver.url, 1, 2, 3)
    assert len(await recorded(database, 1)) == 1
    assert (await receiver.bodies(1), net.lost, await database.queue_length()) == ([b"3"], 2, 0)


async def test_a_failing_pg_net_worker_sends_its_whole_batch_twice(
    net: PgNet, database: Database, receiver: Receiver
) -> None:
    net.duplicate()
    await database.post(receiver.url, 1, 2)
    assert len(await recorded(database, 2)) == 2
    assert sorted(await receiver.bodies(4)) == [b"1", b"1", b"2", b"2"]


async def test_a_paused_pg_net_worker_leaves_requests_in_the_queue(
    net: PgNet, database: Database, receiver: Receiver
) -> None:
    net.pause()
    await database.post(receiver.url, 1)
    await asyncio.sleep(0.2)  # time in which it would come
    assert (receiver.received, await database.queue_length()) == ([], 1)
    net.resume()
    await receiver.bodies(1)


async def test_a_pg_net_batch_holds_200_requests_and_the_next_one_waits_for_the_slowest(
    net: PgNet, database: Database, receiver: Receiver
) -> None:
    receiver.answering.clear()
    await database.post(receiver.url, *range(201))
    await receiver.bodies(200)
    await asyncio.sleep(0.2)  # time in which the 201st would come
    assert len(receiver.received) == 200
    receiver.answering.set()
    await receiver.bodies(201)


async def test_pg_net_requests_survive_a_restart_but_not_a_crash(
    net: PgNet, database: Database, receiver: Receiver, server: Postgres
) -> None:
    net.pause()
    await database.post(receiver.url, "before the restart")
    await server.restart()
    net.resume()
    assert await receiver.bodies(1) == [b'"before the restart"']

    net.pause()
    await database.post(receiver.url, "before the crash")
    await server.kill()
    await server.restart()
    net.resume()
    await database.post(receiver.url, "after the crash")
    assert await receiver.bodies(2) == [b'"before the restart"', b'"after the crash"']
