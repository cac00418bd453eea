"""The migrations, applied by the real Supabase CLI on every PostgreSQL that they support."""

from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import pytest

from local.processes import temporary_folder
from local.supabase.postgres import Postgres, postgres
from local.supabase.project import create_database, migrate, supabase_cli
from tests.database.chat import (
    Chat,
    Connection,
    Row,
    as_user,
    claim,
    connected,
    insert,
    record,
    row,
    rows,
    start_chat,
    value,
    worker_report,
)
from tests.database.test_access import WRITABLE, check_function_rights, check_writable_columns

EXISTING_APP = Path(__file__).with_name("existing_app.sql")


NEWEST = 18  # the session's server

# For what is the Supabase CLI's work, not the server's: each call takes it two seconds.
only_newest = pytest.mark.parametrize("any_server", [NEWEST], indirect=True)


@pytest.fixture(scope="module", params=[15, 16, 17, NEWEST])
async def any_server(request: pytest.FixtureRequest, server: Postgres) -> AsyncIterator[Postgres]:
    if request.param == NEWEST:
        yield server
    else:
        with temporary_folder() as folder:
            async with postgres(folder, request.param) as older_server:
                yield older_server


async def advise(dsn: str) -> None:
    """Fail on any finding of Supabase's own linter."""
    await supabase_cli("db", "advisors", "--db-url", f"{dsn}?sslmode=disable", "--fail-on", "warn")


@pytest.fixture(scope="module")
async def empty(any_server: Postgres) -> str:
    """A migrated database that was empty before."""
    dsn = await create_database(any_server, "empty")
    await migrate(dsn)
    return dsn


@pytest.fixture(scope="module")
async def before_and_after(any_server: Postgres) -> tuple[str, str]:
    """The existing app's database as it was, and migrated."""
    before = await create_database(any_server, "before")
    async with connected(before) as connection:
        await connection.execute(EXISTING_APP.read_bytes())
    async with connected(any_server.dsn()) as connection:
        await connection.execute("create database after template before")
    await migrate(any_server.dsn("after"))
    return before, any_server.dsn("after")


# The names that apps rely on. Types as format_type writes them.
SPECIFICATION = {
    "chat_rooms": {
        "id": "uuid",
        "user1_id": "uuid not null",
        "user2_id": "uuid not null",
        "last_message": "text",
        "last_message_at": "timestamp with time zone",
        "created_at": "timestamp with time zone",
        "updated_at": "timestamp with time zone",
        "tourist_id": "uuid",
        "guide_id": "uuid",
        "unread_count_user1": "integer default 0",
        "unread_count_user2": "integer default 0",
        "archived_by_user1": "boolean default false",
        "archived_by_user2": "boolean default false",
    },
    "chat_messages": {
        "id": "uuid",
        "room_id": "uuid not null",
        "sender_id": "uuid not null",
        "message": "text not null",
        "message_type": "character varying(20) default 'text'::character varying",
        "is_read": "boolean default false",
        "read_at": "timestamp with time zone",
        "created_at": "timestamp with time zone",
        "updated_at": "timestamp with time zone",
        "client_msg_id": "text",
        "sender_role": "character varying(20) default 'tourist'::character varying",
        "attachments": "jsonb default '[]'::jsonb",
        "edited_at": "timestamp with time zone",
        "deleted_at": "timestamp with time zone",
        "delivered_at": "timestamp with time zone",
        "server_timestamp": "timestamp with time zone",
    },
    "message_receipts": {
        "id": "uuid",
        "message_id": "uuid not null",
        "user_id": "uuid not null",
        "device_id": "text",
        "delivered_at": "timestamp with time zone",
        "read_at": "timestamp with time zone",
        "created_at": "timestamp with time zone",
    },
    "user_devices": {
        "id": "uuid",
        "user_id": "uuid not null",
        "device_id": "text not null",
        "platform": "character varying(20) not null",
        "push_token": "text",
        "push_provider": "character varying(20) default 'expo'::character varying",
        "app_version": "text",
        "is_active": "boolean default true",
        "last_seen_at": "timestamp with time zone",
        "created_at": "timestamp with time zone",
        "updated_at": "timestamp with time zone",
    },
    "user_presence": {
        "user_id": "uuid",
        "is_online": "boolean default false",
        "last_seen_at": "timestamp with time zone",
        "current_conversation_id": "uuid",
        "updated_at": "timestamp with time zone",
    },
}
ADDED_COLUMNS = {
    "chat_messages": ["changed_at"],
    "chat_rooms": ["accepted_by_user1", "accepted_by_user2"],
    "message_receipts": ["read_device_id"],
    "user_devices": ["session_id", "push_environment", "locale"],
}
SPECIFIED_INDEXES = {
    "idx_messages_conversation_cursor": "btree (room_id, server_timestamp DESC, id)",
    "idx_messages_room_after_timestamp": "btree (room_id, server_timestamp)",
    "idx_messages_client_msg_id_unique": "btree (sender_id, client_msg_id) WHERE (client_msg_id IS NOT NULL)",
    "idx_devices_active": "btree (user_id, is_active) WHERE (is_active = true)",
}
SPECIFIED_CONSTRAINTS = {
    "unique_message_user_receipt": "UNIQUE (message_id, user_id)",
    "unique_user_device": "UNIQUE (user_id, device_id)",
}


