"""Who may do what: row level security and grants, every table by operation by role."""

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from uuid import UUID, uuid4

import pytest

from tests.database.chat import (
    Chat,
    Connection,
    acting_as,
    as_user,
    insert,
    person,
    refused,
    row,
    rows,
    value,
)

ROLES = ["anon", "owner", "other", "stranger", "service_role"]

# How many of one row each role sees or changes; "denied" is 42501, for want of a grant or by WITH CHECK. Whose row
# it is: the guide's profile, device and presence; the tourist's message; the guide's receipt of it; their room. `other`
# is the other participant. What is inserted is named in STATEMENTS.
MATRIX = """
    table             operation  anon    owner   other   stranger  service_role
    users             select     denied  1       1       0         1
    users             insert     denied  1       denied  denied    1
    users             update     denied  1       0       0         1
    users             delete     denied  denied  denied  denied    1
    chat_rooms        select     denied  1       1       0         1
    chat_rooms        insert     denied  1       1       denied    1
    chat_rooms        update     denied  1       denied  0         1
    chat_rooms        delete     denied  0       0       0         1
    chat_messages     select     denied  1       1       0         1
    chat_messages     insert     denied  1       denied  denied    1
    chat_messages     update     denied  1       denied  0         1
    chat_messages     delete     denied  0       0       0         1
    message_receipts  select     denied  1       1       0         1
    message_receipts  insert     denied  1       denied  denied    1
    message_receipts  update     denied  1       0       0         1
    message_receipts  delete     denied  denied  denied  denied    1
    user_devices      select     denied  1       0       0         1
    user_devices      insert     denied  1       denied  denied    1
    user_devices      update     denied  1       0       0         1
    user_devices      delete     denied  1       0       0         1
    user_presence     select     denied  1       1       0         1
    user_presence     insert     denied  1       denied  denied    1
    user_presence     update     denied  1       0       0         1
    user_presence     delete     denied  1       0       0         1
"""
CELLS = [
    (table, operation, role, expected)
    for table, operation, *expectations in map(str.split, MATRIX.strip().splitlines()[1:])
    for role, expected in zip(ROLES, expectations, strict=True)
]

# Inserted: a newcomer's own profile, a room with the newcomer, a message of the tourist, a receipt of the second
# message, one more device of the guide, the newcomer's presence.
STATEMENTS = {
    ("users", "insert"): "(id, display_name, role) values (%(newcomer)s, 'Nia', 'guide')",
    ("users", "update"): "set display_name = 'Other' where id = %(guide)s",
    ("users", ""): "where id = %(guide)s",
    ("chat_rooms", "insert"): "(user1_id, user2_id) values (%(guide)s, %(newcomer)s)",
    ("chat_rooms", "update"): "set archived_by_user2 = true where id = %(room)s",
    ("chat_rooms", ""): "where id = %(room)s",
    ("chat_messages", "insert"): "(room_id, sender_id, message) values (%(room)s, %(tourist)s, 'Hi')",
    ("chat_messages", "update"): "set message = 'Edited' where id = %(message)s",
    ("chat_messages", ""): "where id = %(message)s",
    ("message_receipts", "insert"): "(message_id, user_id, read_at) values (%(unread)s, %(guide)s, now())",
    ("message_receipts", "update"): "set read_at = now() where message_id = %(message)s",
    ("message_receipts", ""): "where message_id = %(message)s",
    ("user_devices", "insert"): "(user_id, device_id, platform) values (%(guide)s, 'second', 'web')",
    ("user_devices", "update"): "set is_active = false where device_id = 'first'",
    ("user_devices", ""): "where device_id = 'first'",
    ("user_presence", "insert"): "(user_id, is_online) values (%(newcomer)s, true)",
    ("user_presence", "update"): "set is_online = false where user_id = %(guide)s",
    ("user_presence", ""): "where user_id = %(guide)s",
}
VERBS = {"select": "select from", "insert": "insert into", "update": "update", "delete": "delete from"}


