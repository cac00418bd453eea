"""The Python client of the chat on the local cloud: what the scenarios of client/conformance do not have."""

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, LiteralString
from uuid import UUID

import psycopg
import pytest

from chat_client import ChatClient, Message, Settings, Timing
from chat_client.errors import Rejected, SignInRejected
from chat_client.events import (
    ConnectionChanged,
    Event,
    MessageChanged,
    PresenceChanged,
    Synced,
    TypingChanged,
)
from local.app import new_phone
from local.cloud import LocalCloud
from tests.system.accounts import PASSWORD, Account, sign_up

PROJECT = Path(__file__).parents[2]
_TIMING = Timing(retry_base=0.1, retry_cap=0.5, marks_delay=0.02, typing_interval=0.5)


class Phone:
    """A client, and the events that it has emitted."""

    def __init__(self, client: ChatClient) -> None:
        self.client = client
        self._events = client.events()

    async def until[T: Event](self, kind: type[T], holds: Callable[[T], Any] = lambda event: True) -> T:
        """The next event of a kind for which a condition holds. Raises TimeoutError."""
        async with asyncio.timeout(30):
            async for event in self._events:
                if isinstance(event, kind) and holds(event):
                    return event
        raise AssertionError("the client was closed")

    async def until_message(self, text: str, status: str | None = None) -> Message:
        """The message with this text, when it has this status."""
        return (
            await self.until(
                MessageChanged, lambda event: event.message.text == text and status in (None, event.message.status)
            )
        ).message


type OpenPhone = Callable[[Account], Awaitable[Phone]]


@pytest.fixture(scope="module")
async def tina(running_cloud: LocalCloud) -> Account:
    return await sign_up(running_cloud, "Tina", "tourist")


@pytest.fixture(scope="module")
async def gus(running_cloud: LocalCloud) -> Account:
    return await sign_up(running_cloud, "Gus", "guide")


@pytest.fixture
async def open_phone(cloud: LocalCloud, tmp_path: Path) -> AsyncIterator[OpenPhone]:
    """Opens the client of a person on a phone, and signs in."""
    async with AsyncExitStack() as phones:

        async def open_phone(account: Account) -> Phone:
            settings = Settings(
                supabase_url=cloud.realtime.url,
                publishable_key=cloud.supabase.publishable_key,
                database=tmp_path / f"{account.email}.sqlite",
                api_url=cloud.api_url,
                timing=_TIMING,
            )
            phone = Phone(await phones.enter_async_context(ChatClient(settings)))
            await phone.client.sign_in(account.email, PASSWORD)
            return phone

        yield open_phone


@dataclass(frozen=True)
class Pair:
    """Phones of Tina and Gus in one conversation, both online."""

    tina: Phone
    gus: Phone
    conversation: UUID


@pytest.fixture
async def pair(open_phone: OpenPhone, tina: Account, gus: Account) -> Pair:
    phones = await open_phone(tina), await open_phone(gus)
    conversation = await phones[0].client.open_chat(gus.id)
    for phone in phones:
        await phone.until(ConnectionChanged, lambda event: event.state == "online")
        await phone.until(Synced)
        await phone.client.sync()
    return Pair(*phones, conversation)


async def test_a_wrong_password_is_a_clear_error(pair: Pair, gus: Account) -> None:
    with pytest.raises(SignInRejected, match="invalid_credentials"):
        await pair.gus.client.sign_in(gus.email, "wrong")


async def test_an_exception_in_the_app_ends_nothing(pair: Pair) -> None:
    async def broken_app() -> None:
        async for _ in pair.gus.client.events():
            raise ValueError("a bug of the app")

    app = asyncio.create_task(broken_app())
    pair.tina.client.send(pair.conversation, "one")
    with pytest.raises(ValueError, match="a bug of the app"):
        await app
    pair.tina.client.send(pair.conversation, "two")
    await pair.gus.until_message("two")


