"""What the server decides whatever a client writes: clocks, roles, counters, receipts, the owner of a token."""

import json
from datetime import datetime
from secrets import token_hex
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.database.chat import (
    LONG_AGO,
    Chat,
    acting_as,
    as_user,
    insert,
    person,
    refused,
    row,
    rows,
    start_chat,
    value,
)

# Messages --------------------------------------------------------------------------------------


async def test_order_of_messages_is_by_the_servers_clock(chat: Chat) -> None:
    before = await chat.server_time()
    first = await chat.see_message(await chat.message(server_timestamp=datetime.max))
    second = await chat.see_message(await chat.message(server_timestamp=LONG_AGO))
    assert before < first["server_timestamp"] < second["server_timestamp"]


@pytest.mark.parametrize("backwards", [False, True])
async def test_sender_role_is_the_role_of_the_sender(chat: Chat, backwards: bool) -> None:
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


async def test_time_of_deletion_is_the_servers_and_stays(chat: Chat) -> None:
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


async def counters(chat: Chat) -> tuple[int, int]:
    room = await chat.see_room()
    return room["unread_count_user1"], room["unread_count_user2"]


async def test_unread_counters_of_both_through_a_conversation(chat: Chat) -> None:
    first, second = await chat.message("first"), await chat.message("second")
    answer = await chat.message("answer", sender_id=chat.guide)
    assert await counters(chat) == (1, 2)

    await chat.message("already read", is_read=True)
    await chat.message("already deleted", deleted_at=LONG_AGO)
    assert await counters(chat) == (1, 2)

    await chat.connection.execute("update chat_messages set deleted_at = now() where id = %s", (first,))
    assert await counters(chat) == (1, 1)

    await chat.connection.execute("update chat_messages set message = 'edited' where id = %s", (second,))
    assert await counters(chat) == (1, 1)

    assert await chat.read() == 3  # the deleted ones too: they show as deleted
    assert await counters(chat) == (1, 0)
    assert await chat.read() == 0

    await chat.connection.execute("delete from chat_messages where id = %s", (answer,))
    assert await counters(chat) == (0, 0)


async def test_counters_of_many_messages_in_one_statement(chat: Chat) -> None:
    other = await start_chat(chat.connection)
    await chat.connection.execute(
        "insert into chat_messages (room_id, sender_id, message)"
        " select room, sender, 'Hi' from (values (%s::uuid, %s::uuid), (%s, %s)) rooms (room, sender),"
        " generate_series(1, 10)",
        (chat.room, chat.tourist, other.room, other.guide),
    )
    assert (await counters(chat), await counters(other)) == ((0, 10), (10, 0))
    await chat.connection.execute("update chat_messages set is_read = true")
    assert (await counters(chat), await counters(other)) == ((0, 0), (0, 0))
    await chat.connection.execute("update chat_messages set is_read = null")
    await chat.connection.execute("delete from chat_messages where message = 'Hi'")
    assert (await counters(chat), await counters(other)) == ((0, 0), (0, 0))


async def last(chat: Chat) -> tuple[str | None, datetime | None]:
    room = await chat.see_room()
    return room["last_message"], room["last_message_at"]


async def test_last_message_follows_edits_and_deletions(chat: Chat) -> None:
    assert await last(chat) == (None, None)
    first, second = await chat.message("first"), await chat.message("second")
    times = [(await chat.see_message(message))["server_timestamp"] for message in (first, second)]
    assert await last(chat) == ("second", times[1])
    await chat.connection.execute("update chat_messages set message = 'edited' where id = %s", (second,))
    assert await last(chat) == ("edited", times[1])
    await chat.connection.execute("update chat_messages set deleted_at = now() where id = %s", (second,))
    assert await last(chat) == ("first", times[0])
    await chat.connection.execute("update chat_messages set deleted_at = null where id = %s", (second,))
    assert await last(chat) == ("edited", times[1])
    await chat.connection.execute("delete from chat_messages")
    assert await last(chat) == (None, None)


async def test_conversation_can_be_erased_with_its_messages(chat: Chat) -> None:
    await chat.message()
    await chat.connection.execute("delete from chat_rooms where id = %s", (chat.room,))
    assert await rows(chat.connection, "select from chat_messages") == []