@dataclass(frozen=True)
class World:
    chat: Chat
    ids: dict[str, UUID]

    def acting_as(self, role: str, table: str, operation: str) -> AbstractAsyncContextManager[None]:
        if role in ("anon", "service_role"):
            return acting_as(self.chat.connection, role)
        owner, other = "guide", "tourist"
        if table == "chat_messages":
            owner, other = "tourist", "guide"
        elif operation == "insert" and table in ("users", "user_presence"):
            owner, other = "newcomer", "guide"
        elif operation == "insert" and table == "chat_rooms":
            other = "newcomer"
        return as_user(self.chat.connection, self.ids[{"owner": owner, "other": other}.get(role, role)])


@pytest.fixture
async def world(chat: Chat) -> World:
    newcomer = await insert(chat.connection, "auth.users", email="newcomer@example.com")
    ids = {
        "tourist": chat.tourist,
        "guide": chat.guide,
        "room": chat.room,
        "stranger": await person(chat.connection),
        "newcomer": newcomer["id"],
        "message": await chat.message(),
        "unread": await chat.message(),
        "answer": await chat.message(sender_id=chat.guide),
    }
    await insert(chat.connection, "public.message_receipts", message_id=ids["message"], user_id=chat.guide)
    await chat.device(device_id="first")
    await chat.look(chat.room)
    return World(chat, ids)


@pytest.mark.parametrize(("table", "operation", "role", "expected"), CELLS)
async def test_each_role_reads_and_writes_exactly_what_the_access_matrix_says(
    world: World, table: str, operation: str, role: str, expected: str
) -> None:
    connection = world.chat.connection
    if operation == "insert" and table != "users":
        await insert(connection, "public.users", id=world.ids["newcomer"])
    rest = STATEMENTS.get((table, operation)) or STATEMENTS[table, ""]
    statement = f"{VERBS[operation]} public.{table} {rest}"
    if expected == "denied":
        async with refused(connection, "42501"), world.acting_as(role, table, operation):
            await connection.execute(statement.encode(), world.ids)
    else:
        async with world.acting_as(role, table, operation):
            assert (await connection.execute(statement.encode(), world.ids)).rowcount == int(expected)


def test_the_access_matrix_names_each_table() -> None:
    assert len(CELLS) == 6 * 4 * 5 == len(set(CELLS))


@pytest.mark.parametrize("role", ["anon", "authenticated", "service_role"])
@pytest.mark.parametrize(
    "query",
    [
        "table push.jobs",
        "table push.decisions",
        "table push.deliveries",
        "table push.device_states",
        "table push.settings",
        "table private.chat_settings",
        "table private.deleted_messages",
        "table private.conversation_preferences",
        "table private.blocks",
        "table private.notification_preferences",
        "table private.device_previews",
        "table private.moderators",
        "table private.new_contacts",
        "table private.reports",
        "table private.suspensions",
        "table push.registration_counts",
        "table push.sendable_devices",
        "table push.receipt_runs",
        "table push.dead_tokens",
        "select push.review_held_deactivations(gen_random_uuid(), true)",
        "select push.webhook_target()",
        "select push.diagnose_webhook_target()",
        "select push.configure_webhook('https://example.com', repeat('x', 24))",
        "select push.display_name(gen_random_uuid())",
    ],
)
async def test_schema_push_is_closed_to_every_api_role(world: World, role: str, query: str) -> None:
    connection = world.chat.connection
    async with refused(connection, "42501"), acting_as(connection, role, world.ids["guide"]):
        await connection.execute(query.encode())


# Columns ---------------------------------------------------------------------------------------

