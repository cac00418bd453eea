"""Messages that are deleted by deleted_at: what remains of them, and who can read it."""

from uuid import UUID

import pytest

from tests.database.chat import (
    LONG_AGO,
    Chat,
    acting_as,
    as_user,
    claim,
    prune,
    refused,
    row,
    rows,
    value,
)

SECRET = "the secret text"
URL = "https://example.com/the-secret-photo.jpg"
ATTACHMENTS = f'[{{"type": "image", "url": "{URL}"}}]'
COPIES = "select message_id, message, attachments from private.deleted_messages"
DELETIONS = {
    "an update by the sender": ("tourist", "update chat_messages set deleted_at = now()"),
    "an update that also names a text": (
        "tourist",
        f"update chat_messages set deleted_at = now(), message = '{SECRET}!'",
    ),
    "a delete by the sender": ("tourist", "delete from chat_messages"),
    "an update by a backend": ("service_role", "update chat_messages set deleted_at = now()"),
    "an update by the database's owner": ("postgres", "update chat_messages set deleted_at = now()"),
}


async def delete(chat: Chat, how: str = "an update by the sender") -> None:
    who, statement = DELETIONS[how]
    role, user = ("authenticated", chat.tourist) if who == "tourist" else (who, None)
    async with acting_as(chat.connection, role, user):
        await chat.connection.execute(statement.encode())


async def keep_copies(chat: Chat, age: str = "30 days") -> None:
    await chat.connection.execute("update private.chat_settings set deleted_message_kept_for = %s", (age,))


async def everything(chat: Chat) -> str:
    """All rows of all tables of the database, but for PostgreSQL's own."""
    tables = await rows(
        chat.connection,
        "select oid::regclass::text as name from pg_class"
        " where relkind in ('r', 'p') and not relispartition"
        " and relnamespace <> all ('{pg_catalog,information_schema}'::regnamespace[])",
    )
    return str([await rows(chat.connection, f"select one::text from {table['name']} one") for table in tables])


@pytest.mark.parametrize("how", DELETIONS)
async def test_no_table_holds_the_content_of_a_deleted_message(chat: Chat, how: str) -> None:
    await chat.device()
    message = await chat.message(SECRET, attachments=ATTACHMENTS)
    await claim(chat.connection)
    assert SECRET in await everything(chat)
    await delete(chat, how)
    stored = await chat.see_message(message)
    assert (stored["message"], stored["attachments"], stored["edited_at"]) == ("", [], None)
    assert stored["deleted_at"] is not None
    after = await everything(chat)
    assert not [text for text in (SECRET, URL) if text in after]
    assert (await chat.see_room())["last_message"] is None


async def test_no_function_returns_the_content_of_a_deleted_message(chat: Chat) -> None:
    await chat.message(SECRET, attachments=ATTACHMENTS)
    await delete(chat)
    for person in (chat.tourist, chat.guide):
        async with as_user(chat.connection, person):
            for call in (f"get_messages_paginated('{chat.room}')", f"get_missed_messages('{person}', null)"):
                found = await row(chat.connection, f"select message, attachments from public.{call}")
                assert found == {"message": "", "attachments": []}


async def test_a_deleted_message_that_a_backend_imports_is_stored_empty(chat: Chat) -> None:
    await keep_copies(chat)
    message = await chat.message(SECRET, attachments=ATTACHMENTS, deleted_at=LONG_AGO)
    stored = await chat.see_message(message)
    assert (stored["message"], stored["attachments"], stored["deleted_at"]) == ("", [], LONG_AGO)
    assert await rows(chat.connection, COPIES) == []


# What cannot be changed --------------------------------------------------------------------------

CHANGES = {
    "deleted_at = null": "deleted_at",
    "deleted_at = null, message = 'Again'": "deleted_at",
    "message = 'Again'": "message",
    "attachments = '[{}]'": "attachments",
}


@pytest.mark.parametrize("who", ["tourist", "backend"])
@pytest.mark.parametrize("change", CHANGES)
async def test_a_deleted_message_is_not_restored_or_edited(chat: Chat, change: str, who: str) -> None:
    message = await chat.message(SECRET)
    await delete(chat)
    before = await chat.see_message(message)
    role, user = ("authenticated", chat.tourist) if who == "tourist" else ("service_role", None)
    reason = f"{CHANGES[change]} cannot be changed: the message was deleted"
    async with refused(chat.connection, "42501", reason), acting_as(chat.connection, role, user):
        await chat.connection.execute(f"update chat_messages set {change}".encode())
    assert await chat.see_message(message) == before


