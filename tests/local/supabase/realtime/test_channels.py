"""Broadcast, presence and private channels work for the official clients as on hosted Realtime."""

import json
from collections.abc import Callable

from local.supabase.realtime.server import Realtime
from local.types import Json
from tests.local.supabase.realtime.clients import Client, JsClient, Node, PythonClient, js_client
from tests.local.supabase.realtime.conftest import Connect, Sql


async def joined(client: Client, topic: str = "room", *, presence: bool = False, key: str = "", **config: Json) -> None:
    """Joins a channel, and waits until it is joined."""
    if key:
        config["presence"] = {"key": key, "enabled": True}
    await client.join(topic, config, [], presence or bool(key))
    await client.events.until("status", topic=topic, status="SUBSCRIBED")


async def signed_up(client: Client, sql: Sql, email: str) -> str:
    """Signs up. Returns the id of the person."""
    await client.sign_up(email)
    ((id,),) = await sql("select id::text from auth.users where email = %s", email)
    return str(id)


async def test_a_broadcast_reaches_the_others_on_the_channel_and_not_its_sender(connect: Connect) -> None:
    ana, ben, cleo = await connect(), await connect(), await connect()
    for client in (ana, ben):
        await joined(client)
    await joined(cleo, "another room")
    await ana.send("room", "typing", {"text": "ça va? 👋"})
    await ben.send("room", "done", {})
    assert (await ben.events.until("broadcast"))["payload"] == {"text": "ça va? 👋"}
    assert (await ana.events.until("broadcast"))["event"] == "done"
    assert cleo.events.all("broadcast") == []


async def test_a_broadcast_reaches_its_sender_if_the_channel_says_so(connect: Connect) -> None:
    client = await connect()
    await joined(client, broadcast={"self": True, "ack": False})
    await client.send("room", "typing", {"n": 1})
    assert (await client.events.until("broadcast"))["payload"] == {"n": 1}


async def test_clients_of_both_serializers_receive_the_broadcasts_of_each_other(
    node: Node, running: Realtime, connect: Connect, project_key: str
) -> None:
    client = await connect()
    await joined(client)
    for version in ("1.0.0", "2.0.0"):
        async with js_client(node, running.url, project_key, realtime={"vsn": version}) as other:
            await joined(other)
            await other.send("room", version, {"from": "other"})
            await client.events.until("broadcast", event=version, payload={"from": "other"})
            await client.send("room", version, {"from": "client"})
            await other.events.until("broadcast", event=version, payload={"from": "client"})


async def test_a_binary_broadcast_arrives_as_the_same_bytes(js: JsClient, other_js: JsClient) -> None:
    await joined(js)
    await joined(other_js)
    await js.call("send_bytes", topic="room", event="voice", hex="00ff80")
    assert (await other_js.events.until("broadcast", event="voice"))["payload"] == {"hex": "00ff80"}


async def test_a_binary_broadcast_of_the_database_arrives_as_the_same_bytes(js: JsClient, sql: Sql) -> None:
    await joined(js)
    await sql(r"select realtime.send_binary('\x00ff80', 'voice', 'room', false)")
    assert (await js.events.until("broadcast", event="voice"))["payload"] == {"hex": "00ff80"}


async def test_an_acknowledged_broadcast_is_answered_and_one_that_is_too_large_is_an_error(js: JsClient) -> None:
    await joined(js, broadcast={"ack": True, "self": True})
    assert await js.send("room", "small", {}) == "ok"
    assert await js.send("room", "large", {"text": "x" * 3_000_000}) == "error"
    await js.events.until("broadcast", event="small")
    assert js.events.all("broadcast") == []


async def test_a_broadcast_over_http_reaches_the_channel(connect: Connect) -> None:
    receiver, sender = await connect(), await connect()
    await joined(receiver, "room:1/2")
    await sender.http_send("room:1/2", "over http", {"n": 1}, False)
    assert (await receiver.events.until("broadcast", event="over http"))["payload"] == {"n": 1}


async def test_a_broadcast_before_the_join_goes_over_http(js: JsClient, other_js: JsClient) -> None:
    await joined(other_js)
    await js.call("send_unjoined", topic="room", event="early", payload={"n": 1})
    await other_js.events.until("broadcast", event="early", payload={"n": 1})


async def test_presence_tells_everyone_who_joins_changes_and_leaves(connect: Connect, number: int) -> None:
    room = f"room {number}"
    ana, ben = await connect(), await connect()
    await joined(ana, room, key="ana")
    await joined(ben, room, key="ben")
    await ana.track(room, {"status": "here"})
    await ben.events.until("presence", event="join", key="ana")
    await ben.track(room, {"status": "here"})
    await ana.events.until("presence", event="join", key="ben")
    await ana.untrack(room)
    await ben.events.until("presence", event="leave", key="ana")
    await ben.leave(room)
    await ana.events.until("presence", event="leave", key="ben")


