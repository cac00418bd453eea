"""What apps call: conversations, pages, missed messages, marks."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from tests.database.chat import (
    Chat,
    Database,
    Row,
    as_user,
    claim,
    insert,
    person,
    refused,
    row,
    rows,
    start_chat,
    value,
)

# Conversations ---------------------------------------------------------------------------------


async def open_chat(chat: Chat, caller: UUID, *people: UUID | None) -> Any:
    async with as_user(chat.connection, caller):
        return await value(chat.connection, "select public.get_or_create_conversation(%s, %s)", *people)


async def test_both_people_open_the_same_conversation_with_their_ids_in_either_order(chat: Chat) -> None:
    new = await person(chat.connection, "guide")
    made = await open_chat(chat, new, new, chat.tourist)
    for caller, people in (
        (new, (new, chat.tourist)),
        (new, (chat.tourist, new)),
        (chat.tourist, (chat.tourist, new)),
        (chat.tourist, (new, chat.tourist)),
    ):
        assert await open_chat(chat, caller, *people) == made
    assert made != chat.room == await open_chat(chat, chat.guide, chat.guide, chat.tourist)


@pytest.mark.parametrize(("other", "fault"), [("unknown", "nobody"), ("self", "the same person"), ("null", "nobody")])
async def test_a_conversation_with_an_unknown_person_with_oneself_or_with_null_is_rejected_by_name(
    chat: Chat, other: str, fault: str
) -> None:
    others = {"unknown": uuid4(), "self": chat.tourist, "null": None}
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=f"p_user2_id.* {fault}"):
        await open_chat(chat, chat.tourist, chat.tourist, others[other])


async def test_a_conversation_that_a_unique_index_of_the_app_forbids_is_an_error(chat: Chat) -> None:
    """An endless search for the conversation that seems to be there would hold the connection."""
    await chat.connection.execute("alter table chat_rooms add booking integer default 1 unique")
    await chat.connection.execute("set local statement_timeout = '10 s'")
    async with refused(chat.connection, "23505", "chat_rooms_booking_key"):
        await open_chat(chat, chat.guide, chat.guide, await person(chat.connection))


# Pages -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
async def long_chat(module_database: Database) -> Chat:
    """1003 messages, three at a time with the same timestamp."""
    chat = await start_chat(await module_database.connect())
    await chat.connection.execute(
        "insert into chat_messages (room_id, sender_id, message)"
        " select %s, %s, n::text from generate_series(0, 1002) n",
        (chat.room, chat.tourist),
    )
    await chat.connection.execute(
        "update chat_messages set server_timestamp"
        " = timestamptz '2026-01-01' + (message::integer / 3) * interval '1 second'"
    )
    return chat


NEWEST_FIRST = "select id from chat_messages order by server_timestamp desc, id"
OLDEST_FIRST = "select id from chat_messages order by server_timestamp, id"


@pytest.mark.parametrize("size", [1, 30, 31, 200])
async def test_pages_of_a_conversation_hold_every_message_once_and_newest_first(long_chat: Chat, size: int) -> None:
    expected = await rows(long_chat.connection, f"{NEWEST_FIRST} limit {40 if size == 1 else 2000}")
    found: list[Row] = []
    cursor: tuple[datetime | None, UUID | None] = (None, None)
    async with as_user(long_chat.connection, long_chat.guide):
        while len(found) < len(expected):
            page = await rows(
                long_chat.connection,
                "select * from public.get_messages_paginated(%s, %s, %s, %s)",
                long_chat.room,
                size,
                *cursor,
            )
            assert len(page) == min(size, len(expected) - len(found))
            found += page
            cursor = (page[-1]["server_timestamp"], page[-1]["id"])
    assert [message["id"] for message in found] == [message["id"] for message in expected]
    assert found[0].keys() >= {"message", "sender_id", "server_timestamp", "client_msg_id"}


@pytest.mark.parametrize(("asked", "given"), [(None, 1), (0, 1), (-5, 1), (30, 30), (10_000, 200)])
async def test_a_page_has_at_least_one_message_and_at_most_200(long_chat: Chat, asked: int | None, given: int) -> None:
    async with as_user(long_chat.connection, long_chat.guide):
        page = await rows(
            long_chat.connection, "select from public.get_messages_paginated(%s, %s)", long_chat.room, asked
        )
    assert len(page) == given


async def test_a_page_has_30_messages_by_default(long_chat: Chat) -> None:
    async with as_user(long_chat.connection, long_chat.guide):
        page = await rows(long_chat.connection, "select from public.get_messages_paginated(%s)", long_chat.room)
    assert len(page) == 30


# Missed messages -------------------------------------------------------------------------------


async def missed(chat: Chat, since: datetime | None, after: UUID | None = None, limit: int = 500) -> list[Row]:
    async with as_user(chat.connection, chat.guide):
        return await rows(
            chat.connection,
            "select * from public.get_missed_messages(%s, %s, %s, %s)",
            chat.guide,
            since,
            after,
            limit,
        )


@pytest.mark.parametrize("size", [7, 500, 1000])
async def test_pages_of_missed_messages_hold_every_message_once_and_oldest_first(long_chat: Chat, size: int) -> None:
    since = datetime.fromisoformat("2026-01-01T00:05:00Z")
    expected = [
        message["id"]
        for message in await rows(
            long_chat.connection,
            "select id from chat_messages where server_timestamp >= %s order by server_timestamp, id",
            since - timedelta(minutes=1),
        )
    ]
    found: list[UUID] = []
    page = await missed(long_chat, since, limit=size)
    while page:
        found += [message["id"] for message in page]
        page = await missed(long_chat, page[-1]["server_timestamp"], page[-1]["id"], size)
    assert found == expected


async def test_missed_messages_without_a_timestamp_begin_with_the_oldest(long_chat: Chat) -> None:
    everything = await rows(long_chat.connection, f"{OLDEST_FIRST} limit 500")
    assert [message["id"] for message in await missed(long_chat, None)] == [message["id"] for message in everything]


async def test_missed_messages_are_those_of_all_conversations_of_the_caller(chat: Chat) -> None:
    other, stranger = await person(chat.connection), await person(chat.connection)
    room = await insert(chat.connection, "public.chat_rooms", user1_id=other, user2_id=chat.guide)
    foreign = await insert(chat.connection, "public.chat_rooms", user1_id=other, user2_id=stranger)
    expected = [
        await chat.message(),
        await chat.message(room_id=room["id"], sender_id=other),
        await chat.message(sender_id=chat.guide),  # from another of one's own devices
    ]
    await chat.message(room_id=foreign["id"], sender_id=other)
    assert [message["id"] for message in await missed(chat, None)] == expected


async def test_missed_messages_of_many_conversations_read_little_more_than_their_page(chat: Chat) -> None:
    """An earlier query read a page of each of a thousand conversations, which took 0.5 s."""
    connection = chat.connection
    for table in ("chat_rooms", "chat_messages"):
        await connection.execute(f"alter table {table} disable trigger user".encode())
    await connection.execute(
        "insert into chat_rooms (user1_id, user2_id) select %s, %s from generate_series(1, 200)",
        (chat.tourist, chat.guide),
    )
    # Half of the conversations long before the others, two messages at each time.
    await connection.execute(
        """
        insert into chat_messages (room_id, sender_id, message, server_timestamp)
        select id, user1_id, 'Hello',
          timestamptz '2026-01-01' + mod(place, 2) * interval '1 day' + n / 2 * interval '1 s'
        from (select *, row_number() over () as place from chat_rooms) room, generate_series(1, 100) n
        """
    )
    for table in ("chat_rooms", "chat_messages"):
        await connection.execute(f"alter table {table} enable trigger user".encode())
    await connection.execute("analyze chat_rooms, chat_messages")
    read = (
        "select (seq_tup_read + idx_tup_fetch)::integer from pg_stat_xact_user_tables where relname = 'chat_messages'"
    )
    everything = [message["id"] for message in await rows(connection, OLDEST_FIRST)]
    found: list[UUID] = []
    cursor: tuple[datetime | None, UUID | None] = (None, None)
    while len(found) < 600:
        before = await value(connection, read)
        page = await missed(chat, *cursor, limit=50)
        assert await value(connection, read) - before < 3000  # of the 10,000 in a page of each
        found += [message["id"] for message in page]
        cursor = (page[-1]["server_timestamp"], page[-1]["id"])
    assert found == everything[:600]


# Changed messages ------------------------------------------------------------------------------


async def changed(chat: Chat, since: datetime | None, after: UUID | None = None, limit: int = 500) -> list[Row]:
    async with as_user(chat.connection, chat.guide):
        return await rows(
            chat.connection,
            "select * from public.get_changed_messages(%s, %s, %s, %s)",
            *(chat.guide, since, after, limit),
        )


async def older_than_the_overlap(chat: Chat) -> None:
    """Lets more time pass than the first page overlaps."""
    await chat.connection.execute("alter table chat_messages disable trigger user")
    await chat.connection.execute("update chat_messages set changed_at = changed_at - interval '2 minutes'")
    await chat.connection.execute("alter table chat_messages enable trigger user")


async def cursor_of_a_new_phone(chat: Chat) -> datetime:
    async with as_user(chat.connection, chat.guide):
        cursor = await value(chat.connection, "select public.sync_cursor()")
    assert isinstance(cursor, datetime)
    return cursor


CHANGES = {
    "insert": "insert into chat_messages (id, room_id, sender_id, message) values (%(new)s, %(room)s, %(tourist)s, '')",
    "edit": "update chat_messages set message = 'Edited' where id = %(old)s",
    "attachments": "update chat_messages set attachments = '[{}]' where id = %(old)s",
    "deletion by deleted_at": "update chat_messages set deleted_at = now() where id = %(old)s",
    "deletion by an old app": "delete from chat_messages where id = %(old)s",
    "delivery": "select mark_messages_delivered(%(guide)s, array[%(old)s::uuid])",
    "read": "select mark_messages_read(%(guide)s, %(room)s)",
    "read by an old app": "update chat_messages set is_read = true where id = %(old)s",
    "column of the app": "update chat_messages set reaction = 'heart' where id = %(old)s",
}


@pytest.mark.parametrize("change", CHANGES)
async def test_a_change_since_the_last_sync_is_found(chat: Chat, change: str) -> None:
    await chat.connection.execute("alter table chat_messages add column reaction text, add column extra json")
    old, other, new = await chat.message(), await chat.message(), uuid4()
    await older_than_the_overlap(chat)
    cursor = await cursor_of_a_new_phone(chat)
    assert await changed(chat, cursor) == []
    by_reader = change in ("delivery", "read", "read by an old app")
    if change == "read":  # it reads both
        await chat.connection.execute("delete from chat_messages where id = %s", (other,))
    names = {"old": old, "new": new, "room": chat.room, "tourist": chat.tourist, "guide": chat.guide}
    if change == "column of the app":
        await chat.connection.execute(CHANGES[change].encode(), names)
    else:
        async with as_user(chat.connection, chat.guide if by_reader else chat.tourist):
            await chat.connection.execute(CHANGES[change].encode(), names)
    [found] = await changed(chat, cursor)
    assert found == await chat.see_message(new if change == "insert" else old)
    assert found["changed_at"] > cursor


@pytest.mark.parametrize("function", ["get_missed_messages", "get_changed_messages", "get_messages_paginated"])
async def test_a_session_that_called_a_function_sees_the_columns_that_an_app_adds_later(
    chat: Chat, function: str
) -> None:
    await chat.message()
    arguments = f"'{chat.room}'" if function == "get_messages_paginated" else f"'{chat.guide}', null"
    query = f"select to_jsonb(found) as found from public.{function}({arguments}) found"
    async with as_user(chat.connection, chat.guide):
        await rows(chat.connection, query)
    await chat.connection.execute("alter table chat_messages add column reaction text")
    async with as_user(chat.connection, chat.guide):
        [found] = await rows(chat.connection, query)
    assert "reaction" in found["found"]


async def test_a_statement_that_changes_nothing_in_a_message_is_no_change_of_it(chat: Chat) -> None:
    message = await chat.message()
    before = await chat.see_message(message)
    async with as_user(chat.connection, chat.tourist):
        await chat.connection.execute("update chat_messages set message = message")
    assert (await chat.see_message(message))["changed_at"] == before["changed_at"]


async def test_a_client_cannot_write_the_time_of_a_change(chat: Chat) -> None:
    for statement in (
        "update chat_messages set changed_at = 'infinity'",
        f"insert into chat_messages (room_id, sender_id, message, changed_at)"
        f" values ('{chat.room}', '{chat.tourist}', 'Hi', 'infinity')",
    ):
        async with refused(chat.connection, "42501"), as_user(chat.connection, chat.tourist):
            await chat.connection.execute(statement.encode())
    message = await chat.message(changed_at=datetime.max)
    assert (await chat.see_message(message))["changed_at"] < datetime.now().astimezone() + timedelta(minutes=1)


@pytest.mark.parametrize("size", [7, 1000])
async def test_pages_of_changed_messages_hold_every_message_once_and_in_the_order_of_changes(
    long_chat: Chat, size: int
) -> None:
    expected = [
        message["id"]
        for message in await rows(long_chat.connection, "select id from chat_messages order by changed_at, id")
    ]
    found: list[UUID] = []
    page = await changed(long_chat, None, limit=size)
    while page and len(found) <= 300:
        found += [message["id"] for message in page]
        page = await changed(long_chat, page[-1]["changed_at"], page[-1]["id"], size)
    assert found == expected[: len(found)]
    assert len(found) > 300


async def test_a_change_that_commits_after_a_later_one_is_found_by_the_next_sync(database: Database) -> None:
    slow, connection = await database.connect(), await database.connect()
    chat = await start_chat(connection)
    early = await chat.message()
    await older_than_the_overlap(chat)
    async with slow.transaction():
        # A delivery mark does not lock the conversation, so it does not wait for the message below.
        await slow.execute("update chat_messages set delivered_at = now() where id = %s", (early,))
        later = await (await chat.conversation()).message()
        assert [message["id"] for message in await changed(chat, await chat.server_time())] == [later]
        cursor = (await chat.see_message(later))["changed_at"]
    assert {message["id"] for message in await changed(chat, cursor)} == {early, later}


# Marks -----------------------------------------------------------------------------------------


async def mark_delivered(chat: Chat, user: UUID, *messages: UUID, device_id: str | None = None) -> Any:
    async with as_user(chat.connection, user):
        return await value(
            chat.connection,
            "select public.mark_messages_delivered(%s, %s, %s)",
            user,
            list(messages),
            device_id,
        )


async def test_only_the_recipient_marks_a_message_as_delivered_and_only_once(chat: Chat) -> None:
    messages = [await chat.message(), await chat.message()]
    assert await mark_delivered(chat, chat.tourist, *messages) == 0
    assert await mark_delivered(chat, chat.guide, messages[0], messages[0], uuid4(), device_id="phone") == 1
    assert await mark_delivered(chat, chat.guide, *messages, device_id="tablet") == 1
    assert await mark_delivered(chat, chat.guide) == 0
    found = await rows(
        chat.connection,
        "select message_id, device_id, chat_messages.delivered_at = receipt.delivered_at as shown"
        " from message_receipts receipt join chat_messages on chat_messages.id = message_id"
        " order by server_timestamp",
    )
    assert found == [
        {"message_id": messages[0], "device_id": "phone", "shown": True},
        {"message_id": messages[1], "device_id": "tablet", "shown": True},
    ]


async def test_a_delivery_after_an_empty_receipt_is_recorded(chat: Chat) -> None:
    message = await chat.message()
    await insert(chat.connection, "public.message_receipts", message_id=message, user_id=chat.guide)
    assert await mark_delivered(chat, chat.guide, message, device_id="phone") == 1
    receipt = await row(chat.connection, "table message_receipts")
    assert (receipt["device_id"], receipt["delivered_at"] is None) == ("phone", False)


async def test_reading_a_conversation_marks_every_message_of_the_other_person(chat: Chat) -> None:
    delivered, unseen = await chat.message(), await chat.message()
    await mark_delivered(chat, chat.guide, delivered)
    answer = await chat.message(sender_id=chat.guide)
    assert await chat.read() == 2
    assert await chat.read() == 0
    unread = await rows(chat.connection, "select id from chat_messages where not is_read")
    assert unread == [{"id": answer}]
    receipts = await rows(chat.connection, "select message_id from message_receipts where read_at is not null")
    assert {receipt["message_id"] for receipt in receipts} == {delivered, unseen}


async def unread_ids(chat: Chat) -> set[UUID]:
    return {message["id"] for message in await rows(chat.connection, "select id from chat_messages where not is_read")}


async def test_reading_up_to_a_message_keeps_later_messages_unread_and_pushes_them(chat: Chat) -> None:
    await chat.device()
    older, newest, later = [await chat.message() for _ in range(3)]
    assert await chat.read(up_to_message_id=newest) == 2
    assert await unread_ids(chat) == {later}
    assert (await chat.see_room())["unread_count_user2"] == 1
    claimed = await claim(chat.connection)
    assert [job["message_id"] for job in claimed["jobs"]] == [str(later)]
    assert {job["message_id"]: job["reason"] for job in claimed["finished"]} == {
        str(older): "read",
        str(newest): "read",
    }
    assert await chat.read(up_to_message_id=newest) == 0
    assert await chat.read() == 1


async def test_reading_up_to_an_own_message_marks_what_was_received_before_it(chat: Chat) -> None:
    received, own, later = await chat.message(), await chat.message(sender_id=chat.guide), await chat.message()
    assert await chat.read(up_to_message_id=own) == 1
    assert await unread_ids(chat) == {own, later}
    assert (await chat.see_message(received))["is_read"]


async def test_reading_up_to_a_message_marks_it_and_all_messages_below_it_on_the_page(long_chat: Chat) -> None:
    """Three messages have the same timestamp."""
    page = [message["id"] for message in await rows(long_chat.connection, f"{NEWEST_FIRST} limit 7")]
    for place, newest in enumerate(page):
        async with long_chat.connection.transaction(force_rollback=True):
            assert await long_chat.read(up_to_message_id=newest) == 1003 - place
            assert await unread_ids(long_chat) == set(page[:place])


async def test_reading_up_to_an_unknown_or_foreign_message_is_rejected_and_marks_nothing(chat: Chat) -> None:
    await chat.message()
    other, stranger = await person(chat.connection), await person(chat.connection)
    foreign = []
    for people in ((other, chat.guide), (other, stranger)):
        room = await insert(chat.connection, "public.chat_rooms", user1_id=people[0], user2_id=people[1])
        foreign.append(await chat.message(room_id=room["id"], sender_id=other))
    for message in (uuid4(), *foreign):
        async with refused(chat.connection, "22023", "p_up_to_message_id is not a message of p_conversation_id"):
            await chat.read(up_to_message_id=message)
    assert await rows(chat.connection, "select from message_receipts") == []
    assert (await chat.see_room())["unread_count_user2"] == 1


async def test_the_device_of_a_read_is_stored_beside_the_device_of_the_delivery(chat: Chat) -> None:
    delivered, unseen = await chat.message(), await chat.message()
    await mark_delivered(chat, chat.guide, delivered, device_id="phone")
    assert await chat.read(device_id="tablet") == 2
    assert await chat.read(device_id="laptop") == 0
    devices = "select device_id, read_device_id from message_receipts where message_id = %s"
    expected = {delivered: ("phone", "tablet"), unseen: ("tablet", "tablet")}
    for message, (delivered_on, read_on) in expected.items():
        found = await row(chat.connection, devices, message)
        assert found == {"device_id": delivered_on, "read_device_id": read_on}


async def test_the_device_of_a_read_never_changes(chat: Chat) -> None:
    await chat.message()
    await chat.read(device_id="tablet")
    async with as_user(chat.connection, chat.guide):
        await chat.connection.execute("update message_receipts set read_device_id = 'laptop', read_at = now()")
    assert await value(chat.connection, "select read_device_id from message_receipts") == "tablet"


async def test_a_message_that_was_only_delivered_has_no_device_of_a_read(chat: Chat) -> None:
    message = await chat.message()
    async with as_user(chat.connection, chat.guide):
        await chat.connection.execute(
            "insert into message_receipts (message_id, user_id, delivered_at, read_device_id)"
            " values (%s, %s, now(), 'phone')",
            (message, chat.guide),
        )
    assert await value(chat.connection, "select read_device_id from message_receipts") is None


async def test_a_device_id_of_a_read_that_is_too_long_is_rejected(chat: Chat) -> None:
    await chat.message()
    async with refused(chat.connection, "22001", "device_id is too long: 801 bytes, at most 800"):
        await chat.read(device_id="x" * 801)


async def test_no_function_of_the_data_api_is_overloaded(chat: Chat) -> None:
    """PostgREST chooses between overloads by the names of the arguments, and rejects a call that fits several."""
    overloaded = (
        "select proname from pg_proc where pronamespace = 'public'::regnamespace group by 1 having count(*) > 1"
    )
    assert await rows(chat.connection, overloaded) == []


async def test_a_thousand_messages_are_marked_as_read_in_one_call(long_chat: Chat) -> None:
    async with long_chat.connection.transaction(force_rollback=True):
        assert await long_chat.read() == 1003
        assert (await long_chat.see_room())["unread_count_user2"] == 0
