"""Limits of what a person may write: the rate of messages, and the size of each value."""

import json
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.database.chat import Chat, acting_as, as_user, insert, person, refused, rows, value

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
    """Sends so many messages in one statement, which must be rejected with 429. Returns the seconds to wait."""
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
    assert await value(chat.connection, "select count(*) from public.chat_messages") == 36
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


async def test_after_the_largest_statement_the_sender_waits_as_long_as_for_as_many_single_messages(chat: Chat) -> None:
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


async def test_a_person_opens_at_most_20_conversations_in_one_request(chat: Chat) -> None:
    people = [await person(chat.connection) for _ in range(21)]
    opened = "insert into chat_rooms (user1_id, user2_id) select %s, id from unnest(%s::uuid[]) id"
    async with as_user(chat.connection, chat.tourist):
        reason = "too many conversations in one request: at most 20"
        async with refused(chat.connection, "22023", reason):
            await chat.connection.execute(opened, (chat.tourist, people))
        await chat.connection.execute(opened, (chat.tourist, people[:20]))
        await chat.connection.execute(opened, (chat.tourist, people[20:]))


async def test_a_backend_that_imports_conversations_takes_one_lock_of_the_shared_memory(chat: Chat) -> None:
    people = [await person(chat.connection) for _ in range(21)]
    async with chat.connection.transaction():
        await chat.connection.execute(
            "insert into chat_rooms (user1_id, user2_id) select %s, id from unnest(%s::uuid[]) id", (chat.guide, people)
        )
        locks = "select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()"
        assert await value(chat.connection, locks) == 1


async def test_two_statements_of_one_transaction_are_limited_as_two_statements(chat: Chat) -> None:
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


# Lengths ----------------------------------------------------------------------------------------

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
    "attachments with a text": (Jsonb([{"type": "image"}, "odd"]), "attachments[1] must be an object"),
    "attachments with a list": (Jsonb([[{"url": URL}]]), "attachments[0] must be an object"),
    "attachments with null": (Jsonb([None]), "attachments[0] must be an object"),
    "attachments of an unknown type": (
        Jsonb([{"type": "program"}]),
        "attachments[0].type must be one of image, photo, video, audio, voice, location, file",
    ),
    "attachments with a type that is no text": (Jsonb([{"type": ["image"]}]), "attachments[0].type must be one of"),
    **{
        f"attachments with {url!r}": (Jsonb([{"url": URL}, {"url": url}]), "attachments[1].url must be an https URL")
        for url in (
            "http://a.b/c",
            "javascript:alert(1)",
            "//a.b/c",
            "photo.jpg",
            "",
            " https://a.b/c",
            "https://a.b/\nc",
            5,
        )
    },
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
        ("attachments", Jsonb([{}, {"type": None, "url": None}, {"type": "location", "lat": 1.5, "more": [[]]}])),
        ("attachments", Jsonb([{"type": "voice", "url": "HTTPS://a.b/Фото.jpg?a=b#c"}])),
    ],
)
async def test_a_message_within_the_limits_is_stored(chat: Chat, column: str, content: Any) -> None:
    columns = {"message": "Hello", "room_id": chat.room, "sender_id": chat.tourist, column: content}
    insertion = f"insert into chat_messages ({', '.join(columns)}) values ({', '.join(['%s'] * len(columns))})"
    async with as_user(chat.connection, chat.tourist):
        await chat.connection.execute(insertion.encode(), list(columns.values()))
        if column != "client_msg_id":
            await chat.connection.execute(f"update chat_messages set {column} = %s".encode(), (content,))


async def test_the_limits_of_a_message_are_settings(chat: Chat) -> None:
    changed = "message_bytes_limit = 20000, attachment_limit = 1, attachments_bytes_limit = 50"
    await chat.connection.execute(f"update private.chat_settings set {changed}".encode())
    await chat.message("x" * 20000, attachments='[{"type": "file"}]')
    for columns in ({"text": "x" * 20001}, {"attachments": "[{}, {}]"}, {"attachments": f'[{{"a": "{"x" * 50}"}}]'}):
        async with refused(chat.connection, "22023" if columns == {"attachments": "[{}, {}]"} else "22001"):
            await chat.message(**columns)


