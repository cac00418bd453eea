"""Events for apps: what the triggers write to realtime.messages, and who may join which channel."""

from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from local.supabase.postgres import SQL, SUPERUSER, Postgres
from local.supabase.project import create_database, migrate
from tests.database.chat import Chat, Database, Row, as_user, connected, insert, person, row, rows, start_chat, value

TEXT = "meet me at noon"


async def events(chat: Chat, user: UUID, event: str = "message") -> list[Row]:
    """The payloads of a person's events, from the oldest."""
    found = await rows(
        chat.connection,
        "select payload from realtime.messages where topic = %s and event = %s and private order by inserted_at",
        f"user:{user}",
        event,
    )
    return [one["payload"] for one in found]


async def forget(chat: Chat) -> None:
    """Removes the events so far."""
    await chat.connection.execute("delete from realtime.messages")


async def sent_text(chat: Chat) -> str:
    """All that Realtime keeps."""
    return str(
        await value(chat.connection, "select coalesce(string_agg(payload::text, ' '), '') from realtime.messages")
    )


async def test_a_message_is_sent_to_both_people_of_its_conversation_and_to_nobody_else(chat: Chat) -> None:
    await chat.conversation()
    await forget(chat)
    message = await chat.message(TEXT)
    for user in (chat.tourist, chat.guide):
        [event] = await events(chat, user)
        assert event["operation"] == "INSERT"
        stored = await value(
            chat.connection, "select to_jsonb(chat_messages) from chat_messages where id = %s", message
        )
        assert event["record"] == stored
    assert {one["topic"] for one in await rows(chat.connection, "select topic from realtime.messages")} == {
        f"user:{chat.tourist}",
        f"user:{chat.guide}",
    }


async def test_an_edit_is_sent_with_the_new_text_and_the_older_events_lose_theirs(chat: Chat) -> None:
    message = await chat.message(TEXT)
    for text in ("first edit", "second edit"):
        async with as_user(chat.connection, chat.tourist):
            await chat.connection.execute("update chat_messages set message = %s where id = %s", (text, message))
    sent, first, second = await events(chat, chat.guide)
    short = {"id": str(message), "room_id": str(chat.room)}
    assert (sent["operation"], sent["record"]) == ("INSERT", short)
    assert (first["operation"], first["record"]) == ("UPDATE", short)
    assert second["record"]["message"] == "second edit"
    assert TEXT not in await sent_text(chat)


DELETIONS = {
    "by deleted_at": (True, "update chat_messages set deleted_at = now() where id = %(message)s"),
    "by an old app": (True, "delete from chat_messages where id = %(message)s"),
    "of the row": (False, "delete from chat_messages where id = %(message)s"),
    "of the conversation": (False, "delete from chat_rooms where id = %(room)s"),
    "of the sender": (False, "delete from auth.users where id = %(tourist)s"),
}


@pytest.mark.parametrize("deletion", DELETIONS)
async def test_after_a_deletion_realtime_keeps_no_text_of_the_message(chat: Chat, deletion: str) -> None:
    message = await chat.message(TEXT, attachments='[{"name": "noon.jpg"}]')
    await chat.message("another")
    names = {"message": message, "room": chat.room, "tourist": chat.tourist}
    by_sender, statement = DELETIONS[deletion]
    if by_sender:
        async with as_user(chat.connection, chat.tourist):
            await chat.connection.execute(statement.encode(), names)
    else:
        await chat.connection.execute(statement.encode(), names)
    assert "noon" not in await sent_text(chat)
    *_, newest = await events(chat, chat.guide)
    if deletion == "of the row":
        assert newest == {"operation": "DELETE", "record": {"id": str(message), "room_id": str(chat.room)}}
        assert "another" in await sent_text(chat)
    elif by_sender:
        assert (newest["operation"], newest["record"]["message"]) == ("UPDATE", "")
        assert newest["record"]["deleted_at"]
    else:
        *_, newest = await events(chat, chat.guide, "conversation")
        assert newest == {"operation": "DELETE", "record": {"id": str(chat.room)}}


@pytest.mark.parametrize("change", ["message_type = 'note'", "edited_at = null"])
async def test_a_change_by_a_backend_hides_no_event_from_a_later_deletion(chat: Chat, change: str) -> None:
    message = await chat.message("first")
    async with as_user(chat.connection, chat.tourist):
        await chat.connection.execute("update chat_messages set message = %s where id = %s", (TEXT, message))
    await chat.connection.execute(f"update chat_messages set {change}".encode())
    await chat.connection.execute("update chat_messages set deleted_at = now()")
    assert TEXT not in await sent_text(chat)


