"""A secret is missing or holds a rejected key: nothing is lost, an alarm is raised, and work continues when it is back.

No function is restarted for that. A function caches a secret for five minutes, so each test kills the functions when
it removes a secret. Their next start has to read it.
"""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from local.aws.gateway import gateway
from local.cloud import LocalCloud
from local.packages import PROJECT
from local.processes import free_port
from tests.system.chat import Chat, Log, arrived_and_visible, call_webhook, running_function

type Logs = dict[str, Log]


@pytest.fixture
def logs(cloud: LocalCloud) -> Logs:
    """What each function logs during the test."""
    return {name: Log(function) for name, function in cloud.functions.items()}


async def _kill_functions(cloud: LocalCloud) -> None:
    for function in cloud.functions.values():
        await function.kill()


@asynccontextmanager
async def _without(cloud: LocalCloud, secret: str) -> AsyncIterator[None]:
    """Deletes a secret, and restores it with its value at the end."""
    client, name = cloud.aws.secrets_manager, cloud.template.secrets[secret].name
    await asyncio.to_thread(client.delete_secret, SecretId=name, RecoveryWindowInDays=7)
    await _kill_functions(cloud)
    try:
        yield
    finally:
        await asyncio.to_thread(client.restore_secret, SecretId=name)


@asynccontextmanager
async def _with_wrong_keys(cloud: LocalCloud, secret: str, **wrong: str) -> AsyncIterator[None]:
    """Writes wrong keys into a secret, and restores the right ones at the end."""
    name = cloud.template.secrets[secret].name
    right = await cloud.aws.secret(name)
    await cloud.aws.put_secret(name, {**right, **wrong})
    await _kill_functions(cloud)
    try:
        yield
    finally:
        await cloud.aws.put_secret(name, right)


def _assert_alarmed(log: Log, secret: str) -> None:
    """Checks that it was counted, and that an error names the secret and the remedy."""
    errors = log.records("secret unavailable: write it with ./dev secrets put")
    assert errors
    assert all(line["level"] == "ERROR" and f"secret {secret} cannot be read" in line["error"] for line in errors)
    assert log.metric("SecretUnavailable") == len(errors)


async def _return_failed_records(chat: Chat) -> None:
    """Ends the visibility timeout of failed records, and waits until they are processed."""
    await chat.cloud.poller.until_idle()
    await chat.cloud.poller.return_failed()
    await chat.cloud.poller.until_idle()


async def test_without_the_backend_secret_pushes_wait_in_queue_and_database(chat: Chat, logs: Logs) -> None:
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
    await _return_failed_records(chat)
    await chat.until_done(message)
    assert arrived_and_visible(chat.phone, message) == (1, 1)
    await chat.sweep()
    assert worker.metric("SweepCompleted") == 1


async def test_without_the_backend_secret_a_cleanup_fails_and_the_next_one_succeeds(chat: Chat, logs: Logs) -> None:
    worker = logs["CleanupReceipts"]
    message = await chat.send()
    await chat.until_done(message)
    async with _without(chat.cloud, "BackendSecret"):
        await chat.collect_receipts()
        assert set((await chat.statuses(message)).values()) == {"accepted"}
        _assert_alarmed(worker, "BackendSecret")
        assert worker.metric("CleanupCompleted") == 0
    await chat.collect_receipts()
    assert set((await chat.statuses(message)).values()) == {"handed_over"}
    assert worker.metric("CleanupCompleted") == 1
    assert worker.starts() == 1


async def test_without_the_app_secret_the_device_api_answers_503_with_retry_after(chat: Chat, logs: Logs) -> None:
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


