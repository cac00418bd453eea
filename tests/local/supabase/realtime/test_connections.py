"""Connections, tokens, limits and faults: the official clients see what hosted Realtime would let them see."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import replace

import aiohttp
import jwt
import pytest
from psycopg import AsyncConnection

from local.supabase.postgres import Postgres
from local.supabase.project import Supabase
from local.supabase.realtime.server import Realtime, realtime
from tests.local.supabase.realtime.clients import JsClient, PythonClient
from tests.local.supabase.realtime.conftest import DELAYS, Connect, ConnectTo, Sql, token

LOGS = {"event": "INSERT", "schema": "public", "table": "logs"}


@pytest.fixture
async def running(server: Postgres, project: Supabase) -> AsyncIterator[Realtime]:
    """A new server: these tests script faults."""
    async with realtime(server, project, delays=DELAYS) as running:
        yield running


@pytest.mark.parametrize(
    ("key", "error"), [("sb_publishable_wrong", "The token provided is not a valid JWT"), ("", "No API key found")]
)
async def test_a_connection_with_a_wrong_key_is_refused_with_401(running: Realtime, key: str, error: str) -> None:
    async with aiohttp.request("GET", f"{running.url}/realtime/v1/websocket", params={"apikey": key}) as answer:
        assert answer.status == 401
        assert error in (await answer.json())["error"]


async def test_the_heartbeat_of_a_client_is_answered(js: JsClient) -> None:
    await js.join("room", {}, [], False)
    await js.events.until("status", status="SUBSCRIBED")
    assert await js.call("heartbeat") == "ok"


async def test_a_client_that_leaves_receives_no_further_events_of_the_channel(connect: Connect) -> None:
    ana, ben = await connect(), await connect()
    for client in (ana, ben):
        for topic in ("room", "other"):
            await client.join(topic, {}, [], False)
            await client.events.until("status", topic=topic, status="SUBSCRIBED")
    await ana.leave("room")
    await ana.send("other", "left", {})
    await ben.events.until("broadcast", event="left")
    await ben.send("room", "event", {})
    await ben.send("other", "event", {})
    await ana.events.until("broadcast", topic="other")
    assert ana.events.all("broadcast") == []


@pytest.mark.parametrize(
    ("forged", "error"),
    [
        (lambda project: token(project, -5), "InvalidJWTToken: Token has expired 5 seconds ago"),
        (lambda project: jwt.encode({"role": "anon", "exp": 2**31}, "x" * 40), "JwtSignatureError"),
        (lambda project: jwt.encode({"exp": 2**31}, project.jwt_secret), "Fields `role` and `exp` are required"),
        (lambda project: "not a token", "MalformedJWT: The token provided is not a valid JWT"),
    ],
)
async def test_a_join_with_a_wrong_token_is_rejected(
    python: PythonClient, project: Supabase, forged: Callable[[Supabase], str], error: str
) -> None:
    await python.set_auth(forged(project))
    await python.join("room", {}, [], False)
    assert error in (await python.events.until("status", status="CHANNEL_ERROR"))["error"]


async def test_a_channel_is_closed_when_its_token_expires(python: PythonClient, project: Supabase) -> None:
    await python.set_auth(token(project, 2))
    await python.join("room", {}, [], False)
    await python.events.until("status", status="SUBSCRIBED")
    event = await python.events.until("system", status="error")
    assert event["message"].startswith("Token has expired")
    await python.events.until("status", status="CLOSED")


async def test_a_renewed_token_keeps_the_channel_and_brings_its_rows(
    python: PythonClient, project: Supabase, sql: Sql, number: int
) -> None:
    await python.set_auth(token(project, 2, n=1))
    await python.join("room", {}, [LOGS], False)
    await python.events.until("system", message="Subscribed to PostgreSQL")
    await python.set_auth(token(project, 3600))
    await python.events.until("system", message="Subscribed to PostgreSQL")
    await sql("insert into logs values (%s)", number)
    await python.events.until("row")
    assert python.events.all("status")[-1]["status"] == "SUBSCRIBED"


async def test_of_many_new_tokens_the_first_counts_at_once_and_then_only_the_last(
    server: Postgres, project: Supabase, clients: AsyncExitStack, connect_to: ConnectTo
) -> None:
    running = await clients.enter_async_context(realtime(server, project, delays=replace(DELAYS, token=3600)))
    client = await connect_to(running)
    await client.join("room", {"broadcast": {"self": True, "ack": False}}, [LOGS], False)
    await client.events.until("system", message="Subscribed to PostgreSQL")
    first = token(project, 3600, iat=int(time.time()))
    await client.set_auth(first)
    await client.events.until("system", message="Subscribed to PostgreSQL")
    for next_token in ("not a token", first, token(project, 3600)):
        await client.set_auth(next_token)
    await client.send("room", "the channel is open", {})
    await client.events.until("broadcast")
    running.expire_tokens()  # The first one: it was issued, so the last one takes its place.
    await client.events.until("system", message="Subscribed to PostgreSQL")
    await client.send("room", "the channel is still open", {})
    await client.events.until("broadcast")


async def test_a_token_that_waits_is_used_when_the_pause_is_over(
    server: Postgres, project: Supabase, clients: AsyncExitStack, connect_to: ConnectTo
) -> None:
    running = await clients.enter_async_context(realtime(server, project, delays=replace(DELAYS, token=0.1)))
    client = await connect_to(running)
    await client.join("room", {}, [], False)
    await client.events.until("status", status="SUBSCRIBED")
    for next_token in (token(project, 3600), token(project, 3600, n=1), "not a token"):
        await client.set_auth(next_token)
    await client.events.until("system", message="The token provided is not a valid JWT")
    await client.events.until("status", status="CLOSED")


async def test_a_token_that_may_not_read_any_more_closes_the_private_channel(
    connect: Connect, project: Supabase, sql: Sql, email: Callable[[], str]
) -> None:
    client = await connect()
    await client.sign_up(address := email())
    ((topic,),) = await sql("select id::text from auth.users where email = %s", address)
    await client.join(topic, {"private": True}, [], False)
    await client.events.until("status", status="SUBSCRIBED")
    await client.set_auth(token(project, 3600, sub="00000000-0000-0000-0000-000000000000"))
    event = await client.events.until("system", status="error")
    assert event["message"] == f"You do not have permissions to read from this Channel topic: {topic}"
    await client.events.until("status", status="CLOSED")


async def test_expired_tokens_close_channels_and_are_rejected_at_the_next_join(
    running: Realtime, connect: Connect, email: Callable[[], str]
) -> None:
    client = await connect()
    await client.sign_up(email())
    await client.join("room", {}, [], False)
    await client.events.until("status", status="SUBSCRIBED")
    running.expire_tokens()
    await client.events.until("system", message="Token has expired 0 seconds ago")
    await client.events.until("status", status="CLOSED")
    await client.join("again", {}, [], False)
    assert "InvalidJWTToken" in (await client.events.until("status", topic="again", status="CHANNEL_ERROR"))["error"]
    running.reset()
    await client.join("after the reset", {}, [], False)
    await client.events.until("status", topic="after the reset", status="SUBSCRIBED")


# `realtime` reads it before it connects again.
@pytest.mark.filterwarnings("ignore:ConnectionClosed:DeprecationWarning")
async def test_a_cut_connection_is_joined_again_and_its_rows_go_on(
    running: Realtime, connect: Connect, sql: Sql, number: int
) -> None:
    client = await connect()
    await client.join("room", {}, [LOGS], False)
    await client.events.until("system", message="Subscribed to PostgreSQL")
    running.cut()
    await client.events.until("status", status="CHANNEL_ERROR")
    await client.events.until("system", message="Subscribed to PostgreSQL")
    await sql("insert into logs values (%s)", number)
    await client.events.until("row")


async def test_a_refused_connection_is_tried_again(running: Realtime, python: PythonClient) -> None:
    running.refuse()
    joining = asyncio.create_task(python.join("room", {}, [], False))
    await running.refused.wait()
    running.accept()
    await joining
    await python.events.until("status", status="SUBSCRIBED")


async def test_a_silent_connection_stays_open_and_brings_nothing(running: Realtime, connect: Connect) -> None:
    asleep, awake = await connect(), await connect()
    await asleep.join("room", {}, [], False)
    await asleep.events.until("status", status="SUBSCRIBED")
    running.silence()
    await awake.join("room", {"broadcast": {"self": True, "ack": False}}, [], False)
    await awake.events.until("status", status="SUBSCRIBED")
    await asleep.send("room", "from the silent one", {})
    for _ in range(2):
        await awake.send("room", "event", {})
        await awake.events.until("broadcast", event="event")
    assert awake.events.all("broadcast") == []
    assert len(running.connections) == 2
    assert asleep.events.all("broadcast") == []


async def test_lost_and_late_events_stay_in_order(running: Realtime, connect: Connect) -> None:
    client = await connect()
    await client.join("room", {"broadcast": {"self": True, "ack": False}}, [], False)
    await client.events.until("status", status="SUBSCRIBED")
    running.lose("broadcast", 2)
    running.delay(0.2)
    sent = time.monotonic()
    for number in range(4):
        await client.send("room", "event", {"n": number})
    assert [(await client.events.until("broadcast"))["payload"]["n"] for _ in range(2)] == [2, 3]
    assert time.monotonic() - sent >= 0.2


async def test_rows_flow_again_after_a_restart_of_the_database(
    running: Realtime, python: PythonClient, server: Postgres, project: Supabase, number: int
) -> None:
    await python.join("room", {}, [LOGS], False)
    await python.events.until("system", message="Subscribed to PostgreSQL")
    await server.restart()
    await python.events.until("system", message="Subscribed to PostgreSQL")
    await project.restart()
    async with await AsyncConnection.connect(server.dsn()) as connection:
        await connection.execute("insert into logs values (%s)", (number,))
    await python.events.until("row")


async def test_the_data_api_and_auth_answer_at_the_same_address(running: Realtime, js: JsClient) -> None:
    assert (await js.sign_up("same-address@example.com")).count(".") == 2
    async with aiohttp.request("GET", f"{running.url}/rest/v1/logs?limit=1") as answer:
        assert answer.status == 401


@pytest.mark.parametrize("path", ["/auth/v1/signup", "/rest/v1/notes"])
async def test_a_web_app_of_any_origin_may_send_the_headers_of_supabase_js(running: Realtime, path: str) -> None:
    url, origin = f"{running.url}{path}", {"Origin": "https://app.example.com"}
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "apikey,authorization"}
    async with aiohttp.request("OPTIONS", url, headers=origin | asked) as preflight:
        assert preflight.status == 204
        assert preflight.headers["Access-Control-Allow-Origin"] == "*"
        assert preflight.headers["Access-Control-Allow-Headers"] == "apikey,authorization"
        assert "POST" in preflight.headers["Access-Control-Allow-Methods"]
    async with aiohttp.request("POST", url, headers=origin, json={}) as answer:
        assert answer.headers["Access-Control-Allow-Origin"] == "*"


async def test_a_connection_without_a_heartbeat_is_closed(server: Postgres, project: Supabase) -> None:
    async with (
        realtime(server, project, delays=replace(DELAYS, silent_client=0.1)) as running,
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{running.url}/realtime/v1/websocket?apikey={project.publishable_key}") as socket,
    ):
        assert (await socket.receive()).type == aiohttp.WSMsgType.CLOSE


async def test_frames_of_topics_that_are_not_joined_are_answered_as_phoenix_does(
    running: Realtime, project: Supabase
) -> None:
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{running.url}/realtime/v1/websocket?apikey={project.publishable_key}&vsn=2.0.0") as socket,
    ):
        for topic, event in (("realtime:room", "presence"), ("other", "phx_join")):
            await socket.send_json(["1", "2", topic, event, {}])
            response = {"status": "error", "response": {"reason": "unmatched topic"}}
            assert await socket.receive_json() == ["1", "2", topic, "phx_reply", response]
        await socket.send_json(["1", "2", "realtime:", "phx_join", {}])
        reply = await socket.receive_json()
        assert reply[4]["response"] == {"reason": "TopicNameRequired: You must provide a topic name"}
        for join_ref in ("3", "4"):  # The second join replaces the first.
            await socket.send_json([join_ref, join_ref, "realtime:room", "phx_join", {"config": None}])
            await socket.receive_json()
        answers = [await socket.receive_json()]
        assert answers[0][:4] == ["4", "4", "realtime:room", "phx_reply"]
        await socket.send_str("no frame")
        assert (await socket.receive()).data == 1011


async def test_a_join_that_waits_for_its_rows_is_answered_when_they_flow(running: Realtime, project: Supabase) -> None:
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{running.url}/realtime/v1/websocket?apikey={project.publishable_key}&vsn=2.0.0") as socket,
    ):
        for topic, row, status in (("realtime:a", LOGS, "ok"), ("realtime:b", LOGS | {"table": "nope"}, "error")):
            config = {"postgres_changes": [row], "postgres_changes_options": {"wait": True}}
            await socket.send_json(["1", "1", topic, "phx_join", {"config": config}])
            reply = await socket.receive_json()
            assert (reply[3], reply[4]["status"]) == ("phx_reply", status)
            if status == "ok":
                assert (await socket.receive_json())[4]["message"] == "Subscribed to PostgreSQL"
        assert reply[4]["response"]["reason"].startswith("RealtimeDisabledForConfiguration: Unable to subscribe")
