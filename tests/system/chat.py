"""The set-up that the system tests share: a conversation, phones, the webhook, the queue, functions and their logs."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

import aiohttp
import httpx
import psycopg

from local.app import Person, new_phone
from local.aws.build import built
from local.aws.lambda_runtime import LambdaFunction, lambda_function
from local.aws.template import Function
from local.cloud import LocalCloud
from local.providers.phones import Phone
from tests.waiting import eventually

TEXT = "Shall we meet at the fountain?"

WEBHOOK_PATH = "/api/push/chat-message"

RESET = (
    # Otherwise the notification of a conversation would show the messages of earlier tests, too.
    "alter table public.chat_messages disable trigger user",
    "update public.chat_messages set is_read = true where is_read is not true",
    "alter table public.chat_messages enable trigger user",
    "update public.chat_rooms set unread_count_user1 = 0, unread_count_user2 = 0",
    "update push.jobs set state = 'idle', next_attempt_at = null, lease_id = null, leased_until = null,"
    " leased_revision = null, again_at = null, expires_at = null",
    "delete from push.decisions where outcome is null",
    "delete from public.user_devices",
    "delete from public.user_presence",
    "update push.providers set failures = 0, paused_until = null",
    # Retries wait less than a second. The same people write in all tests, so their limits are high.
    "update push.settings set presence_fresh_for = default,"
    " retry_base = '0.1 seconds', retry_cap = '0.5 seconds', unanswered_retry_delays = '{0.1 s, 0.1 s, 0.1 s, 0.1 s}',"
    " fault_retry_base = '0.1 seconds', recipient_share = default, registration_limit = 10000",
    "update private.chat_settings set message_limit = 10000",
)


# Recipients, each with a conversation with the sender, and one or two phones.
_RECIPIENTS = """
with recipient as (
  select gen_random_uuid() as id, gen_random_uuid() as room, number from generate_series(1, %(number)s) number
), account as (
  insert into auth.users (id, email) select id, id || '@example.com' from recipient
), profile as (
  insert into public.users (id, role) select id, 'guide' from recipient
), conversation as (
  insert into public.chat_rooms (id, user1_id, user2_id) select room, id, %(sender)s from recipient
), device as (
  insert into public.user_devices (user_id, device_id, platform, push_token)
  select id, phone, 'android', 'ExponentPushToken[' || left(replace(id::text, '-', ''), 21) || phone || ']'
  from recipient, generate_series(1, 1 + (number %% 3 = 0)::integer) phone
  returning user_id, push_token
)
select room, array(select push_token from device where user_id = recipient.id) from recipient
"""


async def conversations(cloud: LocalCloud, sender: Person, number: int) -> dict[UUID, list[Phone]]:
    """Creates recipients, each with a conversation with the sender; each third has two phones. Returns the phones."""
    phones = {}
    async with await psycopg.AsyncConnection.connect(cloud.database_url) as connection:
        async for room, tokens in await connection.execute(_RECIPIENTS, {"number": number, "sender": sender.id}):
            phones[room] = [cloud.expo.install(token, "android") for token in tokens]
    return phones


async def reset(cloud: LocalCloud) -> None:
    """Removes what earlier tests left in the cloud: faults, pending jobs, phones, presence and wake-ups."""
    for service in (cloud.expo, cloud.fcm, cloud.apns):
        service.reset()
    cloud.realtime.reset()
    async with await psycopg.AsyncConnection.connect(cloud.database_url, autocommit=True) as connection:
        for statement in RESET:
            await connection.execute(statement)
        # A webhook of an earlier test would be taken for one of the next test.
        async with asyncio.timeout(30):
            while (await connection.execute("select from net.http_request_queue")).rowcount:  # noqa: ASYNC110 - pg_net sends no event
                await asyncio.sleep(0.02)
    async with asyncio.timeout(60):
        while await delayed(cloud):  # noqa: ASYNC110 - SQS sends no event
            await asyncio.sleep(0.05)
    await cloud.poller.until_idle()


async def delayed(cloud: LocalCloud) -> int:
    """Returns the number of wake-ups in PushQueue whose delay is not over."""
    url = cloud.template.queues["PushQueue"].url
    answer = await asyncio.to_thread(cloud.aws.sqs.get_queue_attributes, QueueUrl=url, AttributeNames=["All"])
    return int(answer["Attributes"]["ApproximateNumberOfMessagesDelayed"])


def arrived_and_visible(phone: Phone, message_id: UUID) -> tuple[int, int]:
    """Returns how many copies of a message arrived on a phone, and how many of them it shows."""
    arrived, shown = (
        sum(arrival.message_id == str(message_id) for arrival in arrivals) for arrivals in (phone.arrived, phone.shown)
    )
    return arrived, shown


async def sign_out_everywhere(chat: "Chat", person: Person) -> None:
    """Ends all sessions of this person through the Auth API. The access tokens stay valid until they expire."""
    headers = {"apikey": chat.cloud.supabase.publishable_key, "Authorization": f"Bearer {person.access_token}"}
    async with httpx.AsyncClient() as http:
        answer = await http.post(
            f"{chat.cloud.supabase.url}/auth/v1/logout", params={"scope": "global"}, headers=headers
        )
    answer.raise_for_status()


async def execute(cloud: LocalCloud, statement: str, *parameters: Any) -> None:
    """Runs a statement as the owner of the database."""
    async with await psycopg.AsyncConnection.connect(cloud.database_url) as connection:
        await connection.execute(statement.encode(), parameters)


async def insert_messages(cloud: LocalCloud, *messages: tuple[UUID, UUID, str], commit: bool = True) -> list[UUID]:
    """Inserts messages (room, sender, text) as a backend does: in one transaction, as service_role. Returns the ids."""
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


async def new_phone_of(cloud: LocalCloud, person: Person, platform: Literal["ios", "android"]) -> Phone:
    """Returns a new phone on which the person is logged in. Its device id is its token."""
    phone = new_phone(cloud.expo, platform)
    await person.log_in_on(phone, device_id=phone.token)
    return phone


async def call_webhook(api_url: str, body: object, headers: Mapping[str, str]) -> int:
    """Calls the webhook with this JSON, or these bytes. Returns the status."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with aiohttp.request("POST", f"{api_url}{WEBHOOK_PATH}", data=data, headers=headers) as answer:
        return answer.status