async def test_an_event_that_cannot_be_read_ends_nothing(pair: Pair, tina: Account, gus: Account) -> None:
    for phone in (pair.tina, pair.gus):
        phone.client.look_at(pair.conversation)
    for phone in (pair.tina, pair.gus):
        await phone.until(PresenceChanged, lambda event: event.user_ids == {tina.id, gus.id})
    channel = pair.tina.client._live._room_channel
    assert channel is not None
    nothing: dict[str, Any] = {}
    for payload in (nothing, {"user_id": 7, "is_typing": True}, {"user_id": "no id"}, "no object"):
        await channel.send_broadcast("typing", payload)

    await pair.tina.client.typing()

    assert (await pair.gus.until(TypingChanged)).user_id == tina.id


async def test_a_registered_device_gets_the_push_of_a_message_and_its_tap_opens_the_conversation(
    cloud: LocalCloud, pair: Pair, tina: Account
) -> None:
    phone = new_phone(cloud.expo, "ios")
    await pair.gus.client.register_device(phone.token, "ios", app_version="1.0")
    pair.gus.client.background()
    pair.tina.client.send(pair.conversation, "look at your phone")
    message = await pair.tina.until_message("look at your phone", "sent")

    await cloud.until_push(message.id)

    [arrival] = phone.arrived
    data = arrival.message["data"]
    assert isinstance(data, dict)
    tap = pair.gus.client.open_push(data)
    assert tap is not None
    assert (tap.conversation_id, tap.message_id) == (pair.conversation, message.id)
    assert pair.tina.client.open_push(data) is None
    await pair.gus.client.unregister_device()
    with pytest.raises(Rejected, match="push_token"):
        await pair.gus.client.register_device("no token", "ios")


async def test_a_device_that_shows_the_conversation_gets_no_push_and_its_sign_out_unregisters_it(
    cloud: LocalCloud, pair: Pair
) -> None:
    phone = new_phone(cloud.expo, "ios")
    await pair.gus.client.register_device(phone.token, "ios")
    pair.gus.client.look_at(pair.conversation)
    shown = "select current_conversation_id from private.device_presence where device_id = %s"
    while await rows_of(cloud, shown, pair.gus.client.device_id) != [(pair.conversation,)]:  # noqa: ASYNC110
        await asyncio.sleep(0.05)

    pair.tina.client.send(pair.conversation, "you see it already")
    message = await pair.tina.until_message("you see it already", "sent")
    await cloud.until_push(message.id, lambda job: job["reason"] == "viewing")
    assert phone.arrived == []

    await pair.gus.client.sign_out()
    registered = "select is_active from public.user_devices where device_id = %s"
    assert await rows_of(cloud, registered, pair.gus.client.device_id) == []


async def test_the_bot_of_the_readme_answers(
    cloud: LocalCloud, open_phone: OpenPhone, tina: Account, tmp_path: Path
) -> None:
    guide = (PROJECT / "client" / "python" / "README.md").read_text()
    [code] = re.findall(r"```python\n(.+?)```", guide, re.DOTALL)
    (tmp_path / "bot.py").write_text(code)
    account = await sign_up(cloud, "Bot", "guide")
    bot = await asyncio.create_subprocess_exec(
        *(sys.executable, "bot.py"),
        cwd=tmp_path,
        env={
            **os.environ,
            **{"SUPABASE_URL": cloud.realtime.url, "SUPABASE_PUBLISHABLE_KEY": cloud.supabase.publishable_key},
            **{"BOT_EMAIL": account.email, "BOT_PASSWORD": PASSWORD, "PYTHONPATH": str(PROJECT / "client" / "python")},
        },
    )
    try:
        phone = await open_phone(tina)
        conversation = await phone.client.open_chat(account.id)
        # The bot answers what arrives after its start, so the first message may be too early for it.
        while not any(m.sender_id == account.id for m in phone.client.messages(conversation)):
            phone.client.send(conversation, "hello")
            await asyncio.sleep(0.5)
        await phone.until_message("You wrote: hello")
    finally:
        bot.kill()
        await bot.wait()


async def rows_of(cloud: LocalCloud, query: LiteralString, *values: object) -> list[tuple[Any, ...]]:
    """The rows of a query, as the owner of the database."""
    async with await psycopg.AsyncConnection.connect(cloud.database_url) as connection:
        return await (await connection.execute(query, values)).fetchall()
