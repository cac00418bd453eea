"""What happens between connections: leases, and the rules that must hold when two people act at once."""

import asyncio
import random
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from itertools import product
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from tests.database.chat import (
    Chat,
    Connection,
    Database,
    acting_as,
    as_user,
    claim,
    finish_run,
    insert,
    person,
    record,
    row,
    rows,
    start_chat,
    value,
    waits_for_lock,
    worker_report,
)


@pytest.fixture
async def chat(database: Database) -> Chat:
    """A conversation that every connection of the test's own database sees."""
    return await start_chat(await database.connect())


# Claims ----------------------------------------------------------------------------------------


async def test_parallel_workers_claim_every_job_exactly_once(chat: Chat, database: Database) -> None:
    await chat.device()
    await chat.connection.execute("update push.settings set recipient_share = 1")
    await chat.connection.execute(
        "insert into chat_messages (room_id, sender_id, message)"
        " select %s, %s, 'Hello ' || n from generate_series(1, 400) n",
        (chat.room, chat.tourist),
    )

    async def work() -> list[UUID]:
        connection = await database.connect()
        mine: list[UUID] = []
        while jobs := (await claim(connection, limit=7))["jobs"]:
            mine += [UUID(job["message_id"]) for job in jobs]
        return mine

    claimed = await asyncio.gather(*(work() for _ in range(8)))
    everything = [message for mine in claimed for message in mine]
    assert len(everything) == len(set(everything)) == 400
    assert await value(chat.connection, "select max(attempts) from push.jobs") == 1
    assert sum(bool(mine) for mine in claimed) > 1, "the workers did not run in parallel"


async def test_webhook_and_sweep_send_once(chat: Chat, database: Database) -> None:
    """Whoever holds the lease sends; the other one passes over and never waits."""
    await chat.device()
    message = await chat.message()
    other = await database.connect()
    async with chat.connection.transaction():
        assert len((await claim(chat.connection, message))["jobs"]) == 1
        assert (await claim(other, message))["not_due"] == [str(message)]
        assert (await claim(other))["jobs"] == []


async def test_a_worker_does_not_wait_for_the_locked_row_of_a_dead_device(chat: Chat, database: Database) -> None:
    device = await chat.device()
    claimed = await claim(chat.connection, await chat.message())
    [job] = claimed["jobs"]
    worker = await database.connect()
    await worker.execute("set lock_timeout = '1s'")
    async with chat.connection.transaction():
        await chat.connection.execute("update public.user_devices set app_version = '2' where id = %s", (device["id"],))
        await record(worker, claimed, worker_report(job, "DeviceNotRegistered"))
        assert await finish_run(worker, uuid4()) == {"deactivated": 0, "held": 0}


async def test_workers_that_claim_at_once_reserve_one_slot_after_the_other(chat: Chat, database: Database) -> None:
    await chat.device()
    messages = [await chat.message() for _ in range(3)]
    await chat.connection.execute("update push.settings set notifications_per_second = 25")
    await chat.connection.execute("update push.rate_limiter set free_at = clock_timestamp() + interval '1 hour'")
    before = await value(chat.connection, "select free_at from push.rate_limiter")
    workers = [await database.connect() for _ in messages]
    await asyncio.gather(*(claim(worker, message) for worker, message in zip(workers, messages, strict=True)))
    assert await value(chat.connection, "select free_at from push.rate_limiter") - before == timedelta(seconds=3 / 25)


async def test_a_report_locks_its_jobs_in_one_order(chat: Chat, database: Database) -> None:
    """Or two workers that report the same messages would wait for each other."""
    await chat.device()
    low, high = sorted([await chat.message(), await chat.message()])
    claimed = await claim(chat.connection, low, high)
    reports = sorted(
        (worker_report(job) for job in claimed["jobs"]), key=lambda report: report["message_id"], reverse=True
    )
    worker, other = await database.connect(), await database.connect()
    lock = "select from push.jobs where message_id = %s for update nowait"
    async with other.transaction():
        await rows(other, lock, low)
        reporting = asyncio.create_task(record(worker, claimed, *reports))
        await waits_for_lock(chat.connection, worker)
        assert len(await rows(chat.connection, lock, high)) == 1, "taken before the lower one"
    await reporting
    assert (await chat.job(high))["outcome"] == "accepted"


