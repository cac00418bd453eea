"""The Python client of the chat on the local cloud."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

import httpx
import pytest

from chat_client import ChatClient, Message, Settings, Timing
from chat_client.events import Event, MessageChanged
from local.cloud import LocalCloud

PASSWORD = "correct horse battery staple"
TIMING = Timing(
    retry_base=0.1, retry_cap=0.5, marks_delay=0.02, typing_timeout=1, typing_interval=0.5, stable_connection=1
)


@dataclass(frozen=True)
class Account:
    """A person, and how to sign in."""

    id: UUID
    email: str


class Phone:
    """A client, and the events that it has emitted."""

    def __init__(self, client: ChatClient) -> None:
        self.client = client
        self.seen: list[Event] = []
        self._events = client.events()

    async def until[T: Event](self, kind: type[T], holds: Callable[[T], Any] = lambda event: True) -> T:
        """The next event of a kind for which a condition holds. Raises TimeoutError."""
        async with asyncio.timeout(30):
            async for event in self._events:
                self.seen.append(event)
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


type OpenPhone = Callable[..., Awaitable[Phone]]


async def sign_up(cloud: LocalCloud, name: str, role: Literal["tourist", "guide"]) -> Account:
    """A new account with a profile."""
    email = f"{name.lower()}-{secrets.token_hex(4)}@example.com"
    async with httpx.AsyncClient(base_url=cloud.supabase.url, timeout=30) as http:
        headers = {"apikey": cloud.supabase.publishable_key}
        answer = await http.post("/auth/v1/signup", headers=headers, json={"email": email, "password": PASSWORD})
        session = answer.raise_for_status().json()
        headers["Authorization"] = f"Bearer {session['access_token']}"
        row = {"id": session["user"]["id"], "display_name": name, "role": role}
        (await http.post("/rest/v1/users", headers=headers, json=row)).raise_for_status()
    return Account(UUID(session["user"]["id"]), email)


@pytest.fixture(scope="module")
async def tina(running_cloud: LocalCloud) -> Account:
    return await sign_up(running_cloud, "Tina", "tourist")


@pytest.fixture(scope="module")
async def gus(running_cloud: LocalCloud) -> Account:
    return await sign_up(running_cloud, "Gus", "guide")


def settings_of(cloud: LocalCloud, database: Path, timing: Timing = TIMING) -> Settings:
    return Settings(
        supabase_url=cloud.realtime.url,
        publishable_key=cloud.supabase.publishable_key,
        database=database,
        api_url=cloud.api_url,
        timing=timing,
    )


@pytest.fixture
async def open_phone(cloud: LocalCloud, tmp_path: Path) -> AsyncIterator[OpenPhone]:
    """Opens the client of a person on a phone with this name; the same name is the same local database."""
    async with AsyncExitStack() as phones:

        async def open_phone(account: Account, name: str = "phone", timing: Timing = TIMING) -> Phone:
            database = tmp_path / f"{account.email}-{name}.sqlite"
            phone = Phone(await phones.enter_async_context(ChatClient(settings_of(cloud, database, timing))))
            if not phone.client.signed_in:
                await phone.client.sign_in(account.email, PASSWORD)
            return phone

        yield open_phone


async def test_a_message_goes_through_the_outbox_and_arrives_at_the_other_person(
    open_phone: OpenPhone, tina: Account, gus: Account
) -> None:
    sender, receiver = await open_phone(tina), await open_phone(gus)
    conversation = await sender.client.open_chat(gus.id)

    pending = sender.client.send(conversation, "Shall we meet at the fountain?")
    assert pending.status == "pending"
    sent = await sender.until_message(pending.text, "sent")
    arrived = await receiver.until_message(pending.text)

    assert sent.id == arrived.id
    assert sent.client_msg_id == str(pending.id)
    assert sender.client.message(pending.id).id == sent.id
    assert [each.id for each in await receiver.client.load_messages(conversation)] == [sent.id]
    await sender.until_message(pending.text, "delivered")
    receiver.client.mark_read(arrived.id)
    await sender.until_message(pending.text, "read")