async def test_without_the_webhook_secret_webhooks_fail_and_the_sweep_sends_the_push(chat: Chat, logs: Logs) -> None:
    """The gateway caches a denial, but no failure: the first webhook after the secret is back is accepted."""
    secret = {"x-webhook-secret": chat.cloud.webhook_secret}
    async with gateway(chat.cloud.template, chat.cloud.functions, chat.cloud.aws.sqs) as url:
        async with _without(chat.cloud, "WebhookSecret"):
            message = await chat.send(webhook_lost=True)
            assert await call_webhook(url, {"record": {"id": str(message)}}, secret) == 500
            _assert_alarmed(logs["AuthorizeWebhook"], "WebhookSecret")
            await chat.sweep()
            assert arrived_and_visible(chat.phone, message) == (1, 1)
        message = await chat.send(webhook_lost=True)
        assert await call_webhook(url, {"record": {"id": str(message)}}, secret) == 202
        await chat.until_done(message)
    assert arrived_and_visible(chat.phone, message) == (1, 1)
    assert logs["AuthorizeWebhook"].starts() == 1


async def test_a_wrong_supabase_key_delays_pushes_until_the_right_one_is_written(chat: Chat, logs: Logs) -> None:
    """The function has cached the wrong key. After a 401 it reads the secret again."""
    worker = logs["SendChatPush"]
    async with _with_wrong_keys(chat.cloud, "BackendSecret", supabase_secret_key="sb_secret_of_another_project"):
        message = await chat.send()
        [line] = await worker.until("push not sent, SQS delivers its record again")
        assert "claim_push_jobs: " in line["error"]
    await _return_failed_records(chat)
    await chat.until_done(message)
    assert arrived_and_visible(chat.phone, message) == (1, 1)


async def test_a_wrong_expo_token_delays_pushes_until_the_right_one_is_written(chat: Chat, logs: Logs) -> None:
    worker, name = logs["SendChatPush"], chat.cloud.template.secrets["BackendSecret"].name
    before: Mapping[str, str | None] = await chat.cloud.aws.secret(name)
    chat.cloud.expo.configure({"access_token": "the-right-token-of-expo"})
    await chat.cloud.aws.put_secret(name, {**before, "expo_access_token": "the-right-token-of-expo"})
    try:
        async with _with_wrong_keys(chat.cloud, "BackendSecret", expo_access_token="the-wrong-token-of-expo"):
            message = await chat.send()
            await worker.until("push attempted")
            await chat.cloud.poller.until_idle()
            job = await chat.cloud.explain_push(message)
            assert (job["state"], job["attempts"]) == ("pending", 0)
            assert worker.metric("ConfigurationFault") >= 1
        await chat.make_due(message)
        await chat.until_done(message, sweep=True)
        assert arrived_and_visible(chat.phone, message) == (1, 1)
    finally:
        await chat.cloud.aws.put_secret(name, before)
        await _kill_functions(chat.cloud)


async def test_a_function_answers_503_before_its_timeout_while_secrets_manager_hangs(
    cloud: LocalCloud, tmp_path: Path
) -> None:
    """After its timeout nothing would be counted, and the answer would be 500."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        await _assert_unavailable(cloud, {**cloud.aws.environment, "AWS_ENDPOINT_URL": url}, tmp_path)


async def test_a_function_without_credentials_answers_503(cloud: LocalCloud, tmp_path: Path) -> None:
    """With SnapStart a function requests its credentials from an endpoint, which may fail."""
    failing = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": f"http://127.0.0.1:{free_port()}"}
    without_keys = {name: value for name, value in cloud.aws.environment.items() if "KEY" not in name}
    await _assert_unavailable(cloud, without_keys | failing, tmp_path)


async def _assert_unavailable(cloud: LocalCloud, environment: Mapping[str, str], folder: Path) -> None:
    """Checks that register_device with this environment answers 503, and counts it."""
    function = cloud.template.functions["RegisterDevice"]
    request = json.loads((PROJECT / "tests" / "events" / "register_device.json").read_text())
    async with running_function(cloud, function, folder, environment) as running:
        log = Log(running)
        answer = await running.invoke(request)
        assert (answer["statusCode"], answer["headers"]["Retry-After"]) == (503, "5")
        assert log.metric("SecretUnavailable") == 1