async def test_marks_of_a_statement_are_one_event_of_the_conversation_for_both_people(chat: Chat) -> None:
    messages = {str(await chat.message()) for _ in range(3)}
    await forget(chat)
    async with as_user(chat.connection, chat.guide):
        await chat.connection.execute(
            "select mark_messages_delivered(%s, array(select id from chat_messages))", (chat.guide,)
        )
    await chat.read()
    newest = await row(chat.connection, "select * from chat_messages order by changed_at desc limit 1")
    for user in (chat.tourist, chat.guide):
        delivered, read = await events(chat, user, "receipts")
        assert set(delivered["message_ids"]) == set(read["message_ids"]) == messages
        assert (delivered["is_read"], delivered["read_at"], read["is_read"]) == (False, None, True)
        assert delivered["delivered_at"] == read["delivered_at"]
        assert read["room_id"] == str(chat.room)
        async with as_user(chat.connection, user):
            changed_at = await value(chat.connection, "select %s::timestamptz", read["changed_at"])
        assert changed_at == newest["changed_at"]
        assert await events(chat, user) == []


async def test_a_statement_that_changes_nothing_sends_no_event(chat: Chat) -> None:
    await chat.message()
    await chat.read()
    await forget(chat)
    await chat.read()
    for statement in ("message = message", "is_read = true", "updated_at = now()"):
        await chat.connection.execute(f"update chat_messages set {statement}".encode())
    await chat.connection.execute("update chat_rooms set archived_by_user1 = archived_by_user1")
    assert await sent_text(chat) == ""


async def test_a_conversation_is_sent_when_it_is_created_accepted_archived_and_deleted(chat: Chat) -> None:
    async def received() -> list[tuple[Any, ...]]:
        found = []
        for event in await events(chat, chat.guide, "conversation"):
            record = event["record"]
            assert "last_message" not in record
            accepted = [record.get("accepted_by_user1"), record.get("accepted_by_user2")]
            found.append((event["operation"], *accepted, record.get("archived_by_user2")))
        assert await events(chat, chat.tourist, "conversation") == await events(chat, chat.guide, "conversation")
        await forget(chat)
        return found

    assert await received() == [("INSERT", False, False, False)]
    await chat.message()
    assert await received() == [("UPDATE", True, False, False)]
    await chat.message(sender_id=chat.guide)
    assert await received() == [("UPDATE", True, True, False)]
    await chat.message(TEXT)
    await chat.read()
    assert await received() == []
    await chat.connection.execute("update chat_rooms set archived_by_user2 = true")
    assert await received() == [("UPDATE", True, True, True)]
    await chat.message("a new message brings it back")
    assert await received() == [("UPDATE", True, True, False)]
    await chat.connection.execute("delete from chat_rooms")
    assert await received() == [("DELETE", None, None, None)]


async def test_a_former_participant_receives_nothing(chat: Chat) -> None:
    message, successor = await chat.message(), await person(chat.connection)
    await forget(chat)
    await chat.connection.execute("update chat_rooms set user2_id = %s", (successor,))
    await chat.message(TEXT)
    await chat.connection.execute(
        "update chat_messages set message = 'edited', is_read = true where id = %s", (message,)
    )
    await chat.connection.execute("delete from chat_messages where id = %s", (message,))
    await chat.connection.execute("update chat_rooms set archived_by_user1 = true")
    for event in ("message", "receipts", "conversation"):
        assert await events(chat, chat.guide, event) == []
        assert await events(chat, successor, event) == await events(chat, chat.tourist, event) != []


async def test_a_message_that_is_too_large_for_an_event_is_sent_without_its_content(chat: Chat) -> None:
    await chat.connection.execute("update private.chat_settings set message_bytes_limit = 1000000")
    message = await chat.message("x" * 100_000)
    [event] = await events(chat, chat.guide)
    assert event["record"].keys() == {"id", "room_id", "changed_at"}
    assert event["record"]["id"] == str(message)


async def test_history_that_a_backend_imports_sends_no_event(chat: Chat) -> None:
    now = await chat.server_time()
    await chat.message(created_at=now.replace(year=2000))
    assert await events(chat, chat.guide) == []


async def test_many_messages_of_one_statement_are_each_sent_once(chat: Chat) -> None:
    other = await chat.conversation()
    await chat.connection.execute(
        "insert into chat_messages (room_id, sender_id, message) select room, %s, n::text"
        " from unnest(%s::uuid[]) room, generate_series(1, 30) n",
        (chat.guide, [chat.room, other.room]),
    )
    assert len(await events(chat, chat.guide)) == 60
    assert len(await events(chat, chat.tourist)) == len(await events(chat, other.tourist)) == 30


