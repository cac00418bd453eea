"""Who blocks a person gets nothing more of them, and that person cannot find out."""

from typing import Any
from uuid import UUID, uuid4

import pytest

from tests.database.chat import Chat, Row, as_user, claim, decision, explain, insert, person, refused, rows, value
from tests.database.test_events import events, forget
from tests.database.test_notification_state import edit, kinds, sent


async def block(chat: Chat) -> None:
    """The guide blocks the tourist."""
    async with as_user(chat.connection, chat.guide):
        await chat.connection.execute("select public.block_user(%s)", (chat.tourist,))


async def unblock(chat: Chat) -> None:
    async with as_user(chat.connection, chat.guide):
        await chat.connection.execute("select public.unblock_user(%s)", (chat.tourist,))


async def as_tourist(chat: Chat, statement: str, *parameters: Any) -> list[Row]:
    async with as_user(chat.connection, chat.tourist):
        return await rows(chat.connection, statement, *parameters)


async def write(chat: Chat, text: str = "Hello") -> UUID:
    """The tourist's app stores a message."""
    [stored] = await as_tourist(
        chat,
        "insert into public.chat_messages (room_id, sender_id, message) values (%s, %s, %s) returning id",
        chat.room,
        chat.tourist,
        text,
    )
    message_id = stored["id"]
    assert isinstance(message_id, UUID)
    return message_id


LISTS = {
    "the table": "select message from public.chat_messages order by server_timestamp",
    "a page": "select message from public.get_messages_paginated(%(room)s) order by server_timestamp",
    "a sync": "select message from public.get_changed_messages(%(guide)s) order by server_timestamp",
    "an older sync": "select message from public.get_missed_messages(%(guide)s, null) order by server_timestamp",
}


async def listed(chat: Chat, way: str, who: UUID | None = None) -> list[str]:
    async with as_user(chat.connection, who or chat.guide):
        query = LISTS[way].encode()
        found = await chat.connection.execute(query, {"room": chat.room, "guide": who or chat.guide})
        return [message["message"] for message in await found.fetchall()]


async def lists_rooms(chat: Chat, who: UUID) -> bool:
    async with as_user(chat.connection, who):
        return bool(await rows(chat.connection, "table public.chat_rooms"))


# Pushes ----------------------------------------------------------------------------------------


async def test_a_message_of_a_blocked_person_makes_no_push(chat: Chat) -> None:
    await chat.device()
    await block(chat)
    message = await write(chat)
    assert decision(await claim(chat.connection, message)) == "skipped: blocked"
    assert "had blocked its sender" in (await explain(chat.connection, message))["explanation"]


async def test_blocking_drops_what_waits_and_removes_what_phones_show(chat: Chat) -> None:
    await chat.device(platform="android")
    await write(chat)
    await sent(chat)
    waiting = await write(chat)
    await block(chat)
    [push] = await sent(chat)
    assert (push["kind"], push["badge"]) == ("dismiss", 0)
    assert (await chat.job(waiting))["reason"] == "blocked"
    assert await sent(chat) == []


async def test_a_blocked_person_does_not_count_in_the_badge_of_another_conversation(chat: Chat) -> None:
    await chat.device()
    await write(chat)
    await block(chat)
    await write(chat)
    await (await chat.conversation()).message()
    assert [push["badge"] for push in await sent(chat)] == [1]


async def test_unblocking_brings_no_push_of_what_was_sent_meanwhile(chat: Chat) -> None:
    await chat.device()
    await block(chat)
    during = await write(chat, "during")
    await unblock(chat)
    assert await sent(chat) == []
    assert (await chat.job(during))["reason"] == "blocked"
    await write(chat, "after")
    [push] = await sent(chat)
    assert (push["kind"], push["body"], push["unread"], push["badge"]) == ("alert", "after", 1, 1)


async def test_an_answer_of_the_person_who_blocks_is_pushed_as_before(chat: Chat) -> None:
    await chat.device(user_id=chat.tourist)
    await block(chat)
    assert decision(await claim(chat.connection, await chat.message(sender_id=chat.guide))) == "send"


# What the app lists ----------------------------------------------------------------------------


@pytest.mark.parametrize("way", LISTS)
async def test_what_a_blocked_person_sends_is_never_listed_also_after_the_block(chat: Chat, way: str) -> None:
    await write(chat, "before")
    await block(chat)
    await write(chat, "during")
    assert await listed(chat, way) == ["before"]
    assert await listed(chat, way, chat.tourist) == ["before", "during"]
    await unblock(chat)
    await write(chat, "after")
    assert await listed(chat, way) == ["before", "after"]


