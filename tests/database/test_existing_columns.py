"""Apps that have some of the chat tables and columns, with rows: they are migrated or rejected as a whole.

By plain execution of the files, each in a transaction of its own, as the Supabase CLI applies them.
"""

import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import zip_longest
from pathlib import Path
from typing import Any

import psycopg
import pytest

from local.processes import ChildError
from local.supabase.postgres import Postgres
from local.supabase.project import create_database, migrate
from tests.database.chat import (
    Chat,
    Connection,
    Row,
    as_user,
    claim,
    claim_one,
    connected,
    insert,
    record,
    refused,
    row,
    rows,
    value,
    worker_report,
)
from tests.database.test_migrations import (
    ADDED_COLUMNS,
    EXISTING_APP,
    SPECIFICATION,
    SPECIFIED_CONSTRAINTS,
    SPECIFIED_INDEXES,
    check_messages_are_pushed,
)

MIGRATIONS = sorted((Path(__file__).parents[2] / "supabase" / "migrations").glob("*.sql"))
COLUMNS = {table: [*columns, *ADDED_COLUMNS.get(table, [])] for table, columns in SPECIFICATION.items()} | {
    "users": ["id", "display_name", "role", "avatar_url", "locale"]
}
# Columns whose values for existing rows are unknown.
NEEDED = {
    "users": ["id"],
    "chat_rooms": ["id", "user1_id", "user2_id"],
    "chat_messages": ["id", "room_id", "sender_id", "message"],
    "message_receipts": ["message_id", "user_id"],
    "user_devices": ["user_id", "platform"],
    "user_presence": ["user_id"],
}
ADDABLE = [
    f"{table}.{column}" for table, columns in COLUMNS.items() for column in columns if column not in NEEDED[table]
]
# Counted again from the messages.
COUNTED = {"unread_count_user1", "unread_count_user2", "accepted_by_user1", "accepted_by_user2"}


async def apply(connection: Connection) -> None:
    for file in MIGRATIONS:
        await connection.execute(file.read_bytes())


@pytest.fixture(scope="module")
async def whole_app(server: Postgres) -> str:
    """The name of a database: an app with rows in all columns, and with triggers and columns of its own."""
    dsn = await create_database(server, "whole_app")
    async with connected(dsn) as connection:
        await connection.execute(EXISTING_APP.read_bytes())
        await connection.execute(b"delete from chat_messages where id::text >= '1'")
        await connection.execute(MIGRATIONS[0].read_bytes())
        await connection.execute(b"""
            drop schema push cascade;
            drop schema private cascade;
            insert into user_devices (user_id, device_id, platform, push_token)
            select id, 'phone', 'android', format('ExponentPushToken[%s]', id) from users;
            insert into message_receipts (message_id, user_id, delivered_at, read_at)
            select message.id, case sender_id when user1_id then user2_id else user1_id end, read_at, read_at
            from chat_messages message join chat_rooms room on room.id = room_id where is_read;
            insert into user_presence (user_id, is_online) select id, true from users;
            alter table chat_messages add reply_to uuid, add words integer generated always as (length(message)) stored;
            create function touch() returns trigger language plpgsql as $$
            begin
              new.updated_at := now();
              return new;
            end $$;
            create trigger touch before update on chat_messages for each row execute function touch();
            create function forbid() returns trigger language plpgsql as $$
            begin
              raise exception 'a webhook of the app is called';
            end $$;
            create trigger webhook after update on chat_rooms for each row execute function forbid();
            create trigger old_webhook after update on chat_rooms for each row execute function forbid();
            alter table chat_rooms disable trigger old_webhook;
        """)
    return "whole_app"


@asynccontextmanager
async def app_without(server: Postgres, whole_app: str, columns: list[str]) -> AsyncIterator[Connection]:
    async with connected(server.dsn()) as owner:
        await owner.execute("drop database if exists partial")
        await owner.execute(f"create database partial template {whole_app}".encode())
    async with connected(server.dsn("partial")) as connection:
        await drop(connection, columns)
        yield connection


