"""Triggers of conversations and messages: clocks, roles, counters, and the job of a message."""

from datetime import datetime
from typing import Any

import pytest

from tests.database.chat import (
    LONG_AGO,
    Chat,
    acting_as,
    as_user,
    claim,
    explain,
    insert,
    person,
    refused,
    rows,
    start_chat,
    value,
)

# Messages --------------------------------------------------------------------------------------


async def test_messages_are_ordered_by_the_clock_of_the_server(chat: Chat) -> None:
    before = await chat.server_time()
    first = await chat.see_message(await chat.message(server_timestamp=datetime.max))
    second = await chat.see_message(await chat.message(server_timestamp=LONG_AGO))
    assert before < first["server_timestamp"] < second["server_timestamp"]


@pytest.mark.parametrize("backwards", [False, True])
async def test_sender_role_is_the_role_in_the_profile_of_the_sender(chat: Chat, backwards: bool) -> None:
    for sender, role in ((chat.tourist, "tourist"), (chat.guide, "guide")):
        message = await chat.message(sender_id=sender, sender_role="guide" if backwards else "tourist")
        assert (await chat.see_message(message))["sender_role"] == role


@pytest.mark.parametrize("change", [{"message": "Edited"}, {"attachments": '[{"type": "file"}]'}])
async def test_an_edit_sets_edited_at_and_updated_at(chat: Chat, change: dict[str, str]) -> None:
    message = await chat.message()
    before = await chat.server_time()
    [(column, new)] = change.items()
    async with as_user(chat.connection, chat.tourist):
        await chat.connection.execute(f"update chat_messages set {column} = %s", (new,))
    edited = await chat.see_message(message)
    assert edited["edited_at"] > before
    assert edited["updated_at"] > before


async def test_reading_a_message_does_not_set_edited_at(chat: Chat) -> None:
    message = await chat.message()
    await chat.read()
    assert (await chat.see_message(message))["edited_at"] is None


async def test_the_time_of_a_deletion_is_set_by_the_server_and_never_changes(chat: Chat) -> None:
    message = await chat.message()
    before = await chat.server_time()
    for _ in range(2):
        async with as_user(chat.connection, chat.tourist):
            await chat.connection.execute("update chat_messages set deleted_at = %s", (LONG_AGO,))
    deleted_at = (await chat.see_message(message))["deleted_at"]
    assert before < deleted_at < await chat.server_time()
    await chat.connection.execute("update chat_messages set deleted_at = now()")
    assert (await chat.see_message(message))["deleted_at"] == deleted_at


@pytest.mark.parametrize("table", ["chat_rooms", "chat_messages", "user_devices", "user_presence"])
async def test_updated_at_is_set_by_the_server(chat: Chat, table: str) -> None:
    await chat.message()
    await chat.device()
    await chat.look(None)
    before = await chat.server_time()
    await chat.connection.execute(f"update {table} set updated_at = '2000-01-01'")
    assert await value(chat.connection, f"select updated_at from {table}") > before


# Conversations ---------------------------------------------------------------------------------


async def test_unread_counters_follow_messages_reads_edits_and_deletions(chat: Chat) -> None:
    first, second = await chat.message("first"), await chat.message("second")
    answer = await chat.message("answer", sender_id=chat.guide)
    assert await chat.unread_counters() == (1, 2)

    await chat.message("already read", is_read=True)
    await chat.message("already deleted", deleted_at=LONG_AGO)
    assert await chat.unread_counters() == (1, 2)

    await chat.connection.execute("update chat_messages set deleted_at = now() where id = %s", (first,))
    assert await chat.unread_counters() == (1, 1)

    await chat.connection.execute("update chat_messages set message = 'edited' where id = %s", (second,))
    assert await chat.unread_counters() == (1, 1)

    assert await chat.read() == 3  # the deleted ones too: they show as deleted
    assert await chat.unread_counters() == (1, 0)
    assert await chat.read() == 0

    await chat.connection.execute("delete from chat_messages where id = %s", (answer,))
    assert await chat.unread_counters() == (0, 0)


async def test_unread_counters_are_exact_after_a_statement_over_many_messages(chat: Chat) -> None:
    other = await start_chat(chat.connection)
    await chat.connection.execute(
        "insert into chat_messages (room_id, sender_id, message)"
        " select room, sender, 'Hi' from (values (%s::uuid, %s::uuid), (%s, %s)) rooms (room, sender),"
        " generate_series(1, 10)",
        (chat.room, chat.tourist, other.room, other.guide),
    )
    assert (await chat.unread_counters(), await other.unread_counters()) == ((0, 10), (10, 0))
    await chat.connection.execute("update chat_messages set is_read = true")
    assert (await chat.unread_counters(), await other.unread_counters()) == ((0, 0), (0, 0))
    await chat.connection.execute("update chat_messages set is_read = null")
    await chat.connection.execute("delete from chat_messages where message = 'Hi'")
    assert (await chat.unread_counters(), await other.unread_counters()) == ((0, 0), (0, 0))


async def last(chat: Chat) -> tuple[str | None, datetime | None]:
    room = await chat.see_room()
    return room["last_message"], room["last_message_at"]