async def test_a_client_that_joins_later_receives_who_is_present(connect: Connect, number: int) -> None:
    room = f"room {number}"
    ana, ben = await connect(), await connect()
    await joined(ana, room, key="ana")
    await ana.track(room, {"status": "here"})
    await ana.events.until("presence", event="join", key="ana")
    await joined(ben, room, presence=True)
    state = (await ben.events.until("presence", event="sync"))["state"]
    assert [presence["status"] for presence in state["ana"]] == ["here"]


async def test_a_private_channel_is_joined_only_by_those_whom_rls_lets_read(
    connect: Connect, sql: Sql, email: Callable[[], str]
) -> None:
    ana, ben = await connect(), await connect()
    topic = await signed_up(ana, sql, email())
    await signed_up(ben, sql, email())
    await joined(ana, topic, private=True)
    await ben.join(topic, {"private": True}, [], False)
    status = await ben.events.until("status", status="CHANNEL_ERROR")
    assert f"Unauthorized: You do not have permissions to read from this Channel topic: {topic}" in status["error"]


async def test_only_those_whom_rls_lets_insert_send_on_a_private_channel(
    connect: Connect, sql: Sql, email: Callable[[], str]
) -> None:
    client = await connect()
    topic = await signed_up(client, sql, email())
    echo = {"self": True, "ack": False}
    await joined(client, topic, private=True, broadcast=echo)
    await joined(client, f"{topic}:read", private=True, broadcast=echo)
    await client.send(f"{topic}:read", "forbidden", {})
    await client.http_send(f"{topic}:read", "forbidden", {}, True)
    await sql("select realtime.send('{}', 'last', %s)", f"{topic}:read")
    await client.send(topic, "allowed", {})
    await client.events.until("broadcast", topic=topic, event="allowed")
    assert (await client.events.until("broadcast", topic=f"{topic}:read"))["event"] == "last"


async def test_a_public_channel_does_not_receive_what_is_sent_on_the_private_one(
    connect: Connect, sql: Sql, email: Callable[[], str]
) -> None:
    ana, ben = await connect(), await connect()
    topic = await signed_up(ana, sql, email())
    await joined(ana, topic, private=True)
    await joined(ben, topic)
    await sql("select realtime.send('{\"n\": 1}', 'private', %s)", topic)
    await ana.events.until("broadcast", event="private")
    await sql("select realtime.send('{\"n\": 2}', 'public', %s, false)", topic)
    assert (await ben.events.until("broadcast"))["event"] == "public"


async def test_the_database_broadcasts_a_changed_row(connect: Connect, sql: Sql, email: Callable[[], str]) -> None:
    client = await connect()
    topic = await signed_up(client, sql, email())
    await joined(client, topic, private=True)
    row = "(7, null, 1, 'text', null, null, false)::notes"
    await sql(f"select realtime.broadcast_changes(%s, 'INSERT', 'INSERT', 'notes', 'public', {row}, null)", topic)
    event = await client.events.until("broadcast", event="INSERT")
    payload = event["payload"]
    assert (payload["record"]["body"], payload["old_record"]) == ("text", None)
    assert (payload["operation"], payload["schema"], payload["table"]) == ("INSERT", "public", "notes")
    assert event["meta"]["id"] == payload["id"]


async def test_a_rolled_back_broadcast_of_the_database_is_not_sent(
    connect: Connect, sql: Sql, email: Callable[[], str]
) -> None:
    client = await connect()
    topic = await signed_up(client, sql, email())
    await joined(client, topic, private=True)
    await sql(f"do $$ begin perform realtime.send('{{}}', 'undone', '{topic}'); rollback; end $$")
    await sql("select realtime.send('{}', 'sent', %s)", topic)
    assert (await client.events.until("broadcast"))["event"] == "sent"


async def test_replay_brings_the_newest_messages_of_the_database_since_a_time(
    connect: Connect, sql: Sql, email: Callable[[], str]
) -> None:
    client = await connect()
    topic = await signed_up(client, sql, email())
    for number in range(4):
        await sql("select realtime.send(%s, 'event', %s)", json.dumps({"n": number}), topic)
    await joined(client, topic, private=True, broadcast={"replay": {"since": 0, "limit": 3}})
    for number in (1, 2, 3):
        event = await client.events.until("broadcast")
        assert (event["payload"]["n"], event["meta"]["replayed"]) == (number, True)