async def drop(connection: Connection, columns: list[str]) -> None:
    for name in columns:
        table, column = name.split(".")
        await connection.execute(f"alter table {table} drop column {column} cascade".encode())


async def contents(connection: Connection) -> dict[str, dict[Any, Row]]:
    """All rows of the app, by their keys."""
    keys = {
        "user_presence": ("user_id",),
        "user_devices": ("user_id",),
        "message_receipts": ("message_id", "user_id"),
    }
    return {
        table: {
            tuple(one[key] for key in keys.get(table, ("id",))): one for one in await rows(connection, f"table {table}")
        }
        for table in COLUMNS
    }


async def check_migrates(connection: Connection, missing: list[str]) -> None:
    before = await contents(connection)
    await apply(connection)
    after = await contents(connection)
    for table, old_rows in before.items():
        assert after[table].keys() == old_rows.keys()
        for key, old in old_rows.items():
            new = after[table][key]
            assert set(COLUMNS[table]) <= new.keys()
            changed = {
                column for column, content in old.items() if content is not None and new[column] != content
            } - COUNTED
            assert not changed, (table, key)
    for name in SPECIFIED_INDEXES:
        assert await value(connection, "select to_regclass(%s)", name), name
    for name, definition in SPECIFIED_CONSTRAINTS.items():
        query = "select pg_get_constraintdef(oid) from pg_constraint where conname = %s"
        assert await value(connection, query, name) == definition
    assert {
        one["subject"] for one in await rows(connection, "table push.migration_report") if one["what"] == "column added"
    } == set(missing)
    enabled = await rows(
        connection, "select tgname from pg_trigger where tgname ~ 'touch$|webhook$' and tgenabled = 'O'"
    )
    assert {one["tgname"] for one in enabled} == {"touch", "webhook"}
    await check_works(connection)


async def check_works(connection: Connection) -> None:
    await connection.execute("drop trigger webhook on chat_rooms")
    await connection.execute("update user_devices set is_active = false")
    room = await row(connection, "select * from chat_rooms order by id limit 1")
    chat = Chat(connection, room["user1_id"], room["user2_id"], room["id"])
    async with as_user(connection, chat.guide):
        await rows(connection, "select public.mark_messages_read(%s, id) from public.chat_rooms", chat.guide)
        await connection.execute(b"delete from user_presence where user_id = auth.uid()")
    await check_messages_are_pushed(chat)


def one_of_each_table() -> Iterator[list[str]]:
    """Each column once, with columns of other tables: that is a migration per column of the longest table."""
    tables = [[name for name in ADDABLE if name.startswith(f"{table}.")] for table in COLUMNS]
    for columns in zip_longest(*tables):
        yield [column for column in columns if column]


@pytest.mark.parametrize("missing", list(one_of_each_table()), ids=" ".join)
async def test_a_missing_column_is_added_and_no_row_is_lost(
    server: Postgres, whole_app: str, missing: list[str]
) -> None:
    async with app_without(server, whole_app, missing) as connection:
        await check_migrates(connection, missing)


async def test_a_message_that_an_app_marked_as_read_by_a_receipt_alone_is_read(
    server: Postgres, whole_app: str
) -> None:
    """mark_messages_read could not mark it any more, so it would count in the badge for ever."""
    async with app_without(server, whole_app, []) as connection:
        await connection.execute(
            b"alter table chat_messages disable trigger user; update chat_messages set is_read = false, read_at = null"
        )
        await apply(connection)
        read = await rows(
            connection, "select message_id as id from message_receipts where read_at is not null order by 1"
        )
        assert read
        marked = "select id from chat_messages where is_read and read_at is not null order by id"
        assert await rows(connection, marked) == read
        counted = await value(connection, "select sum(unread_count_user1 + unread_count_user2) from chat_rooms")
        unread = "select count(*) from chat_messages where not is_read and deleted_at is null"
        assert counted == await value(connection, unread)