@pytest.mark.parametrize("swapped", [False, True])
async def test_two_people_have_one_conversation(chat: Chat, swapped: bool) -> None:
    people = [chat.tourist, chat.guide]
    user1, user2 = reversed(people) if swapped else people
    async with refused(chat.connection, "23505"):
        await insert(chat.connection, "public.chat_rooms", user1_id=user1, user2_id=user2)


async def test_a_conversation_with_oneself_is_rejected(chat: Chat) -> None:
    async with refused(chat.connection, "23514"):
        await insert(chat.connection, "public.chat_rooms", user1_id=chat.guide, user2_id=chat.guide)


@pytest.mark.parametrize("roles", [("tourist", "guide"), ("guide", "tourist")])
async def test_roles_of_a_room_come_from_the_profiles(chat: Chat, roles: tuple[str, str]) -> None:
    first, second = [await person(chat.connection, role) for role in roles]
    room = await insert(chat.connection, "public.chat_rooms", user1_id=first, user2_id=second)
    found = {room["tourist_id"]: "tourist", room["guide_id"]: "guide"}
    assert found == dict(zip((first, second), roles, strict=True))


@pytest.mark.parametrize("role", ["tourist", "guide", None])
async def test_room_of_two_of_the_same_role_names_none(chat: Chat, role: str | None) -> None:
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
async def test_each_person_archives_only_for_themselves(chat: Chat, who: str, column: str, allowed: bool) -> None:
    archive = f"update chat_rooms set {column} = true"
    if allowed:
        async with as_user(chat.connection, getattr(chat, who)):
            await chat.connection.execute(archive)
        assert (await chat.see_room())[column] is True
    else:
        async with refused(chat.connection, "42501"), as_user(chat.connection, getattr(chat, who)):
            await chat.connection.execute(archive)


# The rate limit --------------------------------------------------------------------------------


async def send_many(chat: Chat, sender: UUID, number: int) -> None:
    await chat.connection.execute(
        "insert into chat_messages (room_id, sender_id, message) select %s, %s, 'Hi' from generate_series(1, %s)",
        (chat.room, sender, number),
    )


async def test_the_31st_message_in_10_seconds_is_rejected_with_429(chat: Chat) -> None:
    async with as_user(chat.connection, chat.tourist):
        await send_many(chat, chat.tourist, 30)
    async with refused(chat.connection, "PT429"), as_user(chat.connection, chat.tourist):
        await send_many(chat, chat.tourist, 1)
    async with as_user(chat.connection, chat.guide):
        await send_many(chat, chat.guide, 30)
    await chat.pass_time(10)
    async with as_user(chat.connection, chat.tourist):
        await send_many(chat, chat.tourist, 1)


async def retry_after(chat: Chat, number: int) -> int:
    """Sends so many in one statement, which must be refused with 429; returns when to try again."""
    with pytest.raises(psycopg.Error) as raised:
        async with as_user(chat.connection, chat.tourist):
            await send_many(chat, chat.tourist, number)
    assert raised.value.sqlstate == "PT429"
    seconds = json.loads(str(raised.value.diag.message_detail))["retry_after_seconds"]
    assert isinstance(seconds, int)
    return seconds


async def test_an_outbox_of_36_passes_in_one_statement_after_a_silence(chat: Chat) -> None:
    async with as_user(chat.connection, chat.tourist):
        await send_many(chat, chat.tourist, 36)
    assert await value(chat.connection, "select count(*) from push.jobs") == 36
    assert 9 <= await retry_after(chat, 1) <= 10


async def test_a_rejected_message_names_the_seconds_to_wait_and_passes_then(chat: Chat) -> None:
    async with as_user(chat.connection, chat.tourist):
        await send_many(chat, chat.tourist, 20)
    await chat.pass_time(6)
    async with as_user(chat.connection, chat.tourist):
        await send_many(chat, chat.tourist, 10)
    seconds = await retry_after(chat, 1)
    assert 3 <= seconds <= 4
    await chat.pass_time(seconds)
    async with as_user(chat.connection, chat.tourist):
        await send_many(chat, chat.tourist, 1)