async def test_job_is_stored_with_its_message_or_not_at_all(chat: Chat, database: Database) -> None:
    other = await database.connect()
    async with chat.connection.transaction(force_rollback=True):
        message = await chat.message()
        assert (await chat.job(message))["recipient_id"] == chat.guide
        assert (await claim(other, message))["unknown"] == [str(message)]
    assert await rows(chat.connection, "select * from push.jobs") == []


# Order and counters ----------------------------------------------------------------------------


async def test_timestamps_of_a_conversation_follow_the_order_of_commits(chat: Chat, database: Database) -> None:
    answering = Chat(await database.connect(), chat.tourist, chat.guide, chat.room)
    async with chat.connection.transaction():
        await chat.message("one")
        waiting = asyncio.create_task(answering.message("three", sender_id=chat.guide))
        await waits_for_lock(await database.connect(), answering.connection)
        await chat.message("two")  # later than the start of three, but committed before it
    await waiting
    texts = await rows(chat.connection, "select message from chat_messages order by server_timestamp")
    assert [text["message"] for text in texts] == ["one", "two", "three"]
    assert (await chat.see_room())["last_message"] == "three"


async def test_message_of_another_conversation_that_commits_late_is_not_missed(chat: Chat, database: Database) -> None:
    """A cursor over timestamps that are not ordered by commit skips; the overlap of a minute does not."""
    other = await start_chat(await database.connect())
    room = await insert(chat.connection, "public.chat_rooms", user1_id=other.tourist, user2_id=chat.guide)
    async with other.connection.transaction():
        late = await other.message(room_id=room["id"])
        newest = await chat.message()
        cursor = await value(chat.connection, "select server_timestamp from chat_messages where id = %s", newest)
    missed = "select id from public.get_missed_messages(%s, %s)"
    async with as_user(chat.connection, chat.guide):
        assert [one["id"] for one in await rows(chat.connection, missed, chat.guide, cursor)] == [late, newest]


async def test_counter_is_exact_when_a_message_arrives_while_others_are_read(chat: Chat, database: Database) -> None:
    await chat.message()
    reader = Chat(await database.connect(), chat.tourist, chat.guide, chat.room)
    async with chat.connection.transaction():
        await chat.message("not seen yet")
        reading = asyncio.create_task(reader.read())
        await waits_for_lock(await database.connect(), reader.connection)
    assert await reading == 1
    assert (await chat.see_room())["unread_count_user2"] == 1


async def test_counter_is_exact_when_a_message_arrives_before_the_read_commits(chat: Chat, database: Database) -> None:
    await chat.message()
    reader = Chat(await database.connect(), chat.tourist, chat.guide, chat.room)
    async with reader.connection.transaction():
        assert await reader.read() == 1
        sending = asyncio.create_task(chat.message("not seen yet"))
        await waits_for_lock(await database.connect(), chat.connection)
    await sending
    assert (await chat.see_room())["unread_count_user2"] == 1


async def test_read_on_two_devices_at_once_counts_once(chat: Chat, database: Database) -> None:
    for _ in range(5):
        await chat.message()
    devices = [Chat(await database.connect(), chat.tourist, chat.guide, chat.room) for _ in range(2)]
    assert sorted(await asyncio.gather(*(device.read() for device in devices))) == [0, 5]
    assert (await chat.see_room())["unread_count_user2"] == 0


# One order of locks ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Act:
    """A statement and who makes it: the tourist, who sends, the guide, who reads, or a backend by its role."""

    who: str
    statement: str

    async def perform(self, chat: Chat, connection: Connection, messages: list[UUID]) -> None:
        """Make the statement in a transaction of its own, as the Data API does."""
        names = {"room": chat.room, "tourist": chat.tourist, "guide": chat.guide, "messages": messages}
        role, user = (self.who, None) if self.who in BACKENDS else ("authenticated", getattr(chat, self.who))
        async with acting_as(connection, role, user):
            await connection.execute(self.statement.encode(), names)