def subsets() -> Iterator[list[str]]:
    chance = random.Random(12)
    yield []
    yield ADDABLE
    for _ in range(20):
        yield sorted(chance.sample(ADDABLE, chance.randint(2, len(ADDABLE))))


@pytest.mark.parametrize("missing", list(subsets()), ids=lambda missing: str(len(missing)))
async def test_any_combination_of_missing_columns_is_added(
    server: Postgres, whole_app: str, missing: list[str]
) -> None:
    async with app_without(server, whole_app, missing) as connection:
        await check_migrates(connection, missing)


@pytest.mark.parametrize("table", ["message_receipts", "user_devices", "user_presence", "chat_messages"])
async def test_each_missing_column_of_an_empty_table_is_added(server: Postgres, whole_app: str, table: str) -> None:
    async with app_without(server, whole_app, []) as connection:
        await connection.execute(f"truncate {table} cascade".encode())
        for column in COLUMNS[table]:
            await connection.execute(f"alter table {table} drop column {column} cascade".encode())
        await connection.execute("drop trigger if exists touch on chat_messages")
        await connection.execute("drop trigger webhook on chat_rooms")
        await apply(connection)
        await connection.execute(
            "create trigger webhook after update on chat_rooms for each row execute function forbid()"
        )
        await check_works(connection)


# What is refused ---------------------------------------------------------------------------------

LACKED = [f"{table}.{column}" for table, columns in NEEDED.items() for column in columns]


async def schema(connection: Connection) -> dict[str, list[Row]]:
    """All names that a migration could leave behind."""
    ours = "!~ '^(supabase_migrations|pg_toast|pg_temp)'"
    return {
        name: await rows(connection, query)
        for name, query in {
            "columns": "select table_schema, table_name, column_name, data_type, is_nullable, column_default"
            f" from information_schema.columns where table_schema {ours} order by 1, 2, 3",
            "schemas": f"select nspname from pg_namespace where nspname {ours} order by 1",
            "functions": "select oid::regprocedure::text from pg_proc order by 1",
            "relations": f"select oid::regclass::text from pg_class where relnamespace::regnamespace::text {ours}"
            " order by 1",
            "triggers": "select tgname, tgenabled from pg_trigger where not tgisinternal order by 1",
        }.items()
    }


@pytest.fixture(scope="module")
async def to_reject(server: Postgres, whole_app: str) -> AsyncIterator[Connection]:
    async with connected(server.dsn()) as owner:
        await owner.execute(f"create database to_reject template {whole_app}".encode())
    async with connected(server.dsn("to_reject")) as connection:
        yield connection


@pytest.fixture
async def app(to_reject: Connection) -> AsyncIterator[Connection]:
    """The whole app, in a transaction that the end of the test rolls back."""
    async with to_reject.transaction(force_rollback=True):
        yield to_reject


async def check_refused(connection: Connection, sqlstate: str, *reason: str) -> None:
    """The first migration fails, which the Supabase CLI applies in a transaction: nothing was changed before."""
    with pytest.raises(psycopg.Error) as raised:
        await connection.execute(MIGRATIONS[0].read_bytes())
    assert raised.value.sqlstate == sqlstate, str(raised.value)
    for part in reason:
        assert part in str(raised.value.diag.message_primary)
    assert "Nothing was changed" in str(raised.value.diag.message_hint)


@pytest.mark.parametrize("missing", LACKED)
async def test_a_missing_column_whose_values_are_unknown_is_rejected_by_its_name(app: Connection, missing: str) -> None:
    await drop(app, [missing])
    await check_refused(app, "42804", f"{missing} is missing, and its values for the existing rows are unknown")