@pytest.mark.parametrize("before", [1, 29, 30])
async def test_a_rejected_outbox_names_the_seconds_to_wait_and_passes_then(chat: Chat, before: int) -> None:
    async with as_user(chat.connection, chat.tourist):
        await send_many(chat, chat.tourist, before)
    seconds = await retry_after(chat, 36)
    await chat.pass_time(seconds)
    if before == 30:
        # Refused for its first message: the window was full. There is room now, but not the silence.
        seconds = await retry_after(chat, 36)
        await chat.pass_time(seconds)
    assert 20 < seconds <= 34
    async with as_user(chat.connection, chat.tourist):
        await send_many(chat, chat.tourist, 36)


async def test_after_the_largest_statement_the_next_waits_until_single_messages_would_be_as_many(chat: Chat) -> None:
    async with as_user(chat.connection, chat.tourist):
        await send_many(chat, chat.tourist, 100)
    await chat.pass_time(10)
    assert 23 <= await retry_after(chat, 31) <= 24
    async with as_user(chat.connection, chat.tourist):
        await send_many(chat, chat.tourist, 30)


async def test_a_statement_that_can_never_pass_names_the_maximum_and_stores_nothing(chat: Chat) -> None:
    reason = "too many messages in one request: at most 100"
    async with refused(chat.connection, "22023", reason), as_user(chat.connection, chat.tourist):
        await send_many(chat, chat.tourist, 101)
    assert await value(chat.connection, "select count(*) from push.jobs") == 0
    await chat.connection.execute("update private.chat_settings set message_batch_limit = 2, message_limit = 3")
    async with refused(chat.connection, "22023", "at most 3"), as_user(chat.connection, chat.tourist):
        await send_many(chat, chat.tourist, 4)


async def test_two_statements_of_one_transaction_are_not_one(chat: Chat) -> None:
    async with as_user(chat.connection, chat.tourist):
        await send_many(chat, chat.tourist, 30)
        async with refused(chat.connection, "PT429"):
            await send_many(chat, chat.tourist, 1)


async def test_the_message_rate_limit_is_a_setting(chat: Chat) -> None:
    await chat.connection.execute("update private.chat_settings set message_limit = 2, message_limit_window = '1 hour'")
    async with as_user(chat.connection, chat.tourist):
        await send_many(chat, chat.tourist, 2)
    await chat.pass_time(60)
    async with refused(chat.connection, "PT429"), as_user(chat.connection, chat.tourist):
        await send_many(chat, chat.tourist, 1)


async def test_a_backend_has_no_message_rate_limit(chat: Chat) -> None:
    async with acting_as(chat.connection, "service_role"):
        await send_many(chat, chat.tourist, 100)


# Bounds ----------------------------------------------------------------------------------------

URL = "https://example.com/" + "x" * 1000


def state_of(reason: str) -> str:
    """Both are HTTP 400."""
    return "22001" if "is too long" in reason else "22023"


TOO_LONG = {
    "message": ("x" * 16385, "message is too long: 16385 bytes, at most 16384"),
    "message in bytes, not characters": ("📱" * 4097, "message is too long: 16388 bytes, at most 16384"),
    "client_msg_id": ("x" * 201, "client_msg_id is too long: 201 bytes, at most 200"),
    "attachments": (Jsonb([{"url": URL}] * 33), "attachments is too long"),
    "attachments in number": (Jsonb([{}] * 31), "attachments are too many: 31, at most 30"),
    "attachments as an object": (Jsonb({"url": URL}), "attachments must be an array, not of the type object"),
    "attachments as a text": (Jsonb("photo"), "attachments must be an array, not of the type string"),
    "attachments as null": (Jsonb(None), "attachments must be an array, not of the type null"),
}