# As docs/decisions.md has it for a backend that changes many messages, which may be anybody's.
LOCKED = "where id in (select private.lock_messages(%(messages)s::uuid[]))"
BACKENDS = ("postgres", "service_role")
ACTS = {
    "send": Act(
        "tourist", "insert into chat_messages (room_id, sender_id, message) values (%(room)s, %(tourist)s, 'New')"
    ),
    "edit": Act("tourist", "update chat_messages set message = 'Edited' where id = any(%(messages)s::uuid[])"),
    "soft delete": Act(
        "tourist", "update chat_messages set deleted_at = now() where room_id = %(room)s and sender_id = %(tourist)s"
    ),
    "hard delete": Act("postgres", f"delete from chat_messages {LOCKED}"),
    "hard delete of one": Act("service_role", "delete from chat_messages where id = (%(messages)s::uuid[])[1]"),
    "moderate": Act("postgres", f"update chat_messages set message = '' {LOCKED}"),
    "delete": Act("tourist", "delete from chat_messages where id = any(%(messages)s::uuid[])"),
    "update is_read": Act("guide", "update chat_messages set is_read = true where room_id = %(room)s"),
    "update is_read of all": Act("tourist", "update chat_messages set is_read = true where room_id = %(room)s"),
    "mark_messages_read": Act("guide", "select mark_messages_read(%(guide)s, %(room)s)"),
    "mark_messages_delivered": Act("guide", "select mark_messages_delivered(%(guide)s, %(messages)s::uuid[])"),
    "upsert receipts": Act(
        "guide",
        "insert into message_receipts (message_id, user_id, read_at)"
        " select id, %(guide)s, now() from unnest(%(messages)s::uuid[]) id"
        " on conflict (message_id, user_id) do update set read_at = excluded.read_at",
    ),
}
# Statements of apps from before Chat Push, whose row order is unknown: pair by pair they are tested as all others
# are, but among thousands one may meet a deadlock and is to be made again (docs/decisions.md, "One order of locks").
OLD_APPS = {"delete", "update is_read", "update is_read of all"}
# How the upsert of a receipt is refused once its message was deleted.
ERASED = {"42501", "23503"}
# Where a statement is held up, with all that it has locked by then: by a transaction that has this row.
GATES = {
    "conversation": "select from chat_rooms where id = %(room)s for no key update",
    "first message": "select from chat_messages where id = %(first)s for no key update",
    "last message": "select from chat_messages where id = %(last)s for no key update",
    "first receipt": "select from message_receipts where message_id = %(delivered)s for no key update",
}


@pytest.fixture(scope="module")
async def four(module_database: Database) -> list[Connection]:
    """Connections: one that prepares, one that holds a row, two that meet."""
    return [await module_database.connect() for _ in range(4)]


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize(("first", "second"), list(product(ACTS, ACTS)))
async def test_two_statements_over_the_same_messages_never_deadlock(
    four: list[Connection], first: str, second: str, gate: str
) -> None:
    """Whatever the first one has locked when it is held up, and the second one when it has to wait."""
    observer, holder, *meeting = four
    chat = await start_chat(observer)
    messages = [await chat.message(id=message) for message in sorted(uuid4() for _ in range(4))]
    async with as_user(observer, chat.guide):
        await observer.execute("select mark_messages_delivered(%s, %s)", (chat.guide, messages[1::2]))
    tasks = []
    async with holder.transaction():
        names = {"room": chat.room, "first": messages[0], "delivered": messages[1], "last": messages[-1]}
        await holder.execute(GATES[gate].encode(), names)
        for name, connection in zip((first, second), meeting, strict=True):
            tasks.append(asyncio.create_task(ACTS[name].perform(chat, connection, messages)))
            await waits_for_lock(observer, connection, tasks[-1])
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    refusals = {outcome.sqlstate for outcome in outcomes if isinstance(outcome, psycopg.Error)}
    assert refusals <= (ERASED if {"upsert receipts"} < {first, second} else set())
    assert all(outcome is None or isinstance(outcome, psycopg.Error) for outcome in outcomes)


async def test_statements_of_one_person_in_opposite_orders_wait_for_each_other(chat: Chat, database: Database) -> None:
    """The order in which a statement finds its rows is the plan's: here two statements stand for one."""
    low, high = sorted([await chat.message(), await chat.message()])
    other = await database.connect()
    edit = ACTS["edit"].statement.encode()

    async def edit_backwards() -> None:
        async with as_user(other, chat.tourist):
            for message in (high, low):
                await other.execute(edit, {"messages": [message]})

    async with as_user(chat.connection, chat.tourist):
        await chat.connection.execute(edit, {"messages": [low]})
        waiting = asyncio.create_task(edit_backwards())
        await waits_for_lock(await database.connect(), other)
        await chat.connection.execute(edit, {"messages": [high]})
    await waiting