UNSUPPORTED = {
    "chat_rooms.last_message is character varying(100), but must be text": (
        "alter table chat_rooms alter last_message type varchar(100)"
    ),
    "chat_messages.attachments is json, but must be jsonb": (
        "alter table chat_messages drop attachments, add attachments json"
    ),
    "chat_messages.created_at is date, but must be timestamp with time zone or timestamp without time zone": (
        "alter table chat_messages alter created_at drop default, alter created_at type date"
    ),
    "chat_messages.client_msg_id is uuid, but must be text or character varying (of 36 characters or more)": (
        "alter table chat_messages drop client_msg_id, add client_msg_id uuid"
    ),
    "user_devices.id is bigint, but must be uuid": "alter table user_devices drop id, add id bigint",
    "the constraint has_text of chat_messages rejects a deleted message, whose text is empty": (
        "alter table chat_messages add constraint has_text check (message <> '' or message_type <> 'text') not valid"
    ),
    "chat_rooms.topic is not null and has no default": "alter table chat_rooms add topic text; "
    "alter table chat_rooms disable trigger user; update chat_rooms set topic = ''; "
    "alter table chat_rooms alter topic set not null",
    "user_presence.status is not null and has no default": "alter table user_presence add status text; "
    "update user_presence set status = ''; alter table user_presence alter status set not null",
}


@pytest.mark.parametrize("reason", UNSUPPORTED)
async def test_a_column_of_another_type_is_rejected_by_its_name(app: Connection, reason: str) -> None:
    await app.execute(UNSUPPORTED[reason].encode())
    await check_refused(app, "42804", reason)


async def test_all_obstacles_are_named_in_one_error(app: Connection) -> None:
    await drop(app, ["chat_messages.message", "user_devices.platform"])
    await check_refused(app, "42804", "chat_messages.message is missing", "user_devices.platform is missing")


TAKEN = {
    "schema push exists": "create schema push",
    "function mark_messages_read(uuid) exists": (
        "create function mark_messages_read(room uuid) returns void language sql as 'select'"
    ),
    "trigger stamp_message of chat_messages exists": (
        "create trigger stamp_message before update on chat_messages for each row execute function touch()"
    ),
    "user_presence is no table": "drop table user_presence; create view user_presence as select id from users",
}


@pytest.mark.parametrize("reason", TAKEN)
async def test_a_name_that_is_already_used_is_rejected(app: Connection, reason: str) -> None:
    await app.execute(TAKEN[reason].encode())
    await check_refused(app, "42710", reason)


async def test_the_first_migration_checks_each_name_that_the_migrations_create(database_names: set[str]) -> None:
    first = MIGRATIONS[0].read_text()
    assert {name for name in database_names if name not in first} == set()


@pytest.fixture
async def database_names(server: Postgres, template: str) -> set[str]:
    async with connected(server.dsn(template)) as connection:
        found = await rows(
            connection,
            """
            select proname as name from pg_proc where pronamespace in ('public'::regnamespace, 'private'::regnamespace)
              and not exists (select from pg_depend where objid = pg_proc.oid and deptype = 'e')
            union
            select format('(''%s'', ''%s'')', relname, tgname) from pg_trigger join pg_class on pg_class.oid = tgrelid
            where not tgisinternal and relnamespace = 'public'::regnamespace
            """,
        )
    return {one["name"] for one in found}


async def test_a_rejected_db_push_changes_nothing_and_passes_after_the_fix(server: Postgres, whole_app: str) -> None:
    async with app_without(server, whole_app, []) as connection:
        await connection.execute("alter table chat_messages rename message to content")
        before = await schema(connection)
        with pytest.raises(ChildError, match=r"chat_messages\.message is missing"):
            await migrate(server.dsn("partial"))
        assert await schema(connection) == before
        await connection.execute("alter table chat_messages rename content to message")
    await migrate(server.dsn("partial"))


async def test_rows_that_violate_a_key_are_named_and_nothing_is_changed(server: Postgres, whole_app: str) -> None:
    async with app_without(server, whole_app, []) as connection:
        await connection.execute("alter table user_devices drop constraint unique_user_device")
        await connection.execute(
            "insert into user_devices (user_id, device_id, platform) select user_id, device_id, 'web' from user_devices"
        )
        before = await schema(connection)
        async with refused(connection, "23505", "unique_user_device"):
            await apply(connection)
        assert await schema(connection) == before


