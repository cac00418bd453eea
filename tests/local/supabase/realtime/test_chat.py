"""The messages of the chat reach the official clients of its participants, and no others."""

from uuid import UUID

from local.app import chat_app
from local.supabase.project import Supabase
from local.supabase.realtime.server import Realtime
from local.types import Json
from tests.local.supabase.realtime.clients import Client
from tests.local.supabase.realtime.conftest import Connect

MESSAGES = {"event": "*", "schema": "public", "table": "chat_messages"}


async def test_the_participants_of_a_conversation_receive_its_messages_and_edits_and_others_do_not(
    connect: Connect, project: Supabase, running: Realtime
) -> None:
    async with chat_app(project, running.url) as app:
        tina, gus = await app.sign_up("Tina", "tourist"), await app.sign_up("Gus", "guide")
        eve = await app.sign_up("Eve", "tourist")
        conversation, other = await tina.open_chat(gus), await eve.open_chat(gus)
        clients = {}
        for person in (gus, eve):
            client = clients[person] = await connect()
            await client.set_auth(person.access_token)
            await client.join("messages", {}, [MESSAGES], False)
            await client.events.until("system", message="Subscribed to PostgreSQL")

        message_id = await tina.send(conversation, "Hello Gus")
        await tina.edit(message_id, "Hello, Gus!")
        marker = await eve.send(other, "Hello from Eve")

        inserted = await clients[gus].events.until("row", type="INSERT")
        assert (inserted["new"]["id"], inserted["errors"]) == (str(message_id), None)
        while (await clients[gus].events.until("row", type="UPDATE"))["new"]["message"] != "Hello, Gus!":
            pass  # The counter of a message is updated, too.
        first = await clients[eve].events.until("row")
        assert first["new"]["id"] == str(marker)


async def joined(client: Client, topic: str, token: str, **config: Json) -> None:
    """Joins a private channel as the owner of a token."""
    await client.set_auth(token)
    await client.join(topic, {"private": True, **config}, [], "presence" in config)
    await client.events.until("status", topic=topic, status="SUBSCRIBED")


async def event(client: Client, name: str) -> Json:
    """The payload of the next event of this name."""
    return (await client.events.until("broadcast", event=name))["payload"]


async def test_the_channel_of_a_person_brings_conversations_messages_edits_marks_and_deletions(
    connect: Connect, project: Supabase, running: Realtime
) -> None:
    async with chat_app(project, running.url) as app:
        tina, gus = await app.sign_up("Tina", "tourist"), await app.sign_up("Gus", "guide")
        clients = {}
        for person in (tina, gus):
            clients[person] = await connect()
            await joined(clients[person], f"user:{person.id}", person.access_token)

        conversation = await tina.open_chat(gus)
        message = str(await tina.send(conversation, "Hello Gus"))
        await tina.edit(UUID(message), "Hello, Gus!")
        await gus.read(conversation)
        await tina.delete(UUID(message))

        for client in clients.values():
            created, accepted = await event(client, "conversation"), await event(client, "conversation")
            assert (created["operation"], created["record"]["id"]) == ("INSERT", str(conversation))
            assert (accepted["operation"], accepted["record"]["accepted_by_user1"]) == ("UPDATE", True)
            texts = [(await event(client, "message"))["record"]["message"] for _ in range(3)]
            assert texts == ["Hello Gus", "Hello, Gus!", ""]
            marks = await event(client, "receipts")
            assert (marks["message_ids"], marks["is_read"]) == ([message], True)
            assert client.events.all("broadcast") == []


async def test_another_person_cannot_join_the_channel_of_a_person_and_receives_none_of_its_events(
    connect: Connect, project: Supabase, running: Realtime
) -> None:
    async with chat_app(project, running.url) as app:
        tina, gus = await app.sign_up("Tina", "tourist"), await app.sign_up("Gus", "guide")
        eve = await app.sign_up("Eve", "tourist")
        client = await connect()
        await joined(client, f"user:{eve.id}", eve.access_token)
        await client.join(f"user:{gus.id}", {"private": True}, [], False)
        refused = await client.events.until("status", topic=f"user:{gus.id}", status="CHANNEL_ERROR")
        assert "Unauthorized" in refused["error"]
        # A public channel of the same name is another channel.
        public = await connect()
        await public.join(f"user:{gus.id}", {}, [], False)
        await public.events.until("status", status="SUBSCRIBED")

        await tina.send(await tina.open_chat(gus), "Hello Gus")
        await eve.send(await eve.open_chat(gus), "Hello from Eve")
        assert (await event(client, "message"))["record"]["message"] == "Hello from Eve"
        assert public.events.all("broadcast") == []


async def test_nobody_can_send_events_to_the_channel_of_a_person(
    connect: Connect, project: Supabase, running: Realtime
) -> None:
    async with chat_app(project, running.url) as app:
        tina, gus = await app.sign_up("Tina", "tourist"), await app.sign_up("Gus", "guide")
        receiver, forger = await connect(), await connect()
        await joined(receiver, f"user:{gus.id}", gus.access_token)
        await joined(forger, f"user:{tina.id}", tina.access_token, broadcast={"self": True, "ack": False})
        await forger.send(f"user:{tina.id}", "message", {"record": {"message": "forged"}})
        await forger.http_send(f"user:{gus.id}", "message", {"record": {"message": "forged"}}, True)
        await tina.send(await tina.open_chat(gus), "real")
        for client in (receiver, forger):
            assert (await event(client, "message"))["record"]["message"] == "real"


async def test_a_replay_brings_no_text_that_was_edited_or_deleted(
    connect: Connect, project: Supabase, running: Realtime
) -> None:
    async with chat_app(project, running.url) as app:
        tina, gus = await app.sign_up("Tina", "tourist"), await app.sign_up("Gus", "guide")
        conversation = await tina.open_chat(gus)
        edited, deleted = await tina.send(conversation, "secret one"), await tina.send(conversation, "secret two")
        await tina.edit(edited, "Hello Gus")
        await tina.delete(deleted)
        client = await connect()
        await joined(client, f"user:{gus.id}", gus.access_token, broadcast={"replay": {"since": 0, "limit": 25}})
        await tina.send(conversation, "last")
        texts = []
        while "last" not in texts:
            texts.append((await event(client, "message"))["record"].get("message"))
        assert texts == [None, None, "Hello Gus", "", "last"]


async def test_typing_and_presence_work_between_the_people_of_a_conversation_only(
    connect: Connect, project: Supabase, running: Realtime
) -> None:
    async with chat_app(project, running.url) as app:
        tina, gus = await app.sign_up("Tina", "tourist"), await app.sign_up("Gus", "guide")
        eve = await app.sign_up("Eve", "tourist")
        topic = f"room:{await tina.open_chat(gus)}"
        clients = {}
        for person in (tina, gus):
            clients[person] = await connect()
            presence = {"key": str(person.id), "enabled": True}
            await joined(clients[person], topic, person.access_token, presence=presence)
        await clients[tina].track(topic, {})
        await clients[gus].events.until("presence", event="join", key=str(tina.id))

        stranger = await connect()
        await stranger.set_auth(eve.access_token)
        await stranger.join(topic, {"private": True}, [], True)
        await stranger.events.until("status", topic=topic, status="CHANNEL_ERROR")
        await stranger.http_send(topic, "typing", {"user_id": str(tina.id), "is_typing": False}, True)
        await clients[tina].send(topic, "typing", {"user_id": str(tina.id), "is_typing": True})
        assert await event(clients[gus], "typing") == {"user_id": str(tina.id), "is_typing": True}