# What a signed-in person may name at all. Clocks, counters and roles are accepted and not taken: test_old_apps.py.
WRITABLE = {
    "users": {
        "INSERT": "id display_name role avatar_url locale",
        "UPDATE": "display_name avatar_url locale",
    },
    "chat_rooms": {
        "INSERT": "id user1_id user2_id last_message last_message_at created_at updated_at tourist_id guide_id"
        " unread_count_user1 unread_count_user2 archived_by_user1 archived_by_user2",
        "UPDATE": "archived_by_user1 archived_by_user2 last_message last_message_at updated_at unread_count_user1"
        " unread_count_user2",
    },
    "chat_messages": {
        "INSERT": "id room_id sender_id message message_type client_msg_id attachments is_read read_at created_at"
        " updated_at sender_role edited_at deleted_at delivered_at server_timestamp",
        "UPDATE": "message attachments deleted_at is_read read_at delivered_at created_at updated_at edited_at",
    },
    "message_receipts": {
        "INSERT": "message_id user_id device_id delivered_at read_at read_device_id",
        "UPDATE": "message_id user_id device_id delivered_at read_at read_device_id",
    },
    "user_devices": {
        "INSERT": "user_id device_id platform push_token push_provider push_environment app_version locale is_active"
        " last_seen_at created_at updated_at",
        "UPDATE": "user_id device_id platform push_token push_provider push_environment app_version locale is_active"
        " last_seen_at created_at updated_at",
    },
    "user_presence": {
        "INSERT": "user_id is_online last_seen_at current_conversation_id updated_at",
        "UPDATE": "user_id is_online last_seen_at current_conversation_id updated_at",
    },
}


@pytest.mark.parametrize("table", WRITABLE)
async def test_columns_that_clients_must_not_forge_are_not_writable(shared_connection: Connection, table: str) -> None:
    await check_writable_columns(shared_connection, table)


async def check_writable_columns(connection: Connection, table: str) -> None:
    for operation, columns in WRITABLE[table].items():
        found = await rows(
            connection,
            """
            select attname from pg_attribute where attrelid = %s::regclass and attnum > 0 and not attisdropped
              and has_column_privilege('authenticated', attrelid, attnum, %s)
            """,
            f"public.{table}",
            operation,
        )
        assert {column["attname"] for column in found} == set(columns.split()), (table, operation)


@pytest.mark.parametrize(
    "statement",
    [
        "update users set role = 'guide' where id = %(tourist)s",
        "update chat_rooms set accepted_by_user2 = true where id = %(room)s",
        "update chat_rooms set guide_id = %(tourist)s where id = %(room)s",
        "update chat_messages set message = 'forged' where id = %(answer)s",
        "update chat_messages set deleted_at = now(), is_read = true where id = %(answer)s",
        "update chat_messages set server_timestamp = 'infinity' where id = %(message)s",
        "update chat_messages set room_id = gen_random_uuid() where id = %(message)s",
        "insert into user_devices (user_id, device_id, platform, session_id)"
        " values (%(tourist)s, 'mine', 'ios', gen_random_uuid())",
        # Rows of other people, rejected by WITH CHECK:
        "insert into chat_messages (room_id, sender_id, message) values (%(foreign)s, %(tourist)s, 'Hi')",
        "insert into chat_messages (room_id, sender_id, message) values (%(room)s, %(guide)s, 'As you')",
        "insert into message_receipts (message_id, user_id) values (%(message)s, %(tourist)s)",
        "insert into message_receipts (message_id, user_id) values (%(foreign_message)s, %(tourist)s)",
        "insert into user_devices (user_id, device_id, platform) values (%(guide)s, 'not mine', 'ios')",
    ],
)
async def test_a_person_cannot_forge_columns_of_the_server(world: World, statement: str) -> None:
    connection = world.chat.connection
    foreign = await insert(connection, "public.chat_rooms", user1_id=world.ids["guide"], user2_id=world.ids["stranger"])
    message = await world.chat.message(room_id=foreign["id"], sender_id=world.ids["guide"])
    ids = {**world.ids, "foreign": foreign["id"], "foreign_message": message}
    async with refused(connection, "42501"), as_user(connection, world.chat.tourist):
        await connection.execute(statement.encode(), ids)


# What one learns of others ---------------------------------------------------------------------