# Other types, other rows -------------------------------------------------------------------------

COMPATIBLE = """
    alter table chat_messages drop words;
    alter table chat_messages
      alter message type varchar(4000), alter message_type type text, alter sender_role type varchar(50),
      alter client_msg_id type varchar(64), alter created_at type timestamp, alter updated_at type timestamp,
      alter read_at type timestamp, alter delivered_at type timestamp, alter deleted_at type timestamp;
    alter table chat_rooms
      alter last_message type varchar(1000), alter last_message_at type timestamp, alter created_at type timestamp,
      alter updated_at type timestamp, alter unread_count_user1 type bigint, alter unread_count_user1 drop not null,
      alter unread_count_user1 drop default;
    alter table user_devices alter push_token type varchar(255), alter app_version type varchar(20);
    alter table chat_rooms disable trigger webhook;
    update chat_rooms set unread_count_user1 = null;
    alter table chat_rooms enable trigger webhook;
"""


async def test_columns_of_compatible_types_are_kept(server: Postgres, whole_app: str) -> None:
    async with app_without(server, whole_app, []) as connection:
        await connection.execute(COMPATIBLE.encode())
        await check_migrates(connection, [])
        message = await value(
            connection,
            "select id from chat_messages where is_read is not true and sender_id = %s limit 1",
            await value(connection, "select sender_id from chat_messages where not is_read limit 1"),
        )
        sender = await value(connection, "select sender_id from chat_messages where id = %s", message)
        async with as_user(connection, sender):
            await connection.execute("delete from chat_messages where id = %s", (message,))
        deleted = "select now() - deleted_at at time zone 'UTC' < '1 minute' from chat_messages where id = %s"
        assert await value(connection, deleted, message)


async def test_a_shared_token_stays_with_the_device_seen_last_and_other_forms_are_no_expo_tokens(
    server: Postgres, whole_app: str
) -> None:
    async with app_without(
        server, whole_app, ["user_devices.push_provider", "user_devices.last_seen_at"]
    ) as connection:
        await connection.execute("drop index if exists idx_devices_push_token_unique")
        await connection.execute(
            "update user_devices set push_token = 'ExponentPushToken[shared]', updated_at = '2026-01-01'"
        )
        newest = await value(
            connection,
            "update user_devices set updated_at = '2026-02-01', push_token ="
            " 'ExpoPushToken[shared]' where id = (select id from user_devices limit 1) returning id",
        )
        fcm = await value(
            connection,
            "update user_devices set push_token = repeat('f', 140) where id ="
            " (select id from user_devices where id <> %s limit 1) returning id",
            newest,
        )
        await apply(connection)
        found = await rows(
            connection, "select id, push_provider from user_devices where push_token is not null order by 2"
        )
        assert found == [{"id": newest, "push_provider": "expo"}, {"id": fcm, "push_provider": "fcm"}]
        assert await value(connection, "select count(*) from user_devices where is_active") == 2


async def test_existing_devices_keep_the_ids_of_sessions_only(server: Postgres, whole_app: str) -> None:
    async with app_without(server, whole_app, []) as connection:
        await connection.execute("alter table user_devices add column if not exists session_id uuid")
        await connection.execute("update user_devices set session_id = gen_random_uuid()")
        device = (await rows(connection, "select id, user_id, session_id from user_devices"))[0]
        await insert(connection, "auth.sessions", id=device["session_id"], user_id=device["user_id"])
        await apply(connection)
        kept = await rows(connection, "select id, user_id, session_id from user_devices where session_id is not null")
        assert kept == [device]