async def test_the_types_of_attachments_are_a_setting(chat: Chat) -> None:
    await chat.connection.execute("update private.chat_settings set attachment_types = '{sticker}'")
    await chat.message(attachments='[{"type": "sticker"}]')
    async with refused(chat.connection, "22023", "attachments[0].type must be one of sticker"):
        await chat.message(attachments='[{"type": "image"}]')


async def test_attachments_have_any_form_if_the_setting_names_no_types(chat: Chat) -> None:
    await chat.connection.execute("update private.chat_settings set attachment_types = null")
    await chat.message(attachments='["odd", 1, null, [[]], {"type": {"deep": []}}, {"url": "photo.jpg"}]')


async def test_an_edit_of_the_text_keeps_attachments_of_an_older_form(chat: Chat) -> None:
    await chat.connection.execute("update private.chat_settings set attachment_types = null")
    message = await chat.message(attachments='["odd"]')
    await chat.connection.execute("update private.chat_settings set attachment_types = default")
    async with as_user(chat.connection, chat.tourist):
        await chat.connection.execute("update chat_messages set message = 'Edited'")
    stored = await chat.see_message(message)
    assert (stored["message"], stored["attachments"]) == ("Edited", ["odd"])


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


# Every column ------------------------------------------------------------------------------------

WRITABLE = """
    select relname as table, attname as column, atttypid::regtype::text as type, operation
    from pg_attribute join pg_class on pg_class.oid = attrelid, unnest('{insert,update}'::text[]) operation
    where relnamespace = 'public'::regnamespace and relkind = 'r' and attnum > 0 and not attisdropped
      and attlen = -1 and has_column_privilege('authenticated', attrelid, attnum, operation)
"""
# Postgres converts a value to varchar(20) before any trigger can name the column.
SHORT_TYPE = "value too long for type character varying(20)"


async def error_of(chat: Chat, user: UUID, statement: str, *values: Any) -> psycopg.Error | None:
    """Runs a statement as this user. Returns its error, or None."""
    try:
        async with as_user(chat.connection, user):
            await chat.connection.execute(statement.encode(), values)
    except psycopg.Error as error:
        return error
    return None


async def test_a_value_of_a_megabyte_is_stored_in_no_column_that_a_person_may_write(chat: Chat) -> None:
    """It is rejected by the name of its column, or the server replaces it."""
    connection, guide = chat.connection, chat.guide
    newcomer = (await insert(connection, "auth.users", email="new@example.com"))["id"]
    first, second = [await chat.message(is_read=True) for _ in range(2)]
    await insert(connection, "public.message_receipts", message_id=first, user_id=guide)
    await chat.message(sender_id=guide)
    await chat.device()
    new_rows: dict[str, dict[str, Any]] = {
        "users": {"id": newcomer},
        "chat_rooms": {"user1_id": guide, "user2_id": await person(connection)},
        "chat_messages": {"room_id": chat.room, "sender_id": guide, "message": "Hello"},
        "message_receipts": {"message_id": second, "user_id": guide},
        "user_devices": {"user_id": guide, "device_id": "another", "platform": "ios"},
    }
    writable = await rows(connection, WRITABLE)
    assert {one["table"] for one in writable} == new_rows.keys()
    for one in writable:
        table, column, where = one["table"], one["column"], " ".join(map(str, one.values()))
        content = Jsonb(["x" * 1_200_000]) if one["type"] == "jsonb" else "x" * 1_200_000
        new_row = {**new_rows[table], column: content}
        insertion = f"insert into {table} ({', '.join(new_row)}) values ({', '.join(['%s'] * len(new_row))})"
        async with connection.transaction(force_rollback=True):
            if one["operation"] == "insert":
                user = newcomer if table == "users" else guide
                error = await error_of(chat, user, insertion, *new_row.values())
            else:
                error = await error_of(chat, guide, f"update {table} set {column} = %s", content)
            longest = await value(connection, f"select coalesce(max(octet_length({column}::text)), 0) from {table}")
        assert longest < 1000, where
        if error:
            assert error.sqlstate in ("22001", "22023", "23514"), f"{where}: {error}"
            assert column in str(error) or str(error) == SHORT_TYPE, f"{where}: {error}"
