"""What a muted conversation sends to the phones of the person who muted it, and what it still shows in the app."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from tests.database.chat import Chat, as_user, claim, decision, explain, refused, value
from tests.database.test_notification_state import kinds, sent


async def mute(chat: Chat, until: datetime | None = None, *, who: UUID | None = None) -> None:
    async with as_user(chat.connection, who or chat.guide):
        await chat.connection.execute("select public.mute_conversation(%s, %s)", (chat.room, until))


async def unmute(chat: Chat) -> None:
    async with as_user(chat.connection, chat.guide):
        await chat.connection.execute("select public.unmute_conversation(%s)", (chat.room,))


async def told_a_badge(chat: Chat) -> None:
    """The guide's phones have shown a message that was read: a phone that was never told a badge gets none alone."""
    await chat.message()
    await sent(chat)
    await chat.read()
    await chat.pass_time(3)
    while await sent(chat):
        pass


async def preferences(chat: Chat, who: UUID) -> Any:
    async with as_user(chat.connection, who):
        return await value(chat.connection, "select public.my_notification_preferences()")


async def in_an_hour(chat: Chat) -> datetime:
    return await chat.server_time() + timedelta(hours=1)


async def test_a_muted_conversation_makes_no_push_and_stays_unread_in_the_app(chat: Chat) -> None:
    await chat.device()
    await mute(chat)
    message = await chat.message()
    assert decision(await claim(chat.connection, message)) == "skipped: muted"
    assert await chat.unread_counters() == (0, 1)
    assert "the recipient muted the conversation" in (await explain(chat.connection, message))["explanation"]


async def test_the_other_person_of_a_muted_conversation_still_gets_pushes(chat: Chat) -> None:
    await chat.device(user_id=chat.tourist)
    await mute(chat)
    answer = await chat.message(sender_id=chat.guide)
    assert decision(await claim(chat.connection, answer)) == "send"


async def test_muting_removes_what_phones_show_of_the_conversation(chat: Chat) -> None:
    await chat.device(platform="android")
    await chat.device(platform="ios")
    await chat.message()
    assert kinds(await sent(chat)) == ["alert", "alert"]
    await mute(chat)
    pushes = await sent(chat)
    assert sorted((push["platform"], push["kind"], push["badge"]) for push in pushes) == [
        ("android", "dismiss", 0),
        ("ios", "badge", 0),
    ]
    assert kinds(await sent(chat)) == ["dismiss"]
    assert await sent(chat) == []


async def test_a_muted_conversation_does_not_count_in_the_badge_of_another_one(chat: Chat) -> None:
    await chat.device()
    other = await chat.conversation()
    await mute(chat)
    await chat.message()
    await other.message()
    [push] = await sent(chat)
    assert (push["room_id"], push["badge"]) == (str(other.room), 1)


async def test_a_mute_ends_by_the_clock_and_only_later_messages_make_an_alert(chat: Chat) -> None:
    await chat.device()
    await mute(chat, await in_an_hour(chat))
    during = await chat.message("during")
    assert await sent(chat) == []
    await chat.pass_time(3601)
    assert await sent(chat) == []
    await chat.message("after")
    [push] = await sent(chat)
    assert (push["kind"], push["sound"], push["unread"], push["badge"]) == ("alert", True, 2, 2)
    assert (await chat.job(during))["reason"] == "muted"


async def test_unmuting_brings_back_the_badge_and_no_notification(chat: Chat) -> None:
    await chat.device()
    await told_a_badge(chat)
    await mute(chat)
    await chat.message()
    await sent(chat)
    await unmute(chat)
    [push] = await sent(chat)
    assert (push["kind"], push["badge"]) == ("badge", 1)
    assert await sent(chat) == []


async def test_a_message_that_waits_for_its_worker_is_decided_by_the_mute(chat: Chat) -> None:
    await chat.device()
    message = await chat.message()
    await mute(chat)
    assert decision(await claim(chat.connection, message)) == "skipped: muted"


async def test_muting_a_conversation_without_a_job_makes_one_that_ends_by_itself(chat: Chat) -> None:
    await chat.device()
    await mute(chat)
    assert await sent(chat) == []
    assert await value(chat.connection, "select state::text from push.jobs") == "idle"


async def test_a_person_sees_only_what_they_muted_themselves(chat: Chat) -> None:
    until = await in_an_hour(chat)
    await mute(chat)
    await mute(chat, until, who=chat.tourist)
    assert (await preferences(chat, chat.guide))["muted"] == [{"room_id": str(chat.room), "until": None}]
    [muted] = (await preferences(chat, chat.tourist))["muted"]
    assert datetime.fromisoformat(muted["until"]) == until
    await unmute(chat)
    assert (await preferences(chat, chat.guide))["muted"] == []


@pytest.mark.parametrize("call", ["mute_conversation", "unmute_conversation"])
async def test_the_conversation_of_others_is_not_muted(chat: Chat, call: str) -> None:
    stranger = (await chat.conversation()).tourist
    async with refused(chat.connection, "22023", "p_room_id"), as_user(chat.connection, stranger):
        await chat.connection.execute(f"select public.{call}(%s)".encode(), (chat.room,))


async def test_a_mute_until_a_time_that_has_passed_is_refused(chat: Chat) -> None:
    async with refused(chat.connection, "22023", "p_until"):
        await mute(chat, datetime(2020, 1, 1, tzinfo=UTC))
