"""The messages of the chat reach the official clients of its participants, and no others."""

from local.app import chat_app
from local.supabase.project import Supabase
from local.supabase.realtime.server import Realtime
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
