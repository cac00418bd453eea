"""Limits and delays are those of hosted Realtime: clients see its errors, and meet its races."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import replace

import aiohttp
import pytest

from local.supabase.postgres import Postgres
from local.supabase.project import Supabase
from local.supabase.realtime.hub import Delays, Limits, Rate
from local.supabase.realtime.server import Realtime, realtime
from tests.local.supabase.realtime.clients import Client
from tests.local.supabase.realtime.conftest import DELAYS, ConnectTo, Sql, token

LOGS = {"event": "INSERT", "schema": "public", "table": "logs"}

type Start = Callable[[Limits], Awaitable[Realtime]]


class Clock:
    """A clock that stands still."""

    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def start(server: Postgres, project: Supabase, clock: Clock) -> AsyncIterator[Start]:
    """Starts a server with some limits. All that happens there until the clock moves is in the same second."""
    async with AsyncExitStack() as stack:
        yield lambda limits: stack.enter_async_context(
            realtime(server, project, delays=DELAYS, limits=limits, clock=clock)
        )


async def joined(client: Client, topic: str, **config: object) -> None:
    """Joins a channel, and waits until it is joined."""
    await client.join(topic, config, [], "presence" in config)
    await client.events.until("status", topic=topic, status="SUBSCRIBED")


ECHO = {"self": True, "ack": False}


def test_the_limits_are_those_of_the_pro_plan() -> None:
    assert Limits() == Limits(
        connections=500,
        channels=100,
        joins=500,
        messages=500,
        presence_messages=50,
        presence_calls=5,
        broadcast_bytes=3_000_000,
        row_bytes=1_048_576,
    )


def test_the_delays_are_those_of_the_hosted_server() -> None:
    assert Delays() == Delays(
        changes=0.1,
        idle_changes=0.5,
        messages=0.02,
        subscription=1.0,
        resubscription=(1.0, 3.0),
        rejected_join=5.0,
        rejected_connection=2.0,
        silent_client=60.0,
        token=10.0,
    )


def test_a_rate_counts_again_when_its_time_is_over(clock: Clock) -> None:
    rate = Rate(2, clock, seconds=30)
    assert [rate.allows() for _ in range(3)] == [True, True, False]
    clock.time = 29.9
    assert not rate.allows()
    clock.time = 30
    assert [rate.allows(2), rate.allows()] == [True, False]


async def test_a_channel_that_sends_too_many_messages_in_a_second_is_closed(
    start: Start, connect_to: ConnectTo
) -> None:
    client = await connect_to(await start(Limits(messages=4)))
    await joined(client, "room", broadcast=ECHO)
    for number in (1, 2, 3):  # Those that are received count, too.
        await client.send("room", "event", {"n": number})
    await client.events.until("system", message="Too many messages per second")
    await client.events.until("status", topic="room", status="CLOSED")
    assert [event["payload"]["n"] for event in client.events.all("broadcast")] == [1, 2]


async def test_messages_of_a_second_over_http_are_limited_and_too_large_ones_are_rejected(
    start: Start, project_key: str
) -> None:
    running = await start(Limits(messages=2, broadcast_bytes=10))
    url = f"{running.url}/realtime/v1/api/broadcast/room/events/event?apikey={project_key}"
    for text, status in (("x" * 9, 422), ("", 202), ("", 429)):
        async with aiohttp.request("POST", url, json=text) as answer:
            assert answer.status == status


async def test_too_many_joins_in_a_second_end_the_connection(start: Start, project_key: str, clock: Clock) -> None:
    running = await start(Limits(joins=2))
    url = f"{running.url}/realtime/v1/websocket?apikey={project_key}&vsn=2.0.0"
    async with aiohttp.ClientSession() as session:
        async with session.ws_connect(url) as socket:
            for number, status in ((1, "ok"), (2, "ok"), (3, "error")):
                await socket.send_json([str(number), str(number), f"realtime:{number}", "phx_join", {}])
                reply = (await socket.receive_json())[4]
                assert reply["status"] == status
            assert reply["response"] == {"reason": "ClientJoinRateLimitReached: Too many joins per second"}
            assert (await socket.receive()).type == aiohttp.WSMsgType.CLOSE
        clock.time += 1
        async with session.ws_connect(url) as socket:
            await socket.send_json(["1", "1", "realtime:1", "phx_join", {}])
            assert (await socket.receive_json())[4]["status"] == "ok"


async def test_a_connection_has_a_hundred_channels_at_most(start: Start, project_key: str) -> None:
    running = await start(Limits())
    url = f"{running.url}/realtime/v1/websocket?apikey={project_key}&vsn=2.0.0"
    async with aiohttp.ClientSession() as session, session.ws_connect(url) as socket:

        async def join(number: int) -> object:
            await socket.send_json([str(number), str(number), f"realtime:{number}", "phx_join", {}])
            return (await socket.receive_json())[4]

        for number in range(100):
            await join(number)
        refused = {"status": "error", "response": {"reason": "ChannelRateLimitReached: Too many channels"}}
        assert await join(100) == refused
        await socket.send_json(["0", "leave", "realtime:0", "phx_leave", {}])
        for _ in range(2):  # the reply, and phx_close
            await socket.receive_json()
        assert await join(100) == {"status": "ok", "response": {"postgres_changes": []}}


async def test_a_connection_above_the_limit_is_refused_with_429(start: Start, project_key: str) -> None:
    running = await start(Limits(connections=1))
    url = f"{running.url}/realtime/v1/websocket?apikey={project_key}"
    async with aiohttp.ClientSession() as session, session.ws_connect(url), session.get(url) as answer:
        assert (answer.status, await answer.json()) == (429, {"error": "Too many connected users"})


async def test_a_channel_with_more_than_five_presence_calls_in_30_seconds_is_closed(
    start: Start, connect_to: ConnectTo, clock: Clock
) -> None:
    client = await connect_to(await start(Limits()))
    await joined(client, "room", presence={"key": "ana", "enabled": True}, broadcast=ECHO)
    for time, calls in ((0, 5), (30, 5)):
        clock.time = time
        for call in range(calls):
            await client.track("room", {"n": call})
        await client.send("room", "all calls are handled", {})
        await client.events.until("broadcast")
    await client.track("room", {"n": 5})
    await client.events.until("system", message="Client presence rate limit exceeded")
    await client.events.until("status", status="CLOSED")


async def test_a_channel_is_closed_by_too_many_presence_messages_in_a_second_or_a_large_one(
    start: Start, connect_to: ConnectTo
) -> None:
    client = await connect_to(await start(Limits(presence_messages=2, broadcast_bytes=100)))
    for topic, presences, message in (
        ("large", [{"text": "x" * 100}], "Track message size exceeded"),
        ("many", [{"n": 1}, {"n": 2}], "Too many presence messages per second"),
    ):
        await joined(client, topic, broadcast=ECHO)
        for presence in presences:
            await client.track(topic, presence)
        await client.events.until("system", topic=topic, message=message)
        await client.events.until("status", topic=topic, status="CLOSED")


async def test_a_frame_of_more_than_five_megabytes_ends_the_connection(running: Realtime, project_key: str) -> None:
    url = f"{running.url}/realtime/v1/websocket?apikey={project_key}&vsn=2.0.0"
    async with aiohttp.ClientSession() as session, session.ws_connect(url) as socket:
        heartbeat = '[null,"1","phoenix","heartbeat","%s"]'
        largest = 5_000_000 - len(heartbeat % "")
        await socket.send_str(heartbeat % ("x" * largest))
        assert (await socket.receive_json())[3] == "phx_reply"
        # The server may close before it has read everything.
        with suppress(ConnectionError, aiohttp.ClientConnectionError):
            await socket.send_str(heartbeat % ("x" * (largest + 1)))
        closed = (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)
        assert (await socket.receive()).type in closed


async def test_rows_flow_only_after_subscribed_to_postgresql(
    server: Postgres, project: Supabase, connect_to: ConnectTo, clients: AsyncExitStack, sql: Sql, number: int
) -> None:
    running = await clients.enter_async_context(realtime(server, project, delays=replace(DELAYS, subscription=3600)))
    client = await connect_to(running)
    await client.join("logs", {}, [LOGS], False)
    await client.events.until("status", status="SUBSCRIBED")

    # Another client shows when the row has been read: it subscribed within its join.
    url = f"{running.url}/realtime/v1/websocket?apikey={project.publishable_key}&vsn=2.0.0"
    session = await clients.enter_async_context(aiohttp.ClientSession())
    socket = await clients.enter_async_context(session.ws_connect(url))
    config = {"postgres_changes": [LOGS], "postgres_changes_options": {"wait": True}}
    await socket.send_json(["1", "1", "realtime:logs", "phx_join", {"config": config}])
    assert [(await socket.receive_json())[3] for _ in range(2)] == ["phx_reply", "system"]
    await sql("insert into logs values (%s, 'missed')", number)
    assert (await socket.receive_json())[3] == "postgres_changes"

    await client.set_auth(token(project, 3600))  # It subscribes again, without the hour of this test.
    await client.events.until("system", message="Subscribed to PostgreSQL")
    await sql("insert into logs values (%s, 'received')", -number)
    assert (await client.events.until("row"))["new"]["line"] == "received"
