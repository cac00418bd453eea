"""The sound that a person chose for a conversation."""

from uuid import UUID

import pytest

from tests.database.chat import Chat, as_user, explain, refused
from tests.database.test_mute import preferences
from tests.database.test_notification_state import sent
from tests.database.test_quiet_hours import ALWAYS, choose


async def choose_sound(chat: Chat, sound: str | None, who: UUID | None = None) -> None:
    async with as_user(chat.connection, who or chat.guide):
        await chat.connection.execute("select public.set_conversation_sound(%s, %s)", (chat.room, sound))


@pytest.mark.parametrize(
    ("sound", "expected"),
    [(None, (True, None)), ("default", (True, None)), ("chime", (True, "chime")), ("none", (False, None))],
)
async def test_a_conversation_sounds_as_its_recipient_chose(
    chat: Chat, sound: str | None, expected: tuple[bool, str | None]
) -> None:
    await chat.device()
    await choose_sound(chat, "older")
    await choose_sound(chat, sound)
    await choose_sound(chat, "of_the_other", chat.tourist)
    await chat.message()
    [push] = await sent(chat)
    assert (push["sound"], push["sound_name"]) == expected


async def test_who_chose_no_sound_is_told_so(chat: Chat) -> None:
    await chat.device()
    await choose_sound(chat, "none")
    message = await chat.message()
    await sent(chat)
    [delivery] = (await explain(chat.connection, message))["deliveries"]
    assert delivery["explanation"].endswith("It makes no sound, because the recipient chose none for the conversation.")


async def test_quiet_hours_go_before_a_sound_of_the_conversation(chat: Chat) -> None:
    await chat.device()
    await choose_sound(chat, "chime")
    await choose(chat, quiet_hours=ALWAYS)
    await chat.message()
    assert [push["sound"] for push in await sent(chat)] == [False]


async def test_a_choice_of_a_sound_sends_nothing_and_is_seen_by_the_person_alone(chat: Chat) -> None:
    await chat.device()
    await chat.message()
    await sent(chat)
    await choose_sound(chat, "chime")
    assert await sent(chat) == []
    assert (await preferences(chat, chat.guide))["sounds"] == {str(chat.room): "chime"}
    assert (await preferences(chat, chat.tourist))["sounds"] == {}


@pytest.mark.parametrize("sound", ["", "../x", "Chime", "a" * 41, "chime.wav"])
async def test_a_name_that_no_sound_can_have_is_refused(chat: Chat, sound: str) -> None:
    async with refused(chat.connection, "22023", "p_sound"):
        await choose_sound(chat, sound)


async def test_the_sound_of_a_conversation_of_others_is_not_set(chat: Chat) -> None:
    stranger = (await chat.conversation()).tourist
    async with refused(chat.connection, "22023", "p_room_id"):
        await choose_sound(chat, "chime", stranger)
