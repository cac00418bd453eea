"""Secrets that cannot be read, and keys that are refused: nothing is lost, somebody is told, and all goes on by itself
when they are back. No function is started anew for that.

A secret that is cached is not missed for five minutes. So each test ends the processes of the functions when it takes
a secret away: whatever starts next has to read it.
"""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

import aiohttp
import pytest

from local.aws.build import built
from local.aws.gateway import gateway
from local.aws.lambda_runtime import lambda_function
from local.cloud import LocalCloud
from local.packages import PROJECT
from local.processes import free_port
from tests.system.chat import Chat, Log, got

type Logs = dict[str, Log]


@pytest.fixture
def logs(cloud: LocalCloud) -> Logs:
    """What each function logs during the test."""
    return {name: Log(function) for name, function in cloud.functions.items()}


async def _forget_secrets(cloud: LocalCloud) -> None:
    """Every function starts anew."""
    for function in cloud.functions.values():
        await function.kill()


@asynccontextmanager
async def _without(cloud: LocalCloud, secret: str) -> AsyncIterator[None]:
    """Somebody deletes a secret; at the end it is restored, with the value that it had."""
    client, name = cloud.aws.secrets_manager, cloud.template.secrets[secret].name
    await asyncio.to_thread(client.delete_secret, SecretId=name, RecoveryWindowInDays=7)
    await _forget_secrets(cloud)
    try:
        yield
    finally:
        await asyncio.to_thread(client.restore_secret, SecretId=name)


@asynccontextmanager
async def _with_wrong(cloud: LocalCloud, secret: str, **wrong: str) -> AsyncIterator[None]:
    """Somebody writes wrong keys into a secret; at the end the right ones are there again."""
    name = cloud.template.secrets[secret].name
    right = await cloud.aws.secret(name)
    await cloud.aws.put_secret(name, {**right, **wrong})
    await _forget_secrets(cloud)
    try:
        yield
    finally:
        await cloud.aws.put_secret(name, right)


def _assert_alarmed(log: Log, secret: str) -> None:
    """It was counted, and an error names the secret and what mends it."""
    errors = log.records("secret unavailable: write it with ./dev secrets put")
    assert errors
    assert all(line["level"] == "ERROR" and f"secret {secret} cannot be read" in line["error"] for line in errors)
    assert log.metric("SecretUnavailable") == len(errors)


async def _records_return(chat: Chat) -> None:
    """The visibility timeout of what has failed is over."""
    await chat.cloud.poller.until_idle()
    await chat.cloud.poller.return_failed()
    await chat.cloud.poller.until_idle()


async def test_without_the_workers_secret_pushes_wait_in_queue_and_database(chat: Chat, logs: Logs) -> None:
    worker = logs["SendChatPush"]
    async with _without(chat.cloud, "BackendSecret"):
        message = await chat.send()
        [line] = await worker.until("push not sent, SQS delivers its record again")
        assert line["correlation_id"] == str(message)
        await chat.sweep()
        job = await chat.cloud.explain_push(message)
        assert (job["state"], job["attempts"], chat.cloud.expo.requests) == ("pending", 0, [])
        _assert_alarmed(worker, "BackendSecret")
        assert worker.metric("SweepCompleted") == 0
    await _records_return(chat)
    await chat.ended(message)
    assert got(chat.phone, message) == (1, 1)
    await chat.sweep()
    assert worker.metric("SweepCompleted") == 1
    assert worker.starts() == 1


async def test_without_the_workers_secret_a_cleanup_fails_and_the_next_does_its_work(chat: Chat, logs: Logs) -> None:
    worker = logs["CleanupReceipts"]
    message = await chat.send()
    await chat.ended(message)
    async with _without(chat.cloud, "BackendSecret"):
        await chat.clean_up()
        assert set((await chat.statuses(message)).values()) == {"accepted"}
        _assert_alarmed(worker, "BackendSecret")
        assert worker.metric("CleanupCompleted") == 0
    await chat.clean_up()
    assert set((await chat.statuses(message)).values()) == {"handed_over"}
    assert worker.metric("CleanupCompleted") == 1
    assert worker.starts() == 1


async def test_without_its_secret_registering_is_refused_with_503_and_retry_after(chat: Chat, logs: Logs) -> None:
    registration = {"device_id": "d", "platform": "ios", "push_token": chat.phone.token}
    async with _without(chat.cloud, "AppSecret"):
        for method, path, content in (
            ("POST", "/api/push/register", {"json": registration}),
            ("DELETE", "/api/push/unregister", {"params": {"device_id": "d"}}),
            ("GET", "/api/push/devices", {}),
        ):
            answer = await chat.gus.call(method, path, **content)
            assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
            assert answer.json()["error"]["code"] == "unavailable"
        _assert_alarmed(logs["RegisterDevice"], "AppSecret")
    assert (await chat.gus.call("POST", "/api/push/register", json=registration)).status_code == 201
    assert logs["RegisterDevice"].starts() == 1


