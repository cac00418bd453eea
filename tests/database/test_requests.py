"""Message requests: what a stranger's messages make until the recipient accepts the conversation."""

import psycopg
import pytest

from tests.database.chat import Chat, as_user, claim, decision, explain, insert, person, prune, refused, rows, value
from tests.database.test_block import block, write
from tests.database.test_notification_state import edit, kinds, sent


@pytest.fixture
async def strict(chat: Chat) -> Chat:
    """A conversation in an app in which the first messages of everybody are requests."""
    await chat.connection.execute("update push.settings set message_requests = 'all'")
    return chat


async def accept(chat: Chat) -> None:
    """The guide accepts the conversation."""
    async with as_user(chat.connection, chat.guide):
        await chat.connection.execute("select public.accept_conversation(%s)", (chat.room,))


async def answer(chat: Chat) -> None:
    """The guide writes."""
    async with as_user(chat.connection, chat.guide):
        await chat.connection.execute(
            "insert into public.chat_messages (room_id, sender_id, message) values (%s, %s, 'Hi')",
            (chat.room, chat.guide),
        )


# Pushes ----------------------------------------------------------------------------------------


async def test_five_messages_of_a_stranger_make_one_silent_request_that_does_not_count(strict: Chat) -> None:
    await strict.device()
    first = await write(strict)
    [push] = await sent(strict)
    assert (push["kind"], push["preview"], push["sound"], push["badge"]) == ("alert", "request", False, 0)
    for _ in range(4):
        message = await write(strict)
        assert await sent(strict) == []
        assert (await strict.job(message))["reason"] == "request"
    assert await strict.unread_counters() == (0, 5)
    told = await explain(strict.connection, message)
    assert "from a stranger whom the recipient has not accepted" in told["explanation"]
    [delivery] = (await explain(strict.connection, first))["deliveries"]
    assert "It makes no sound, because it is from a stranger" in delivery["explanation"]


async def test_messages_that_wait_together_make_one_request(strict: Chat) -> None:
    await strict.device()
    for _ in range(3):
        await write(strict)
    assert kinds(await sent(strict)) == ["alert"]
    assert await sent(strict) == []


async def test_an_edit_of_a_request_sends_nothing(strict: Chat) -> None:
    await strict.device()
    message = await write(strict)
    await sent(strict)
    await edit(strict, message, "edited")
    await strict.pass_time(1)
    assert await sent(strict) == []


@pytest.mark.parametrize("way", [accept, answer])
async def test_accepting_shows_name_and_text_without_a_sound_and_later_messages_ring(strict: Chat, way: object) -> None:
    await strict.device()
    await write(strict, "first")
    await sent(strict)
    await (accept if way is accept else answer)(strict)
    [push] = await sent(strict)
    assert (push["kind"], push["preview"], push["sound"], push["badge"]) == ("update", "full", False, 1)
    await write(strict, "second")
    [push] = await sent(strict)
    assert (push["kind"], push["preview"], push["sound"], push["badge"]) == ("alert", "full", True, 2)


async def test_accepting_a_conversation_of_which_no_phone_shows_anything_sends_nothing(strict: Chat) -> None:
    await strict.device()
    await accept(strict)
    assert await sent(strict) == []
    await write(strict)
    assert [push["preview"] for push in await sent(strict)] == ["full"]


async def test_a_request_that_was_read_and_not_accepted_is_removed_and_makes_no_second_one(strict: Chat) -> None:
    await strict.device(platform="android")
    await write(strict)
    await sent(strict)
    await strict.read()
    await strict.pass_time(3)
    assert kinds(await sent(strict)) == ["dismiss"]
    message = await write(strict)
    assert await sent(strict) == []
    assert (await strict.job(message))["reason"] == "request"


async def test_a_request_that_reached_no_phone_is_made_by_the_next_message(strict: Chat) -> None:
    assert decision(await claim(strict.connection, await write(strict))) == "skipped: no_device"
    await strict.device()
    await write(strict)
    assert [push["preview"] for push in await sent(strict)] == ["request"]


async def test_a_block_removes_a_request(strict: Chat) -> None:
    await strict.device(platform="android")
    await write(strict)
    await sent(strict)
    await block(strict)
    assert kinds(await sent(strict)) == ["dismiss"]


async def test_the_stranger_gets_answers_as_usual(strict: Chat) -> None:
    await strict.device(user_id=strict.tourist)
    await write(strict)
    await answer(strict)
    assert [push["preview"] for push in await sent(strict)] == ["full"]