async def test_columns_of_the_app_stay_as_writable_as_they_were(server: Postgres, whole_app: str) -> None:
    async with app_without(server, whole_app, []) as connection:
        await connection.execute(
            "alter table chat_messages add secret text; revoke all on chat_messages from authenticated;"
            " grant select, insert (id, room_id, sender_id, message, reply_to) on chat_messages to authenticated"
        )
        await apply(connection)
        rights = "select has_column_privilege('authenticated', 'chat_messages', %s, %s)"
        found = {
            (column, right): await value(connection, rights, column, right)
            for column in ("reply_to", "secret")
            for right in ("insert", "update")
        }
        assert found == {
            ("reply_to", "insert"): True,
            ("reply_to", "update"): False,
            ("secret", "insert"): False,
            ("secret", "update"): False,
        }
        kept = await rows(
            connection, "select subject from push.migration_report where what = 'right of an app''s own column kept'"
        )
        assert kept == [{"subject": "chat_messages.reply_to: insert"}]


async def test_an_old_app_writes_columns_of_its_own_in_each_of_its_tables(server: Postgres, whole_app: str) -> None:
    async with app_without(server, whole_app, []) as connection:
        for name in ("message_receipts", "user_devices", "user_presence"):
            await connection.execute(f"alter table {name} add extra text".encode())
            await connection.execute(f"grant all on {name} to authenticated".encode())
        await apply(connection)
        device = await row(connection, "select id, user_id from user_devices order by id limit 1")
        async with as_user(connection, device["user_id"]):
            for name in ("user_devices", "user_presence"):
                await connection.execute(f"update {name} set extra = 'x' where user_id = auth.uid()".encode())
            await insert(
                connection, "public.user_devices", user_id=device["user_id"], device_id="2", platform="ios", extra="x"
            )
        assert await value(connection, "select count(*) from user_devices where extra = 'x'") == 2
        kept = "select subject from push.migration_report where what = 'right of an app''s own column kept'"
        subjects = {one["subject"] for one in await rows(connection, kept)}
        extras = {f"{name}.extra: insert, update" for name in ("message_receipts", "user_devices", "user_presence")}
        assert {subject for subject in subjects if "chat_messages" not in subject} == extras


async def test_the_report_says_what_was_filled_in_and_replaced(server: Postgres, whole_app: str) -> None:
    async with app_without(server, whole_app, ["chat_messages.server_timestamp"]) as connection:
        messages = await value(connection, "select count(*) from chat_messages")
        await apply(connection)
        report = await rows(connection, "select what, subject, affected_rows from push.migration_report")
        filled = "chat_messages: server_timestamp, sender_role, is_read, message_type, attachments, changed_at"
        assert {"what": "rows filled in", "subject": filled, "affected_rows": messages} in report
        replaced = "chat_messages: Participants mark messages as read"
        assert {"what": "policy replaced", "subject": replaced, "affected_rows": None} in report


async def test_the_text_of_messages_that_were_deleted_before_is_cleared_and_reported(
    server: Postgres, whole_app: str
) -> None:
    async with app_without(server, whole_app, []) as connection:
        await connection.execute("alter table chat_messages disable trigger user")
        # The newest message of each conversation.
        deleted = await connection.execute("""
            update chat_messages
            set deleted_at = created_at, attachments = '[{"type": "image"}]', message = 'Secret ' || id
            where id in (select distinct on (room_id) id from chat_messages order by room_id, server_timestamp desc, id)
        """)
        await connection.execute(
            "alter table chat_messages enable trigger user; alter table chat_rooms disable trigger user"
        )
        await connection.execute("update chat_rooms set last_message = 'Secret'")
        await connection.execute(
            "alter table chat_rooms enable trigger user; alter table chat_rooms disable trigger old_webhook"
        )
        before = await contents(connection)
        await apply(connection)
        after = await contents(connection)
        for key, old in before["chat_messages"].items():
            kept = {"message": "", "attachments": []} if old["deleted_at"] else {}
            changed = {"words"} & old.keys()
            assert {**old, **kept} | dict.fromkeys(changed) == after["chat_messages"][key] | dict.fromkeys(changed)
        of_rooms = {
            key: [one for one in after["chat_messages"].values() if one["room_id"] == key[0]]
            for key in after["chat_rooms"]
        }
        for key, messages in of_rooms.items():
            left = [one for one in messages if not one["deleted_at"]]
            newest = max(left, key=lambda one: one["server_timestamp"], default=None)
            last = after["chat_rooms"][key]["last_message_at"]
            if messages:
                assert last == (newest and newest["server_timestamp"])
                assert after["chat_rooms"][key]["last_message"] != "Secret"
        report = await rows(connection, "select what, subject, affected_rows from push.migration_report")
        cleared = {"what": "text of deleted messages cleared", "subject": "chat_messages: message, attachments"}
        assert cleared | {"affected_rows": deleted.rowcount} in report


