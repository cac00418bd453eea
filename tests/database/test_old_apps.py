"""Apps from before Chat Push go on: what they write is accepted, the server decides, and what is meant is done."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.database.chat import (
    LONG_AGO,
    Chat,
    Database,
    as_user,
    claim,
    insert,
    person,
    refused,
    row,
    rows,
    start_chat,
    value,
    waits_for_lock,
)

# What the server decides ------------------------------------------------------------------------


@pytest.mark.parametrize("time", [LONG_AGO, None, datetime(2999, 1, 1, tzinfo=UTC)])
async def test_an_inserted_message_has_the_columns_of_the_server_instead_of_those_of_the_app(
    chat: Chat, time: datetime | None
) -> None:
    times = dict.fromkeys(("created_at", "updated_at", "server_timestamp", "read_at", "delivered_at"), time)
    async with as_user(chat.connection, chat.tourist):
        first = await chat.message(**times, is_read=True, sender_role="guide", deleted_at=time, edited_at=time)
        second = await chat.message(is_read=None, attachments=None, sender_role=None)
    for message in (first, second):
        stored = await chat.see_message(message)
        assert (stored["is_read"], stored["sender_role"], stored["attachments"]) == (False, "tourist", [])
        assert stored["read_at"] is stored["delivered_at"] is stored["deleted_at"] is stored["edited_at"] is None
        assert stored["created_at"] == stored["updated_at"] == stored["server_timestamp"]
        assert abs((datetime.now(UTC) - stored["server_timestamp"]).total_seconds()) < 60
    assert (await chat.see_message(first))["server_timestamp"] < (await chat.see_message(second))["server_timestamp"]


async def test_a_message_that_names_a_time_long_ago_is_pushed(chat: Chat) -> None:
    await chat.device()
    async with as_user(chat.connection, chat.tourist):
        message = await chat.message(created_at=LONG_AGO, server_timestamp=LONG_AGO, is_read=True)
    assert [job["message_id"] for job in (await claim(chat.connection))["jobs"]] == [str(message)]


async def test_an_inserted_conversation_has_the_columns_of_the_server_instead_of_those_of_the_app(chat: Chat) -> None:
    guide = await person(chat.connection, "guide")
    async with as_user(chat.connection, chat.tourist):
        room = await insert(
            chat.connection,
            "public.chat_rooms",
            user1_id=chat.tourist,
            user2_id=guide,
            guide_id=chat.tourist,
            tourist_id=guide,
            last_message="forged",
            last_message_at=LONG_AGO,
            created_at=LONG_AGO,
            updated_at=LONG_AGO,
            unread_count_user2=99,
            archived_by_user2=True,
        )
    assert (room["tourist_id"], room["guide_id"]) == (chat.tourist, guide)
    assert (room["last_message"], room["last_message_at"], room["unread_count_user2"]) == (None, None, 0)
    assert room["archived_by_user2"] is False
    assert room["created_at"] > LONG_AGO


async def test_an_update_of_last_message_and_counters_is_ignored(chat: Chat) -> None:
    await chat.message("Hello")
    before = await chat.see_room()
    async with as_user(chat.connection, chat.tourist):
        changed = await chat.connection.execute(
            "update chat_rooms set last_message = 'forged', last_message_at = '2000-01-01', updated_at = '2000-01-01',"
            " unread_count_user1 = 9, unread_count_user2 = 0"
        )
    assert changed.rowcount == 1
    after = await chat.see_room()
    assert after["updated_at"] > before["updated_at"]
    assert {**after, "updated_at": None} == {**before, "updated_at": None}


async def test_an_update_by_the_sender_marks_nothing_as_read_and_changes_no_time(chat: Chat) -> None:
    message = await chat.message()
    before = await chat.see_message(message)
    async with as_user(chat.connection, chat.tourist):
        await chat.connection.execute(
            "update chat_messages set is_read = true, read_at = now(), delivered_at = now(), created_at = '2000-01-01',"
            " edited_at = '2000-01-01', updated_at = '2000-01-01'"
        )
    after = await chat.see_message(message)
    assert {**after, "updated_at": None} == {**before, "updated_at": None}
    assert (await chat.see_room())["unread_count_user2"] == 1
    assert await rows(chat.connection, "select from message_receipts") == []


@pytest.mark.parametrize("upsert", [False, True])
async def test_devices_and_presence_have_the_times_of_the_server(chat: Chat, upsert: bool) -> None:
    tables: dict[str, dict[str, Any]] = {
        "user_devices": {"device_id": "mine", "platform": "ios", "created_at": LONG_AGO},
        "user_presence": {"is_online": True},
    }
    for name, columns in tables.items():
        columns |= {"user_id": chat.guide, "last_seen_at": LONG_AGO, "updated_at": LONG_AGO}
        async with as_user(chat.connection, chat.guide):
            stored = await insert(chat.connection, f"public.{name}", **columns)
            if upsert:
                update = f"update {name} set last_seen_at = '2000-01-01', updated_at = '2000-01-01' returning *"
                stored = await row(chat.connection, update)
        assert LONG_AGO not in stored.values()


async def test_an_update_of_an_inactive_device_ignores_the_time_it_names(chat: Chat) -> None:
    device = await chat.device(is_active=False)
    async with as_user(chat.connection, chat.guide):
        await chat.connection.execute("update user_devices set last_seen_at = 'infinity', created_at = 'infinity'")
    after = await row(chat.connection, "select last_seen_at, created_at from user_devices where id = %s", device["id"])
    assert after == {key: device[key] for key in ("last_seen_at", "created_at")}


# What is meant ----------------------------------------------------------------------------------

MARKS = {
    "is_read and read_at": "is_read = true, read_at = '2000-01-01'",
    "is_read alone": "is_read = true",
    "read_at alone": "read_at = '2000-01-01'",
}


@pytest.mark.parametrize("mark", MARKS)
async def test_an_update_of_is_read_or_read_at_by_the_recipient_does_what_mark_messages_read_does(
    chat: Chat, mark: str
) -> None:
    first, second = await chat.message(), await chat.message()
    mine = await chat.message(sender_id=chat.guide)
    async with as_user(chat.connection, chat.guide):
        await chat.connection.execute("select mark_messages_delivered(%s, %s)", (chat.guide, [first]))
        changed = await chat.connection.execute(
            f"update chat_messages set {MARKS[mark]} where room_id = '{chat.room}'".encode()
        )
    assert changed.rowcount == 3, "the guide's own is found, too"
    receipts = await rows(chat.connection, "select * from message_receipts")
    assert {(receipt["message_id"], receipt["user_id"]) for receipt in receipts} == {
        (first, chat.guide),
        (second, chat.guide),
    }
    for message in (first, second):
        stored = await chat.see_message(message)
        assert stored["is_read"]
        assert LONG_AGO < stored["delivered_at"] <= stored["read_at"]
    for receipt in receipts:
        assert receipt["read_at"] is not None
    assert (await chat.see_message(mine))["is_read"] is False
    room = await chat.see_room()
    assert (room["unread_count_user1"], room["unread_count_user2"]) == (1, 0)
    assert await chat.read() == 0


async def test_an_update_of_delivered_at_by_the_recipient_marks_the_message_as_delivered(chat: Chat) -> None:
    message = await chat.message()
    async with as_user(chat.connection, chat.guide):
        await chat.connection.execute("update chat_messages set delivered_at = '2000-01-01', is_read = false")
    receipt = await row(chat.connection, "select delivered_at, read_at from message_receipts")
    assert receipt["delivered_at"] > LONG_AGO
    assert receipt["read_at"] is None
    stored = await chat.see_message(message)
    assert (stored["is_read"], stored["delivered_at"] > LONG_AGO) == (False, True)
    assert (await chat.see_room())["unread_count_user2"] == 1


async def test_a_message_that_was_read_never_becomes_unread(chat: Chat) -> None:
    message = await chat.message()
    await chat.read()
    async with as_user(chat.connection, chat.guide):
        changed = await chat.connection.execute("update chat_messages set is_read = false, read_at = null")
    assert changed.rowcount == 0
    assert (await chat.see_message(message))["is_read"]


async def test_a_receipt_stays_that_of_its_message(chat: Chat) -> None:
    """With the times of an older message, another one would be read before it was sent."""
    first = await chat.message()
    await chat.read()
    other = await chat.message()
    async with as_user(chat.connection, chat.guide):
        await chat.connection.execute("update message_receipts set message_id = %s", (other,))
    assert await rows(chat.connection, "select message_id from message_receipts") == [{"message_id": first}]
    assert not (await chat.see_message(other))["is_read"]


@pytest.mark.parametrize("change", ["message = 'forged'", "attachments = '[1]'", "deleted_at = now()"])
async def test_a_recipient_never_changes_what_the_sender_wrote_even_beside_a_mark(chat: Chat, change: str) -> None:
    message = await chat.message()
    before = await chat.see_message(message)
    reason = "only the sender may edit or delete a message"
    async with refused(chat.connection, "42501", reason), as_user(chat.connection, chat.guide):
        await chat.connection.execute(f"update chat_messages set is_read = true, {change}".encode())
    assert await chat.see_message(message) == before


async def test_a_recipient_changes_no_column_that_the_app_has_added(chat: Chat) -> None:
    await chat.connection.execute("alter table chat_messages add starred boolean not null default false")
    await chat.connection.execute("grant update (starred) on chat_messages to authenticated")
    message = await chat.message()
    async with as_user(chat.connection, chat.guide):
        await chat.connection.execute("update chat_messages set starred = true, is_read = true")
    assert (await chat.see_message(message))["starred"] is False
    async with as_user(chat.connection, chat.tourist):
        await chat.connection.execute("update chat_messages set starred = true")
    assert (await chat.see_message(message))["starred"] is True


async def test_a_stranger_marks_and_deletes_no_message_and_no_conversation(chat: Chat) -> None:
    await chat.message()
    stranger = await person(chat.connection)
    async with as_user(chat.connection, stranger):
        changed = await chat.connection.execute("update chat_messages set is_read = true")
        deleted = await chat.connection.execute("delete from chat_messages")
        gone = await chat.connection.execute("delete from chat_rooms")
    assert changed.rowcount == deleted.rowcount == gone.rowcount == 0
    assert await rows(chat.connection, "select from message_receipts") == []
    assert (await chat.see_room())["archived_by_user1"] is False


async def test_a_delete_by_the_sender_is_a_soft_delete(chat: Chat) -> None:
    kept, gone = await chat.message("Kept"), await chat.message("Gone")
    answer = await chat.message("Answer", sender_id=chat.guide)
    async with as_user(chat.connection, chat.tourist):
        await chat.connection.execute("delete from chat_messages where id = any(%s)", ([gone, answer],))
    assert (await chat.see_message(gone))["deleted_at"] is not None
    for message in (kept, answer):
        assert (await chat.see_message(message))["deleted_at"] is None
    assert (await chat.see_room())["unread_count_user2"] == 1
    await chat.device()
    jobs = (await claim(chat.connection))["jobs"]
    assert str(gone) not in [job["message_id"] for job in jobs]


@pytest.mark.parametrize("who", ["tourist", "guide"])
async def test_a_delete_of_a_conversation_archives_it_for_the_caller_alone(chat: Chat, who: str) -> None:
    message = await chat.message()
    async with as_user(chat.connection, getattr(chat, who)):
        await chat.connection.execute("delete from chat_rooms where id = %s", (chat.room,))
    room = await chat.see_room()
    assert (room["archived_by_user1"], room["archived_by_user2"]) == (who == "tourist", who == "guide")
    assert (await chat.see_message(message))["deleted_at"] is None


async def test_a_delete_by_a_backend_deletes_the_row(chat: Chat) -> None:
    await chat.message()
    await chat.connection.execute("delete from auth.users where id = %s", (chat.tourist,))
    assert await rows(chat.connection, "select from chat_rooms") == []


async def test_two_people_who_mark_each_others_messages_at_once_wait_for_each_other(database: Database) -> None:
    observer, *meeting = [await database.connect() for _ in range(3)]
    chat = await start_chat(observer)
    for sender in (chat.tourist, chat.guide):
        for _ in range(2):
            await chat.message(sender_id=sender)
    mark = "update chat_messages set is_read = true"
    async with as_user(meeting[0], chat.tourist):
        await meeting[0].execute(mark.encode())

        async def other() -> None:
            async with as_user(meeting[1], chat.guide):
                await meeting[1].execute(mark.encode())

        waiting = asyncio.create_task(other())
        await waits_for_lock(observer, meeting[1], waiting)
        await meeting[0].execute(b"update chat_messages set message = 'Edited' where sender_id = auth.uid()")
    await waiting
    assert await value(observer, "select count(*) from message_receipts where read_at is not null") == 4
