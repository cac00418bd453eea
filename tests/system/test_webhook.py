"""The way of a webhook, or of a backend's call, through the HTTP API into the queue: who may ring, what is let in."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

import aiohttp
import httpx
import pytest

from local.aws.gateway import gateway
from local.aws.lambda_runtime import ACCOUNT_CONCURRENCY
from local.cloud import LocalCloud
from tests.system.chat import TEXT, Chat, Log, eventually, execute, got, insert_messages

ROUTE = "/api/push/chat-message"


@dataclass
class Door:
    """The HTTP API, and the queue behind it."""

    cloud: LocalCloud
    url: str
    queue_url: str

    async def ring(self, body: Any, headers: Mapping[str, str] | None = None) -> int:
        """The status of a webhook with this JSON, or these bytes; it has the right secret unless headers are given."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        if headers is None:
            headers = {"x-webhook-secret": self.cloud.webhook_secret}
        async with aiohttp.request("POST", f"{self.url}{ROUTE}", data=data, headers=headers) as answer:
            return answer.status

    async def queued(self, wait_seconds: int = 0) -> list[str]:
        """The records that nobody has received yet."""
        answer = await asyncio.to_thread(
            self.cloud.aws.sqs.receive_message,
            QueueUrl=self.queue_url,
            MaxNumberOfMessages=10,
            WaitTimeSeconds=wait_seconds,
        )
        return [message["Body"] for message in answer.get("Messages", [])]


@pytest.fixture
def door(cloud: LocalCloud) -> Door:
    """The cloud's own HTTP API, behind which SendChatPush waits."""
    return Door(cloud, cloud.api_url, cloud.template.queues["PushQueue"].url)


@asynccontextmanager
async def _unpolled_door(cloud: LocalCloud) -> AsyncIterator[Door]:
    """The same HTTP API, started anew, before a queue from which only the test receives."""
    answer = await asyncio.to_thread(cloud.aws.sqs.create_queue, QueueName=f"unpolled-{uuid4().hex}")
    queue = replace(cloud.template.queues["PushQueue"], url=answer["QueueUrl"])
    template = replace(cloud.template, queues={"PushQueue": queue})
    async with gateway(template, cloud.functions, cloud.aws.sqs) as url:
        yield Door(cloud, url, queue.url)


@pytest.fixture
async def unpolled_door(cloud: LocalCloud) -> AsyncIterator[Door]:
    async with _unpolled_door(cloud) as door:
        yield door


@asynccontextmanager
async def _webhook_secret(cloud: LocalCloud, value: Mapping[str, str | None]) -> AsyncIterator[Door]:
    """A door whose guard reads this secret, as every one does five minutes after it was written: no cache is older."""

    async def put(value: Mapping[str, str | None]) -> None:
        await cloud.aws.put_secret(cloud.template.secrets["WebhookSecret"].name, value)
        await cloud.functions["AuthorizeWebhook"].kill()

    await put(value)
    try:
        async with _unpolled_door(cloud) as door:
            yield door
    finally:
        await put({"current": cloud.webhook_secret, "previous": None})


@asynccontextmanager
async def _database_rings(door: Door, secret: str) -> AsyncIterator[None]:
    """The database's own webhook rings at this door."""
    configure = "select push.configure_webhook(%s, %s)"
    await execute(door.cloud, configure, f"{door.url}{ROUTE}", secret)
    try:
        yield
    finally:
        await execute(door.cloud, configure, f"{door.cloud.api_url}{ROUTE}", door.cloud.webhook_secret)


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
async def test_a_webhook_without_the_secret_is_refused_and_nothing_is_queued(
    unpolled_door: Door, headers: dict[str, str], status: int
) -> None:
    assert await unpolled_door.ring(_record(), headers) == status
    assert await unpolled_door.queued() == []
    assert await unpolled_door.ring(_record()) == 202


@pytest.mark.parametrize("secret", [b"\xff\xfe", b"\xc3\xa9", b"caf\xe9", b"\xed\xa0\x80"], ids=ascii)
async def test_a_secret_of_odd_bytes_is_refused_like_any_wrong_one(door: Door, secret: bytes) -> None:
    async with httpx.AsyncClient() as client:
        ring = {"record": {"id": str(uuid4())}}
        answer = await client.post(f"{door.url}{ROUTE}", json=ring, headers={b"x-webhook-secret": secret})
    assert answer.status_code == 403


