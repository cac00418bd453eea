"""The questions that are asked all day are answered by an index, with many rows around them."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

import pytest

from tests.database.chat import (
    Chat,
    Connection,
    Database,
    as_user,
    claim,
    due_receipts,
    explain,
    finish_run,
    prune,
    receipt,
    record,
    record_receipts,
    rows,
    session_of,
    start_chat,
    value,
    worker_report,
)

TABLES = {
    *("chat_messages", "chat_rooms", "message_receipts", "user_devices", "user_presence", "users"),
    *("jobs", "decisions", "deliveries", "sessions"),
}


@pytest.fixture(scope="module")
async def busy(module_database: Database) -> Chat:
    """A conversation among 2000 others, 200 of which have 100 old messages each."""
    connection = await module_database.connect()
    chat = await start_chat(connection)
    # Without the triggers: thousands of rows in a second.
    await connection.execute("""
        alter table public.chat_rooms disable trigger user;
        alter table public.chat_messages disable trigger user;
        alter table public.message_receipts disable trigger user;
        insert into auth.users (id) select md5('user' || n)::uuid from generate_series(1, 4000) n;
        insert into public.users (id) select md5('user' || n)::uuid from generate_series(1, 4000) n;
        insert into public.user_devices (user_id, device_id, platform, push_token)
          select md5('user' || n)::uuid, 'phone', 'ios', 'ExponentPushToken[' || n || ']'
          from generate_series(1, 4000) n;
        insert into auth.sessions (id, user_id)
          select md5('session' || n)::uuid, md5('user' || n)::uuid from generate_series(1, 4000) n;
        insert into public.user_presence (user_id) select md5('user' || n)::uuid from generate_series(1, 4000) n;
        insert into public.chat_rooms (user1_id, user2_id)
          select md5('user' || n)::uuid, md5('user' || 4001 - n)::uuid from generate_series(1, 2000) n;
        insert into public.chat_messages (room_id, sender_id, message, is_read, server_timestamp)
          select id, user1_id, 'Hello', true, now() - n * interval '1 hour'
          from (table public.chat_rooms limit 200) talkative, generate_series(1, 100) n;
        insert into push.jobs (room_id, recipient_id, state, decided_up_to, next_attempt_at)
          select id, user2_id, 'idle', now(), null from public.chat_rooms;
        insert into push.decisions (message_id, job_id, outcome, finished_at)
          select message.id, job.id, 'skipped', now()
          from public.chat_messages message join push.jobs job on job.room_id = message.room_id;
        insert into push.deliveries (job_id, device_id, kind, digest, message_ids, badge, push_token, status, sent_at)
          select job_id, message_id, 'alert', '', array[message_id], 1, '', 'accepted', now()
          from push.decisions limit 5000;
        insert into public.message_receipts (message_id, user_id, read_at)
          select message_id, recipient_id, now() from push.decisions join push.jobs on jobs.id = job_id limit 5000;
        alter table public.chat_rooms enable trigger user;
        alter table public.chat_messages enable trigger user;
        alter table public.message_receipts enable trigger user;
        analyze;
    """)
    device = await chat.device()
    session = await session_of(connection, chat.guide)
    await connection.execute("update user_devices set session_id = %s where id = %s", (session, device["id"]))
    return chat


@asynccontextmanager
async def only_by_index(chat: Chat, *indexes: str) -> AsyncIterator[None]:
    """The statements inside read no table as a whole, and use these indexes."""

    async def scans() -> Counter[str]:
        # Of this connection since it last reported them to the server, so only a difference means something.
        found = await rows(
            chat.connection,
            """
            select relid::regclass::text as name, seq_scan as scans from pg_stat_xact_user_tables
            union all
            select indexrelid::regclass::text, pg_stat_get_xact_numscans(indexrelid) from pg_stat_user_indexes
            """,
        )
        return Counter({one["name"]: one["scans"] for one in found})

    async with chat.connection.transaction(force_rollback=True):
        before = await scans()
        yield
        used = {name for name, number in (await scans() - before).items() if number}
        tables = {name for name in used if name.split(".")[-1] in TABLES}
        assert not tables, "read by a sequential scan"
        assert used >= set(indexes)


@pytest.fixture
async def new(database: Database) -> AsyncIterator[Chat]:
    """A conversation in a database that no other test has filled, also not in a transaction that it rolled back."""
    chat = await start_chat(await database.connect())
    await chat.device()
    async with chat.connection.transaction(force_rollback=True):
        yield chat


# Of this transaction, by the indexes of a table.
ENTRIES_READ = """
    select sum(pg_stat_get_xact_tuples_returned(indexrelid))::integer
    from pg_stat_user_indexes where relid = %s::regclass