@pytest.mark.parametrize(
    "change",
    [
        "message = '', attachments = '[]', deleted_at = deleted_at",
        "deleted_at = now()",
        "deleted_at = now(), message = 'This message was deleted'",
        "updated_at = now(), created_at = now(), edited_at = now(), is_read = false",
    ],
)
async def test_an_update_that_deletes_again_or_changes_nothing_is_accepted(chat: Chat, change: str) -> None:
    """An app repeats a request whose answer was lost, and an old app names columns of the server."""
    message = await chat.message(SECRET)
    await delete(chat)
    before = await chat.see_message(message)
    async with as_user(chat.connection, chat.tourist):
        changed = await chat.connection.execute(f"update chat_messages set {change}".encode())
        await chat.connection.execute("delete from chat_messages")
    assert changed.rowcount == 1
    after = await chat.see_message(message)
    assert {**after, "updated_at": None} == {**before, "updated_at": None}


async def test_the_recipient_marks_a_deleted_message_as_read(chat: Chat) -> None:
    message = await chat.message(SECRET)
    await delete(chat)
    async with as_user(chat.connection, chat.guide):
        await chat.connection.execute("update chat_messages set is_read = true")
    stored = await chat.see_message(message)
    assert (stored["is_read"], stored["message"]) == (True, "")


# Copies for operators ----------------------------------------------------------------------------


@pytest.mark.parametrize("how", DELETIONS)
async def test_a_setting_keeps_a_copy_that_no_role_of_an_api_reads(chat: Chat, how: str) -> None:
    await keep_copies(chat)
    message = await chat.message(SECRET, attachments=ATTACHMENTS)
    await delete(chat, how)
    await delete(chat, how)
    photo = [{"type": "image", "url": URL}]
    assert await row(chat.connection, COPIES) == {"message_id": message, "message": SECRET, "attachments": photo}
    for role in ("anon", "authenticated", "service_role"):
        user = None if role == "service_role" else chat.tourist
        async with refused(chat.connection, "42501"), acting_as(chat.connection, role, user):
            await chat.connection.execute("table private.deleted_messages")


async def test_a_deletion_that_fails_keeps_no_copy(chat: Chat) -> None:
    await keep_copies(chat)
    await chat.message(SECRET)
    async with refused(chat.connection, "22012"), as_user(chat.connection, chat.tourist):
        await chat.connection.execute(b"update chat_messages set deleted_at = now()")
        await chat.connection.execute(b"select 1 / 0")
    assert await rows(chat.connection, COPIES) == []


async def copies_of(chat: Chat, *ages: str) -> list[UUID]:
    """Deletes one message for each age, and makes its copy that old."""
    messages = []
    for age in ages:
        messages.append(await chat.message(SECRET))
        await chat.connection.execute("update chat_messages set deleted_at = now() where id = %s", (messages[-1],))
        await chat.connection.execute(
            "update private.deleted_messages set deleted_at = deleted_at - %s::interval where message_id = %s",
            (age, messages[-1]),
        )
    return messages


@pytest.mark.parametrize(("kept_for", "left"), [("30 days", 1), ("1 year", 3), ("0", 0)])
async def test_a_copy_is_deleted_after_its_time(chat: Chat, kept_for: str, left: int) -> None:
    await keep_copies(chat)
    await copies_of(chat, "29 days", "31 days", "32 days")
    await keep_copies(chat, kept_for)
    await prune(chat.connection)
    assert len(await rows(chat.connection, COPIES)) == left


async def test_a_call_of_prune_push_deletes_a_bounded_number_of_copies_and_says_that_more_wait(chat: Chat) -> None:
    await keep_copies(chat)
    await copies_of(chat, "31 days", "31 days", "31 days")
    assert [(await prune(chat.connection, limit=2))["more"] for _ in range(2)] == [True, False]
    assert await rows(chat.connection, COPIES) == []


async def test_a_copy_is_deleted_with_the_row_of_its_message(chat: Chat) -> None:
    await keep_copies(chat)
    await copies_of(chat, "0")
    await chat.connection.execute("delete from auth.users where id = %s", (chat.tourist,))
    assert await value(chat.connection, "select count(*) from private.deleted_messages") == 0