@pytest.mark.parametrize("pair", [("tourist", "guide"), ("tourist", "newcomer"), ("guide", "guide")], ids=str)
async def test_a_third_person_cannot_find_out_whether_two_others_have_a_conversation(
    world: World, pair: tuple[str, str]
) -> None:
    connection = world.chat.connection
    await insert(connection, "public.users", id=world.ids["newcomer"])
    columns = {"user1_id": world.ids[pair[0]], "user2_id": world.ids[pair[1]]}
    reason = "neither user1_id nor user2_id is the signed-in user"
    async with refused(connection, "42501", reason), as_user(connection, world.ids["stranger"]):
        await connection.execute(
            "insert into chat_rooms (user1_id, user2_id) values (%(user1_id)s, %(user2_id)s)", columns
        )


@pytest.mark.parametrize(
    "statement",
    [
        "insert into chat_messages (room_id, sender_id, message) values (%(room)s, %(tourist)s, 'As you')",
        "insert into user_devices (user_id, device_id, platform) values (%(tourist)s, 'not mine', 'ios')",
    ],
)
async def test_writing_as_another_person_is_rejected_with_the_same_answer_for_busy_and_idle_people(
    world: World, statement: str
) -> None:
    connection = world.chat.connection
    settings = "update push.settings set registration_limit = 1; update private.chat_settings set message_limit = 1"
    await connection.execute(settings.encode())
    async with as_user(connection, world.chat.tourist):
        await connection.execute(
            "insert into user_devices (user_id, device_id, platform) values (%(tourist)s, 'a', 'ios')", world.ids
        )
    for someone in ("stranger", "guide"):
        async with refused(connection, "42501"), as_user(connection, world.ids[someone]):
            await connection.execute(statement.encode(), world.ids)
    async with refused(connection, "PT429"), as_user(connection, world.chat.tourist):
        await connection.execute(statement.encode(), world.ids)


async def sees_presence(chat: Chat, who: UUID) -> bool:
    async with as_user(chat.connection, who):
        return bool(await rows(chat.connection, "select from user_presence where user_id = %s", chat.guide))


async def test_presence_is_visible_only_when_both_have_written(chat: Chat) -> None:
    await chat.look(None)
    assert await sees_presence(chat, chat.guide)
    assert not await sees_presence(chat, chat.tourist)
    await chat.message()
    assert not await sees_presence(chat, chat.tourist)
    await chat.message(sender_id=chat.guide)
    assert await sees_presence(chat, chat.tourist)


async def test_a_person_who_views_a_conversation_with_a_third_person_has_no_visible_presence(chat: Chat) -> None:
    await chat.message()
    await chat.message(sender_id=chat.guide)
    other = await person(chat.connection)
    room = await insert(chat.connection, "public.chat_rooms", user1_id=other, user2_id=chat.guide)
    await chat.message(room_id=room["id"], sender_id=other)
    await chat.message(room_id=room["id"], sender_id=chat.guide)
    for looked_at, seen_by in ((room["id"], other), (chat.room, chat.tourist)):
        await chat.look(looked_at)
        assert [who for who in (chat.tourist, other) if await sees_presence(chat, who)] == [seen_by]
    await chat.look(room["id"], is_online=False)
    assert await sees_presence(chat, chat.tourist)
    assert await sees_presence(chat, other)


@pytest.mark.parametrize("is_known", [False, True])
async def test_presence_names_a_conversation_of_that_person_or_none(chat: Chat, is_known: bool) -> None:
    if is_known:
        await chat.look(chat.room)
    people = [await person(chat.connection) for _ in range(2)]
    foreign = await insert(chat.connection, "public.chat_rooms", user1_id=people[0], user2_id=people[1])
    for conversation, stored in ((foreign["id"], None), (chat.room, chat.room), (uuid4(), None)):
        async with as_user(chat.connection, chat.guide):
            await chat.look(conversation)
        presence = await row(chat.connection, "select * from user_presence where user_id = %s", chat.guide)
        assert (presence["is_online"], presence["current_conversation_id"]) == (True, stored)


