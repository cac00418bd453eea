"""People who write at the same time: order, counters, limits, and one row of each."""

import asyncio
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from tests.database.chat import (
    Chat,
    Connection,
    Database,
    as_user,
    insert,
    person,
    row,
    rows,
    start_chat,
    value,
    waits_for_lock,
)


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


async def test_missed_messages_contain_a_message_of_another_conversation_that_commits_late(
    chat: Chat, database: Database
) -> None:
    """Timestamps are not in the order of commits. The overlap of a minute finds what a cursor alone would skip."""
    other = await start_chat(await database.connect())
    room = await insert(chat.connection, "public.chat_rooms", user1_id=other.tourist, user2_id=chat.guide)
    async with other.connection.transaction():
        late = await other.message(room_id=room["id"])
        newest = await chat.message()
        cursor = await value(chat.connection, "select server_timestamp from chat_messages where id = %s", newest)
    missed = "select id from public.get_missed_messages(%s, %s)"
    async with as_user(chat.connection, chat.guide):
        assert [one["id"] for one in await rows(chat.connection, missed, chat.guide, cursor)] == [late, newest]


async def test_the_unread_counter_is_exact_when_a_message_arrives_while_others_are_read(
    chat: Chat, database: Database
) -> None:
    await chat.message()
    reader = Chat(await database.connect(), chat.tourist, chat.guide, chat.room)
    async with chat.connection.transaction():
        await chat.message("not seen yet")
        reading = asyncio.create_task(reader.read())
        await waits_for_lock(await database.connect(), reader.connection)
    assert await reading == 1
    assert (await chat.see_room())["unread_count_user2"] == 1


async def test_the_unread_counter_is_exact_when_a_message_arrives_before_the_read_commits(
    chat: Chat, database: Database
) -> None:
    await chat.message()
    reader = Chat(await database.connect(), chat.tourist, chat.guide, chat.room)
    async with reader.connection.transaction():
        assert await reader.read() == 1
        sending = asyncio.create_task(chat.message("not seen yet"))
        await waits_for_lock(await database.connect(), chat.connection)
    await sending
    assert (await chat.see_room())["unread_count_user2"] == 1


async def test_messages_read_on_two_devices_at_once_are_counted_once(chat: Chat, database: Database) -> None:
    for _ in range(5):
        await chat.message()
    devices = [Chat(await database.connect(), chat.tourist, chat.guide, chat.room) for _ in range(2)]
    assert sorted(await asyncio.gather(*(device.read() for device in devices))) == [0, 5]
    assert (await chat.see_room())["unread_count_user2"] == 0


async def test_two_people_who_open_a_conversation_at_once_get_the_same_one(chat: Chat, database: Database) -> None:
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


async def test_a_backend_opens_no_second_conversation_beside_a_person(chat: Chat, database: Database) -> None:
    guide = (await start_chat(chat.connection)).guide
    first, backend = await database.connect(), await database.connect()
    async with as_user(first, chat.tourist):
        await value(first, "select public.get_or_create_conversation(%s, %s)", chat.tourist, guide)
        waiting = asyncio.create_task(insert(backend, "public.chat_rooms", user1_id=guide, user2_id=chat.tourist))
        await waits_for_lock(chat.connection, backend)
    with pytest.raises(psycopg.errors.UniqueViolation):
        await waiting


async def test_two_parallel_messages_with_the_same_client_msg_id_are_stored_once(
    chat: Chat, database: Database
) -> None:
    """The code 23505 shows the app that its retry was a duplicate."""
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


async def test_a_push_token_moves_to_the_last_login_even_when_two_people_log_in_at_once(
    chat: Chat, database: Database
) -> None:
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


async def test_a_registration_takes_the_push_token_although_its_device_is_unregistered_meanwhile(
    chat: Chat, database: Database
) -> None:
    token = "ExponentPushToken[shared]"
    await chat.device(device_id="phone", push_token="ExponentPushToken[old]")
    await chat.device(user_id=chat.tourist, push_token=token)
    registering = await database.connect()

    async def register() -> None:
        async with as_user(registering, chat.guide):
            await registering.execute("select public.register_device('phone', 'ios', %s)", (token,))

    async with as_user(chat.connection, chat.guide):
        await chat.connection.execute("select public.unregister_device('phone')")
        waiting = asyncio.create_task(register())
        await waits_for_lock(await database.connect(), registering)
    await waiting
    owner = await value(chat.connection, "select user_id from user_devices where push_token = %s", token)
    assert owner == chat.guide


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
    """Starts each (way, person, token) while another transaction holds the rows of both phones. Returns the errors."""
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
