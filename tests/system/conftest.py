"""Fixtures of the system tests. They share one cloud, which is reset before each test."""

import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from local.app import Person, chat_app
from local.cloud import LocalCloud, direct_credentials
from tests.system.chat import Chat, Log, Recording, execute, new_chat, reset


@pytest.fixture(scope="session")
def recording(running_cloud: LocalCloud) -> Iterator[Recording]:
    recording = Recording([], [])

    def received(parsed: dict[str, Any], **_: object) -> None:
        recording.queue_messages.extend(parsed.get("Messages", []))

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            recording.local_log.append(record.getMessage())

    handler = Handler()
    logging.getLogger("local").addHandler(handler)
    running_cloud.aws.sqs.meta.events.register("after-call.sqs.ReceiveMessage", received)
    yield recording
    logging.getLogger("local").removeHandler(handler)


@pytest.fixture
async def cloud(running_cloud: LocalCloud, recording: Recording) -> LocalCloud:
    await reset(running_cloud)
    return running_cloud


@pytest.fixture(scope="module")
async def direct(running_cloud: LocalCloud) -> AsyncIterator[None]:
    """An operator gave the cloud the credentials of FCM and APNs, and removes them at the end."""
    backend = running_cloud.template.secrets["BackendSecret"].name
    secret = await running_cloud.aws.secret(backend)
    credentials = direct_credentials(running_cloud.fcm, running_cloud.apns)
    await running_cloud.aws.put_secret(backend, {**secret, **credentials})
    await running_cloud.functions["SendChatPush"].kill()  # because it caches the secret for five minutes
    await execute(running_cloud, "select push.note_providers('{fcm,apns}')")
    yield
    await running_cloud.aws.put_secret(backend, secret)
    await running_cloud.functions["SendChatPush"].kill()
    await execute(running_cloud, "delete from push.providers where provider <> 'expo'")


@pytest.fixture(scope="session")
async def people(running_cloud: LocalCloud) -> AsyncIterator[dict[str, Person]]:
    """Tina, a tourist, and the guides Gus, Omar and Greta, by first name in lower case."""
    async with chat_app(running_cloud.supabase, running_cloud.api_url) as app:
        tina = await app.sign_up("Tina", "tourist")
        guides = [await app.sign_up(name, "guide") for name in ("Gus", "Omar", "Greta")]
        yield {person.name.lower(): person for person in (tina, *guides)}


@pytest.fixture
async def chat(cloud: LocalCloud, people: dict[str, Person]) -> Chat:
    return await new_chat(cloud, people)


@pytest.fixture
def log(cloud: LocalCloud) -> Log:
    """What SendChatPush logs during the test."""
    return Log(cloud.functions["SendChatPush"])
