"""Logs, metrics, queues and dead letters hold ids, but no message text, push token, JWT or key.

These tests run last, so that they check what all other system tests left there.
"""

import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from aws_lambda_powertools.metrics import MetricUnit
from chat_push.observability import DIMENSIONS, UNITS

from local.app import Person, new_phone
from local.aws.account import STACK
from local.aws.lambda_runtime import FunctionError
from local.cloud import LocalCloud
from local.providers.apns import faults as apns_faults
from local.providers.apns.faults import Rejection
from local.providers.expo.faults import HttpError, OddAnswer, ReceiptError, TicketError
from local.providers.fcm import faults as fcm_faults
from local.providers.fcm.faults import FcmError
from tests.system.chat import TEXT, Chat, Log, Recording, call_webhook, new_chat, receive, reset, send_to_queue
from tests.vocabulary import COUNTED

ESCAPED_TEXT = 'Grüße vom "Brunnen" 🐟'  # JSON writes it differently
EXPO_ACCESS_TOKEN = "expo-access-token-of-the-project"
NEW_WEBHOOK_SECRET = "webhook-secret-after-its-rotation"

PATTERNS = {
    "push token": re.compile(r"Expo(nent)?PushToken"),
    "token of FCM": re.compile(r":APA91b"),
    "token of APNs": re.compile(r"\b[0-9a-f]{64}\b"),
    "access token of Google": re.compile(r"ya29\."),
    "private key": re.compile(r"PRIVATE KEY"),
    "JWT": re.compile(r"\beyJ[\w-]+\."),
    "Supabase key": re.compile(r"\bsb_(secret|publishable)_"),
}


@dataclass(frozen=True)
class Run:
    """What is in logs and queues after all system tests and the faults of this module."""

    cloud: LocalCloud
    gus: Person
    message_ids: frozenset[str]  # of all messages
    done_ids: frozenset[str]  # of those whose push job is done
    confidential: frozenset[str]  # texts of messages, and keys
    queue_messages: list[dict[str, Any]]  # each one that was received, without the one that this module sends by hand
    dead_letters: list[str]
    dead_letter_id: UUID  # a message whose record became a dead letter
    local_log: list[str]

    def log_lines(self, *functions: str) -> list[str]:
        """Returns the log lines of these functions; without names, of all."""
        return [line for name in functions or self.cloud.functions for line in self.cloud.functions[name].log_lines()]

    def found(self, text: str) -> list[str]:
        """Returns the confidential values and the names of the patterns that occur in the text."""
        found = [name for name, pattern in PATTERNS.items() if pattern.search(text)]
        return found + [value for value in self.confidential if any(form in text for form in _written_forms(value))]


def _written_forms(value: str) -> set[str]:
    """Returns the value itself, its forms in JSON with and without ASCII escapes, and its repr."""
    quoted = (json.dumps(value), json.dumps(value, ensure_ascii=False), repr(value))
    return {value, *(form[1:-1] for form in quoted)}