async def check_contract(connection: Connection) -> None:
    """The tables, columns, indexes and constraints that apps rely on exist."""
    for table, columns in SPECIFICATION.items():
        found = await rows(
            connection,
            """
            select attname as name, format_type(atttypid, atttypmod) as type, attnotnull as required,
              pg_get_expr(adbin, adrelid) as default
            from pg_attribute left join pg_attrdef on adrelid = attrelid and adnum = attnum
            where attrelid = %s::regclass and attnum > 0 and not attisdropped
            """,
            f"public.{table}",
        )
        added = ADDED_COLUMNS.get(table, [])
        assert [column["name"] for column in found] == [*columns, *added]
        for column in found[: len(columns)]:
            wanted = columns[column["name"]]
            assert wanted.startswith(column["type"]), (table, column)
            assert "not null" not in wanted or column["required"], (table, column)
            if "default" in wanted:
                assert wanted.endswith(f"default {column['default']}"), (table, column)
    indexes = await rows(connection, "select indexname, indexdef from pg_indexes where schemaname = 'public'")
    definitions = {index["indexname"]: index["indexdef"] for index in indexes}
    for name, definition in SPECIFIED_INDEXES.items():
        assert definitions[name].endswith(definition)
    assert definitions["idx_messages_client_msg_id_unique"].startswith("CREATE UNIQUE")
    for name, definition in SPECIFIED_CONSTRAINTS.items():
        assert definition == await value(
            connection, "select pg_get_constraintdef(oid) from pg_constraint where conname = %s", name
        )
    published = await rows(
        connection, "select tablename from pg_publication_tables where pubname = 'supabase_realtime'"
    )
    assert {table["tablename"] for table in published} == {
        "chat_messages",
        "chat_rooms",
        "message_receipts",
        "user_presence",
    }


async def check_messages_are_pushed(chat: Chat) -> None:
    """Sends a message as a user of the app, claims it, reports it, and reads it."""
    await chat.device()
    async with as_user(chat.connection, chat.tourist):
        message = await chat.message("Hello")
    claimed = await claim(chat.connection)
    [job] = claimed["jobs"]
    assert (job["message_id"], job["body"]) == (str(message), "Hello")
    await record(chat.connection, claimed, worker_report(job))
    assert (await chat.job(message))["outcome"] == "accepted"
    unread = (await chat.see_room())["unread_count_user2"]
    assert await chat.read() == unread == job["badge"]
    async with as_user(chat.connection, chat.guide):
        page = await rows(chat.connection, "select id, is_read from public.get_messages_paginated(%s, 1)", chat.room)
    assert page == [{"id": message, "is_read": True}]


async def test_the_migrations_apply_to_an_empty_database(empty: str) -> None:
    async with connected(empty) as connection:
        await check_contract(connection)
        await check_messages_are_pushed(await start_chat(connection))


@only_newest
async def test_a_second_push_of_the_migrations_changes_nothing(empty: str) -> None:
    await migrate(empty)