@pytest.mark.parametrize("way", LISTS)
async def test_what_a_blocked_person_edits_does_not_reach_the_other(chat: Chat, way: str) -> None:
    message = await write(chat, "before")
    await block(chat)
    await forget(chat)
    await edit(chat, message, "a threat")
    assert await listed(chat, way) == []
    assert await events(chat, chat.guide) == []
    await unblock(chat)
    assert await listed(chat, way) == []


async def test_the_conversation_is_hidden_while_the_block_lasts_and_then_shows_what_both_saw(chat: Chat) -> None:
    await write(chat, "before")
    await block(chat)
    await write(chat, "during")
    assert not await lists_rooms(chat, chat.guide)
    [seen] = await as_tourist(chat, "select last_message, unread_count_user2 from public.chat_rooms")
    assert seen == {"last_message": "during", "unread_count_user2": 2}
    await unblock(chat)
    assert await lists_rooms(chat, chat.guide)
    room = await chat.see_room()
    assert (room["last_message"], room["unread_count_user2"]) == ("before", 1)
    await chat.read()
    assert await chat.unread_counters() == (0, 0)


async def test_opening_a_conversation_with_a_blocked_person_finds_the_one_that_is_there(chat: Chat) -> None:
    await block(chat)
    for who, other in ((chat.guide, chat.tourist), (chat.tourist, chat.guide)):
        async with as_user(chat.connection, who):
            found = await value(chat.connection, "select public.get_or_create_conversation(%s, %s)", who, other)
        assert found == chat.room


# What the blocked person can find out ----------------------------------------------------------


async def seen_by_tourist(chat: Chat, *, is_blocked: bool) -> list[Any]:
    """All that the tourist's app gets, without ids and times."""
    if is_blocked:
        await block(chat)
    await forget(chat)
    message = await write(chat)
    await edit(chat, message, "edited")
    volatile = (
        "array['id', 'room_id', 'sender_id', 'user1_id', 'user2_id', 'tourist_id', 'guide_id', 'server_timestamp',"
    )
    volatile += "'created_at', 'updated_at', 'changed_at', 'edited_at', 'last_message_at', 'user_id', 'last_seen_at']"
    tables = ["users", "chat_rooms", "chat_messages", "message_receipts", "user_devices"]
    seen: list[Any] = [
        await as_tourist(chat, f"select to_jsonb(one) - {volatile} as row from public.{table} one order by 1")
        for table in tables
    ]
    seen.append([event["operation"] for event in await events(chat, chat.tourist)])
    seen.append(await as_tourist(chat, "select private.topic_right('room:' || %s::text)", chat.room))
    return seen


async def test_a_blocked_person_sees_exactly_what_they_would_see_otherwise(chat: Chat) -> None:
    async with chat.connection.transaction(force_rollback=True):
        otherwise = await seen_by_tourist(chat, is_blocked=False)
    assert await seen_by_tourist(chat, is_blocked=True) == otherwise


async def test_the_person_who_blocks_gets_no_event_of_the_other(chat: Chat) -> None:
    await chat.message(sender_id=chat.guide)
    await block(chat)
    await forget(chat)
    await as_tourist(chat, "select public.mark_messages_read(%s, %s)", chat.tourist, chat.room)
    assert len(await events(chat, chat.tourist, "receipts")) == 1
    message = await write(chat)
    await edit(chat, message, "edited")
    await as_tourist(chat, "update public.chat_messages set deleted_at = now() returning id")
    for event in ("message", "receipts", "conversation"):
        assert await events(chat, chat.guide, event) == []


MARKS = {
    "mark_messages_read": "select public.mark_messages_read(%(guide)s, %(room)s)",
    "mark_messages_delivered": "select public.mark_messages_delivered(%(guide)s, array[%(before)s, %(during)s])",
    "a receipt": "insert into public.message_receipts (message_id, user_id, read_at)"
    " values (%(before)s, %(guide)s, now())",
    "an update": "update public.chat_messages set is_read = true where room_id = %(room)s",
    "an update of all": "update public.chat_messages set is_read = true",
}