@pytest.mark.parametrize("act", ["mark_messages_read", "mark_messages_delivered", "upsert receipts"])
async def test_changes_of_a_sender_and_marks_of_a_reader_wait_for_each_other(
    chat: Chat, database: Database, act: str
) -> None:
    low, high = sorted([await chat.message(), await chat.message()])
    reader = await database.connect()
    edit = ACTS["edit"].statement.encode()
    async with as_user(chat.connection, chat.tourist):
        await chat.connection.execute(edit, {"messages": [high]})
        waiting = asyncio.create_task(ACTS[act].perform(chat, reader, [low, high]))
        await waits_for_lock(await database.connect(), reader)
        await chat.connection.execute(edit, {"messages": [low]})
    await waiting


@pytest.mark.parametrize("act", ["mark_messages_read", "mark_messages_delivered"])
async def test_marking_succeeds_when_one_of_the_messages_is_deleted_meanwhile(
    chat: Chat, database: Database, act: str
) -> None:
    deleted, kept = [await chat.message() for _ in range(2)]
    reader = await database.connect()
    async with chat.connection.transaction():
        await chat.connection.execute("delete from chat_messages where id = %s", (deleted,))
        waiting = asyncio.create_task(ACTS[act].perform(chat, reader, [deleted, kept]))
        await waits_for_lock(await database.connect(), reader)
    await waiting
    assert await rows(chat.connection, "select message_id from message_receipts") == [{"message_id": kept}]


async def test_three_thousand_calls_of_four_people_at_once_meet_no_deadlock(chat: Chat, database: Database) -> None:
    await chat.connection.execute("update private.chat_settings set message_limit = 1000000")
    other = await start_chat(chat.connection)
    chats = [chat, other, *(Chat(one.connection, one.guide, one.tourist, one.room) for one in (chat, other))]
    connections = [await database.connect() for _ in range(6)]
    failures: Counter[str | None] = Counter()

    async def call(connection: Connection, chance: random.Random) -> None:
        for _ in range(500):
            where = chance.choice(chats)
            newest = "select id from chat_messages where room_id = %s and sender_id = %s order by random() limit 6"
            messages = sorted(one["id"] for one in await rows(connection, newest, where.room, where.tourist))
            act = chance.choice([*sorted(ACTS.keys() - OLD_APPS), "send", "send", "send"])
            try:
                await ACTS[act].perform(where, connection, messages)
            except psycopg.Error as error:
                failures[error.sqlstate] += 1

    await asyncio.gather(*(call(one, random.Random(number)) for number, one in enumerate(connections)))
    assert failures.keys() <= ERASED


# One of each -----------------------------------------------------------------------------------


async def test_two_people_who_open_a_conversation_at_once_get_the_same(chat: Chat, database: Database) -> None:
    guide = (await start_chat(chat.connection)).guide
    first, second = await database.connect(), await database.connect()
    open_chat = "select public.get_or_create_conversation(%s, %s)"
    async with as_user(first, chat.tourist):
        room = await value(first, open_chat, chat.tourist, guide)

        async def open_too() -> Any:
            async with as_user(second, guide):
                return await value(second, open_chat, guide, chat.tourist)

        waiting = asyncio.create_task(open_too())
        await waits_for_lock(chat.connection, second)
    assert await waiting == room


async def test_same_client_msg_id_is_stored_once(chat: Chat, database: Database) -> None:
    """23505 is how the app learns that its retry was a duplicate."""
    client_msg_id = str(uuid4())
    senders = [Chat(await database.connect(), chat.tourist, chat.guide, chat.room) for _ in range(2)]
    outcomes = await asyncio.gather(
        *(sender.message(client_msg_id=client_msg_id) for sender in senders), return_exceptions=True
    )
    [refusal] = [outcome for outcome in outcomes if isinstance(outcome, psycopg.Error)]
    assert refusal.sqlstate == "23505"
    assert await value(chat.connection, "select count(*) from push.jobs") == 1


async def test_parallel_messages_cannot_pass_the_rate_limit(chat: Chat, database: Database) -> None:
    async def send() -> None:
        connection = await database.connect()
        async with as_user(connection, chat.tourist):
            await Chat(connection, chat.tourist, chat.guide, chat.room).message()

    outcomes = await asyncio.gather(*(send() for _ in range(40)), return_exceptions=True)
    refusals = [outcome for outcome in outcomes if isinstance(outcome, psycopg.Error)]
    assert [refusal.sqlstate for refusal in refusals] == ["PT429"] * 10