@pytest.mark.parametrize("as_whom", ["tourist", "backend"])
@pytest.mark.parametrize("case", TOO_LONG)
async def test_a_message_over_a_limit_is_rejected_by_the_name_of_its_field(chat: Chat, case: str, as_whom: str) -> None:
    content, reason = TOO_LONG[case]
    columns = {"message": "Hello", "room_id": chat.room, "sender_id": chat.tourist, case.split()[0]: content}
    role, user = ("authenticated", chat.tourist) if as_whom == "tourist" else ("service_role", None)
    insertion = f"insert into chat_messages ({', '.join(columns)}) values ({', '.join(['%s'] * len(columns))})"
    async with refused(chat.connection, state_of(reason), reason), acting_as(chat.connection, role, user):
        await chat.connection.execute(insertion.encode(), list(columns.values()))


@pytest.mark.parametrize("case", [case for case in TOO_LONG if "client_msg_id" not in case])
async def test_an_edit_has_the_limits_of_a_new_message(chat: Chat, case: str) -> None:
    await chat.message()
    content, reason = TOO_LONG[case]
    async with refused(chat.connection, state_of(reason), reason), as_user(chat.connection, chat.tourist):
        await chat.connection.execute(f"update chat_messages set {case.split()[0]} = %s".encode(), (content,))


@pytest.mark.parametrize(
    ("column", "content"),
    [
        ("message", "x" * 16384),
        ("message", "📱" * 4096),
        ("client_msg_id", "x" * 200),
        ("attachments", Jsonb([{"url": URL}] * 30)),
        ("attachments", Jsonb(["odd", 1, None, [[]], {"type": {"deep": []}}])),
    ],
)
async def test_a_message_within_the_limits_is_stored_in_any_form(chat: Chat, column: str, content: Any) -> None:
    columns = {"message": "Hello", "room_id": chat.room, "sender_id": chat.tourist, column: content}
    insertion = f"insert into chat_messages ({', '.join(columns)}) values ({', '.join(['%s'] * len(columns))})"
    async with as_user(chat.connection, chat.tourist):
        await chat.connection.execute(insertion.encode(), list(columns.values()))
        if column != "client_msg_id":
            await chat.connection.execute(f"update chat_messages set {column} = %s".encode(), (content,))


async def test_the_limits_of_a_message_are_settings(chat: Chat) -> None:
    changed = "message_bytes_limit = 20000, attachment_limit = 1, attachments_bytes_limit = 50"
    await chat.connection.execute(f"update private.chat_settings set {changed}".encode())
    await chat.message("x" * 20000, attachments='["one"]')
    for columns in ({"text": "x" * 20001}, {"attachments": "[1, 2]"}, {"attachments": f'["{"x" * 50}"]'}):
        async with refused(chat.connection, "22023" if columns == {"attachments": "[1, 2]"} else "22001"):
            await chat.message(**columns)


@pytest.mark.parametrize("column", ["display_name", "avatar_url", "locale"])
async def test_a_profile_over_its_limit_is_rejected_by_the_name_of_its_field(chat: Chat, column: str) -> None:
    update = f"update users set {column} = repeat('é', %s) where id = %s".encode()
    async with as_user(chat.connection, chat.guide):
        await chat.connection.execute(update, (1024, chat.guide))
    reason = f"{column} is too long: 2050 bytes, at most 2048"
    async with refused(chat.connection, state_of(reason), reason), as_user(chat.connection, chat.guide):
        await chat.connection.execute(update, (1025, chat.guide))
    account = await insert(chat.connection, "auth.users", email="new@example.com")
    insertion = f"insert into users (id, {column}) values (%s, repeat('é', 1025))".encode()
    async with refused(chat.connection, state_of(reason), reason), as_user(chat.connection, account["id"]):
        await chat.connection.execute(insertion, (account["id"],))


async def test_a_receipt_with_a_too_long_device_id_is_rejected(chat: Chat) -> None:
    message = await chat.message()
    await upsert_receipt(chat, message, device_id="x" * 800)
    later = await chat.message()
    async with refused(chat.connection, "22001", "device_id is too long: 801 bytes, at most 800"):
        await upsert_receipt(chat, later, device_id="x" * 801)


async def test_last_message_is_the_beginning_of_the_message(chat: Chat) -> None:
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
async def test_the_job_of_a_message_is_for_the_other_person(chat: Chat, sender: str, recipient: str) -> None:
    message = await chat.message(sender_id=getattr(chat, sender))
    job = await chat.job(message)
    assert (job["recipient_id"], job["state"], job["attempts"]) == (getattr(chat, recipient), "pending", 0)