async def test_without_the_webhooks_secret_rings_fail_but_pushes_do_not(chat: Chat, logs: Logs) -> None:
    """The gateway keeps a refusal for five minutes, but no failure: the ring after the secret is back is let in."""
    async with gateway(chat.cloud.template, chat.cloud.functions, chat.cloud.aws.sqs) as url:
        async with _without(chat.cloud, "WebhookSecret"):
            message = await chat.send(webhook_lost=True)
            assert await _ring(url, chat, message) == 500
            _assert_alarmed(logs["AuthorizeWebhook"], "WebhookSecret")
            await chat.sweep()
            assert got(chat.phone, message) == (1, 1)
        message = await chat.send(webhook_lost=True)
        assert await _ring(url, chat, message) == 202
        await chat.ended(message)
    assert got(chat.phone, message) == (1, 1)
    assert logs["AuthorizeWebhook"].starts() == 1


async def _ring(url: str, chat: Chat, message: UUID) -> int:
    async with aiohttp.request(
        "POST",
        f"{url}/api/push/chat-message",
        json={"record": {"id": str(message)}},
        headers={"x-webhook-secret": chat.cloud.webhook_secret},
    ) as answer:
        return answer.status


async def test_a_wrong_supabase_key_delays_pushes_until_the_right_one_is_written(chat: Chat, logs: Logs) -> None:
    """The wrong one is cached by then: a key that is refused is read anew."""
    worker = logs["SendChatPush"]
    async with _with_wrong(chat.cloud, "BackendSecret", supabase_secret_key="sb_secret_of_another_project"):
        message = await chat.send()
        [line] = await worker.until("push not sent, SQS delivers its record again")
        assert "claim_push_jobs: " in line["error"]
    await _records_return(chat)
    await chat.ended(message)
    assert got(chat.phone, message) == (1, 1)
    assert worker.starts() == 1


async def test_a_wrong_expo_token_delays_pushes_until_the_right_one_is_written(chat: Chat, logs: Logs) -> None:
    worker, name = logs["SendChatPush"], chat.cloud.template.secrets["BackendSecret"].name
    before: Mapping[str, str | None] = await chat.cloud.aws.secret(name)
    chat.cloud.expo.configure({"access_token": "the-right-token-of-expo"})
    await chat.cloud.aws.put_secret(name, {**before, "expo_access_token": "the-right-token-of-expo"})
    try:
        async with _with_wrong(chat.cloud, "BackendSecret", expo_access_token="the-wrong-token-of-expo"):
            message = await chat.send()
            await worker.until("push attempted")
            await chat.cloud.poller.until_idle()
            job = await chat.cloud.explain_push(message)
            assert (job["state"], job["attempts"]) == ("pending", 0)
            assert worker.metric("ConfigurationFault") == 1
        await chat.time_passes(message)
        await chat.ended(message, sweep=True)
        assert got(chat.phone, message) == (1, 1)
        assert worker.starts() == 1
    finally:
        await chat.cloud.aws.put_secret(name, before)
        await _forget_secrets(chat.cloud)


async def test_a_secrets_manager_that_hangs_is_given_up_before_the_functions_own_time_is_over(
    cloud: LocalCloud, tmp_path: Path
) -> None:
    """Else nothing would be counted, and the app would be answered 500."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        await _assert_unavailable(cloud, {**cloud.aws.environment, "AWS_ENDPOINT_URL": url}, tmp_path)


async def test_a_function_without_credentials_of_its_own_cannot_read_secrets_either(
    cloud: LocalCloud, tmp_path: Path
) -> None:
    """With SnapStart it asks for them, and may get none."""
    nobody = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": f"http://127.0.0.1:{free_port()}"}
    own = {name: value for name, value in cloud.aws.environment.items() if "KEY" not in name}
    await _assert_unavailable(cloud, own | nobody, tmp_path)


async def _assert_unavailable(cloud: LocalCloud, environment: Mapping[str, str], folder: Path) -> None:
    """A register_device with this environment says so, and counts it."""
    function = cloud.template.functions["RegisterDevice"]
    request = json.loads((PROJECT / "tests" / "events" / "register_device.json").read_text())
    async with (
        built() as build,
        lambda_function(function, runtime=build.runtime, environment=environment, folder=folder) as running,
    ):
        log = Log(running)
        answer = await running.invoke(request)
        assert (answer["statusCode"], answer["headers"]["Retry-After"]) == (503, "5")
        assert log.metric("SecretUnavailable") == 1
