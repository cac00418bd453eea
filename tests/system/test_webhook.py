"""A webhook, or the call of a backend, goes through the HTTP API into the queue: who may call, and what is queued."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

import httpx
import pytest

from local.aws.gateway import gateway
from local.aws.lambda_runtime import ACCOUNT_CONCURRENCY
from local.cloud import LocalCloud
from tests.system.chat import (
    TEXT,
    WEBHOOK_PATH,
    Chat,
    Log,
    arrived_and_visible,
    call_webhook,
    conversations,
    execute,
    insert_messages,
    receive,
)
from tests.waiting import eventually


@dataclass
class WebhookApi:
    """The HTTP API, and the queue behind it."""

    cloud: LocalCloud
    url: str
    queue_url: str

    async def call(self, body: object, headers: Mapping[str, str] | None = None) -> int:
        """Calls the webhook, with the right secret unless headers are given. Returns the status."""
        secret = {"x-webhook-secret": self.cloud.webhook_secret}
        return await call_webhook(self.url, body, secret if headers is None else headers)

    async def queued(self, wait_seconds: int = 0) -> list[str]:
        """Receives the queued records, and returns their bodies."""
        return await receive(self.cloud, self.queue_url, wait_seconds)


@pytest.fixture
def api(cloud: LocalCloud) -> WebhookApi:
    """The HTTP API of the cloud. SendChatPush polls its queue."""
    return WebhookApi(cloud, cloud.api_url, cloud.template.queues["PushQueue"].url)


@asynccontextmanager
async def _unpolled_api(cloud: LocalCloud) -> AsyncIterator[WebhookApi]:
    """Another HTTP API of the same template, with a queue from which only the test receives."""
    answer = await asyncio.to_thread(cloud.aws.sqs.create_queue, QueueName=f"unpolled-{uuid4().hex}")
    queue = replace(cloud.template.queues["PushQueue"], url=answer["QueueUrl"])
    template = replace(cloud.template, queues={"PushQueue": queue})
    async with gateway(template, cloud.functions, cloud.aws.sqs) as url:
        yield WebhookApi(cloud, url, queue.url)


@pytest.fixture
async def unpolled_api(cloud: LocalCloud) -> AsyncIterator[WebhookApi]:
    async with _unpolled_api(cloud) as api:
        yield api


@asynccontextmanager
async def _webhook_secret(cloud: LocalCloud, value: Mapping[str, str | None]) -> AsyncIterator[WebhookApi]:
    """Yields an API whose authorizer reads this secret. A deployed one caches the old secret for five minutes."""

    async def put(value: Mapping[str, str | None]) -> None:
        await cloud.aws.put_secret(cloud.template.secrets["WebhookSecret"].name, value)
        await cloud.functions["AuthorizeWebhook"].kill()

    await put(value)
    try:
        async with _unpolled_api(cloud) as api:
            yield api
    finally:
        await put({"current": cloud.webhook_secret, "previous": None})


@asynccontextmanager
async def _database_calls(api: WebhookApi, secret: str) -> AsyncIterator[None]:
    """Configures the webhook of the database to call this API."""
    configure = "select push.configure_webhook(%s, %s)"
    await execute(api.cloud, configure, f"{api.url}{WEBHOOK_PATH}", secret)
    try:
        yield
    finally:
        await execute(api.cloud, configure, f"{api.cloud.api_url}{WEBHOOK_PATH}", api.cloud.webhook_secret)


def _record(**columns: Any) -> dict[str, Any]:
    return {"record": {"id": str(uuid4()), **columns}}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"x-webhook-secret": ""}, 401),
        ({"x-webhook-secret": "wrong"}, 403),
        ({"x-webhook-secret": "wrong", "Authorization": "Bearer x"}, 403),
    ],
)
async def test_a_webhook_without_the_secret_is_rejected_and_nothing_is_queued(
    unpolled_api: WebhookApi, headers: dict[str, str], status: int
) -> None:
    assert await unpolled_api.call(_record(), headers) == status
    assert await unpolled_api.queued() == []
    assert await unpolled_api.call(_record()) == 202


@pytest.mark.parametrize("secret", [b"\xff\xfe", b"\xc3\xa9", b"caf\xe9", b"\xed\xa0\x80"], ids=ascii)
async def test_a_webhook_secret_outside_ascii_is_rejected_like_any_wrong_one(api: WebhookApi, secret: bytes) -> None:
    async with httpx.AsyncClient() as client:
        body = {"record": {"id": str(uuid4())}}
        answer = await client.post(f"{api.url}{WEBHOOK_PATH}", json=body, headers={b"x-webhook-secret": secret})
    assert answer.status_code == 403


@pytest.mark.parametrize(
    "body",
    [b"", b"not JSON", b"[]", {}, {"record": None}, {"record": {}}, {"record": {"id": None}}, {"record": {"id": ""}}],
    ids=str,
)
async def test_a_webhook_without_a_record_id_is_answered_400_and_nothing_is_queued(
    unpolled_api: WebhookApi, body: Any
) -> None:
    assert await unpolled_api.call(body) == 400
    assert await unpolled_api.queued() == []


async def test_only_the_id_of_a_dashboard_webhook_with_the_full_record_is_queued(unpolled_api: WebhookApi) -> None:
    record = _record(room_id=str(uuid4()), message=TEXT, attachments=[{"type": "image", "url": "https://a.b/c"}])
    body = {"type": "INSERT", "table": "chat_messages", "schema": "public", **record, "old_record": None}
    assert await unpolled_api.call(body) == 202
    assert await unpolled_api.queued() == [record["record"]["id"]]


async def test_only_the_id_of_the_webhook_of_the_database_is_queued(unpolled_api: WebhookApi, chat: Chat) -> None:
    async with _database_calls(unpolled_api, chat.cloud.webhook_secret):
        message = await chat.send()
        assert await unpolled_api.queued(wait_seconds=10) == [str(message)]


async def test_a_backend_that_calls_with_the_id_alone_causes_the_push(api: WebhookApi, chat: Chat) -> None:
    message = await chat.send(webhook_lost=True)
    assert await api.call({"record": {"id": str(message)}}) == 202
    await chat.until_done(message)
    assert arrived_and_visible(chat.phone, message) == (1, 1)


async def test_an_id_of_no_message_causes_no_push_and_is_logged_and_counted(api: WebhookApi, log: Log) -> None:
    """Its insert was rolled back, or the webhook belongs to another table."""
    record, poller = _record(), api.cloud.poller
    redelivered = poller.redelivered
    assert await api.call(record) == 202
    line, *_ = await log.until("no push job: not a message, or its insert was rolled back")
    await poller.until_idle()
    assert (line["level"], line["correlation_id"]) == ("WARNING", record["record"]["id"])
    assert log.metric("UnknownMessage") == 1 + poller.redelivered - redelivered  # SQS delivers at least once
    assert api.cloud.expo.requests == []


async def test_each_message_of_a_burst_on_a_cold_authorizer_arrives_once_within_the_concurrency_of_the_account(
    chat: Chat,
) -> None:
    cloud = chat.cloud
    await cloud.functions["AuthorizeWebhook"].kill()
    async with gateway(cloud.template, cloud.functions, cloud.aws.sqs) as url:  # it has cached no authorization
        api = WebhookApi(cloud, url, cloud.template.queues["PushQueue"].url)
        async with _database_calls(api, cloud.webhook_secret):
            phones = await conversations(cloud, chat.tina, 200)
            before = cloud.pg_net.requests
            messages = await insert_messages(cloud, *[(room, chat.tina.id, TEXT) for room in phones])
            await eventually(lambda: cloud.pg_net.requests == before + 200)
            for message in messages:
                await chat.until_done(message, sweep=True)
    sent = zip(phones.values(), messages, strict=True)
    assert {arrived_and_visible(phone, message) for [phone, *_], message in sent} == {(1, 1)}
    assert cloud.functions["AuthorizeWebhook"].environments() <= ACCOUNT_CONCURRENCY


async def test_old_and_new_secret_work_during_a_rotation_and_the_old_one_is_rejected_after_it(chat: Chat) -> None:
    cloud, new = chat.cloud, "a-new-secret-of-forty-eight-characters-or-nearly"
    async with _webhook_secret(cloud, {"current": new, "previous": cloud.webhook_secret}) as api:
        for secret in (cloud.webhook_secret, new):
            async with _database_calls(api, secret):
                message = await chat.send()
                assert await api.queued(wait_seconds=10) == [str(message)]
    async with _webhook_secret(cloud, {"current": new, "previous": None}) as api:
        assert await api.call(_record(), {"x-webhook-secret": new}) == 202
        assert await api.call(_record(), {"x-webhook-secret": cloud.webhook_secret}) == 403


@pytest.mark.parametrize(
    ("value", "status"),
    [
        ({}, 500),
        ({"current": None}, 500),
        ({"current": ""}, 403),
        ({"current": "", "previous": ""}, 403),
    ],
    ids=str,
)
async def test_every_webhook_is_rejected_while_no_secret_is_configured(
    cloud: LocalCloud, value: dict[str, str | None], status: int
) -> None:
    async with _webhook_secret(cloud, value) as api:
        for given in (cloud.webhook_secret, "None", "null", "{}"):
            assert await api.call(_record(), {"x-webhook-secret": given}) == status
        assert await api.queued() == []
