"""The attacks and faults of the fairness benchmark: what one user, one row or one provider can do to others."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from uuid import UUID, uuid4

import aiohttp
import psycopg
from postgrest import APIError

from local.app import App, Person
from local.cloud import LocalCloud
from local.providers.expo.faults import Hang, TicketError
from local.supabase.postgres import SUPERUSER


@dataclass(frozen=True)
class AttackSetup:
    """A running cloud, and an attacker with four accomplices and a conversation with each of them."""

    cloud: LocalCloud
    attacker: Person
    accomplices: Sequence[Person]
    rooms: Sequence[UUID]

    @property
    def senders(self) -> list[UUID]:
        """The attacker and the accomplices."""
        return [person.id for person in (self.attacker, *self.accomplices)]

    async def as_owner(self, *statements: str) -> None:
        """Runs statements without triggers, to write rows as they may be in an older database."""
        dsn = self.cloud.postgres.dsn(role=SUPERUSER)
        async with await psycopg.AsyncConnection.connect(dsn) as connection:
            await connection.execute("set session_replication_role = replica")
            for statement in statements:
                values = {"room": self.rooms[0], "attacker": self.attacker.id, "senders": self.senders}
                await connection.execute(statement.encode(), values)

    async def sweep(self) -> None:
        """Starts sweeps without a pause, so that jobs that are due are claimed while others chat."""
        while True:
            await self.cloud.sweep()

    async def pushes(self) -> int:
        """The number of the attack's messages that a worker has handled so far."""
        async with await psycopg.AsyncConnection.connect(self.cloud.database_url) as connection:
            answer = await connection.execute(
                "select from push.decisions join public.chat_messages message on message.id = decisions.message_id"
                " join public.chat_rooms room on room.id = message.room_id"
                " where array[room.user1_id, room.user2_id] && %s",
                (self.senders,),
            )
            return answer.rowcount

    async def clean(self) -> None:
        """Removes what an attack left, so that the next one is measured alone."""
        self.cloud.expo.faults.scripts.clear()
        dsn = self.cloud.database_url
        async with await psycopg.AsyncConnection.connect(dsn) as connection:
            await connection.execute("delete from public.chat_messages where room_id = any(%s)", (list(self.rooms),))
            await connection.execute("delete from auth.users where email like 'recipient-%'")
            await connection.execute("delete from public.user_devices where user_id = %s", (self.attacker.id,))
            await connection.execute(
                "update public.users set display_name = 'Someone' where length(display_name) > 100"
            )
            await connection.execute("delete from push.registration_counts")


async def attack_setup(cloud: LocalCloud, app: App) -> AttackSetup:
    """Signs up the attacker and the accomplices, and opens their conversations."""
    attacker = await app.sign_up("Mallory", "tourist")
    accomplices = [await app.sign_up(f"Oscar{number}", "guide") for number in range(4)]
    rooms = [await accomplice.open_chat(attacker) for accomplice in accomplices]
    return AttackSetup(cloud, attacker, accomplices, rooms)


async def _refused(request: Awaitable[object]) -> None:
    """Awaits a request that the Data API may refuse."""
    with suppress(APIError):
        await request


def _devices(attacker: Person, number: int) -> list[dict[str, str]]:
    return [
        {
            "user_id": str(attacker.id),
            "device_id": f"device {n}",
            "platform": "ios",
            "push_token": f"ExponentPushToken[{uuid4()}]",
        }
        for n in range(number)
    ]


async def _flood(setup: AttackSetup, text: str = "Hello", attachments: Sequence[object] = ()) -> None:
    """All accomplices send messages to the attacker, at most ten a second each."""

    async def write(accomplice: Person, room: UUID) -> None:
        while True:
            await _refused(accomplice.send(room, text, attachments=list(attachments)))
            await asyncio.sleep(0.1)

    await asyncio.gather(*map(write, setup.accomplices, setup.rooms))


async def device_flood(setup: AttackSetup) -> None:
    """As many devices of one user as the database accepts, and a flood of messages to them."""
    devices = setup.attacker.client.table("user_devices")
    await _refused(devices.insert(_devices(setup.attacker, 20_000)).execute())
    for device in _devices(setup.attacker, 20):
        await _refused(devices.insert(device).execute())
        setup.cloud.expo.install(device["push_token"], "ios")
    await _flood(setup)


async def biggest_messages(setup: AttackSetup) -> None:
    """The longest texts, attachments and name that are accepted, and longer ones that are not."""
    device = _devices(setup.attacker, 1)[0]
    await setup.attacker.client.table("user_devices").insert(device).execute()
    setup.cloud.expo.install(device["push_token"], "ios")
    for accomplice in setup.accomplices:
        for length in (12_000_000, 2_000):
            names = accomplice.client.table("users").update({"display_name": "x" * length})
            await _refused(names.eq("id", str(accomplice.id)).execute())
    await _refused(setup.accomplices[0].send(setup.rooms[0], "x" * 3_000_000))
    await _flood(setup, "x" * 16_000, [{"type": "image", "url": "https://example.com/" + "x" * 900}] * 30)