async def test_last_message_of_a_conversation_follows_edits_and_deletions(chat: Chat) -> None:
    assert await last(chat) == (None, None)
    first, second = await chat.message("first"), await chat.message("second")
    times = [(await chat.see_message(message))["server_timestamp"] for message in (first, second)]
    assert await last(chat) == ("second", times[1])
    await chat.connection.execute("update chat_messages set message = 'edited' where id = %s", (second,))
    assert await last(chat) == ("edited", times[1])
    await chat.connection.execute("update chat_messages set deleted_at = now() where id = %s", (second,))
    assert await last(chat) == ("first", times[0])
    await chat.connection.execute("delete from chat_messages")
    assert await last(chat) == (None, None)


async def test_last_message_names_the_kind_of_an_attachment_without_text(chat: Chat) -> None:
    photo = await chat.message("", attachments='[{"type": "image", "url": "https://example.com/1"}]')
    assert (await last(chat))[0] == "📷 Photo"
    await chat.connection.execute('update chat_messages set attachments = \'[{"type": "video"}]\'')
    assert (await last(chat))[0] == "🎥 Video"
    await chat.connection.execute("update chat_messages set attachments = '[]', message_type = 'audio'")
    assert (await last(chat))[0] == "🎤 Voice message"
    await chat.message("Look!")
    assert (await last(chat))[0] == "Look!"
    await chat.connection.execute("delete from chat_messages where id <> %s", (photo,))
    assert (await last(chat))[0] == "🎤 Voice message"
    await chat.connection.execute("update chat_messages set message = E'Listen\n\nto\u202e this'")
    assert (await last(chat))[0] == "Listen to this"


@pytest.mark.parametrize(
    ("text", "line"),
    [("\u202eevil\u202c ok", "evil ok"), ("\u200b\u200b\u200b", "New message"), ("\n" * 200, "New message")],
    ids=ascii,
)
async def test_last_message_is_a_line_with_visible_text(chat: Chat, text: str, line: str) -> None:
    await chat.message(text)
    assert (await last(chat))[0] == line
    await chat.connection.execute(
        "insert into chat_messages (room_id, sender_id, message) select %s, %s, %s from generate_series(1, 2)",
        (chat.room, chat.tourist, text),
    )
    assert (await last(chat))[0] == line


async def test_erasing_a_conversation_erases_its_messages(chat: Chat) -> None:
    await chat.message()
    await chat.connection.execute("delete from chat_rooms where id = %s", (chat.room,))
    assert await rows(chat.connection, "select from chat_messages") == []


@pytest.mark.parametrize("swapped", [False, True])
async def test_a_second_conversation_of_two_people_is_rejected(chat: Chat, swapped: bool) -> None:
    people = [chat.tourist, chat.guide]
    user1, user2 = reversed(people) if swapped else people
    async with refused(chat.connection, "23505"):
        await insert(chat.connection, "public.chat_rooms", user1_id=user1, user2_id=user2)


async def test_a_conversation_with_oneself_is_rejected(chat: Chat) -> None:
    async with refused(chat.connection, "23514"):
        await insert(chat.connection, "public.chat_rooms", user1_id=chat.guide, user2_id=chat.guide)


@pytest.mark.parametrize("roles", [("tourist", "guide"), ("guide", "tourist")])
async def test_the_tourist_and_the_guide_of_a_conversation_come_from_the_profiles(
    chat: Chat, roles: tuple[str, str]
) -> None:
    first, second = [await person(chat.connection, role) for role in roles]
    room = await insert(chat.connection, "public.chat_rooms", user1_id=first, user2_id=second)
    found = {room["tourist_id"]: "tourist", room["guide_id"]: "guide"}
    assert found == dict(zip((first, second), roles, strict=True))


@pytest.mark.parametrize("role", ["tourist", "guide", None])
async def test_a_conversation_of_two_people_with_the_same_role_names_no_tourist_and_no_guide(
    chat: Chat, role: str | None
) -> None:
    people = [await person(chat.connection) for _ in range(2)]
    await chat.connection.execute("update users set role = %s where id = any(%s)", (role, people))
    room = await insert(chat.connection, "public.chat_rooms", user1_id=people[0], user2_id=people[1])
    assert (room["tourist_id"], room["guide_id"]) == (None, None)


@pytest.mark.parametrize(
    ("who", "column", "allowed"),
    [
        ("tourist", "archived_by_user1", True),
        ("tourist", "archived_by_user2", False),
        ("guide", "archived_by_user1", False),
        ("guide", "archived_by_user2", True),
    ],
)
async def test_each_person_archives_a_conversation_only_for_themselves(
    chat: Chat, who: str, column: str, allowed: bool
) -> None:
    archive = f"update chat_rooms set {column} = true"
    if allowed:
        async with as_user(chat.connection, getattr(chat, who)):
            await chat.connection.execute(archive)
        assert (await chat.see_room())[column] is True
    else:
        async with refused(chat.connection, "42501"), as_user(chat.connection, getattr(chat, who)):
            await chat.connection.execute(archive)


