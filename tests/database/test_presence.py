"""What the devices of a person report to have on their screens, and what others and the pushes make of it."""

import asyncio
from typing import Any
from uuid import UUID

import pytest

from tests.database.chat import Chat, Database, as_user, claim, decision, person, refused, row, rows, start_chat, value


async def report(chat: Chat, device_id: str, state: str | None = "online", room: UUID | None = None) -> None:
    async with as_user(chat.connection, chat.guide):
        await chat.connection.execute("select public.report_presence(%s, %s, %s)", (device_id, state, room))


async def presence(chat: Chat) -> tuple[bool, Any]:
    seen = await row(chat.connection, "select * from public.user_presence where user_id = %s", chat.guide)
    return seen["is_online"], seen["current_conversation_id"]


async def two_phones(chat: Chat) -> None:
    for device_id in ("one", "two"):
        await chat.device(device_id=device_id)


async def test_a_heartbeat_elsewhere_does_not_hide_that_another_device_is_looking(chat: Chat) -> None:
    """Two phones, one of which reports "online, no conversation" every 20 s."""
    await two_phones(chat)
    await report(chat, "one", room=chat.room)
    for _ in range(2):
        await chat.pass_time(20)
        await report(chat, "two")
        assert await presence(chat) == (True, chat.room)
    assert decision(await claim(chat.connection, await chat.message())) == "deferred"


async def test_a_device_that_stops_is_forgotten_by_time(chat: Chat) -> None:
    await two_phones(chat)
    await report(chat, "one", room=chat.room)
    for _ in range(3):
        await chat.pass_time(20)
        await report(chat, "two")
    assert await presence(chat) == (True, None)
    assert decision(await claim(chat.connection, await chat.message())) == "send"


async def test_a_person_is_online_while_one_device_is(chat: Chat) -> None:
    await two_phones(chat)
    await report(chat, "one")
    await report(chat, "two", "offline")
    assert await presence(chat) == (True, None)
    await report(chat, "one", "offline")
    assert await presence(chat) == (False, None)


async def test_an_offline_device_shows_no_conversation(chat: Chat) -> None:
    await two_phones(chat)
    await report(chat, "one", "offline", chat.room)
    assert await presence(chat) == (False, None)


@pytest.mark.parametrize("end", ["unregistered", "signed out", "another account", "installed again"])
async def test_a_phone_that_is_no_device_of_the_person_any_more_shows_no_conversation(chat: Chat, end: str) -> None:
    """Otherwise the person's other phone would get no push until the last heartbeat is stale."""
    await two_phones(chat)
    await report(chat, "one", room=chat.room)
    if end == "unregistered":
        async with as_user(chat.connection, chat.guide):
            assert await value(chat.connection, "select public.unregister_device('one')")
    elif end == "signed out":
        await chat.connection.execute("update user_devices set session_id = gen_random_uuid() where device_id = 'one'")
    else:
        token = await value(chat.connection, "select push_token from user_devices where device_id = 'one'")
        owner = await person(chat.connection) if end == "another account" else chat.guide
        await chat.device(user_id=owner, device_id="three", push_token=token)
    assert decision(await claim(chat.connection, await chat.message())) == "send"


async def test_an_app_that_writes_user_presence_itself_counts_as_one_more_device(chat: Chat) -> None:
    await two_phones(chat)
    await report(chat, "one", room=chat.room)
    await chat.look(None)
    assert await presence(chat) == (True, chat.room)
    await chat.look(None, is_online=False)
    assert await presence(chat) == (True, chat.room)
    await report(chat, "one", "offline")
    assert await presence(chat) == (False, None)


async def test_two_devices_that_show_two_conversations_defer_the_pushes_of_both(chat: Chat) -> None:
    await two_phones(chat)
    other = await chat.conversation()
    await report(chat, "one", room=chat.room)
    await report(chat, "two", room=other.room)
    for message in (await chat.message(), await other.message()):
        assert decision(await claim(chat.connection, message)) == "deferred"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"device_id": "unknown"}, "p_device_id"),
        ({"device_id": None}, "p_device_id"),
        ({"state": "away"}, "p_state"),
        ({"state": None}, "p_state"),
        ({"room": UUID(int=7)}, "p_conversation_id"),
    ],
    ids=str,
)
async def test_a_wrong_argument_of_a_heartbeat_is_named_and_changes_nothing(
    chat: Chat, arguments: dict[str, Any], named: str
) -> None:
    await two_phones(chat)
    await report(chat, "one", room=chat.room)
    before = await rows(chat.connection, "table private.device_presence")
    async with refused(chat.connection, "22023", named):
        await report(chat, **{"device_id": "one", **arguments})
    assert await rows(chat.connection, "table private.device_presence") == before
    assert await presence(chat) == (True, chat.room)


async def test_a_heartbeat_for_the_device_of_another_person_is_rejected(chat: Chat) -> None:
    await chat.device(device_id="theirs", user_id=chat.tourist)
    async with refused(chat.connection, "22023", "p_device_id"):
        await report(chat, "theirs")


async def test_nobody_reads_the_presence_of_single_devices(chat: Chat) -> None:
    await two_phones(chat)
    await report(chat, "one", room=chat.room)
    for user in (chat.tourist, chat.guide, await person(chat.connection)):
        async with refused(chat.connection, "42501"), as_user(chat.connection, user):
            await rows(chat.connection, "select * from private.device_presence")


async def test_heartbeats_of_two_devices_at_once_lose_nothing(database: Database) -> None:
    chat = await start_chat(await database.connect())
    await two_phones(chat)
    connections = [await database.connect() for _ in range(4)]

    async def beat(number: int) -> None:
        mine = Chat(connections[number], chat.tourist, chat.guide, chat.room)
        for _ in range(20):
            if number < 2:
                await report(mine, ("one", "two")[number], room=chat.room if number else None)
            else:
                async with as_user(mine.connection, chat.guide):
                    await mine.connection.execute(
                        "insert into public.user_presence (user_id, is_online) values (%s, true)"
                        " on conflict (user_id) do update set is_online = true",
                        (chat.guide,),
                    )

    await asyncio.gather(*map(beat, range(4)))
    assert await presence(chat) == (True, chat.room)
    assert await value(chat.connection, "select count(*) from private.device_presence") == 3


async def test_deleted_presence_is_forgotten_for_each_device(chat: Chat) -> None:
    await two_phones(chat)
    await report(chat, "one", room=chat.room)
    await chat.connection.execute("delete from public.user_presence")
    assert decision(await claim(chat.connection, await chat.message())) == "send"


async def test_a_new_message_brings_an_archived_conversation_back_for_its_recipient_only(chat: Chat) -> None:
    archive = "update public.chat_rooms set archived_by_user1 = true, archived_by_user2 = true"
    await chat.connection.execute(archive)
    await chat.message()
    room = await chat.see_room()
    assert (room["archived_by_user1"], room["archived_by_user2"]) == (True, False)
    await chat.connection.execute(archive)
    await chat.connection.execute(
        "insert into public.chat_messages (room_id, sender_id, message) select %s, %s, 'Hi' from generate_series(1, 3)",
        (chat.room, chat.guide),
    )
    room = await chat.see_room()
    assert (room["archived_by_user1"], room["archived_by_user2"]) == (False, True)


async def test_imported_history_leaves_a_conversation_archived(chat: Chat) -> None:
    await chat.connection.execute("update public.chat_rooms set archived_by_user2 = true")
    await chat.message(is_read=True)
    assert (await chat.see_room())["archived_by_user2"]