UPSERT_DEVICE = """
    insert into user_devices (user_id, device_id, platform, push_token, is_active)
    values (%s, %s, 'ios', %s, true)
    on conflict (user_id, device_id) do update
      set push_token = excluded.push_token, is_active = excluded.is_active
"""


async def test_concurrent_registrations_of_one_device_leave_one_row(chat: Chat, database: Database) -> None:
    async def register(device_id: str) -> None:
        connection = await database.connect()
        async with as_user(connection, chat.guide):
            await connection.execute(UPSERT_DEVICE, (chat.guide, device_id, "ExponentPushToken[same]"))

    await asyncio.gather(*(register("phone") for _ in range(6)))
    device = await row(chat.connection, "select * from user_devices")
    assert (device["push_token"], device["is_active"]) == ("ExponentPushToken[same]", True)


async def test_token_moves_to_last_login_even_when_both_log_in_at_once(chat: Chat, database: Database) -> None:
    first, second = await database.connect(), await database.connect()

    async def log_in(connection: Connection, user_id: UUID) -> None:
        async with as_user(connection, user_id):
            await connection.execute(UPSERT_DEVICE, (user_id, "phone", "ExponentPushToken[shared]"))

    async with first.transaction():
        await log_in(first, chat.guide)
        waiting = asyncio.create_task(log_in(second, chat.tourist))
        await waits_for_lock(chat.connection, second)
    await waiting
    owners = await rows(chat.connection, "select user_id, push_token, is_active from user_devices")
    assert sorted(owners, key=lambda device: device["is_active"]) == [
        {"user_id": chat.guide, "push_token": None, "is_active": False},
        {"user_id": chat.tourist, "push_token": "ExponentPushToken[shared]", "is_active": True},
    ]


REGISTER = "select public.register_device(%s, 'ios', %s) -> 'created'"


async def test_fifty_registrations_of_one_token_by_ten_accounts_leave_one_active_device(
    chat: Chat, database: Database
) -> None:
    users = [await person(chat.connection) for _ in range(10)]

    async def log_in(user_id: UUID) -> list[bool]:
        connection = await database.connect()
        created = []
        for number in range(5):
            async with as_user(connection, user_id):
                created.append(await value(connection, REGISTER, f"phone {number % 2}", "ExponentPushToken[shared]"))
        return created

    created = await asyncio.gather(*(log_in(user) for user in users))
    assert created == [[True, True, False, False, False]] * 10
    devices = await rows(chat.connection, "table user_devices")
    assert len(devices) == 20
    [active] = [device for device in devices if device["is_active"]]
    assert active["push_token"] == "ExponentPushToken[shared]"
    assert [device["push_token"] for device in devices if device is not active] == [None] * 19


async def test_parallel_registrations_cannot_pass_the_limits(chat: Chat, database: Database) -> None:
    await chat.connection.execute("update push.settings set device_limit = 5")

    async def register(number: int) -> Any:
        connection = await database.connect()
        async with as_user(connection, chat.guide):
            return await value(connection, REGISTER, f"phone {number}", f"ExponentPushToken[{number}]")

    outcomes = await asyncio.gather(*(register(number) for number in range(30)), return_exceptions=True)
    refusals = [outcome for outcome in outcomes if isinstance(outcome, psycopg.Error)]
    assert [refusal.sqlstate for refusal in refusals] == ["PT429"] * 10
    assert await value(chat.connection, "select count(*) from user_devices where is_active") == 5
    assert await value(chat.connection, "select count(*) from user_devices") == 20


async def test_parallel_direct_inserts_cannot_pass_the_limits(chat: Chat, database: Database) -> None:
    await chat.connection.execute(
        "update push.settings set device_limit = 5, stored_device_limit = 12, registration_limit = 30"
    )

    async def insert_three(number: int) -> None:
        connection = await database.connect()
        async with as_user(connection, chat.guide):
            await connection.execute(
                "insert into user_devices (user_id, device_id, platform, push_token)"
                " select %s, 'phone ' || n, 'ios', 'ExponentPushToken[' || n || ']'"
                " from generate_series(%s::integer, %s) n",
                (chat.guide, 3 * number, 3 * number + 2),
            )

    outcomes = await asyncio.gather(*(insert_three(number) for number in range(12)), return_exceptions=True)
    refusals = [outcome for outcome in outcomes if isinstance(outcome, psycopg.Error)]
    assert [refusal.sqlstate for refusal in refusals] == ["PT429"] * 2
    assert await value(chat.connection, "select count(*) from user_devices where is_active") == 5
    assert await value(chat.connection, "select count(*) from user_devices") == 12