async def test_receipts_of_strangers_are_skipped_without_reading_their_messages(chat: Chat) -> None:
    """A policy that looked up the message of each row took 2.4 s for the newest 20 of 195,000."""
    await chat.connection.execute(
        "insert into chat_messages (room_id, sender_id, message) select %s, %s, 'Hello' from generate_series(1, 500)",
        (chat.room, chat.tourist),
    )
    assert await chat.read() == 500
    other = await person(chat.connection)
    room = await insert(chat.connection, "public.chat_rooms", user1_id=other, user2_id=chat.tourist)
    await chat.message(room_id=room["id"], sender_id=chat.tourist)
    read = """select coalesce(sum(seq_tup_read + idx_tup_fetch), 0)::integer from pg_stat_xact_user_tables
        where relname in ('chat_messages', 'chat_rooms')"""
    newest = "select * from message_receipts order by created_at desc limit 20"
    for who, seen in ((other, 0), (chat.guide, 20)):
        async with as_user(chat.connection, who):
            before = await value(chat.connection, read)
            assert len(await rows(chat.connection, newest)) == seen
            assert await value(chat.connection, read) - before < 20
    async with as_user(chat.connection, chat.tourist):
        assert len(await rows(chat.connection, newest)) == 20


async def test_receipts_of_a_partner_in_other_conversations_are_invisible(chat: Chat) -> None:
    await chat.message()
    other = await person(chat.connection)
    room = await insert(chat.connection, "public.chat_rooms", user1_id=other, user2_id=chat.guide)
    await chat.message(room_id=room["id"], sender_id=other)
    async with as_user(chat.connection, chat.guide):
        await chat.connection.execute(
            "insert into message_receipts (message_id, user_id) select id, %s from chat_messages", (chat.guide,)
        )
    for who, seen in ((chat.guide, 2), (chat.tourist, 1), (other, 1)):
        async with as_user(chat.connection, who):
            assert len(await rows(chat.connection, "table message_receipts")) == seen


# Functions -------------------------------------------------------------------------------------

APP_FUNCTIONS = {
    "get_or_create_conversation": "select public.get_or_create_conversation(%(user)s, gen_random_uuid())",
    "get_messages_paginated": "select public.get_messages_paginated(%(room)s)",
    "get_missed_messages": "select public.get_missed_messages(%(user)s, '-infinity')",
    "get_changed_messages": "select public.get_changed_messages(%(user)s)",
    "sync_cursor": "select public.sync_cursor()",
    "mark_messages_delivered": "select public.mark_messages_delivered(%(user)s, array[%(message)s]::uuid[])",
    "mark_messages_read": "select public.mark_messages_read(%(user)s, %(room)s)",
}
DEVICE_FUNCTIONS = {
    "register_device": "select public.register_device('phone', 'ios', 'ExponentPushToken[a]')",
    "unregister_device": "select public.unregister_device('first')",
    "my_devices": "select public.my_devices()",
}
PREFERENCE_FUNCTIONS = {
    "mute_conversation": "select public.mute_conversation(%(room)s)",
    "unmute_conversation": "select public.unmute_conversation(%(room)s)",
    "accept_conversation": "select public.accept_conversation(%(room)s)",
    "set_conversation_sound": "select public.set_conversation_sound(%(room)s)",
    "block_user": "select public.block_user(%(stranger)s)",
    "unblock_user": "select public.unblock_user(%(stranger)s)",
    "my_blocked_users": "select public.my_blocked_users()",
    "set_notification_preferences": "select public.set_notification_preferences('{}')",
    "set_device_preview": "select public.set_device_preview('first')",
    "my_notification_preferences": "select public.my_notification_preferences()",
    "report_message": "select public.report_message(%(message)s, 'spam')",
    "report_user": "select public.report_user(%(stranger)s, 'spam')",
}
# Whether the caller is a moderator is asked by the functions: tests/database/test_reports.py.
MODERATOR_FUNCTIONS = {"list_reports", "resolve_report", "suspend_user", "unsuspend_user"}
# tests/database/test_presence.py has its rights.
PRESENCE_FUNCTIONS = {"report_presence"}
WORKER_FUNCTIONS = {
    "claim_push_jobs": "select public.claim_push_jobs()",
    "reserve_send_slot": "select public.reserve_send_slot(1)",
    "plan_wakeups": "select public.plan_wakeups(20, 2)",
    "record_push_results": "select public.record_push_results(gen_random_uuid(), now(), '{}')",
    "explain_push": "select public.explain_push(gen_random_uuid())",
    "claim_due_receipts": "select public.claim_due_receipts()",
    "record_push_receipts": "select public.record_push_receipts(gen_random_uuid(), '{}')",
    "finish_receipt_run": "select public.finish_receipt_run(gen_random_uuid())",
    "prune_push": "select public.prune_push()",
    "diagnose_push": "select public.diagnose_push()",
}
# Called by policies, and by the functions for apps.
PRIVATE_FUNCTIONS = {
    *("my_rooms", "my_partners", "my_contacts", "require_caller", "lock_messages", "messages_since", "topic_right"),
    *("register_device", "report_presence", "device_json"),
    *PREFERENCE_FUNCTIONS,
    *("my_blocks", "my_blocked_rooms", "conversation_of"),
}
# Each role that writes user_devices runs these: by a constraint and by an index.
TOKEN_FUNCTIONS = {"is_expo_token", "canonical_push_token"}