def error_of(answer: httpx.Response) -> tuple[int, str]:
    """Returns status and code of an error of the HTTP API."""
    return answer.status_code, answer.json()["error"]["code"]


async def send_to_queue(cloud: LocalCloud, url: str, body: str) -> None:
    """Sends a record to a queue."""
    await asyncio.to_thread(cloud.aws.sqs.send_message, QueueUrl=url, MessageBody=body)


async def receive(cloud: LocalCloud, url: str, wait_seconds: int = 0) -> list[str]:
    """Receives at most 10 records of a queue, and returns their bodies."""
    answer = await asyncio.to_thread(
        cloud.aws.sqs.receive_message, QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=wait_seconds
    )
    return [message["Body"] for message in answer.get("Messages", [])]


@asynccontextmanager
async def running_function(
    cloud: LocalCloud, function: Function, folder: Path, environment: Mapping[str, str] | None = None
) -> AsyncIterator[LambdaFunction]:
    """Runs another instance of a function, with its logs in `folder`.

    `environment`: the variables that Lambda itself sets. None: those of the cloud, for its AWS services.
    """
    environment = environment or cloud.aws.environment
    async with (
        built() as build,
        lambda_function(function, runtime=build.runtime, environment=environment, folder=folder) as running,
    ):
        yield running