OF_GUIDE, OF_TOURIST = "ExponentPushToken[guide]", "ExponentPushToken[tourist]"
WAYS_TO_REGISTER = {
    "register_device": "select public.register_device('phone', 'ios', %(token)s)",
    "upsert": """
        insert into user_devices (user_id, device_id, platform, push_token) values (%(user)s, 'phone', 'ios', %(token)s)
        on conflict (user_id, device_id) do update set push_token = excluded.push_token, is_active = true
    """,
    "update": "update user_devices set push_token = %(token)s, is_active = true where user_id = %(user)s",
}


async def register_at_once(
    chat: Chat, database: Database, *registrations: tuple[str, UUID, str]
) -> list[psycopg.Error | None]:
    """Each (way, person, token) begins while another transaction holds both phones' rows; how each ended."""
    await chat.connection.execute("delete from user_devices")
    for user, token in ((chat.guide, OF_GUIDE), (chat.tourist, OF_TOURIST)):
        await insert(
            chat.connection, "public.user_devices", user_id=user, device_id="phone", platform="ios", push_token=token
        )

    async def register(connection: Connection, way: str, user: UUID, token: str) -> psycopg.Error | None:
        try:
            async with as_user(connection, user):
                await connection.execute(WAYS_TO_REGISTER[way].encode(), {"user": user, "token": token})
        except psycopg.Error as error:
            return error
        return None

    holder, running = await database.connect(), []
    async with holder.transaction():
        await rows(holder, "select from user_devices for update")
        for registration in registrations:
            connection = await database.connect()
            running.append(asyncio.create_task(register(connection, *registration)))
            await waits_for_lock(chat.connection, connection)
    return await asyncio.gather(*running)


@pytest.mark.parametrize("first", ["register_device", "upsert"])
@pytest.mark.parametrize("second", ["register_device", "upsert"])
async def test_two_people_who_exchange_their_push_tokens_both_succeed(
    chat: Chat, database: Database, first: str, second: str
) -> None:
    for _ in range(5):  # the first to wake may finish before the other one wakes
        swap = ((first, chat.guide, OF_TOURIST), (second, chat.tourist, OF_GUIDE))
        assert await register_at_once(chat, database, *swap) == [None, None]
        devices = await rows(chat.connection, "select user_id, push_token, is_active from user_devices")
        assert {(one["user_id"], one["push_token"], one["is_active"]) for one in devices} == {
            (chat.guide, OF_TOURIST, True),
            (chat.tourist, OF_GUIDE, True),
        }


@pytest.mark.parametrize("first", WAYS_TO_REGISTER)
@pytest.mark.parametrize("second", WAYS_TO_REGISTER)
async def test_an_exchange_of_push_tokens_by_updates_may_reject_one_person_with_409(
    chat: Chat, database: Database, first: str, second: str
) -> None:
    """An update locks its row before its trigger runs. It must not wait for a transaction that waits for that row."""
    ended = await register_at_once(chat, database, (first, chat.guide, OF_TOURIST), (second, chat.tourist, OF_GUIDE))
    assert [error.sqlstate for error in ended if error] in ([], ["PT409"])
    assert all(way == "update" for way, error in zip((first, second), ended, strict=True) if error)
    tokens = await rows(chat.connection, "select push_token from user_devices where push_token is not null")
    assert 1 <= len({token["push_token"] for token in tokens}) == len(tokens)


@pytest.mark.parametrize("first", WAYS_TO_REGISTER)
@pytest.mark.parametrize("second", WAYS_TO_REGISTER)
async def test_one_person_who_registers_a_phone_in_two_ways_at_once_gets_no_deadlock(
    chat: Chat, database: Database, first: str, second: str
) -> None:
    tokens = [f"ExponentPushToken[{name}]" for name in ("one", "two")]
    ended = await register_at_once(chat, database, (first, chat.guide, tokens[0]), (second, chat.guide, tokens[1]))
    assert ended == [None, None]
    device = await row(chat.connection, "select * from user_devices where user_id = %s", chat.guide)
    assert device["push_token"] == tokens[1]
