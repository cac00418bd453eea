"""How long other people's pushes take while one person, one row or one provider does its worst.

Three pairs of people chat, two messages a second, on a local cloud with its schedule and its webhook: measured is the
time from the insert through the Data API to Expo's acceptance, of each of their messages. First without an attack, then
beside one attack after the other, each for a few seconds, as a signed-in person makes it through the Data API and the
HTTP API, or as an older database or a provider does. Attacker, Expo, gateway, database and functions share the
processors of one machine, so that part of what an attack costs here is the attacker's own work.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count, cycle
from uuid import UUID, uuid4

import aiohttp
import psycopg
from postgrest import APIError

from bench.report import Plot, Result, Target, percentiles
from local.app import App, Person, chat_app, new_phone
from local.cloud import LocalCloud, local_cloud
from local.providers.expo.faults import Hang, TicketError
from local.providers.phones import Phone
from local.supabase.postgres import SUPERUSER

SECONDS = 15
PAUSE_SECONDS = 0.5
GOAL_SECONDS = 5.0
# How long a message is waited for; a push that the schedule alone finds takes a minute.
PATIENCE_SECONDS = 90


@dataclass(frozen=True)
class Arena:
    """A running cloud, the attacker with four accomplices and a conversation with each."""

    cloud: LocalCloud
    attacker: Person
    accomplices: Sequence[Person]
    rooms: Sequence[UUID]

    async def as_owner(self, *statements: str) -> None:
        """Run statements as the database's owner, with triggers off: what an older database or a backend may hold."""
        dsn = self.cloud.postgres.dsn(role=SUPERUSER)
        async with await psycopg.AsyncConnection.connect(dsn) as connection:
            await connection.execute("set session_replication_role = replica")
            for statement in statements:
                await connection.execute(statement.encode(), {"room": self.rooms[0], "attacker": self.attacker.id})

    async def sweep(self) -> None:
        """The schedule fires again and again: what is due is looked at while others chat."""
        while True:
            await self.cloud.scheduler.fire("SendChatPushSweep")

    async def pushes(self) -> int:
        """How many of the attack's messages were looked at by a worker so far."""
        async with await psycopg.AsyncConnection.connect(self.cloud.database_url) as connection:
            answer = await connection.execute(
                "select from push.jobs join public.chat_messages message on message.id = jobs.message_id"
                " join public.chat_rooms room on room.id = message.room_id"
                " where %s in (room.user1_id, room.user2_id) "
                " and (jobs.state = 'done' or is_retry or reason is not null)",
                (self.attacker.id,),
            )
            return answer.rowcount


async def run() -> Result:
    """Seconds from insert to acceptance of other people's messages, without and beside each attack."""
    async with local_cloud(schedules=True) as cloud, chat_app(cloud.supabase, cloud.api_url) as app:
        pairs = [await _pair(cloud, app, number) for number in range(3)]
        arena = await _arena(cloud, app)
        waits = {"no attack": await _chat(cloud, pairs)}
        pushes = {"no attack": 0}
        for name, attack in ATTACKS.items():
            async with _attacking(arena, attack):
                waits[name] = await _chat(cloud, pairs)
            pushes[name] = await arena.pushes()
            await _clean(arena)
    return Result(
        columns=("attack", "pushes of the attack", "messages of others", "p50 s", "p95 s", "longest s"),
        rows=[
            (name, pushes[name], len(seconds), percentiles(seconds).p50, percentiles(seconds).p95, max(seconds))
            for name, seconds in waits.items()
        ],
        targets=[
            Target(f"longest wait of others in seconds, {name}", max(seconds), GOAL_SECONDS)
            for name, seconds in waits.items()
        ],
        plot=Plot("attack", ("p50 s", "longest s"), "seconds from insert to acceptance of other people's pushes"),
        notes=(
            "20,000 devices are what the attacker tries to write; 21 rows are what the database lets in a minute.",
            "Random webhook secrets come 40 a second: each costs an invocation of the authorizer on this machine.",
        ),
    )


@dataclass(frozen=True)
class Pair:
    """Two people who chat, and the phone of the one who reads."""

    sender: Person
    room: UUID
    phone: Phone


async def _pair(cloud: LocalCloud, app: App, number: int) -> Pair:
    sender, reader = await app.sign_up(f"Tina{number}", "tourist"), await app.sign_up(f"Gus{number}", "guide")
    phone = new_phone(cloud.expo, "ios")
    await reader.log_in_on(phone, "phone")
    return Pair(sender, await sender.open_chat(reader), phone)