@dataclass
class Chat:
    """The conversation in which Tina writes to Gus, who has one phone. Omar and Greta must not get his pushes."""

    cloud: LocalCloud
    id: UUID
    tina: Person
    gus: Person
    omar: Person
    greta: Person
    phone: Phone

    async def send(self, text: str = TEXT, *, webhook_lost: bool = False) -> UUID:
        """Tina sends a message with her app. Returns its id."""
        if webhook_lost:
            self.cloud.pg_net.lose(1)
        return await self.tina.send(self.id, text)

    async def until_done(self, message_id: UUID, *, sweep: bool = False) -> Any:
        """Waits until the push job of a message is done, and returns it. `sweep`: runs the sweep meanwhile."""
        return await self.cloud.until_push(message_id, sweep=sweep)

    async def sweep(self) -> None:
        """Sweeps once."""
        await self.cloud.sweep()

    async def collect_receipts(self) -> None:
        """Makes the receipt of every push due, and runs the scheduled cleanup once."""
        await self.cloud.collect_receipts()

    async def statuses(self, message_id: UUID) -> dict[str, str]:
        """Returns the delivery status of a message, by device id."""
        job = await self.cloud.explain_push(message_id)
        return {delivery["device_id"]: delivery["status"] for delivery in job["deliveries"]}

    async def make_due(self, message_id: UUID) -> None:
        """Ends the wait or the lease of the push job of a message."""
        await execute(
            self.cloud,
            "update push.jobs set next_attempt_at = clock_timestamp(),"
            " leased_until = case when state = 'leased' then clock_timestamp() end"
            " where id = (select (job).id from push.decision_of(%s))",
            message_id,
        )
        await execute(self.cloud, "update push.deliveries set retry_at = null where %s = any(message_ids)", message_id)

    async def new_phone_of(self, person: Person, platform: Literal["ios", "android"] = "android") -> Phone:
        """Returns a new phone on which the person is logged in."""
        return await new_phone_of(self.cloud, person, platform)


async def new_chat(cloud: LocalCloud, people: Mapping[str, Person]) -> Chat:
    """Opens the conversation, and logs Gus in on a new phone."""
    tina, gus = people["tina"], people["gus"]
    return Chat(cloud, id=await tina.open_chat(gus), phone=await new_phone_of(cloud, gus, "ios"), **people)


class Log:
    """What a function logs after this object is created."""

    def __init__(self, function: LambdaFunction) -> None:
        self._function = function
        self._before = [len(stream) for stream in function.log_streams()]

    def records(self, message: str = "") -> list[dict[str, Any]]:
        """Returns the structured log lines, or those with this message."""
        lines = (json.loads(line) for line in self._json_lines() if '"_aws"' not in line)
        return [line for line in lines if message in ("", line.get("message"))]

    async def until(self, message: str, seconds: float = 60) -> list[dict[str, Any]]:
        """Waits for a log line with this message. Returns all of them. Raises TimeoutError."""
        return await eventually(lambda: self.records(message), seconds)

    def metric(self, name: str) -> float:
        """Returns the sum of the values of a metric."""
        values = (json.loads(line).get(name, []) for line in self._json_lines() if '"_aws"' in line)
        return sum(sum(value) for value in values)

    def starts(self) -> int:
        """Returns how often the function had a cold start."""
        return sum(line.startswith("REPORT ") and "Init Duration" in line for line in self._lines())

    def _json_lines(self) -> list[str]:
        return [line for line in self._lines() if line.startswith("{")]

    def _lines(self) -> list[str]:
        streams = zip_longest(self._function.log_streams(), self._before)
        return [line for stream, before in streams for line in stream[before:]]


@dataclass(frozen=True)
class Recording:
    """What passed through the cloud during all tests, and is not stored anywhere."""

    queue_messages: list[dict[str, Any]]  # each one that was received
    local_log: list[str]  # of gateway, poller and scheduler: the errors that functions return to AWS's services