FAULTS = {
    "no partition for today": "alter table realtime.messages add check (inserted_at < '2000-01-01') not valid",
    "no table": "drop table realtime.messages cascade",
    "no schema": "drop schema realtime cascade",
    "another column": "alter table realtime.messages rename topic to channel",
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_of_realtime_never_aborts_a_statement_of_the_chat(database: Database, fault: str) -> None:
    chat = await start_chat(await database.connect())
    await (await database.connect(SUPERUSER)).execute(FAULTS[fault].encode())
    warnings: list[str] = []
    chat.connection.add_notice_handler(lambda notice: warnings.append(notice.message_primary or ""))
    message = await chat.message(TEXT)
    await chat.connection.execute("update chat_messages set message = 'edited'")
    assert await chat.read() == 1
    await chat.connection.execute("delete from chat_messages where id = %s", (message,))
    await chat.connection.execute("delete from chat_rooms where id = %s", (chat.room,))
    assert len(warnings) >= 5
    assert all(warning.startswith("Chat Push: no event of") for warning in warnings)
    assert TEXT not in str(warnings)


# Who may join a channel -------------------------------------------------------------------------

# Topic, person: may read, may write.
RIGHTS = {
    ("user:{guide}", "guide"): (True, False),
    ("user:{guide}", "tourist"): (False, False),
    ("room:{room}", "guide"): (True, True),
    ("room:{room}", "tourist"): (True, True),
    ("room:{room}", "stranger"): (False, False),
    ("room:{other}", "tourist"): (False, False),
    ("user:", "guide"): (False, False),
    ("room:", "guide"): (False, False),
    ("another", "guide"): (False, False),
}


async def rights(chat: Chat, topic: str, user: UUID, extension: str) -> tuple[bool, bool]:
    """Whether a person may read and write, as Realtime finds out at a join: by a message that it rolls back."""
    connection = chat.connection
    probe = "insert into realtime.messages (topic, extension) values (%s, %s) returning id"
    async with connection.transaction(force_rollback=True):
        await connection.execute("select set_config('realtime.topic', %s, true)", (topic,))
        await connection.execute("select set_config('role', 'service_role', true)")
        probed = await value(connection, probe, topic, extension)
        await connection.execute("select set_config('role', 'none', true)")
        async with as_user(connection, user):
            may_read = bool(await rows(connection, "select from realtime.messages where id = %s", probed))
        try:
            async with connection.transaction(), as_user(connection, user):
                await connection.execute(probe.split(" returning")[0].encode(), (topic, extension))
            return may_read, True
        except psycopg.errors.InsufficientPrivilege:
            return may_read, False


@pytest.mark.parametrize("is_open", [False, True], ids=["no other policy", "an app's policy allows everything"])
async def test_nobody_can_let_realtime_store_what_is_sent_on_the_channels_of_the_chat(
    chat: Chat, is_open: bool
) -> None:
    if is_open:
        await chat.connection.execute("create policy everything on realtime.messages to public using (true)")
    for topic in (f"room:{chat.room}", f"user:{chat.guide}"):
        assert (await rights(chat, topic, chat.guide, "persistence"))[1] is False


@pytest.mark.parametrize("is_open", [False, True], ids=["no other policy", "an app's policy allows everything"])
@pytest.mark.parametrize("extension", ["broadcast", "presence"])
@pytest.mark.parametrize(("topic", "who"), RIGHTS)
async def test_a_person_receives_own_events_and_uses_the_channels_of_own_conversations_only(
    chat: Chat, topic: str, who: str, extension: str, is_open: bool
) -> None:
    other = await chat.conversation()
    people = {"guide": chat.guide, "tourist": chat.tourist, "stranger": await person(chat.connection)}
    if is_open:
        await chat.connection.execute("create policy everything on realtime.messages to public using (true)")
    name = topic.format(**people, room=chat.room, other=other.room)
    expected = RIGHTS[topic, who]
    if is_open and "{" not in topic:
        expected = (True, True)
    assert await rights(chat, name, people[who], extension) == expected


async def test_an_apps_own_channels_of_the_same_form_are_left_to_its_policies(chat: Chat) -> None:
    await chat.connection.execute("create policy everything on realtime.messages to public using (true)")
    for topic in (f"room:{uuid4()}", f"room:{chat.room}:extra", f"user:{chat.guide}:extra"):
        assert await rights(chat, topic, chat.tourist, "broadcast") == (True, True)


async def test_anonymous_clients_join_no_channel_of_the_chat(chat: Chat) -> None:
    await chat.connection.execute("create policy everything on realtime.messages to public using (true)")
    for topic, seen in ((f"user:{chat.guide}", False), (f"room:{chat.room}", False), ("lobby", True)):
        async with chat.connection.transaction(force_rollback=True):
            await insert(chat.connection, "realtime.messages", topic=topic, extension="broadcast")
            await chat.connection.execute("select set_config('realtime.topic', %s, true)", (topic,))
            await chat.connection.execute("set local role anon")
            assert bool(await rows(chat.connection, "select from realtime.messages where topic = %s", topic)) == seen


# With and without Realtime ----------------------------------------------------------------------


async def test_a_database_without_realtime_has_a_chat_without_events_until_they_are_enabled(server: Postgres) -> None:
    dsn = await create_database(server, "without_realtime")
    async with connected(server.dsn("without_realtime", SUPERUSER)) as admin:
        await admin.execute("drop publication supabase_realtime_messages_publication; drop schema realtime cascade")
    await migrate(dsn)
    async with connected(dsn) as connection:
        report = "select subject from push.migration_report where what like 'no Realtime%%'"
        assert "enable_events" in await value(connection, report)
        assert not await value(connection, "select private.enable_events()")
        chat = await start_chat(connection)
        await chat.message()
        await server.execute_file(SQL / "realtime.sql", "without_realtime")
        for _ in range(2):
            assert await value(connection, "select private.enable_events()")
        await chat.message()
        assert len(await events(chat, chat.guide)) == 1