"""
ROWS_READ = "select sum(seq_tup_read + idx_tup_fetch)::integer from pg_stat_xact_user_tables where schemaname = 'push'"


async def test_sends_claims_and_reports_read_no_job_of_another_if_the_tables_were_analyzed_while_empty(
    new: Chat,
) -> None:
    """As in a new stack. A session keeps the plans that it makes then."""
    await new.connection.execute("analyze")
    for _ in range(4):
        before = await value(new.connection, ROWS_READ)
        messages = [await new.separate_message() for _ in range(25)]
        claimed = await claim(new.connection, *messages)
        assert len(claimed["jobs"]) == 25
        await record(new.connection, claimed, *map(worker_report, claimed["jobs"]))
        assert await value(new.connection, ROWS_READ) - before <= 25 * 60


async def test_a_claim_reads_its_own_jobs_only_even_without_statistics(new: Chat) -> None:
    """As in the minutes after an installation or a first backlog, before Postgres has analyzed anything."""
    await new.connection.execute(
        "insert into push.jobs (room_id, recipient_id, decided_up_to)"
        " select gen_random_uuid(), %s, now() from generate_series(1, 20000)",
        (new.guide,),
    )
    messages = [await new.separate_message() for _ in range(10)]
    before = await value(new.connection, ROWS_READ)
    assert len((await claim(new.connection, *messages))["jobs"]) == 10
    assert await value(new.connection, ROWS_READ) - before <= 10 * 60


async def test_a_claim_does_not_read_the_earlier_pushes_of_its_conversation(new: Chat) -> None:
    claimed = await claim(new.connection, await new.message())
    await record(new.connection, claimed, *map(worker_report, claimed["jobs"]))
    await new.connection.execute("""
        insert into push.deliveries (job_id, device_id, kind, digest, message_ids, badge, push_token, status, sent_at)
        select job_id, device_id, kind, digest, message_ids, badge, push_token, 'accepted', now()
        from push.deliveries, generate_series(1, 5000)
    """)
    await new.connection.execute("analyze")
    message = await new.message()
    before = await value(new.connection, ROWS_READ)
    assert len((await claim(new.connection, message))["jobs"]) == 1
    assert await value(new.connection, ROWS_READ) - before <= 200


async def test_a_claim_reads_the_new_messages_of_a_long_conversation_only(busy: Chat) -> None:
    async with busy.connection.transaction(force_rollback=True):
        [long] = await rows(
            busy.connection,
            "select room_id, sender_id from public.chat_messages group by 1, 2 having count(*) > 50 limit 1",
        )
        messages = [await busy.message(**long) for _ in range(2)]
        before = await value(busy.connection, ENTRIES_READ, "public.chat_messages")
        assert len((await claim(busy.connection, *messages))["jobs"]) == 1
        assert await value(busy.connection, ENTRIES_READ, "public.chat_messages") - before <= 30


async def test_a_report_reads_only_its_own_jobs_and_pushes(busy: Chat) -> None:
    """Almost all pushes are accepted, and hardly any job has the lease: these conditions look cheaper than the ids."""
    async with busy.connection.transaction(force_rollback=True):
        messages = [await busy.separate_message() for _ in range(10)]
        claimed = await claim(busy.connection, *messages)
        before = await value(busy.connection, ROWS_READ)
        await record(busy.connection, claimed, *map(worker_report, claimed["jobs"]))
        assert await value(busy.connection, ROWS_READ) - before <= 10 * 60


async def test_functions_that_switch_scans_off_do_not_compile_their_plans(shared_connection: Connection) -> None:
    """Before PostgreSQL 18, what is off has a cost of 10^10, and with LLVM each call would compile its plan.

    Packages of PostgreSQL have no LLVM, so no local test can measure that; hosted Supabase has it.
    """
    functions = await rows(
        shared_connection,
        """
        select proname as name, 'jit=off' = any(proconfig) as is_interpreted from pg_proc
        where exists (select from unnest(proconfig) setting where setting like 'enable%=off')
        """,
    )
    assert len(functions) > 20
    assert not [function["name"] for function in functions if not function["is_interpreted"]]


async def test_sending_a_message_reads_by_index_only(busy: Chat) -> None:
    async with only_by_index(busy, "idx_messages_sender_timestamp"), as_user(busy.connection, busy.tourist):
        await busy.message()


@pytest.mark.parametrize("by_id", [True, False], ids=["webhook", "sweep"])
async def test_claiming_and_recording_read_by_index_only(busy: Chat, by_id: bool) -> None:
    index = "push.jobs_pkey" if by_id else "push.idx_push_jobs_due"
    async with only_by_index(busy, index, "idx_devices_active", "push.deliveries_pkey", "auth.sessions_pkey"):
        messages = [await busy.separate_message() for _ in range(10)]
        claimed = await claim(busy.connection, *(messages if by_id else []))
        assert len(claimed["jobs"]) == 10
        await record(busy.connection, claimed, *map(worker_report, claimed["jobs"]))


async def test_claiming_and_recording_receipts_read_by_index_only(busy: Chat) -> None:
    async with only_by_index(busy, "push.idx_push_deliveries_receipt_due", "push.deliveries_pkey", "push.jobs_pkey"):
        claimed = await claim(busy.connection, await busy.message())
        await record(busy.connection, claimed, *map(worker_report, claimed["jobs"]))
        await busy.connection.execute(
            "update push.deliveries set receipt_due_at = clock_timestamp() where id = %s",
            (claimed["jobs"][0]["devices"][0]["delivery_id"],),
        )
        [due] = await due_receipts(busy.connection, limit=10)
        run = uuid4()
        await record_receipts(busy.connection, run, receipt(due, "DeviceNotRegistered"))
        assert await finish_run(busy.connection, run) == {"deactivated": 1, "held": 0}


@pytest.mark.parametrize(
    "change",
    [
        "update public.chat_messages set message = 'Edited' where id = %s",
        "update public.chat_messages set is_read = true where id = %s",
        "update public.chat_messages set deleted_at = now() where id = %s",
        "delete from public.chat_messages where id = %s",
    ],
    ids=["edit", "read", "soft delete", "hard delete"],
)
async def test_a_change_of_a_shown_message_and_its_push_read_by_index_only(busy: Chat, change: str) -> None:
    async with busy.connection.transaction(force_rollback=True):
        await busy.connection.execute("update push.settings set edit_delay = '0', read_delay = '0'")
        message = await busy.message()
        claimed = await claim(busy.connection)
        await record(busy.connection, claimed, *map(worker_report, claimed["jobs"]))
        async with only_by_index(busy, "push.jobs_room_id_recipient_id_key", "push.idx_push_deliveries_device"):
            await busy.connection.execute(change.encode(), (message,))
            claimed = await claim(busy.connection, message)
            assert len(claimed["jobs"]) == 1
            await record(busy.connection, claimed, *map(worker_report, claimed["jobs"]))


async def test_deleting_an_account_reads_by_index_only(busy: Chat) -> None:
    async with only_by_index(busy, "push.jobs_room_id_recipient_id_key", "push.idx_push_decisions_job"):
        claimed = await claim(busy.connection, await busy.message())
        await record(busy.connection, claimed, *map(worker_report, claimed["jobs"]))
        await busy.connection.execute("delete from public.users where id = %s", (busy.guide,))


async def test_pruning_reads_by_index_only(busy: Chat) -> None:
    indexes = (
        "push.idx_push_decisions_job",
        "push.idx_push_decisions_finished",
        "push.idx_push_deliveries_updated",
        "push.idx_push_jobs_changed",
        "idx_devices_last_seen",
        "idx_presence_online",
    )
    async with busy.connection.transaction(force_rollback=True):
        await busy.connection.execute(
            "update push.jobs set changed_at = now() - interval '40 days'"
            " where id in (select job_id from push.decisions limit 1)"
        )
        async with only_by_index(busy, *indexes):
            assert (await prune(busy.connection))["jobs_deleted"] == 1


async def test_registering_a_device_reads_by_index_only(busy: Chat) -> None:
    session = await session_of(busy.connection, busy.guide)
    async with (
        only_by_index(busy, "auth.sessions_pkey"),
        as_user(busy.connection, busy.guide, session_id=str(session)),
    ):
        await busy.connection.execute("select public.register_device('phone', 'ios', 'ExponentPushToken[new]')")


async def test_explain_push_reads_by_index_only(busy: Chat) -> None:
    async with only_by_index(busy, "push.decisions_pkey", "push.idx_push_deliveries_device"):
        await explain(busy.connection, await busy.message())


@pytest.mark.parametrize(
    ("call", "index"),
    [
        ("get_messages_paginated(%(room)s)", "idx_messages_conversation_cursor"),
        ("get_messages_paginated(%(room)s, 30, now(), %(room)s)", "idx_messages_conversation_cursor"),
        ("get_missed_messages(%(user)s, now() - interval '1 day')", "idx_messages_room_after_timestamp"),
        ("get_changed_messages(%(user)s, now() - interval '1 day')", "idx_messages_changed"),
        ("mark_messages_read(%(user)s, %(room)s)", "idx_messages_unread"),
        ("mark_messages_read(%(user)s, %(room)s, %(message)s, 'phone')", "idx_messages_unread"),
        ("mark_messages_delivered(%(user)s, array[%(message)s]::uuid[])", "chat_messages_pkey"),
        ("get_or_create_conversation(%(user)s, %(tourist)s)", "idx_rooms_user2"),
    ],
)
async def test_functions_of_apps_read_by_index_only(busy: Chat, call: str, index: str) -> None:
    async with only_by_index(busy, index):
        names = {"room": busy.room, "user": busy.guide, "tourist": busy.tourist}
        names["message"] = await busy.message()
        async with as_user(busy.connection, busy.guide):
            await busy.connection.execute(f"select public.{call}".encode(), names)


@pytest.mark.parametrize(
    "query",
    [
        # What supabase-js asks for; the policies add theirs.
        "select * from chat_messages where room_id = %(room)s order by server_timestamp desc limit 30",
        "select * from chat_rooms where user1_id = %(user)s or user2_id = %(user)s",
        "select * from user_devices where user_id = %(user)s",
        "select * from user_presence where user_id = %(user)s",
        "select * from users where id = %(tourist)s",
        "select * from message_receipts where message_id = %(room)s",
    ],
)
async def test_queries_under_row_level_security_read_by_index_only(busy: Chat, query: str) -> None:
    names = {"room": busy.room, "user": busy.guide, "tourist": busy.tourist}
    async with only_by_index(busy), as_user(busy.connection, busy.guide):
        await busy.connection.execute(query.encode(), names)