@pytest.mark.parametrize("columns", [{"is_read": True}, {"deleted_at": LONG_AGO}], ids=str)
async def test_import_of_old_messages_makes_no_job(chat: Chat, columns: dict[str, Any]) -> None:
    await chat.message(**columns)
    assert await rows(chat.connection, "table push.jobs") == []


async def test_sender_who_is_not_in_the_room_makes_no_job(chat: Chat) -> None:
    """Such as a system message, stored by a backend."""
    await chat.message(sender_id=await person(chat.connection))
    assert await rows(chat.connection, "table push.jobs") == []


# Receipts --------------------------------------------------------------------------------------


async def receipt(chat: Chat, message: UUID) -> dict[str, Any]:
    return await row(chat.connection, "select * from message_receipts where message_id = %s", message)


async def upsert_receipt(chat: Chat, message: UUID, **columns: Any) -> None:
    """As supabase.from('message_receipts').upsert(…) does."""
    names = ["message_id", "user_id", *columns]
    async with as_user(chat.connection, chat.guide):
        await chat.connection.execute(
            f"insert into message_receipts ({', '.join(names)}) values ({', '.join(['%s'] * len(names))})"
            " on conflict (message_id, user_id) do update set "
            + ", ".join(f"{name} = excluded.{name}" for name in names),
            [message, chat.guide, *columns.values()],
        )


async def test_the_first_receipt_counts_by_the_servers_clock(chat: Chat) -> None:
    message = await chat.message()
    before = await chat.server_time()
    await upsert_receipt(chat, message, device_id="phone", delivered_at=LONG_AGO)
    first = await receipt(chat, message)
    assert before < first["delivered_at"] < await chat.server_time()
    assert (first["device_id"], first["read_at"]) == ("phone", None)

    await upsert_receipt(chat, message, device_id="tablet", delivered_at=datetime.max)
    assert await receipt(chat, message) == first

    await upsert_receipt(chat, message, read_at=LONG_AGO)
    read = await receipt(chat, message)
    assert read["read_at"] > first["delivered_at"]
    assert read["delivered_at"] == first["delivered_at"]

    await upsert_receipt(chat, message, read_at=None, delivered_at=None)
    assert await receipt(chat, message) == read


async def test_a_receipt_marks_its_message(chat: Chat) -> None:
    message = await chat.message()
    await upsert_receipt(chat, message, delivered_at=LONG_AGO)
    delivered = await chat.see_message(message)
    assert delivered["delivered_at"] == (await receipt(chat, message))["delivered_at"]
    assert (delivered["is_read"], await counters(chat)) == (False, (0, 1))

    await upsert_receipt(chat, message, read_at=LONG_AGO)
    read = await chat.see_message(message)
    assert (read["is_read"], read["read_at"]) == (True, (await receipt(chat, message))["read_at"])
    assert read["delivered_at"] == delivered["delivered_at"]
    assert await counters(chat) == (0, 0)


async def test_a_read_message_has_been_delivered(chat: Chat) -> None:
    message = await chat.message()
    await upsert_receipt(chat, message, read_at=LONG_AGO)
    read = await receipt(chat, message)
    assert read["delivered_at"] == read["read_at"]


# Devices and presence --------------------------------------------------------------------------


async def register(chat: Chat, user: UUID, token: str, device_id: str = "phone", **columns: Any) -> None:
    """As supabase.from('user_devices').upsert({…}, {onConflict: 'user_id,device_id'}) does."""
    columns = {
        "user_id": user,
        "device_id": device_id,
        "platform": "ios",
        "push_token": token,
        "is_active": True,
        **columns,
    }
    async with as_user(chat.connection, user):
        await chat.connection.execute(
            f"insert into user_devices ({', '.join(columns)}) values ({', '.join(['%s'] * len(columns))})"
            " on conflict (user_id, device_id) do update set "
            + ", ".join(f"{name} = excluded.{name}" for name in columns),
            list(columns.values()),
        )


async def devices(chat: Chat) -> set[tuple[UUID, str, str | None, bool]]:
    return {
        (device["user_id"], device["device_id"], device["push_token"], device["is_active"])
        for device in await rows(chat.connection, "table user_devices")
    }