@pytest.mark.parametrize("way", MARKS)
async def test_no_message_of_a_blocked_person_is_marked_as_delivered_or_read(chat: Chat, way: str) -> None:
    before = await write(chat, "before")
    await block(chat)
    during = await write(chat, "during")
    names = {"guide": chat.guide, "room": chat.room, "before": before, "during": during}
    async with as_user(chat.connection, chat.guide):
        await chat.connection.execute(MARKS[way].encode(), names)
    for message in (before, during):
        seen = await chat.see_message(message)
        assert (seen["is_read"], seen["delivered_at"]) == (False, None)
    await unblock(chat)
    async with as_user(chat.connection, chat.guide):
        await chat.connection.execute(MARKS[way].encode(), names)
    assert (await chat.see_message(before))["delivered_at"]
    assert (await chat.see_message(during))["delivered_at"] is None


async def test_while_a_block_lasts_neither_person_sees_the_presence_of_the_other(chat: Chat) -> None:
    await write(chat)
    await chat.message(sender_id=chat.guide)
    await insert(chat.connection, "public.user_presence", user_id=chat.tourist, is_online=True)
    await chat.look(None)

    async def see_each_other() -> list[int]:
        seen = []
        for who, other in ((chat.tourist, chat.guide), (chat.guide, chat.tourist)):
            async with as_user(chat.connection, who):
                presence = "select from public.user_presence where user_id = %s"
                seen.append(len(await rows(chat.connection, presence, other)))
        return seen

    assert await see_each_other() == [1, 1]
    await block(chat)
    assert await see_each_other() == [0, 0]
    await unblock(chat)
    assert await see_each_other() == [1, 1]


async def test_only_the_person_who_blocks_leaves_the_channel_for_typing(chat: Chat) -> None:
    await block(chat)
    rights = []
    for who in (chat.guide, chat.tourist):
        async with as_user(chat.connection, who):
            rights.append(await value(chat.connection, "select private.topic_right('room:' || %s::text)", chat.room))
    assert rights == ["none", "send"]


# The functions ---------------------------------------------------------------------------------


async def blocked(chat: Chat, who: UUID) -> list[UUID]:
    async with as_user(chat.connection, who):
        return [one["user_id"] for one in await rows(chat.connection, "select * from public.my_blocked_users()")]


async def test_each_person_lists_only_whom_they_block_themselves(chat: Chat) -> None:
    await block(chat)
    await block(chat)
    assert await blocked(chat, chat.guide) == [chat.tourist]
    assert await blocked(chat, chat.tourist) == []
    await unblock(chat)
    await unblock(chat)
    assert await blocked(chat, chat.guide) == []


async def test_a_person_without_a_conversation_can_be_blocked_before_they_write(chat: Chat) -> None:
    stranger = await person(chat.connection)
    async with as_user(chat.connection, chat.guide):
        await chat.connection.execute("select public.block_user(%s)", (stranger,))
    await forget(chat)
    async with as_user(chat.connection, stranger):
        await value(chat.connection, "select public.get_or_create_conversation(%s, %s)", stranger, chat.guide)
    assert await events(chat, chat.guide, "conversation") == []
    async with as_user(chat.connection, chat.guide):
        assert len(await rows(chat.connection, "table public.chat_rooms")) == 1


@pytest.mark.parametrize("whom", ["themselves", "nobody", None])
async def test_a_block_of_themselves_or_of_nobody_is_refused(chat: Chat, whom: str | None) -> None:
    user = {"themselves": chat.guide, "nobody": uuid4(), None: None}[whom]
    async with refused(chat.connection, "22023", "p_user_id"), as_user(chat.connection, chat.guide):
        await chat.connection.execute("select public.block_user(%s)", (user,))


async def test_blocking_again_and_again_leaves_no_rows(chat: Chat) -> None:
    await write(chat)
    for _ in range(3):
        await block(chat)
        await unblock(chat)
    assert await value(chat.connection, "select count(*) from private.blocks") == 0


async def test_a_block_ends_although_the_clock_of_the_database_was_set_back(chat: Chat) -> None:
    await block(chat)
    await chat.connection.execute(
        "update private.blocks set during = tstzrange(lower(during) + interval '1 hour', null)"
    )
    await unblock(chat)
    assert await rows(chat.connection, "select from private.blocks") == []


async def test_a_third_person_is_not_affected_by_a_block(chat: Chat) -> None:
    other = await chat.conversation()
    await chat.device()
    await block(chat)
    message = await other.message("of a third person")
    assert kinds(await sent(chat)) == ["alert"]
    assert (await chat.job(message))["reason"] is None
    assert await listed(chat, "the table") == ["of a third person"]