@pytest.mark.parametrize(
    ("setting", "to_guide", "to_tourist"),
    [("none", "full", "full"), ("except_guides", "full", "request"), ("all", "request", "request")],
)
async def test_the_setting_says_whose_first_messages_are_requests(
    chat: Chat, setting: str, to_guide: str, to_tourist: str
) -> None:
    await chat.connection.execute("update push.settings set message_requests = %s", (setting,))
    for sender, recipient, expected in ((chat.tourist, chat.guide, to_guide), (chat.guide, chat.tourist, to_tourist)):
        async with chat.connection.transaction(force_rollback=True):
            await chat.device(user_id=recipient)
            await chat.message(sender_id=sender)
            assert [push["preview"] for push in await sent(chat)] == [expected]


async def test_only_messages_of_accepted_conversations_count_in_the_badge(strict: Chat) -> None:
    await strict.device()
    await write(strict)
    other = await strict.conversation()
    await accept(other)
    await other.message()
    assert {push["badge"] for push in await sent(strict)} == {1}


# The function ----------------------------------------------------------------------------------


async def test_accepting_is_seen_in_the_row_of_the_conversation_by_both(chat: Chat) -> None:
    await write(chat)
    for who in (chat.tourist, chat.guide):
        async with as_user(chat.connection, who):
            [room] = await rows(chat.connection, "table public.chat_rooms")
        assert (room["accepted_by_user1"], room["accepted_by_user2"]) == (True, False)
    await accept(chat)
    room = await chat.see_room()
    assert (room["accepted_by_user1"], room["accepted_by_user2"]) == (True, True)


async def test_a_person_accepts_for_themselves_only(chat: Chat) -> None:
    async with as_user(chat.connection, chat.tourist):
        await chat.connection.execute("select public.accept_conversation(%s)", (chat.room,))
    room = await chat.see_room()
    assert (room["accepted_by_user1"], room["accepted_by_user2"]) == (True, False)


async def test_only_a_participant_accepts_a_conversation(chat: Chat) -> None:
    stranger = await person(chat.connection)
    async with refused(chat.connection, "22023", "p_room_id"), as_user(chat.connection, stranger):
        await chat.connection.execute("select public.accept_conversation(%s)", (chat.room,))


# Strangers in a day ----------------------------------------------------------------------------


async def begin(chat: Chat, *, accepted: bool = False) -> None:
    """The tourist writes to somebody for the first time."""
    guide = await person(chat.connection, "guide")
    room = await insert(
        chat.connection, "public.chat_rooms", user1_id=chat.tourist, user2_id=guide, accepted_by_user2=accepted
    )
    await write(Chat(chat.connection, chat.tourist, guide, room["id"]))


async def test_a_person_begins_to_write_to_at_most_20_strangers_in_a_day(chat: Chat) -> None:
    await chat.connection.execute("update private.chat_settings set message_limit = 1000")
    for _ in range(20):
        await begin(chat)
    with pytest.raises(psycopg.Error) as error:
        async with chat.connection.transaction():
            await begin(chat)
    detail = '{"retry_after_seconds": 86400, "limit": "new_contact_limit"}'
    assert (error.value.sqlstate, error.value.diag.message_detail) == ("PT429", detail)
    # In conversations that have begun, and with people who have written first, the person goes on.
    await begin(chat, accepted=True)
    await chat.connection.execute("update private.new_contacts set began_at = began_at - interval '1 day'")
    await begin(chat)


async def test_further_messages_to_a_stranger_are_no_new_contact(chat: Chat) -> None:
    await chat.connection.execute("update private.chat_settings set new_contact_limit = 1")
    for _ in range(3):
        await write(chat)
    async with refused(chat.connection, "PT429", "at most 1 in 86400 seconds"):
        await begin(chat)


async def test_a_backend_begins_any_number_of_conversations(chat: Chat) -> None:
    await chat.connection.execute("update private.chat_settings set new_contact_limit = 1")
    for _ in range(3):
        await chat.separate_message()
    assert await value(chat.connection, "select count(*) from private.new_contacts") == 0


async def test_deleting_a_conversation_does_not_give_a_contact_back(chat: Chat) -> None:
    await chat.connection.execute("update private.chat_settings set new_contact_limit = 1")
    await write(chat)
    await chat.connection.execute("delete from public.chat_rooms where id = %s", (chat.room,))
    async with refused(chat.connection, "PT429"):
        await begin(chat)


async def test_contacts_are_forgotten_after_their_window(chat: Chat) -> None:
    await write(chat)
    await prune(chat.connection)
    assert await value(chat.connection, "select count(*) from private.new_contacts") == 1
    await chat.connection.execute("update private.new_contacts set began_at = began_at - interval '1 day'")
    await prune(chat.connection)
    assert await value(chat.connection, "select count(*) from private.new_contacts") == 0
