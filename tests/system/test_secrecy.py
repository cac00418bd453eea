"""What a full run leaves in logs, metrics, queues and dead letters: ids, but no message text, push token, JWT or key.
Runs last, so that it sees what all the other system tests left there."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import aiohttp
import psycopg
import pytest
from aws_lambda_powertools.metrics import MetricUnit
from chat_push.observability import DIMENSIONS, UNITS

from local.app import Person
from local.aws.account import STACK
from local.aws.lambda_runtime import FunctionError
from local.cloud import LocalCloud
from local.providers.expo.faults import HttpError, OddAnswer, ReceiptError, TicketError
from tests.system.chat import TEXT, Chat, Log, Overheard, calm, done, new_chat
from tests.vocabulary import COUNTED

FOREIGN_TEXT = 'Grüße vom "Brunnen" 🐟'  # which JSON spells otherwise
EXPO_ACCESS_TOKEN = "expo-access-token-of-the-project"
NEW_WEBHOOK_SECRET = "webhook-secret-that-is-the-current-one-by-now"

PATTERNS = {
    "push token": re.compile(r"Expo(nent)?PushToken"),
    "JWT": re.compile(r"\beyJ[\w-]+\."),
    "Supabase key": re.compile(r"\bsb_(secret|publishable)_"),
}


@dataclass(frozen=True)
class Run:
    """A full run, with its logs and queues as they are at its end."""

    cloud: LocalCloud
    gus: Person
    message_ids: frozenset[str]  # of all messages
    pushed_ids: frozenset[str]  # of those whose push has come to its end
    secrets: frozenset[str]  # texts of messages and keys, as they are
    queue_messages: list[dict[str, Any]]  # that anybody ever received, but for one that nobody should have put there
    dead_letters: list[str]
    dead: UUID  # a message whose record is one of them
    local_log: list[str]

    def log_lines(self, *functions: str) -> list[str]:
        """All that these functions have written; without names: all of them."""
        return [line for name in functions or self.cloud.functions for line in self.cloud.functions[name].log_lines()]

    def found(self, text: str) -> list[str]:
        """What of all that is confidential occurs in the text."""
        found = [name for name, pattern in PATTERNS.items() if pattern.search(text)]
        return found + [secret for secret in self.secrets if any(spelled in text for spelled in _spellings(secret))]


def _spellings(secret: str) -> set[str]:
    """As it is, in JSON of both kinds, and in a repr."""
    return {
        secret,
        *(part[1:-1] for part in (json.dumps(secret), json.dumps(secret, ensure_ascii=False), repr(secret))),
    }


@pytest.fixture(scope="module")
async def run(running_cloud: LocalCloud, overheard: Overheard, people: dict[str, Person]) -> AsyncIterator[Run]:
    """Everything that might quote what it should not: errors that carry tokens, odd answers, refused records."""
    cloud = await calm(running_cloud)
    chat = await new_chat(cloud, people)
    put_by_hand = f"{chat.phone.token} {TEXT} {uuid4()}"
    backend, webhook = (cloud.template.secrets[name].name for name in ("BackendSecret", "WebhookSecret"))
    keys = await cloud.aws.secret(backend)
    await cloud.aws.put_secret(backend, {**keys, "expo_access_token": EXPO_ACCESS_TOKEN})
    cloud.expo.configure({"access_token": EXPO_ACCESS_TOKEN})
    await cloud.aws.put_secret(webhook, {"current": NEW_WEBHOOK_SECRET, "previous": cloud.webhook_secret})
    await cloud.functions["AuthorizeWebhook"].kill()  # or it would know the old one for five minutes
    try:
        await _trouble_expo(chat)
        await _trouble_queue(chat, put_by_hand)
        await _trouble_door(chat)
        dead = await _trouble_database(chat)
        await chat.clean_up()
        dead_letters = await _drain(cloud, "PushDeadLetters")
        async with await psycopg.AsyncConnection.connect(cloud.database_url) as connection:
            stored = await (await connection.execute("select id::text, message from chat_messages")).fetchall()
            pushed = await connection.execute("select message_id::text from push.jobs where state = 'done'")
            pushed_ids = frozenset(id for [id] in await pushed.fetchall())
        yield Run(
            cloud,
            chat.gus,
            frozenset(id for id, _ in stored),
            pushed_ids,
            frozenset(text for _, text in stored if text) | _keys(cloud),
            [message for message in overheard.queue_messages if message["Body"] != put_by_hand],
            dead_letters,
            dead,
            overheard.local_log,
        )
    finally:
        await cloud.aws.put_secret(backend, keys)
        await cloud.aws.put_secret(webhook, {"current": cloud.webhook_secret, "previous": None})
        for name in ("SendChatPush", "CleanupReceipts", "AuthorizeWebhook"):
            await cloud.functions[name].kill()


def _keys(cloud: LocalCloud) -> frozenset[str]:
    supabase = cloud.supabase
    return frozenset(
        {supabase.secret_key, supabase.publishable_key, supabase.jwt_secret}
        | {cloud.webhook_secret, NEW_WEBHOOK_SECRET, EXPO_ACCESS_TOKEN}
    )


async def _trouble_expo(chat: Chat) -> None:
    """Refusals and receipts that quote token and text."""
    expo = chat.cloud.expo
    removed = await chat.phone_of(chat.gus)
    expo.uninstall(removed.token)
    expo.script(OddAnswer(body="errors"))
    expo.script(HttpError(status=400))
    expo.script(HttpError(status=401))
    expo.script(TicketError(error="DeveloperError", message=f"{chat.phone.token} got {TEXT}"))
    for text in (TEXT, TEXT, TEXT, FOREIGN_TEXT):
        message = await chat.send(text)
        while not done(await chat.cloud.explain_push(message)):
            await chat.time_passes(message)
            await chat.sweep()
    expo.script(ReceiptError(error="DeveloperError", message=f"{chat.phone.token} got {TEXT}"))
    await chat.ended(await chat.send(), sweep=True)
    await chat.clean_up()


async def _trouble_queue(chat: Chat, put_by_hand: str) -> None:
    """A record, and a request, that are full of what belongs into neither."""
    log = Log(chat.cloud.functions["SendChatPush"])
    queue_url = chat.cloud.template.queues["PushQueue"].url
    await asyncio.to_thread(chat.cloud.aws.sqs.send_message, QueueUrl=queue_url, MessageBody=put_by_hand)
    await log.until("record is neither a message id nor a wake-up")
    with pytest.raises(FunctionError, match="message_ids"):
        await chat.cloud.functions["SendChatPush"].invoke({"message_ids": [chat.phone.token, TEXT]})


async def _trouble_door(chat: Chat) -> None:
    """Refusals of all kinds, of requests that are full of tokens."""
    token = chat.phone.token
    assert await _ring(chat, {}, secret=chat.gus.access_token) == 403
    for body in (
        {"device_id": token, "platform": "ios", "push_token": token, token: token},
        {"device_id": token, "platform": "ios", "push_token": token, "push_provider": "fcm"},
        {"device_id": "\x00"},
    ):
        assert (await chat.gus.call("POST", "/api/push/register", json=body)).status_code == 422


async def _trouble_database(chat: Chat) -> UUID:
    """It is down for so long that the record of a message becomes a dead letter. The id of the message."""
    cloud = chat.cloud
    queue = cloud.template.queues["PushQueue"]
    assert queue.redrive
    message = await chat.send(webhook_lost=True)
    row = {"id": str(message), "room_id": str(chat.id), "sender_id": str(chat.tina.id), "message": TEXT}
    registration = {"device_id": "d", "platform": "ios", "push_token": chat.phone.token}
    await cloud.postgres.kill()
    try:
        # As a webhook that was made in Supabase's dashboard rings: with the whole row.
        assert await _ring(chat, {"type": "INSERT", "table": "chat_messages", "record": row}) == 202
        await cloud.poller.until_idle()
        for _ in range(queue.redrive.max_receive_count):
            await cloud.poller.return_failed()
            await cloud.poller.until_idle()
        await chat.sweep()
        await cloud.scheduler.fire("CleanupReceiptsRun")
        assert (await chat.gus.call("POST", "/api/push/register", json=registration)).status_code == 503
    finally:
        await cloud.postgres.start()
    await chat.ended(message, sweep=True)
    return message


async def _ring(chat: Chat, body: Mapping[str, object], secret: str = NEW_WEBHOOK_SECRET) -> int:
    url = f"{chat.cloud.api_url}/api/push/chat-message"
    async with aiohttp.request("POST", url, json=body, headers={"x-webhook-secret": secret}) as answer:
        return answer.status


async def _drain(cloud: LocalCloud, queue: str) -> list[str]:
    """What the messages of a queue hold."""
    bodies: list[str] = []
    while True:
        received = await asyncio.to_thread(
            cloud.aws.sqs.receive_message, QueueUrl=cloud.template.queues[queue].url, MaxNumberOfMessages=10
        )
        if not (messages := received.get("Messages")):
            return bodies
        bodies += [message["Body"] for message in messages]


def _metrics(lines: list[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines if line.startswith("{") and '"_aws"' in line]


def test_what_is_confidential_would_be_found(run: Run) -> None:
    token = next(iter(run.cloud.expo.phones))
    for secret in (token, run.gus.access_token, TEXT, FOREIGN_TEXT, *_keys(run.cloud)):
        for line in (f"[ERROR] {secret} was refused", json.dumps({"error": f"refused: {secret}"}), repr([secret])):
            assert run.found(line)
    assert run.found(f"[ERROR] {run.dead} was refused") == []


def test_nothing_confidential_is_in_any_log_line_or_metric(run: Run) -> None:
    for name in run.cloud.functions:
        lines = run.log_lines(name)
        assert _metrics(lines)
        assert run.found("\n".join(lines)) == []
    for expected in (
        "push attempted",
        "receipt reports an error",
        "push not sent, SQS delivers its record again",
        "record is neither a message id nor a wake-up",
        "request not served",
        "webhook refused: wrong secret",
    ):
        assert any(f'"{expected}"' in line for line in run.log_lines())
    for raised in ("DatabaseUnavailable", "ValidationError"):
        assert any(f"[ERROR] {raised}" in line for line in run.log_lines("SendChatPush"))
    assert any("DatabaseUnavailable" in line for line in run.local_log)
    assert run.found("\n".join(run.local_log)) == []


def test_nothing_confidential_is_in_any_queue_message_or_dead_letter(run: Run) -> None:
    """What somebody puts into the queue by hand is not ours to judge; that no log quotes it is."""
    assert str(run.dead) in run.dead_letters
    assert str(run.dead) in [message["Body"] for message in run.queue_messages]
    assert run.found("\n".join(str(part) for message in run.queue_messages for part in message.values())) == []
    # A dead letter of a schedule is what it would have invoked its function with.
    assert run.found(json.dumps([schedule.event for schedule in run.cloud.template.schedules.values()])) == []


def test_every_metric_is_of_the_vocabulary(run: Run) -> None:
    services = set()
    for emf in _metrics(run.log_lines()):
        services.add(emf["service"])
        for published in emf["_aws"]["CloudWatchMetrics"]:
            assert published["Namespace"] == f"ChatPush/{STACK}"
            for metric in published["Metrics"]:
                name = metric["Name"]
                assert name in COUNTED[emf["service"]]
                assert metric["Unit"] == UNITS.get(name, MetricUnit.Count).value
                divided_by = [DIMENSIONS[name]] if name in DIMENSIONS else []
                assert [sorted(dimensions) for dimensions in published["Dimensions"]] == [
                    sorted(["service", *divided_by])
                ]
    assert services == COUNTED.keys()


def test_every_line_about_a_message_has_its_id_for_a_correlation_id(run: Run) -> None:
    about: set[str] = set()
    for line in run.log_lines("SendChatPush", "CleanupReceipts"):
        if mentioned := run.message_ids & set(re.findall(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", line)):
            assert mentioned == {json.loads(line)["correlation_id"]}
            about |= mentioned
    assert str(run.dead) in about
    assert run.pushed_ids <= about