async def _arena(cloud: LocalCloud, app: App) -> Arena:
    attacker = await app.sign_up("Mallory", "tourist")
    accomplices = [await app.sign_up(f"Oscar{number}", "guide") for number in range(4)]
    rooms = [await accomplice.open_chat(attacker) for accomplice in accomplices]
    return Arena(cloud, attacker, accomplices, rooms)


async def _chat(cloud: LocalCloud, pairs: Sequence[Pair]) -> list[float]:
    """The seconds that each message took from before its insert to Expo's acceptance."""

    async def message(pair: Pair) -> float:
        began = datetime.now(UTC)
        message_id = await pair.sender.send(pair.room, "Shall we meet at the gate?")
        arrival = await cloud.expo.arrival(pair.phone.token, str(message_id), PATIENCE_SECONDS)
        return (arrival.at - began).total_seconds()

    sent = []
    for pair, _ in zip(cycle(pairs), range(int(SECONDS / PAUSE_SECONDS)), strict=False):
        sent.append(asyncio.create_task(message(pair)))
        await asyncio.sleep(PAUSE_SECONDS)
    return await asyncio.gather(*sent)


@asynccontextmanager
async def _attacking(arena: Arena, attack: Callable[[Arena], Awaitable[None]]) -> AsyncIterator[None]:
    """Attack while the context is open. Raises what the attack raises, so that none is measured that did not happen."""
    attacking = asyncio.ensure_future(attack(arena))
    await asyncio.sleep(1)
    yield
    if not attacking.done():
        attacking.cancel()
    with suppress(asyncio.CancelledError):
        await attacking


async def _clean(arena: Arena) -> None:
    """Take away what an attack left, so that the next one is measured alone."""
    arena.cloud.expo.faults.scripts.clear()
    dsn = arena.cloud.database_url
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        await connection.execute("delete from public.chat_messages where room_id = any(%s)", (list(arena.rooms),))
        await connection.execute("delete from auth.users where email like 'crowd-%'")
        await connection.execute("delete from public.user_devices where user_id = %s", (arena.attacker.id,))
        await connection.execute("update public.users set display_name = 'Someone' where length(display_name) > 100")
        await connection.execute("delete from push.registration_counts")


async def _refused(request: Awaitable[object]) -> None:
    """Await a request that the Data API may refuse."""
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


async def _flood(arena: Arena, text: str = "Hello", attachments: Sequence[object] = ()) -> None:
    """All accomplices write to the attacker, as fast as they may."""

    async def write(accomplice: Person, room: UUID) -> None:
        while True:
            await _refused(accomplice.send(room, text, attachments=list(attachments)))
            await asyncio.sleep(0.1)

    await asyncio.gather(*map(write, arena.accomplices, arena.rooms))


async def device_flood(arena: Arena) -> None:
    """As many devices of one person as the database lets in, and a flood of messages to them."""
    devices = arena.attacker.client.table("user_devices")
    await _refused(devices.insert(_devices(arena.attacker, 20_000)).execute())
    for device in _devices(arena.attacker, 20):
        await _refused(devices.insert(device).execute())
        arena.cloud.expo.install(device["push_token"], "ios")
    await _flood(arena)


async def biggest_messages(arena: Arena) -> None:
    """The longest texts, attachments and name that are accepted, and longer ones that are not."""
    device = _devices(arena.attacker, 1)[0]
    await arena.attacker.client.table("user_devices").insert(device).execute()
    arena.cloud.expo.install(device["push_token"], "ios")
    for accomplice in arena.accomplices:
        for length in (12_000_000, 2_000):
            names = accomplice.client.table("users").update({"display_name": "x" * length})
            await _refused(names.eq("id", str(accomplice.id)).execute())
    await _refused(arena.accomplices[0].send(arena.rooms[0], "x" * 3_000_000))
    await _flood(arena, "x" * 16_000, [{"type": "image", "url": "https://example.com/" + "x" * 900}] * 30)


async def rows_of_an_older_database(arena: Arena) -> None:
    """Texts of 1.2 MB, attachments that are no list, and a name of 12 MB, written around every trigger."""
    await arena.as_owner(
        "alter table public.chat_messages drop constraint if exists chat_messages_attachments_check",
        "update public.users set display_name = repeat('x', 12000000) where id = %(attacker)s",
        "insert into public.user_devices (user_id, device_id, platform, push_token)"
        " select user1_id, 'old', 'ios', 'ExponentPushToken[old]' from public.chat_rooms where id = %(room)s",
        "with old as (insert into public.chat_messages (room_id, sender_id, message, attachments, server_timestamp)"
        "  select %(room)s, %(attacker)s, repeat('long ', 240000), '{\"no\": \"list\"}', clock_timestamp()"
        "  from generate_series(1, 100) returning id)"
        " insert into push.jobs (message_id, recipient_id)"
        " select old.id, user1_id from old, public.chat_rooms where chat_rooms.id = %(room)s",
    )
    await arena.sweep()


