"""A statement over many messages does work in proportion to them, also in a session that has planned it for one.

Work is counted, not timed: the blocks that were read. Among them are those of the rows that are kept for triggers,
because they go to disk where little memory is allowed. A plan that compares each row with each reads them repeatedly.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import psycopg
import pytest

from local.processes import temporary_folder
from local.supabase.postgres import Postgres, postgres
from local.supabase.project import create_database, migrate
from tests.database.chat import Chat, Connection, acting_as, connected, start_chat, value

FEW, MANY = 500, 2000
GROWTH = 1.3  # beyond that of the rows; trees and sorts grow a little faster

IMPORT = (
    "insert into public.chat_messages (room_id, sender_id, message, is_read)"
    " select %(room)s, case when n %% 2 = 0 then %(tourist)s::uuid else %(guide)s end, 'Hello', {} "
    " from generate_series(1, %(number)s) n"
)
RECEIVE = (
    "insert into public.chat_messages (room_id, sender_id, message)"
    " select %(room)s, %(tourist)s, 'Hello' from generate_series(1, %(number)s)"
)
DELIVER = (
    "select public.mark_messages_delivered(%(guide)s,"
    " array(select id from public.chat_messages where room_id = %(room)s))"
)
READ = "select public.mark_messages_read(%(guide)s, %(room)s)"
READ_UP_TO = (
    "select public.mark_messages_read(%(guide)s, %(room)s, id, 'phone') from public.get_messages_paginated(%(room)s, 1)"
)
UPSERT = (
    "insert into public.message_receipts (message_id, user_id, read_at)"
    " select id, %(guide)s, now() from public.chat_messages where room_id = %(room)s"
    " on conflict (message_id, user_id) do update set read_at = excluded.read_at"
)
CHANGE = "update public.chat_messages set {} where room_id = %(room)s"
ERASE = "delete from public.chat_messages where room_id = %(room)s"

START_CONVERSATIONS = "select public.start_conversations(%(guide)s, %(number)s)"
FROM_MANY = (
    "insert into public.chat_messages (room_id, sender_id, message)"
    " select id, user1_id, 'Hello' from public.chat_rooms where user2_id = %(guide)s"
)
SHOW = "select public.show_messages(%(guide)s)"
OF_MANY = " where room_id in (select id from public.chat_rooms where user2_id = %(guide)s)"

BACKEND, READER, SENDER = None, "guide", "tourist"


@dataclass(frozen=True)
class Bulk:
    """A statement, who makes it, and what came before it."""

    who: str | None
    statement: str
    before: tuple[tuple[str | None, str], ...] = ((BACKEND, RECEIVE),)


SHOWN = ((BACKEND, START_CONVERSATIONS), (BACKEND, FROM_MANY), (BACKEND, SHOW))

BULKS = {
    "import": Bulk(BACKEND, IMPORT.format("false"), before=()),
    "import of read messages": Bulk(BACKEND, IMPORT.format("true"), before=()),
    "mark_messages_delivered": Bulk(READER, DELIVER),
    "mark_messages_read": Bulk(READER, READ),
    "mark_messages_read up to the newest": Bulk(READER, READ_UP_TO),
    "mark_messages_read after delivery": Bulk(READER, READ, before=((BACKEND, RECEIVE), (READER, DELIVER))),
    "upsert of receipts": Bulk(READER, UPSERT),
    "upsert of receipts after delivery": Bulk(READER, UPSERT, before=((BACKEND, RECEIVE), (READER, DELIVER))),
    "edit": Bulk(SENDER, CHANGE.format("message = 'Edited'")),
    "soft delete": Bulk(SENDER, CHANGE.format("deleted_at = now()")),
    "read by a backend": Bulk(BACKEND, CHANGE.format("is_read = true")),
    "hard delete": Bulk(BACKEND, ERASE, before=((BACKEND, RECEIVE), (READER, DELIVER))),
    "messages in many conversations": Bulk(BACKEND, FROM_MANY, before=((BACKEND, START_CONVERSATIONS),)),
    "edit of shown messages in many conversations": Bulk(
        BACKEND, "update public.chat_messages set message = 'Edited'" + OF_MANY, before=SHOWN
    ),
    "read of shown messages in many conversations": Bulk(
        BACKEND, "update public.chat_messages set is_read = true" + OF_MANY, before=SHOWN
    ),
    "hard delete of shown messages in many conversations": Bulk(
        BACKEND, "delete from public.chat_messages" + OF_MANY, before=SHOWN
    ),
}


@pytest.fixture(scope="module", params=[15, 18])
async def session(request: pytest.FixtureRequest, server: Postgres) -> AsyncIterator[Connection]:
    """One session for all, on the oldest and the newest PostgreSQL that the migrations support.

    16 reads as many blocks as 15, and 17 as many as 18, also with a plan that compares each row with each.
    """
    if request.param == 18:
        async with used_session(server) as connection:
            yield connection
    else:
        with temporary_folder() as folder:
            async with postgres(folder, request.param) as older, used_session(older) as connection:
                yield connection


@asynccontextmanager
async def used_session(server: Postgres) -> AsyncIterator[Connection]:
    """A session of a new database, in which little fits into memory."""
    async with connected(await bulk_database(server)) as connection:
        await connection.execute("set work_mem = '64kB'")
        yield connection


async def bulk_database(server: Postgres) -> str:
    """A migrated database with a function around any statement: EXPLAIN adds up all that a function does.

    Two more functions do what a role of an API may not: they create people, and let jobs wait until what phones show
    expires.
    """
    dsn = await create_database(server, "bulk")
    await migrate(dsn)
    async with connected(dsn) as connection:
        await connection.execute("""
            create function public.perform_statement(p_statement text) returns void
            language plpgsql as $$ begin execute p_statement; end $$;
            create function public.start_conversations(p_guide uuid, p_number integer) returns void
            language plpgsql security definer as $$
            begin
              insert into auth.users (id) select md5(p_guide::text || n)::uuid from generate_series(1, p_number) n;
              insert into public.users (id) select md5(p_guide::text || n)::uuid from generate_series(1, p_number) n;
              insert into public.chat_rooms (user1_id, user2_id)
                select md5(p_guide::text || n)::uuid, p_guide from generate_series(1, p_number) n;
            end $$;
            create function public.show_messages(p_guide uuid) returns void
            language sql security definer as $$
              update push.jobs set next_attempt_at = now() + interval '1 day', expires_at = now() + interval '1 day'
              where recipient_id = p_guide;
            $$;
            grant execute on function public.perform_statement to authenticated, service_role;
            -- Whether autovacuum analyzes a table in the middle of a statement depends on the speed of the machine.
            do $$
            declare
              name regclass;
            begin
              for name in select oid from pg_class where relkind = 'r'
                and relnamespace::regnamespace::text in ('public', 'private', 'push')
              loop
                execute format('alter table %s set (autovacuum_enabled = false)', name);
              end loop;
            end $$;
        """)
    return dsn


async def perform(chat: Chat, bulk: Bulk, number: int) -> int:
    """Runs the preparation and then the statement over so many messages. Returns the blocks that the statement read."""
    blocks = 0
    for who, statement in (*bulk.before, (bulk.who, bulk.statement)):
        names = {"room": chat.room, "tourist": chat.tourist, "guide": chat.guide, "number": number}
        text = psycopg.AsyncClientCursor(chat.connection).mogrify(statement.encode(), names)
        user = getattr(chat, who) if who else None
        async with acting_as(chat.connection, "authenticated" if who else "service_role", user):
            explain = "explain (analyze, buffers, format json) select public.perform_statement(%s)"
            [explained] = await value(chat.connection, explain, text)
        plan = explained["Plan"]
        counted = ("Shared Hit Blocks", "Shared Read Blocks", "Temp Read Blocks", "Temp Written Blocks")
        blocks = sum(plan[name] for name in counted)
    return blocks


@pytest.mark.parametrize("name", BULKS)
async def test_a_statement_over_four_times_as_many_messages_reads_about_four_times_as_much(
    session: Connection, name: str
) -> None:
    blocks = []
    for number in (FEW, MANY):
        await perform(await start_chat(session), BULKS[name], 1)  # makes the session's plans
        blocks.append(await perform(await start_chat(session), BULKS[name], number))
    few, many = blocks
    assert many / few <= MANY / FEW * GROWTH