@pytest.mark.parametrize(
    ("attachments", "types"),
    [
        ("[]", True),
        ('[{"type": "image", "url": "https://a.b/c"}]', True),
        ('[{"url": "photo.jpg"}]', False),
        ('["a"]', False),
    ],
)
async def test_an_app_with_attachments_of_another_form_goes_on_to_write_them(
    server: Postgres, whole_app: str, attachments: str, types: bool
) -> None:
    async with app_without(server, whole_app, []) as connection:
        await connection.execute("update chat_messages set attachments = %s", (attachments,))
        messages = await value(connection, "select count(*) from chat_messages")
        await apply(connection)
        assert await value(connection, "select attachment_types is not null from private.chat_settings") is types
        report = await rows(
            connection, "select affected_rows from push.migration_report where subject like 'chat_settings%'"
        )
        assert report == ([] if types else [{"affected_rows": messages}])


async def test_a_conversation_is_created_in_an_app_that_checks_the_order_of_its_users(
    server: Postgres, whole_app: str
) -> None:
    async with app_without(server, whole_app, []) as connection:
        await connection.execute("alter table chat_rooms add check (user1_id < user2_id) not valid")
        await connection.execute("delete from chat_rooms where user1_id > user2_id")
        await apply(connection)
        await connection.execute("drop trigger webhook on chat_rooms")
        users = await rows(
            connection, "select id from users where id not in (select user1_id from chat_rooms) order by id"
        )
        first, *_, last = [one["id"] for one in users]
        async with as_user(connection, last):
            created = await value(connection, "select get_or_create_conversation(%s, %s)", last, first)
        async with as_user(connection, first):
            assert await value(connection, "select get_or_create_conversation(%s, %s)", first, last) == created


async def test_realtime_does_not_send_the_row_before_an_update(server: Postgres, whole_app: str) -> None:
    """It would be the text of a message that is being deleted."""
    async with app_without(server, whole_app, []) as connection:
        await connection.execute("alter table chat_messages replica identity full")
        await apply(connection)
        identity = "select relreplident::text from pg_class where oid = 'chat_messages'::regclass"
        assert await value(connection, identity) == "d"
        report = "select subject from push.migration_report where what = 'replica identity set to default'"
        assert await rows(connection, report) == [{"subject": "chat_messages"}]


async def test_mark_existing_messages_read_marks_messages_older_than_the_installation(
    server: Postgres, whole_app: str
) -> None:
    async with app_without(server, whole_app, ["chat_messages.is_read", "chat_messages.read_at"]) as connection:
        await connection.execute("delete from message_receipts")
        await apply(connection)
        await connection.execute("drop trigger webhook on chat_rooms")
        room = await row(connection, "select * from chat_rooms order by id limit 1")
        chat = Chat(connection, room["user1_id"], room["user2_id"], room["id"])
        messages = await value(connection, "select count(*) from chat_messages")
        unread = "select sum(unread_count_user1 + unread_count_user2) from chat_rooms"
        assert await value(connection, unread) == messages > 0
        new = await chat.message()
        assert await value(connection, "select push.mark_existing_messages_read()") == messages
        assert await value(connection, unread) == 1
        assert await rows(connection, "select id from chat_messages where not is_read") == [{"id": new}]
        assert await value(connection, "select push.mark_existing_messages_read()") == 0