async def rows_of_an_older_database(setup: AttackSetup) -> None:
    """Texts of 1.2 MB, attachments that are not a list, and a name of 12 MB, written without triggers."""
    await setup.as_owner(
        "alter table public.chat_messages drop constraint if exists chat_messages_attachments_check",
        "update public.users set display_name = repeat('x', 12000000) where id = %(attacker)s",
        "insert into public.user_devices (user_id, device_id, platform, push_token)"
        " select user1_id, 'old', 'ios', 'ExponentPushToken[old]' from public.chat_rooms where id = %(room)s",
        "with old as (insert into public.chat_messages (room_id, sender_id, message, attachments, server_timestamp)"
        "  select %(room)s, %(attacker)s, repeat('long ', 240000), '{\"no\": \"list\"}', clock_timestamp()"
        "  from generate_series(1, 100) returning server_timestamp)"
        " insert into push.jobs (room_id, recipient_id, decided_up_to)"
        " select %(room)s, user1_id, min(old.server_timestamp) - interval '1 microsecond'"
        " from old, public.chat_rooms where chat_rooms.id = %(room)s group by user1_id"
        " on conflict (room_id, recipient_id) do update set revision = jobs.revision + 1,"
        " state = case jobs.state when 'leased' then jobs.state else 'pending' end,"
        " next_attempt_at = clock_timestamp()",
    )
    await setup.sweep()


async def wrong_key_of_a_provider(setup: AttackSetup) -> None:
    """8,000 conversations of 1,600 users, for whose devices Expo answers MismatchSenderId. All are due at once."""
    for token in _install_phones(setup, 1600):
        setup.cloud.expo.script(TicketError(error="MismatchSenderId"), times=1000, token=token)
    await _write_to_many(setup, 1600, senders=5)


async def late_answers(setup: AttackSetup) -> None:
    """Expo delivers each push but does not answer, so that each worker waits until its timeout."""
    setup.cloud.expo.script(Hang(seconds=20, accepted=True), times=1_000_000)
    device = _devices(setup.attacker, 1)[0]
    await setup.attacker.client.table("user_devices").insert(device).execute()
    setup.cloud.expo.install(device["push_token"], "ios")
    await _flood(setup)


async def dead_tokens(setup: AttackSetup) -> None:
    """The tokens of 300 users die at once, and each user gets a message."""
    for token in _install_phones(setup, 300):
        setup.cloud.expo.uninstall(token)
    await _write_to_many(setup, 300, senders=1)


def _install_phones(setup: AttackSetup, users: int) -> list[str]:
    tokens = [f"ExponentPushToken[recipient{number}]" for number in range(1, users + 1)]
    for token in tokens:
        setup.cloud.expo.install(token, "android")
    return tokens


async def _write_to_many(setup: AttackSetup, users: int, senders: int) -> None:
    """Inserts users with a phone each, and messages from so many senders to each of them. Then sweeps."""
    await setup.as_owner(
        "create temp table recipient as select gen_random_uuid() as id, number"
        f" from generate_series(1, {users}) number",
        "insert into auth.users (id, email) select id, 'recipient-' || number || '@example.com' from recipient",
        "insert into public.users (id, display_name) select id, 'Recipient' from recipient",
        "insert into public.user_devices (user_id, device_id, platform, push_token)"
        " select id, 'phone', 'android', 'ExponentPushToken[recipient' || number || ']' from recipient",
        "with room as (insert into public.chat_rooms (user1_id, user2_id)"
        f"  select id, sender from recipient, unnest((%(senders)s::uuid[])[:{senders}]) sender returning *),"
        " due as (insert into public.chat_messages (room_id, sender_id, message, server_timestamp)"
        "  select id, user2_id, 'Hello', clock_timestamp() from room returning room_id, server_timestamp)"
        " insert into push.jobs (room_id, recipient_id, decided_up_to)"
        " select room_id, user1_id, server_timestamp - interval '1 microsecond'"
        " from due join room on room.id = room_id",
    )
    await setup.sweep()


async def bulk_statements(setup: AttackSetup) -> None:
    """20,000 messages are marked as read, edited and deleted, by one request each, in a loop."""
    room, accomplice, attacker = setup.rooms[0], setup.accomplices[0], setup.attacker
    for number in count():
        await setup.as_owner(
            "insert into public.chat_messages (room_id, sender_id, message, server_timestamp)"
            " select %(room)s, user1_id, 'Hello', clock_timestamp()"
            " from public.chat_rooms, generate_series(1, 20000) where id = %(room)s"
        )
        await _refused(attacker.read(room))
        messages = accomplice.client.table("chat_messages")
        await _refused(messages.update({"message": f"Edited {number}"}).eq("room_id", str(room)).execute())
        await _refused(messages.update({"deleted_at": "now"}).eq("room_id", str(room)).execute())


async def random_webhook_secrets(setup: AttackSetup) -> None:
    """Webhook calls with secrets for which API Gateway has no cached answer."""
    url = f"{setup.cloud.api_url}/api/push/chat-message"
    async with aiohttp.ClientSession() as http:

        async def call() -> None:
            async with http.post(url, json={"record": {"id": str(uuid4())}}, headers={"x-webhook-secret": uuid4().hex}):
                pass

        async with asyncio.TaskGroup() as requests:
            while True:
                requests.create_task(call())
                await asyncio.sleep(1 / 40)


ATTACKS: dict[str, Callable[[AttackSetup], Awaitable[None]]] = {
    "20,000 devices and a flood of messages to them": device_flood,
    "the biggest messages and names": biggest_messages,
    "rows of an older database: texts of 1.2 MB, malformed attachments, a name of 12 MB": rows_of_an_older_database,
    "8,000 conversations refused because of a wrong provider key": wrong_key_of_a_provider,
    "Expo delivers but does not answer": late_answers,
    "300 dead tokens at once": dead_tokens,
    "20,000 messages read, edited and deleted at a time": bulk_statements,
    "webhook calls with random secrets": random_webhook_secrets,
}