@only_newest
async def test_the_supabase_advisors_find_nothing_in_an_empty_database(empty: str) -> None:
    await advise(empty)


@only_newest
async def test_the_supabase_advisors_find_nothing_in_an_existing_app(before_and_after: tuple[str, str]) -> None:
    await advise(before_and_after[1])


async def test_an_existing_app_gets_all_columns_and_constraints(before_and_after: tuple[str, str]) -> None:
    async with connected(before_and_after[1]) as connection:
        await check_contract(connection)


OLD_ROWS = {
    "auth.users": "select * from auth.users order by id",
    "public.users": "select id, email, full_name, role, avatar_url, created_at from public.users order by id",
    # Backfilled where they were null: last_message, last_message_at, message_type, is_read.
    "public.chat_rooms": "select id, user1_id, user2_id, created_at, updated_at from public.chat_rooms order by id",
    "public.chat_messages": "select id, room_id, sender_id, message, read_at, created_at, updated_at"
    " from public.chat_messages order by id",
}


@pytest.mark.parametrize("table", OLD_ROWS)
async def test_an_existing_app_loses_no_row(before_and_after: tuple[str, str], table: str) -> None:
    async with connected(before_and_after[0]) as before, connected(before_and_after[1]) as after:
        old, new = await rows(before, OLD_ROWS[table]), await rows(after, OLD_ROWS[table])
    assert len(old) in (200, 300, 6000)
    assert new == old


async def test_existing_messages_are_backfilled(before_and_after: tuple[str, str]) -> None:
    query = """
        select message.*, sender.role from public.chat_messages message
        join public.users sender on sender.id = sender_id order by message.id
    """
    async with connected(before_and_after[0]) as before, connected(before_and_after[1]) as after:
        for old, new in zip(await rows(before, query), await rows(after, query), strict=True):
            assert new["is_read"] == bool(old["is_read"])
            assert new["message_type"] == (old["message_type"] or "text")
            assert new["sender_role"] == ("guide" if old["role"] == "guide" else "tourist")
            if old["created_at"]:
                assert new["server_timestamp"] == old["created_at"]
            assert new["server_timestamp"] is not None
            assert new["changed_at"] == new["server_timestamp"]
            assert new["attachments"] == []
        assert await value(after, "select count(*) from push.jobs") == 0, "old messages are not pushed"


async def test_existing_rooms_are_backfilled(before_and_after: tuple[str, str]) -> None:
    async with connected(before_and_after[0]) as before, connected(before_and_after[1]) as after:
        roles = {one["id"]: one["role"] for one in await rows(before, "select id, role from public.users")}
        old_rooms = {one["id"]: one for one in await rows(before, "select * from public.chat_rooms")}
        rooms = await rows(after, "select * from public.chat_rooms")
        messages: dict[UUID, list[Row]] = {room["id"]: [] for room in rooms}
        newest_first = "select * from public.chat_messages order by server_timestamp desc, id"
        for message in await rows(after, newest_first):
            messages[message["room_id"]].append(message)
    guides = 0
    for room in rooms:
        people = [room["user1_id"], room["user2_id"]]
        if sorted(str(roles[one]) for one in people) == ["guide", "tourist"]:
            guides += 1
            assert (roles[room["tourist_id"]], roles[room["guide_id"]]) == ("tourist", "guide")
            assert {room["tourist_id"], room["guide_id"]} == set(people)
        else:
            assert (room["tourist_id"], room["guide_id"]) == (None, None)
        mine = messages[room["id"]]
        senders = {message["sender_id"] for message in mine}
        assert room["accepted_by_user1"] == (room["user1_id"] in senders)
        assert room["accepted_by_user2"] == (room["user2_id"] in senders)
        assert room["unread_count_user1"] == unread(mine, by=room["user2_id"])
        assert room["unread_count_user2"] == unread(mine, by=room["user1_id"])
        old = old_rooms[room["id"]]
        if old["last_message_at"]:
            assert room["last_message"] == old["last_message"]
            assert room["last_message_at"] == old["last_message_at"]
        elif mine:
            assert room["last_message"] == (mine[0]["message"] or "📷 Photo")
            assert room["last_message_at"] == mine[0]["server_timestamp"]
    assert 200 < guides < 300