ONE, TWO = "ExponentPushToken[one]", "ExponentPushToken[two]"


async def test_registering_again_keeps_the_device(chat: Chat) -> None:
    await register(chat, chat.guide, ONE)
    first = await row(chat.connection, "table user_devices")
    await register(chat, chat.guide, ONE, app_version="2.0")
    again = await row(chat.connection, "table user_devices")
    assert (again["id"], again["push_token"], again["is_active"]) == (first["id"], ONE, True)
    assert (again["app_version"], again["created_at"]) == ("2.0", first["created_at"])
    assert again["last_seen_at"] > first["last_seen_at"]


async def test_registering_activates_a_deactivated_device(chat: Chat) -> None:
    await register(chat, chat.guide, ONE)
    await chat.connection.execute("update user_devices set is_active = false")
    await register(chat, chat.guide, TWO)
    assert await devices(chat) == {(chat.guide, "phone", TWO, True)}


async def test_token_moves_to_last_login(chat: Chat) -> None:
    await register(chat, chat.guide, ONE)
    former = await row(chat.connection, "table user_devices")
    await register(chat, chat.tourist, ONE)
    assert await devices(chat) == {(chat.guide, "phone", None, False), (chat.tourist, "phone", ONE, True)}
    assert former["last_seen_at"] == await value(
        chat.connection, "select last_seen_at from user_devices where id = %s", former["id"]
    )


async def test_token_moves_by_an_update_too(chat: Chat) -> None:
    await register(chat, chat.guide, ONE)
    await register(chat, chat.tourist, TWO)
    async with as_user(chat.connection, chat.tourist):
        await chat.connection.execute("update user_devices set push_token = %s", (ONE,))
    assert await devices(chat) == {(chat.guide, "phone", None, False), (chat.tourist, "phone", ONE, True)}


async def test_one_token_under_two_device_ids_belongs_to_the_later_one(chat: Chat) -> None:
    await register(chat, chat.guide, ONE, device_id="before reinstall")
    await register(chat, chat.guide, ONE, device_id="after reinstall")
    assert await devices(chat) == {
        (chat.guide, "before reinstall", None, False),
        (chat.guide, "after reinstall", ONE, True),
    }


async def test_late_logout_keeps_transferred_token(chat: Chat) -> None:
    await register(chat, chat.guide, ONE)
    await register(chat, chat.tourist, ONE)
    async with as_user(chat.connection, chat.guide):
        await chat.connection.execute("delete from user_devices where device_id = 'phone'")
    assert await devices(chat) == {(chat.tourist, "phone", ONE, True)}


@pytest.mark.parametrize(
    ("token", "valid"),
    [
        ("ExponentPushToken[xxxxxxxxxxxxxxxxxxxxxx]", True),
        ("ExpoPushToken[a]", True),
        ("7a4bf7f9-2513-4c3b-95f3-7ae0efae025f", True),
        ("ExponentPushToken[]", False),
        ("ExponentPushToken[a] ", False),
        ("ExponentPushToken[a b]", False),
        ("exponentpushtoken[a]", False),
        ("fcm:APA91b", False),
        ("", False),
        (f"ExponentPushToken[{'x' * 81}]", False),
    ],
)
async def test_a_malformed_expo_token_is_rejected(chat: Chat, token: str, valid: bool) -> None:
    if valid:
        await register(chat, chat.guide, token)
    else:
        async with refused(chat.connection, "23514"):
            await register(chat, chat.guide, token)


async def test_a_registration_that_stores_nothing_takes_no_token(chat: Chat) -> None:
    """As POST /user_devices?on_conflict=user_id,device_id with Prefer: resolution=ignore-duplicates does."""
    await register(chat, chat.guide, ONE)
    await register(chat, chat.tourist, TWO)
    before = await devices(chat)
    async with as_user(chat.connection, chat.tourist):
        ignored = await chat.connection.execute(
            "insert into user_devices (user_id, device_id, platform, push_token) values (%s, 'phone', 'ios', %s)"
            " on conflict (user_id, device_id) do nothing",
            (chat.tourist, ONE),
        )
    assert ignored.rowcount == 0
    assert await devices(chat) == before