async def check_function_rights(connection: Connection) -> None:
    """Each API role may execute exactly the functions that are for it."""
    functions = await rows(
        connection,
        """
        select nspname as schema, proname as name, prosecdef as definer, proconfig as config,
          array(select role from unnest(array['anon', 'authenticated', 'service_role']) role
            where has_function_privilege(role, proc.oid, 'execute')) as roles
        from pg_proc proc join pg_namespace on pg_namespace.oid = pronamespace
        where nspname in ('public', 'private', 'push')
        """,
    )
    assert len(functions) > 30
    for function in functions:
        assert 'search_path=""' in (function["config"] or []), function
        expected: list[str] = []
        if function["schema"] == "public":
            if function["name"] in {*APP_FUNCTIONS, *DEVICE_FUNCTIONS, *PREFERENCE_FUNCTIONS, *PRESENCE_FUNCTIONS}:
                expected = ["authenticated"]
                assert not function["definer"], "lints 0028 and 0029"
            elif function["name"] in MODERATOR_FUNCTIONS:
                expected = ["authenticated", "service_role"]
                assert not function["definer"], "lints 0028 and 0029"
            else:
                assert function["name"] in WORKER_FUNCTIONS, function
                expected = ["service_role"]
        elif function["schema"] == "private" and function["name"] in PRIVATE_FUNCTIONS:
            expected = ["authenticated"]
        elif function["schema"] == "private" and function["name"] in {*TOKEN_FUNCTIONS, *MODERATOR_FUNCTIONS}:
            expected = ["authenticated", "service_role"]
        assert function["roles"] == expected, function


async def test_each_role_executes_only_its_functions(shared_connection: Connection) -> None:
    await check_function_rights(shared_connection)


@pytest.mark.parametrize(
    ("role", "call"),
    [
        (role, call)
        for role in ("anon", "service_role")
        for call in (APP_FUNCTIONS | DEVICE_FUNCTIONS | PREFERENCE_FUNCTIONS).values()
    ]
    + [(role, call) for role in ("anon", "authenticated") for call in WORKER_FUNCTIONS.values()],
)
async def test_functions_reject_calls_of_the_wrong_role(world: World, role: str, call: str) -> None:
    connection = world.chat.connection
    async with refused(connection, "42501"), acting_as(connection, role, world.chat.guide):
        await connection.execute(call.encode(), {**world.ids, "user": world.chat.guide})


@pytest.mark.parametrize("name", [name for name, call in APP_FUNCTIONS.items() if "%(user)s" in call])
@pytest.mark.parametrize("foreign", ["tourist", None])
async def test_functions_reject_the_user_id_of_another_person(world: World, name: str, foreign: str | None) -> None:
    user = world.ids[foreign] if foreign else None
    connection = world.chat.connection
    async with refused(connection, "42501"), as_user(connection, world.ids["stranger"]):
        await connection.execute(APP_FUNCTIONS[name].encode(), {**world.ids, "user": user})