async def test_last_message_holds_the_first_200_characters_of_the_message(chat: Chat) -> None:
    family = "\u200d".join("👨👩👧👦")
    await chat.message("x" * 195 + family)
    assert (await last(chat))[0] == "x" * 195
    text = "📱" * 1000
    message = await chat.message(text)
    assert await last(chat) == (text[:200], (await chat.see_message(message))["server_timestamp"])
    await chat.connection.execute("update chat_messages set message = message || '!'")
    assert (await last(chat))[0] == text[:200]
    people = [await person(chat.connection) for _ in range(2)]
    room = await insert(chat.connection, "public.chat_rooms", user1_id=people[0], user2_id=people[1], last_message=text)
    assert room["last_message"] == text[:200]


# Push jobs -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("sender", "recipient"), [("tourist", "guide"), ("guide", "tourist")])
async def test_the_push_job_of_a_message_is_for_the_other_person(chat: Chat, sender: str, recipient: str) -> None:
    message = await chat.message(sender_id=getattr(chat, sender))
    job = await chat.job(message)
    assert (job["recipient_id"], job["state"], job["attempts"]) == (getattr(chat, recipient), "pending", 0)


@pytest.mark.parametrize("columns", [{"is_read": True}, {"deleted_at": LONG_AGO}], ids=str)
async def test_an_import_of_read_or_deleted_messages_makes_no_push_job(chat: Chat, columns: dict[str, Any]) -> None:
    await chat.message(**columns)
    assert await rows(chat.connection, "table push.jobs") == []


OLD = "insert into chat_messages (room_id, sender_id, message, created_at) select %s, %s, 'Old', now() - %s::interval"


async def test_history_that_a_backend_imports_is_unread_and_is_not_pushed(chat: Chat) -> None:
    await chat.device()
    async with acting_as(chat.connection, "service_role"):
        old = f"{OLD} from generate_series(1, 8) returning id".encode()
        imported = await (await chat.connection.execute(old, (chat.room, chat.tourist, "90 days"))).fetchall()
    assert len(imported) == 8
    assert await chat.unread_counters() == (0, 8)
    claimed = await claim(chat.connection)
    assert (claimed["jobs"], claimed["finished"], claimed["deferred"]) == ([], [], [])
    for message in imported:
        explained = await explain(chat.connection, message["id"])
        assert (explained["state"], explained["outcome"], explained["reason"]) == ("done", "skipped", "expired")
        assert explained["explanation"] == "Skipped: it is older than its time to live (24:00:00)."


@pytest.mark.parametrize(("age", "pushes"), [("23 hours", 1), ("25 hours", 0), ("-1 hour", 1)])
async def test_a_backends_message_is_pushed_while_its_created_at_is_within_the_time_to_live(
    chat: Chat, age: str, pushes: int
) -> None:
    await chat.device()
    await chat.connection.execute(OLD.encode(), (chat.room, chat.tourist, age))
    assert len((await claim(chat.connection))["jobs"]) == pushes


async def test_a_persons_message_is_pushed_whatever_created_at_it_names(chat: Chat) -> None:
    async with as_user(chat.connection, chat.tourist):
        await chat.connection.execute(OLD.encode(), (chat.room, chat.tourist, "90 days"))
    assert await value(chat.connection, "select state from push.jobs") == "pending"


async def test_a_message_of_a_sender_outside_the_conversation_makes_no_push_job(chat: Chat) -> None:
    """Such as a system message, stored by a backend."""
    await chat.message(sender_id=await person(chat.connection))
    assert await rows(chat.connection, "table push.jobs") == []


async def test_a_conversation_goes_on_whose_other_account_an_app_has_replaced_by_null(chat: Chat) -> None:
    await chat.connection.execute("""
        alter table public.chat_rooms alter user2_id drop not null, drop constraint chat_rooms_user2_id_fkey,
          add foreign key (user2_id) references public.users (id) on delete set null
    """)
    await chat.connection.execute("delete from public.users where id = %s", (chat.guide,))
    async with as_user(chat.connection, chat.tourist):
        await chat.message("single")
        await chat.connection.execute(
            "insert into public.chat_messages (room_id, sender_id, message) values (%(room)s, %(me)s, 'two'),"
            " (%(room)s, %(me)s, 'at once')",
            {"room": chat.room, "me": chat.tourist},
        )
        await chat.connection.execute("select public.accept_conversation(%s)", (chat.room,))
        await chat.connection.execute("delete from public.chat_rooms where id = %s", (chat.room,))
    room = await chat.see_room()
    assert (room["last_message"], room["archived_by_user1"], await chat.unread_counters()) == ("at once", True, (0, 0))
    topics = await rows(chat.connection, "select topic from realtime.messages where event = 'message'")
    assert [event["topic"] for event in topics] == [f"user:{chat.tourist}"] * 3


async def test_a_truncate_leaves_no_text_and_no_unread_messages_in_the_conversations(chat: Chat) -> None:
    await chat.message("secret")
    await chat.connection.execute("truncate public.chat_messages cascade")
    room = await chat.see_room()
    assert (room["last_message"], room["last_message_at"], await chat.unread_counters()) == (None, None, (0, 0))