async def wrong_key_of_a_provider(arena: Arena) -> None:
    """8,000 messages to 800 people whose phones answer MismatchSenderId, all due at once."""
    for token in _install_crowd(arena, 800):
        arena.cloud.expo.script(TicketError(error="MismatchSenderId"), times=1000, token=token)
    await _write_to_crowd(arena, 800, messages=10)


async def late_answers(arena: Arena) -> None:
    """Expo delivers each push, but its answer never comes: every worker waits for it until it gives up."""
    arena.cloud.expo.script(Hang(seconds=20, accepted=True), times=1_000_000)
    device = _devices(arena.attacker, 1)[0]
    await arena.attacker.client.table("user_devices").insert(device).execute()
    arena.cloud.expo.install(device["push_token"], "ios")
    await _flood(arena)


async def dead_tokens(arena: Arena) -> None:
    """300 people's phones are unregistered at once, and each is sent a message."""
    for token in _install_crowd(arena, 300):
        arena.cloud.expo.uninstall(token)
    await _write_to_crowd(arena, 300, messages=1)


def _install_crowd(arena: Arena, people: int) -> list[str]:
    tokens = [f"ExponentPushToken[crowd{number}]" for number in range(1, people + 1)]
    for token in tokens:
        arena.cloud.expo.install(token, "android")
    return tokens


async def _write_to_crowd(arena: Arena, people: int, messages: int) -> None:
    """So many messages to each of so many people, with a phone each, in one statement."""
    await arena.as_owner(
        "create temp table crowd as select gen_random_uuid() as id, gen_random_uuid() as room, number"
        f" from generate_series(1, {people}) number",
        "insert into auth.users (id, email) select id, 'crowd-' || number || '@example.com' from crowd",
        "insert into public.users (id, display_name) select id, 'Crowd' from crowd",
        "insert into public.chat_rooms (id, user1_id, user2_id) select room, id, %(attacker)s from crowd",
        "insert into public.user_devices (user_id, device_id, platform, push_token)"
        " select id, 'phone', 'android', 'ExponentPushToken[crowd' || number || ']' from crowd",
        "with due as (insert into public.chat_messages (room_id, sender_id, message, server_timestamp)"
        f"  select room, %(attacker)s, 'Hello', clock_timestamp() from crowd, generate_series(1, {messages})"
        "  returning id, room_id)"
        " insert into push.jobs (message_id, recipient_id)"
        " select due.id, crowd.id from due join crowd on crowd.room = due.room_id",
    )
    await arena.sweep()


async def bulk_statements(arena: Arena) -> None:
    """20,000 messages are marked as read, edited and deleted, each by one request, again and again."""
    room, accomplice, attacker = arena.rooms[0], arena.accomplices[0], arena.attacker
    for number in count():
        await arena.as_owner(
            "insert into public.chat_messages (room_id, sender_id, message, server_timestamp)"
            " select %(room)s, user1_id, 'Hello', clock_timestamp()"
            " from public.chat_rooms, generate_series(1, 20000) where id = %(room)s"
        )
        await _refused(attacker.read(room))
        messages = accomplice.client.table("chat_messages")
        await _refused(messages.update({"message": f"Edited {number}"}).eq("room_id", str(room)).execute())
        await _refused(messages.update({"deleted_at": "now"}).eq("room_id", str(room)).execute())


async def random_webhook_secrets(arena: Arena) -> None:
    """Webhooks with secrets that API Gateway has no answer for in its cache."""
    url = f"{arena.cloud.api_url}/api/push/chat-message"
    async with aiohttp.ClientSession() as http:

        async def knock() -> None:
            async with http.post(url, json={"record": {"id": str(uuid4())}}, headers={"x-webhook-secret": uuid4().hex}):
                pass

        async with asyncio.TaskGroup() as requests:
            while True:
                requests.create_task(knock())
                await asyncio.sleep(1 / 40)


ATTACKS: dict[str, Callable[[Arena], Awaitable[None]]] = {
    "20,000 devices, and a flood of messages to them": device_flood,
    "the biggest messages and names": biggest_messages,
    "rows of an older database: 1.2 MB, no list, a name of 12 MB": rows_of_an_older_database,
    "8,000 messages that a provider's wrong key refuses": wrong_key_of_a_provider,
    "Expo delivers, but does not answer": late_answers,
    "300 dead tokens at once": dead_tokens,
    "20,000 messages read, edited and deleted at a time": bulk_statements,
    "webhooks with random secrets": random_webhook_secrets,
}