@pytest.fixture(scope="module")
async def run(
    running_cloud: LocalCloud, recording: Recording, people: dict[str, Person], direct: None
) -> AsyncIterator[Run]:
    """Causes errors that may quote confidential values: of Expo, the queue, the HTTP API and the database."""
    cloud = running_cloud
    await reset(cloud)
    chat = await new_chat(cloud, people)
    sent_by_hand = f"{chat.phone.token} {TEXT} {uuid4()}"
    backend, webhook = (cloud.template.secrets[name].name for name in ("BackendSecret", "WebhookSecret"))
    keys = await cloud.aws.secret(backend)
    await cloud.aws.put_secret(backend, {**keys, "expo_access_token": EXPO_ACCESS_TOKEN})
    cloud.expo.configure({"access_token": EXPO_ACCESS_TOKEN})
    await cloud.aws.put_secret(webhook, {"current": NEW_WEBHOOK_SECRET, "previous": cloud.webhook_secret})
    await cloud.functions["AuthorizeWebhook"].kill()  # because it caches the old secret for five minutes
    began = datetime.now(UTC)
    try:
        await _cause_errors_of_expo(chat)
        await _cause_errors_of_fcm_and_apns(chat)
        await _cause_errors_of_the_queue(chat, sent_by_hand)
        await _cause_errors_of_the_http_api(chat)
        dead_letter_id = await _cause_errors_of_the_database(chat)
        await chat.collect_receipts()
        dead_letters = await _receive_all(cloud, "PushDeadLetters")
        async with await psycopg.AsyncConnection.connect(cloud.database_url) as connection:
            stored = await (await connection.execute("select id::text, message from chat_messages")).fetchall()
            # A push has one line, with the id of the newest message that it shows. Other tests use the same cloud.
            pushed = await connection.execute(
                "select message_id::text from push.decisions where created_at > %s and (outcome = 'skipped'"
                " or (outcome is not null and message_id in (select line_ids[1] from push.deliveries)))",
                (began,),
            )
            done_ids = frozenset(id for [id] in await pushed.fetchall())
        yield Run(
            cloud,
            chat.gus,
            frozenset(id for id, _ in stored),
            done_ids,
            # Short texts, such as "1" or "one", are in a log by chance.
            frozenset(text for _, text in stored if text and len(text) >= 10) | _keys(cloud),
            [message for message in recording.queue_messages if message["Body"] != sent_by_hand],
            dead_letters,
            dead_letter_id,
            recording.local_log,
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


async def _cause_errors_of_expo(chat: Chat) -> None:
    """Expo's errors and receipts quote token and text."""
    expo = chat.cloud.expo
    removed = await chat.new_phone_of(chat.gus)
    expo.uninstall(removed.token)
    expo.script(OddAnswer(body="errors"))
    expo.script(HttpError(status=400))
    expo.script(HttpError(status=401))
    expo.script(TicketError(error="DeveloperError", message=f"{chat.phone.token} got {TEXT}"))
    for text in (TEXT, TEXT, TEXT, ESCAPED_TEXT):
        message = await chat.send(text)
        while (await chat.cloud.explain_push(message))["state"] != "done":
            await chat.make_due(message)
            await chat.sweep()
    expo.script(ReceiptError(error="DeveloperError", message=f"{chat.phone.token} got {TEXT}"))
    await chat.until_done(await chat.send(), sweep=True)
    await chat.collect_receipts()


async def _cause_errors_of_fcm_and_apns(chat: Chat) -> None:
    """They reject pushes and credentials, and lose connections with requests that hold tokens."""
    fcm, apns = chat.cloud.fcm, chat.cloud.apns
    for phone in (new_phone(fcm, "android"), new_phone(apns, "ios")):
        await chat.gus.log_in_on(phone, device_id=phone.provider)
    fcm.script(FcmError(error="INVALID_FIELD"))
    fcm.script(FcmError(error="PERMISSION_DENIED"))
    fcm.script(fcm_faults.Reset())
    apns.script(Rejection(reason="PayloadTooLarge"))
    apns.script(Rejection(reason="InvalidProviderToken"))
    apns.script(apns_faults.Reset())
    for text in (TEXT, ESCAPED_TEXT, TEXT):
        await chat.until_done(await chat.send(text), sweep=True)
    assert [*fcm.faults.scripts, *apns.faults.scripts] == []


async def _cause_errors_of_the_queue(chat: Chat, sent_by_hand: str) -> None:
    """A record and an event hold token and text instead of ids."""
    log = Log(chat.cloud.functions["SendChatPush"])
    await send_to_queue(chat.cloud, chat.cloud.template.queues["PushQueue"].url, sent_by_hand)
    await log.until("record is neither a message id nor a wake-up")
    with pytest.raises(FunctionError, match="message_ids"):
        await chat.cloud.functions["SendChatPush"].invoke({"message_ids": [chat.phone.token, TEXT]})


async def _cause_errors_of_the_http_api(chat: Chat) -> None:
    """The HTTP API rejects requests that hold tokens."""
    token = chat.phone.token
    assert await call_webhook(chat.cloud.api_url, {}, {"x-webhook-secret": chat.gus.access_token}) == 403
    for body in (
        {"device_id": token, "platform": "ios", "push_token": token, token: token},
        {"device_id": token, "platform": "ios", "push_token": token, "push_provider": "fcm"},
        {"device_id": "\x00"},
    ):
        assert (await chat.gus.call("POST", "/api/push/register", json=body)).status_code == 422


async def _cause_errors_of_the_database(chat: Chat) -> UUID:
    """The database is down until the record of a message is a dead letter. Returns the id of the message."""
    cloud = chat.cloud
    queue = cloud.template.queues["PushQueue"]
    assert queue.redrive
    message = await chat.send(webhook_lost=True)
    row = {"id": str(message), "room_id": str(chat.id), "sender_id": str(chat.tina.id), "message": TEXT}
    registration = {"device_id": "d", "platform": "ios", "push_token": chat.phone.token}
    await cloud.postgres.kill()
    try:
        # A webhook that was created in Supabase's dashboard sends the whole row.
        body = {"type": "INSERT", "table": "chat_messages", "record": row}
        assert await call_webhook(cloud.api_url, body, {"x-webhook-secret": NEW_WEBHOOK_SECRET}) == 202
        await cloud.poller.until_idle()
        for _ in range(queue.redrive.max_receive_count):
            await cloud.poller.return_failed()
            await cloud.poller.until_idle()
        await chat.sweep()
        await cloud.scheduler.fire("CleanupReceiptsRun")
        assert (await chat.gus.call("POST", "/api/push/register", json=registration)).status_code == 503
    finally:
        await cloud.postgres.start()
    await chat.until_done(message, sweep=True)
    return message


async def _receive_all(cloud: LocalCloud, queue: str) -> list[str]:
    bodies: list[str] = []
    while received := await receive(cloud, cloud.template.queues[queue].url):
        bodies += received
    return bodies


def _metrics(lines: list[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines if line.startswith("{") and '"_aws"' in line]


def test_the_search_for_confidential_values_finds_each_one_in_each_form(run: Run) -> None:
    tokens = [next(iter(service.phones)) for service in (run.cloud.expo, run.cloud.fcm, run.cloud.apns)]
    for secret in (
        *tokens,
        run.cloud.apns.key.private_key,
        run.gus.access_token,
        TEXT,
        ESCAPED_TEXT,
        *_keys(run.cloud),
    ):
        for line in (f"[ERROR] {secret} was refused", json.dumps({"error": f"refused: {secret}"}), repr([secret])):
            assert run.found(line)
    assert run.found(f"[ERROR] {run.dead_letter_id} was refused") == []


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
    """The record that this module sent by hand is left out. No log may quote it."""
    assert str(run.dead_letter_id) in run.dead_letters
    assert str(run.dead_letter_id) in [message["Body"] for message in run.queue_messages]
    assert run.found("\n".join(str(part) for message in run.queue_messages for part in message.values())) == []
    # A dead letter of a schedule holds the event of its function.
    assert run.found(json.dumps([schedule.event for schedule in run.cloud.template.schedules.values()])) == []


def test_every_metric_has_its_declared_function_unit_and_dimensions(run: Run) -> None:
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


def test_every_log_line_with_a_message_id_has_it_as_correlation_id(run: Run) -> None:
    logged: set[str] = set()
    for line in run.log_lines("SendChatPush", "CleanupReceipts"):
        if mentioned := run.message_ids & set(re.findall(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", line)):
            assert mentioned == {json.loads(line)["correlation_id"]}
            logged |= mentioned
    assert str(run.dead_letter_id) in logged
    assert run.done_ids <= logged