@pytest.mark.parametrize("name", sorted(APP_FUNCTIONS.keys() - {"get_or_create_conversation", "sync_cursor"}))
async def test_a_stranger_reads_and_marks_no_message(world: World, name: str) -> None:
    connection = world.chat.connection
    stranger = world.ids["stranger"]
    async with as_user(connection, stranger):
        cursor = await connection.execute(APP_FUNCTIONS[name].encode(), {**world.ids, "user": stranger})
        found = await cursor.fetchall()
    assert found in ([], [{name: 0}])


@pytest.mark.parametrize("call", DEVICE_FUNCTIONS.values())
async def test_devices_of_others_are_invisible_and_cannot_be_changed(world: World, call: str) -> None:
    connection = world.chat.connection
    theirs = "select * from user_devices where user_id = %s"
    before = await rows(connection, theirs, world.chat.guide)
    async with as_user(connection, world.chat.tourist):
        cursor = await connection.execute(call.encode())
        [answer] = await cursor.fetchall()
    assert "first" not in str(answer)
    assert await rows(connection, theirs, world.chat.guide) == before


# Declarations ----------------------------------------------------------------------------------


async def test_every_public_table_has_rls_for_signed_in_people_and_explicit_grants(
    shared_connection: Connection,
) -> None:
    """No table relies on default privileges. Projects created since 2026-10-30 have none."""
    tables = await rows(
        shared_connection,
        """
        select relname, relrowsecurity,
          (select bool_and(roles = '{authenticated}') from pg_policies where tablename = relname) as to_authenticated,
          array(select distinct grantee::regrole::text from aclexplode(relacl) where grantee <> relowner) as grantees,
          array(select privilege_type from aclexplode(relacl) where grantee = 'service_role'::regrole) as service
        from pg_class where relnamespace = 'public'::regnamespace and relkind = 'r'
        """,
    )
    assert {table["relname"] for table in tables} == set(WRITABLE)
    for table in tables:
        assert table["relrowsecurity"]
        assert table["to_authenticated"]
        assert set(table["grantees"]) <= {"authenticated", "service_role"}
        assert {"SELECT", "INSERT", "UPDATE", "DELETE"} <= set(table["service"])


async def test_policies_evaluate_the_user_once_per_query(shared_connection: Connection) -> None:
    """(select auth.uid()) is evaluated once; a bare auth.uid() once per row."""
    policies = await rows(
        shared_connection,
        "select policyname, concat(qual, with_check) as rule from pg_policies where schemaname = 'public'",
    )
    assert len(policies) > 15
    for policy in policies:
        assert policy["rule"].count("auth.uid()") == policy["rule"].count("( SELECT auth.uid() AS uid)"), policy


# PostgREST calls functions that are not volatile in a read-only transaction.
WRITES_FROM_STABLE = """
    select called.oid::regprocedure::text, callee.oid::regprocedure::text
    from pg_proc called, pg_proc callee
    where called.pronamespace::regnamespace::text in ('public', 'push', 'private') and called.provolatile <> 'v'
      and callee.pronamespace::regnamespace::text in ('public', 'push', 'private') and callee.provolatile = 'v'
      and called.prosrc ~ format('\\m%s\\.%s\\s*\\(', callee.pronamespace::regnamespace, callee.proname)
"""


async def test_no_stable_function_calls_one_that_may_write(shared_connection: Connection) -> None:
    """Postgres rejects an INSERT in a stable function, but not in a function that it calls."""
    assert await rows(shared_connection, WRITES_FROM_STABLE) == []
    async with shared_connection.transaction(force_rollback=True):
        await shared_connection.execute(
            "create function private.peek() returns void language plpgsql stable as"
            " $$ begin perform push.store_vault_secret('n', 'v'); end $$"
        )
        assert len(await rows(shared_connection, WRITES_FROM_STABLE)) == 1