async def test_mark_existing_messages_read_works_in_an_app_that_lacked_no_column(
    server: Postgres, whole_app: str
) -> None:
    async with app_without(server, whole_app, []) as connection:
        await connection.execute("alter table chat_rooms disable trigger webhook")
        await connection.execute('drop policy "Participants send messages" on chat_messages')
        await connection.execute("update chat_messages set is_read = false, read_at = null")
        await connection.execute("delete from message_receipts")
        await apply(connection)
        assert await value(connection, "select push.mark_existing_messages_read() = count(*) from chat_messages")


async def test_older_unread_messages_get_no_push_of_their_own_but_are_shown_with_a_newer_one(
    server: Postgres, whole_app: str
) -> None:
    async with app_without(server, whole_app, ["chat_messages.server_timestamp"]) as connection:
        await connection.execute("alter table chat_messages disable trigger user")
        room = await row(connection, "select * from chat_rooms order by id limit 1")
        await connection.execute(
            "update chat_messages set room_id = %s, sender_id = %s, is_read = false, message = 'Old',"
            " created_at = now() - interval '1 hour'",
            (room["id"], room["user1_id"]),
        )
        await apply(connection)
        await connection.execute("drop trigger webhook on chat_rooms")
        await connection.execute("update user_devices set is_active = false")
        chat = Chat(connection, room["user1_id"], room["user2_id"], room["id"])
        await chat.device()
        assert (await claim(connection))["jobs"] == []
        claimed, job = await claim_one(connection, await chat.message("New"))
        assert job["body"] == "New\nOld\nOld"
        await record(connection, claimed, worker_report(job))
        await connection.execute("select push.mark_existing_messages_read()")
        _, job = await claim_one(connection, await chat.message("Newer"))
        assert job["body"] == "Newer\nNew"


NAMES = {
    "full_name": ("full_name text", "full_name = 'Tina T.'", "Tina T."),
    "name": ("name text", "name = 'Tina'", "Tina"),
    "first_name and last_name": (
        "first_name text, add last_name text",
        "first_name = 'Tina', last_name = 'T.'",
        "Tina T.",
    ),
    "first_name alone": ("first_name text, add last_name text", "first_name = 'Tina'", "Tina"),
    "nickname": ("nickname varchar(20)", "nickname = ' tt '", "tt"),
    "username": ("username text", "username = 'tina'", "tina"),
    "a display_name of nothing": ("username text", "username = 'tina', display_name = chr(8203)", "tina"),
    "display_name first": ("username text", "username = 'tina', display_name = 'Tina'", "Tina"),
    "no name but an object": ("name jsonb", "name = '{}'", None),
    "none": ("email text", "email = 'tina@example.com'", None),
}


@pytest.mark.parametrize("columns", NAMES)
async def test_a_push_shows_the_name_of_the_usual_columns(chat: Chat, columns: str) -> None:
    added, content, name = NAMES[columns]
    await chat.connection.execute(f"alter table users add {added}".encode())
    await chat.connection.execute(f"update users set display_name = null; update users set {content}".encode())
    assert await value(chat.connection, "select push.display_name(%s)", chat.tourist) == name


async def test_a_profile_with_columns_of_other_types_can_be_changed(server: Postgres, whole_app: str) -> None:
    """A value of the type json cannot be compared with another one."""
    async with app_without(server, whole_app, ["users.display_name", "users.avatar_url"]) as connection:
        await connection.execute("alter table users add display_name json, add avatar_url json")
        await apply(connection)
        await connection.execute("""update users set display_name = '{"en": "Tina"}', avatar_url = '{}'""")
        async with refused(connection, "22001", "display_name is too long"):
            await connection.execute("update users set display_name = to_json(repeat('x', 10000))")
