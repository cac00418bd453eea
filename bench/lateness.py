"""How late a push is after one fault, or after it was due.

The local cloud runs with its schedules and its default settings. `503` and `reset`: Expo answers the first request of a
message with 503, or resets its connection. `webhook lost`: the webhook of a message is never sent. For these three, the
figures are the seconds from before the insert through the Data API to Expo's acceptance. What a fault costs is the
longest of them, less the median without a fault. `viewing`: the last heartbeat of the recipient in the conversation is
45 seconds old, so the push becomes due. The figures are the seconds from then to Expo's acceptance. Faults come one at
a time, 6 seconds apart: while sends fail, workers wake fewer sweeps.
"""

import asyncio
from datetime import UTC, datetime
from random import Random
from uuid import UUID

import psycopg

from bench.report import Plot, Result, Target, percentiles
from local.app import App, Person, chat_app, new_phone
from local.cloud import LocalCloud, local_cloud
from local.providers.expo.faults import Fault, HttpError, Reset

ROUNDS = 10
PAUSE_SECONDS = 6.0
TIMEOUT_SECONDS = 120
TEXT = "Shall we meet at the gate?"


async def run() -> Result:
    """Seconds of lateness by cause."""
    async with local_cloud(schedules=True) as cloud, chat_app(cloud.supabase, cloud.api_url) as app:
        sender = await app.sign_up("Tina", "tourist")
        readers = [await _reader(cloud, app, number) for number in range(ROUNDS)]
        await cloud.scheduler.fire("SendChatPushSweep")  # The schedule itself first fires after a minute.
        await _push(cloud, sender, readers[0], None)
        seconds = {
            "no fault": await _one_by_one(cloud, sender, readers, None),
            "503": await _one_by_one(cloud, sender, readers, HttpError(status=503)),
            "reset": await _one_by_one(cloud, sender, readers, Reset()),
            "webhook lost": await _with_lost_webhooks(cloud, sender, readers),
            "viewing": await _while_viewing(cloud, sender, readers),
        }
    found = {name: percentiles(values) for name, values in seconds.items()}
    return Result(
        columns=("cause", "pushes", "p50 s", "p95 s", "longest s"),
        rows=[(name, len(values), found[name].p50, found[name].p95, max(values)) for name, values in seconds.items()],
        targets=[
            *(
                Target(f"seconds that one {fault} costs", max(seconds[fault]) - found["no fault"].p50, limit)
                for fault, limit in (("503", 3), ("reset", 3), ("webhook lost", 15))
            ),
            Target("p95 of the seconds after a deferred push was due", found["viewing"].p95, 2),
        ],
        plot=Plot("cause", ("p50 s", "longest s"), "seconds"),
    )


async def _reader(cloud: LocalCloud, app: App, number: int) -> tuple[Person, str]:
    reader, phone = await app.sign_up(f"Gus{number}", "guide"), new_phone(cloud.expo, "ios")
    await reader.log_in_on(phone, "phone")
    return reader, phone.token


async def _push(cloud: LocalCloud, sender: Person, reader: tuple[Person, str], fault: Fault | None) -> float:
    """Sends one message, whose first request fails with `fault`. Returns the seconds to Expo's acceptance."""
    person, token = reader
    room = await sender.open_chat(person)
    if fault:
        cloud.expo.script(fault)
    began = datetime.now(UTC)
    message_id = await sender.send(room, TEXT)
    arrival = await cloud.expo.arrival(token, str(message_id), TIMEOUT_SECONDS)
    return (arrival.at - began).total_seconds()


async def _one_by_one(
    cloud: LocalCloud, sender: Person, readers: list[tuple[Person, str]], fault: Fault | None
) -> list[float]:
    waits = []
    for reader in readers:
        waits.append(await _push(cloud, sender, reader, fault))
        await asyncio.sleep(PAUSE_SECONDS if fault else 0)
    return waits


async def _with_lost_webhooks(cloud: LocalCloud, sender: Person, readers: list[tuple[Person, str]]) -> list[float]:
    """Sends messages at random times within a minute."""
    cloud.pg_net.lose(len(readers))
    random = Random(1)

    async def at_a_random_time(reader: tuple[Person, str]) -> float:
        await asyncio.sleep(random.uniform(0, 60))
        return await _push(cloud, sender, reader, None)

    return await asyncio.gather(*map(at_a_random_time, readers))


async def _while_viewing(cloud: LocalCloud, sender: Person, readers: list[tuple[Person, str]]) -> list[float]:
    """Sends a message to each reader, who looks at the conversation. Heartbeats are about a second apart."""
    rooms = [await sender.open_chat(person) for person, _ in readers]
    messages = []
    for (person, _), room in zip(readers, rooms, strict=True):
        await person.look_at(room)
        messages.append(await sender.send(room, TEXT))
        await asyncio.sleep(1)
    async with await psycopg.AsyncConnection.connect(cloud.database_url) as connection:
        answer = await connection.execute(
            "select user_id, updated_at + presence_fresh_for from public.user_presence, push.settings"
        )
        due_at: dict[UUID, datetime] = dict(await answer.fetchall())

    async def lateness(person: Person, token: str, message: str) -> float:
        arrival = await cloud.expo.arrival(token, message, TIMEOUT_SECONDS)
        return (arrival.at - due_at[person.id]).total_seconds()

    return await asyncio.gather(
        *(lateness(person, token, str(message)) for (person, token), message in zip(readers, messages, strict=True))
    )