async def test_a_message_that_was_replayed_does_not_arrive_live_too(
    connect: Connect, sql: Sql, email: Callable[[], str]
) -> None:
    client = await connect()
    topic = await signed_up(client, sql, email())
    await joined(client, "another", private=False)  # From now on the server reads the messages of the database.
    await sql("select realtime.send('{}', 'replayed', %s)", topic)
    await joined(client, topic, private=True, broadcast={"replay": {"since": 0}})
    await sql("select realtime.send('{}', 'live', %s)", topic)
    await client.events.until("broadcast", event="live")
    assert [event["event"] for event in client.events.all("broadcast")] == ["replayed"]


async def test_a_broadcast_that_its_sender_asks_to_keep_is_sent_once_and_replayed(
    js: JsClient, sql: Sql, email: Callable[[], str]
) -> None:
    topic = await signed_up(js, sql, email())
    await joined(js, topic, private=True, broadcast={"ack": True, "self": True})
    assert await js.call("send", topic=topic, event="kept", payload={"n": 1}, persist=True) == "ok"
    assert await js.call("send", topic=topic, event="kept for an hour", payload={}, persist={"ttl": 3600}) == "ok"
    assert await js.call("send_bytes", topic=topic, event="kept bytes", hex="00ff", persist=True) == "ok"
    await js.call("http_send", topic=topic, event="kept over http", payload={}, private=True, persist={"ttl": 60})
    await js.send(topic, "not kept", {})
    await js.events.until("broadcast", event="not kept")
    kept = ["kept", "kept for an hour", "kept bytes", "kept over http"]
    assert [event["event"] for event in js.events.all("broadcast")] == kept

    await js.leave(topic)
    await joined(js, topic, private=True, broadcast={"replay": {"since": 0}})
    await sql("select realtime.send('{}', 'last', %s)", topic)
    await js.events.until("broadcast", event="last")
    replayed = [event for event in js.events.all("broadcast") if event.get("meta")]
    assert [event["event"] for event in replayed] == kept
    assert [event["payload"] for event in replayed] == [{"n": 1}, {}, {"hex": "00ff"}, {}]


async def test_a_kept_broadcast_is_not_replayed_after_its_time(
    js: JsClient, sql: Sql, email: Callable[[], str]
) -> None:
    topic = await signed_up(js, sql, email())
    await joined(js, topic, private=True, broadcast={"ack": True})
    await js.call("send", topic=topic, event="expired", payload={}, persist={"ttl": 60})
    ((seconds,),) = await sql(
        "update realtime.messages set expires_at = expires_at - interval '60 s' where topic = %s"
        " returning extract(epoch from expires_at - inserted_at)::int",
        topic,
    )
    assert seconds == 0
    await js.leave(topic)
    await joined(js, topic, private=True, broadcast={"replay": {"since": 0}})
    await sql("select realtime.send('{}', 'last', %s)", topic)
    assert (await js.events.until("broadcast"))["event"] == "last"


async def test_a_broadcast_is_kept_only_if_rls_lets_its_sender_and_for_three_days_at_most(
    js: JsClient, sql: Sql, email: Callable[[], str]
) -> None:
    person = await signed_up(js, sql, email())
    for topic, ttl, answer in (
        (f"{person}:fleeting", 60, "ok"),  # It is sent, and not stored.
        (f"{person}:read", 60, "unauthorized"),
        (person, 72 * 3600 + 1, "invalid_persist_ttl"),
    ):
        await joined(js, topic, private=True, broadcast={"ack": True, "self": True})
        assert await js.call("send", topic=topic, event=answer, payload={}, persist={"ttl": ttl}) == answer
    await js.events.until("broadcast", event="ok")
    assert js.events.all("broadcast") == []
    assert await sql("select from realtime.messages where topic like %s", f"{person}%") == []


async def test_replay_of_a_public_channel_is_rejected(python: PythonClient) -> None:
    await python.join("room", {"broadcast": {"replay": {"since": 0}}}, [], False)
    status = await python.events.until("status", status="CHANNEL_ERROR")
    assert "UnableToReplayMessages: Replay is not allowed for public channels" in status["error"]


async def test_a_broadcast_of_the_database_that_rls_forbids_is_only_a_warning(
    connect: Connect, sql: Sql, email: Callable[[], str]
) -> None:
    client = await connect()
    topic = await signed_up(client, sql, email())
    await joined(client, topic, private=True)
    await sql(
        f"do $$ begin set local role authenticated; perform realtime.send('{{}}', 'forbidden', '{topic}'); end $$"
    )
    await sql("select realtime.send('{}', 'allowed', %s)", topic)
    assert (await client.events.until("broadcast"))["event"] == "allowed"