def unread(messages: list[Row], by: UUID) -> int:
    return sum(message["sender_id"] == by and not message["is_read"] for message in messages)


async def test_an_existing_app_works_after_the_migrations(before_and_after: tuple[str, str]) -> None:
    async with connected(before_and_after[1]) as connection, connection.transaction(force_rollback=True):
        # Two rooms of the same two people: the older one is their conversation.
        twice = await row(
            connection,
            """
            select (array_agg(id order by created_at))[1] as id, user1_id, user2_id from public.chat_rooms
            where created_at is not null group by user1_id, user2_id having count(*) > 1
            order by user1_id limit 1
            """,
        )
        chat = Chat(connection, twice["user1_id"], twice["user2_id"], twice["id"])
        for pair in ((chat.tourist, chat.guide), (chat.guide, chat.tourist)):
            async with as_user(connection, chat.tourist):
                assert chat.room == await value(connection, "select public.get_or_create_conversation(%s, %s)", *pair)
        # The badge counts both rooms; the check wants one.
        async with as_user(connection, chat.guide):
            others = await rows(
                connection,
                "select public.mark_messages_read(%s, id) from public.chat_rooms where id <> %s",
                chat.guide,
                chat.room,
            )
        assert others
        await check_messages_are_pushed(chat)


OLDER_THAN_THE_BOUNDS = {
    "public.users": ("display_name", "role"),
    "public.chat_rooms": ("last_message", "archived_by_user1"),
    "public.chat_messages": ("message", "is_read"),
    "public.message_receipts": ("device_id", "read_at"),
}


@pytest.mark.parametrize("table", OLDER_THAN_THE_BOUNDS)
async def test_a_row_that_is_older_than_a_limit_can_be_changed_in_all_other_columns(
    before_and_after: tuple[str, str], table: str
) -> None:
    too_long, other = OLDER_THAN_THE_BOUNDS[table]
    async with connected(before_and_after[1]) as connection, connection.transaction(force_rollback=True):
        if table == "public.message_receipts":
            await connection.execute(
                "insert into message_receipts (message_id, user_id) select id, sender_id from chat_messages limit 1"
            )
        await connection.execute(f"alter table {table} disable trigger user".encode())
        await connection.execute(
            f"update {table} set {too_long} = repeat('x', 100000) where ctid = (select min(ctid) from {table})".encode()
        )
        await connection.execute(f"alter table {table} enable trigger user".encode())
        changed = await connection.execute(
            f"update {table} set {other} = {other} where {too_long} = repeat('x', 100000)".encode()
        )
        assert changed.rowcount == 1


async def test_existing_default_privileges_open_nothing(before_and_after: tuple[str, str]) -> None:
    """An older project grants ALL on each new object to every API role."""
    async with connected(before_and_after[1]) as connection:
        await check_function_rights(connection)
        for table in WRITABLE.keys() - {"users"}:
            await check_writable_columns(connection, table)


async def test_existing_policies_do_not_open_what_ours_close(before_and_after: tuple[str, str]) -> None:
    """The old app let a participant update any message of the room; now only the sender edits it."""
    async with connected(before_and_after[1]) as connection, connection.transaction(force_rollback=True):
        message = await row(
            connection,
            """
            select message.id, case sender_id when user1_id then user2_id else user1_id end as recipient
            from public.chat_messages message join public.chat_rooms room on room.id = room_id limit 1
            """,
        )
        async with as_user(connection, message["recipient"]):
            forged = await connection.execute(
                "update public.chat_messages set message = 'forged' where id = %s", (message["id"],)
            )
        assert forged.rowcount == 0


async def test_existing_profiles_keep_their_columns_and_rules(before_and_after: tuple[str, str]) -> None:
    async with connected(before_and_after[1]) as connection, connection.transaction(force_rollback=True):
        policies = await rows(connection, "select policyname from pg_policies where tablename = 'users'")
        assert {policy["policyname"] for policy in policies} == {
            "Signed-in people see profiles",
            "People change their own profile",
        }
        account = await insert(connection, "auth.users", email="new@example.com")
        async with as_user(connection, account["id"]):
            assert await value(connection, "select count(*) from public.users") == 200