@pytest.mark.parametrize(
    "body",
    [b"", b"not JSON", b"[]", {}, {"record": None}, {"record": {}}, {"record": {"id": None}}, {"record": {"id": ""}}],
    ids=str,
)
async def test_a_body_without_record_id_is_refused_at_the_door(unpolled_door: Door, body: Any) -> None:
    assert await unpolled_door.ring(body) == 400
    assert await unpolled_door.queued() == []


async def test_of_a_dashboard_webhook_with_the_full_record_only_the_id_is_queued(unpolled_door: Door) -> None:
    record = _record(room_id=str(uuid4()), message=TEXT, attachments=[{"type": "image", "url": "https://a.b/c"}])
    body = {"type": "INSERT", "table": "chat_messages", "schema": "public", **record, "old_record": None}
    assert await unpolled_door.ring(body) == 202
    assert await unpolled_door.queued() == [record["record"]["id"]]


async def test_of_the_databases_own_webhook_only_the_id_is_queued(unpolled_door: Door, chat: Chat) -> None:
    async with _database_rings(unpolled_door, chat.cloud.webhook_secret):
        message = await chat.send()
        assert await unpolled_door.queued(wait_seconds=10) == [str(message)]


async def test_a_backend_rings_with_nothing_but_the_id(door: Door, chat: Chat) -> None:
    message = await chat.send(webhook_lost=True)
    assert await door.ring({"record": {"id": str(message)}}) == 202
    await chat.ended(message)
    assert got(chat.phone, message) == (1, 1)


async def test_an_id_of_no_message_sends_nothing_and_is_logged_and_counted(door: Door, log: Log) -> None:
    """Its insert was rolled back, or the webhook sits on another table."""
    record = _record()
    assert await door.ring(record) == 202
    [line] = await log.until("no push job: not a message, or its insert was rolled back")
    await door.cloud.poller.until_idle()
    assert (line["level"], line["correlation_id"]) == ("WARNING", record["record"]["id"])
    assert log.metric("UnknownMessage") == 1
    assert door.cloud.expo.requests == []


async def test_a_burst_on_a_cold_authorizer_loses_webhooks_at_most_and_takes_no_more_than_the_account_allows(
    chat: Chat,
) -> None:
    cloud = chat.cloud
    await cloud.functions["AuthorizeWebhook"].kill()
    async with gateway(cloud.template, cloud.functions, cloud.aws.sqs) as url:  # nobody has been let in yet
        door = Door(cloud, url, cloud.template.queues["PushQueue"].url)
        async with _database_rings(door, cloud.webhook_secret):
            rung = cloud.pg_net.requests
            messages = await insert_messages(cloud, *[(chat.id, chat.tina.id, TEXT)] * 200)
            await eventually(lambda: cloud.pg_net.requests == rung + 200)
            for message in messages:
                await chat.ended(message, sweep=True)
    assert {got(chat.phone, message) for message in messages} == {(1, 1)}
    assert cloud.functions["AuthorizeWebhook"].environments() <= ACCOUNT_CONCURRENCY


async def test_a_secret_is_rotated_without_downtime_and_then_the_old_one_opens_no_more(chat: Chat) -> None:
    cloud, new = chat.cloud, "a-new-secret-of-forty-eight-characters-or-nearly"
    async with _webhook_secret(cloud, {"current": new, "previous": cloud.webhook_secret}) as door:
        for secret in (cloud.webhook_secret, new):
            async with _database_rings(door, secret):
                message = await chat.send()
                assert await door.queued(wait_seconds=10) == [str(message)]
    async with _webhook_secret(cloud, {"current": new, "previous": None}) as door:
        assert await door.ring(_record(), {"x-webhook-secret": new}) == 202
        assert await door.ring(_record(), {"x-webhook-secret": cloud.webhook_secret}) == 403


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
async def test_the_door_is_closed_while_no_secret_is_configured(
    cloud: LocalCloud, value: dict[str, str | None], status: int
) -> None:
    async with _webhook_secret(cloud, value) as door:
        for given in (cloud.webhook_secret, "None", "null", "{}"):
            assert await door.ring(_record(), {"x-webhook-secret": given}) == status
        assert await door.queued() == []