async def test_a_backends_import_that_skips_known_rows_takes_no_token(chat: Chat) -> None:
    await register(chat, chat.guide, ONE)
    known = await chat.device(user_id=chat.tourist, push_token=TWO)
    before = await devices(chat)
    async with acting_as(chat.connection, "service_role"):
        await chat.connection.execute(
            "insert into user_devices (id, user_id, device_id, platform, push_token)"
            " values (%s, %s, 'another', 'ios', %s) on conflict do nothing",
            (known["id"], chat.tourist, ONE),
        )
    assert await devices(chat) == before


@pytest.mark.parametrize("spellings", [("Expo", "Exponent"), ("Exponent", "Expo")])
async def test_both_spellings_of_an_expo_token_are_one_token(chat: Chat, spellings: tuple[str, str]) -> None:
    first, second = [f"{name}PushToken[one]" for name in spellings]
    await register(chat, chat.guide, first)
    await register(chat, chat.tourist, second)
    assert await devices(chat) == {(chat.guide, "phone", None, False), (chat.tourist, "phone", second, True)}
    await register(chat, chat.tourist, first)
    assert (chat.tourist, "phone", first, True) in await devices(chat)
    await chat.connection.execute("alter table user_devices disable trigger user")
    async with refused(chat.connection, "23505"):
        await chat.connection.execute("update user_devices set push_token = %s where push_token is null", (second,))


@pytest.mark.parametrize("provider", ["fcm", "apns"])
@pytest.mark.parametrize("token", [ONE, "ExpoPushToken[one]", "exponentpushtoken[one]"])
async def test_an_expo_token_under_another_provider_is_rejected_and_names_push_provider(
    chat: Chat, provider: str, token: str
) -> None:
    with pytest.raises(
        psycopg.Error, match=f"push_provider is {provider}, but push_token is a token of Expo"
    ) as refusal:
        await register(chat, chat.guide, token, push_provider=provider)
    assert (refusal.value.sqlstate, "[one]" in str(refusal.value)) == ("22023", False)
    await register(chat, chat.guide, ONE)
    async with refused(chat.connection, "22023"), as_user(chat.connection, chat.guide):
        await chat.connection.execute("update user_devices set push_provider = %s", (provider,))


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"device_id": "📱" * 201}, "device_id has 201 characters; it must have 1 to 200"),
        ({"device_id": ""}, "device_id has 0 characters; it must have 1 to 200"),
        ({"app_version": "x" * 201}, "app_version is too long: 201 bytes, at most 200"),
        ({"token": "x" * 2049, "push_provider": "fcm"}, "push_token is too long: 2049 bytes, at most 2048"),
        ({"token": "x" * 3000000, "push_provider": "apns"}, "push_token is too long"),
    ],
)
async def test_a_device_over_a_limit_is_rejected_by_the_name_of_its_field(
    chat: Chat, columns: dict[str, str], reason: str
) -> None:
    async with refused(chat.connection, state_of(reason), reason):
        await register(chat, chat.guide, **{"token": ONE, **columns})


async def test_a_native_token_of_2048_bytes_is_stored(chat: Chat) -> None:
    # Random, because an index compresses what repeats.
    token = token_hex(1024)
    await register(chat, chat.guide, token, push_provider="fcm")
    assert await devices(chat) == {(chat.guide, "phone", token, True)}


@pytest.mark.parametrize("is_online", [True, False])
async def test_presence_counts_from_the_servers_clock(chat: Chat, is_online: bool) -> None:
    before = await chat.server_time()
    for _ in range(2):
        async with as_user(chat.connection, chat.guide):
            await chat.connection.execute(
                "insert into user_presence (user_id, is_online, last_seen_at) values (%s, %s, 'infinity')"
                " on conflict (user_id) do update"
                " set is_online = excluded.is_online, last_seen_at = excluded.last_seen_at",
                (chat.guide, is_online),
            )
        presence = await row(chat.connection, "table user_presence")
        assert before < presence["updated_at"] == presence["last_seen_at"] < await chat.server_time()
        before = presence["updated_at"]
