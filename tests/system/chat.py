"""What the system tests are told in: a conversation, what phones got of it, and what a function logged."""

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Literal
from uuid import UUID

import psycopg

from local.app import Person, new_phone
from local.aws.lambda_runtime import LambdaFunction
from local.cloud import LocalCloud
from local.providers.phones import Phone

TEXT = "Shall we meet at the fountain?"

CALM = (
    "delete from push.jobs where state <> 'done'",
    "delete from public.user_devices",
    "delete from public.user_presence",
    # Retries take parts of a second, and the same people write in all tests. Everything else is as deployed.
    "update push.settings set presence_fresh_for = default,"
    " retry_base = '0.1 seconds', retry_cap = '0.5 seconds', unanswered_retry_delays = '{0.1 s, 0.1 s, 0.1 s, 0.1 s}',"
    " fault_retry_base = '0.1 seconds', recipient_share = default, registration_limit = 10000",
    "update private.chat_settings set message_limit = 10000",
)


async def calm(cloud: LocalCloud) -> LocalCloud:
    """The cloud without what earlier tests left: faults, jobs, phones, presence."""
    cloud.expo.reset()
    for statement in CALM:
        await execute(cloud, statement)
    return cloud


def done(job: Any) -> bool:
    """Whether a push job has come to its end."""
    return bool(job["state"] == "done")


def got(phone: Phone, message_id: UUID) -> tuple[int, int]:
    """How many copies of a message arrived on a phone, and how many of them are visible."""
    arrived, shown = (
        sum(arrival.message_id == str(message_id) for arrival in arrivals) for arrivals in (phone.arrived, phone.shown)
    )
    return arrived, shown


async def execute(cloud: LocalCloud, statement: str, *parameters: Any) -> None:
    """Run a statement as the database's owner."""
    async with await psycopg.AsyncConnection.connect(cloud.database_url) as connection:
        await connection.execute(statement.encode(), parameters)


async def insert_messages(cloud: LocalCloud, *messages: tuple[UUID, UUID, str], commit: bool = True) -> list[UUID]:
    """Messages (room, sender, text) that a backend writes in one transaction, as service_role; their ids."""
    async with await psycopg.AsyncConnection.connect(cloud.database_url) as connection:
        await connection.execute("set local role service_role")
        async with connection.cursor() as cursor:
            await cursor.executemany(
                "insert into chat_messages (room_id, sender_id, message, client_msg_id)"
                " values (%s, %s, %s, gen_random_uuid()) returning id",
                messages,
                returning=True,
            )
            ids = []
            for _ in messages:
                [stored] = await cursor.fetchall()
                ids.append(stored[0])
                cursor.nextset()
        if not commit:
            await connection.rollback()
    return ids


async def phone_of(cloud: LocalCloud, person: Person, platform: Literal["ios", "android"]) -> Phone:
    """A new phone, on which this person logs in; its device id is its token."""
    phone = new_phone(cloud.expo, platform)
    await person.log_in_on(phone, device_id=phone.token)
    return phone


@dataclass
class Chat:
    """A conversation in which Tina writes to Gus, who has a phone; the others are there to be mistaken for him."""

    cloud: LocalCloud
    id: UUID
    tina: Person
    gus: Person
    omar: Person
    greta: Person
    phone: Phone

    async def send(self, text: str = TEXT, *, webhook_lost: bool = False) -> UUID:
        """Tina writes a message with her app."""
        if webhook_lost:
            self.cloud.pg_net.lose(1)
        return await self.tina.send(self.id, text)

    async def ended(self, message_id: UUID, *, sweep: bool = False) -> Any:
        """The push job of a message, once it is done. `sweep`: meanwhile the schedule fires again and again."""
        return await self.cloud.until_push(message_id, done, sweep=sweep)

    async def sweep(self) -> None:
        """The schedule fires once."""
        await self.cloud.scheduler.fire("SendChatPushSweep")

    async def clean_up(self) -> None:
        """15 minutes pass for every push, and the schedule of receipts fires."""
        await execute(
            self.cloud,
            "update push.deliveries set receipt_due_at = clock_timestamp() where receipt_due_at is not null",
        )
        await self.cloud.scheduler.fire("CleanupReceiptsRun")

    async def statuses(self, message_id: UUID) -> dict[str, str]:
        """What became of a message, by device."""
        job = await self.cloud.explain_push(message_id)
        return {delivery["device_id"]: delivery["status"] for delivery in job["deliveries"]}

    async def time_passes(self, message_id: UUID) -> None:
        """The wait, or the lease, of a message's job is over."""
        await execute(
            self.cloud,
            "update push.jobs set next_attempt_at = clock_timestamp(),"
            " leased_until = case when state = 'leased' then clock_timestamp() end where message_id = %s",
            message_id,
        )
        await execute(self.cloud, "update push.deliveries set retry_at = null where message_id = %s", message_id)

    async def phone_of(self, person: Person, platform: Literal["ios", "android"] = "android") -> Phone:
        """A new phone, on which this person logs in."""
        return await phone_of(self.cloud, person, platform)


async def new_chat(cloud: LocalCloud, people: Mapping[str, Person]) -> Chat:
    """The conversation, and a new phone of Gus."""
    tina, gus = people["tina"], people["gus"]
    return Chat(cloud, id=await tina.open_chat(gus), phone=await phone_of(cloud, gus, "ios"), **people)


class Log:
    """What a function logs from now on."""

    def __init__(self, function: LambdaFunction) -> None:
        self._function = function
        self._before = [len(stream) for stream in function.log_streams()]

    def records(self, message: str = "") -> list[dict[str, Any]]:
        """The structured log lines, or those with this message."""
        lines = (json.loads(line) for line in self._json_lines() if '"_aws"' not in line)
        return [line for line in lines if message in ("", line.get("message"))]

    async def until(self, message: str, seconds: float = 60) -> list[dict[str, Any]]:
        """The log lines with this message, once there is one. Raises TimeoutError."""
        return await eventually(lambda: self.records(message), seconds)

    def metric(self, name: str) -> float:
        """The sum of a metric's values."""
        values = (json.loads(line).get(name, []) for line in self._json_lines() if '"_aws"' in line)
        return sum(sum(value) for value in values)

    def starts(self) -> int:
        """How often the function was started."""
        return sum(line.startswith("REPORT ") and "Init Duration" in line for line in self._lines())

    def _json_lines(self) -> list[str]:
        return [line for line in self._lines() if line.startswith("{")]

    def _lines(self) -> list[str]:
        streams = zip_longest(self._function.log_streams(), self._before)
        return [line for stream, before in streams for line in stream[before:]]


@dataclass(frozen=True)
class Overheard:
    """What passed through the cloud since it started, and what nobody keeps."""

    queue_messages: list[dict[str, Any]]  # as they were received
    local_log: list[str]  # of gateway, poller and scheduler: errors of functions, as AWS's services are told them


async def eventually[T](found: Callable[[], T], seconds: float = 60) -> T:
    """The first true value of something of which no event tells. Raises TimeoutError."""
    async with asyncio.timeout(seconds):
        while not (value := found()):  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0.05)
    return value
