"""The Python client of the chat on the local cloud."""

import asyncio
import json
import os
import re
import secrets
import sqlite3
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, LiteralString
from uuid import UUID

import httpx
import psycopg
import pytest

from chat_client import ChatClient, Message, Settings, Timing
from chat_client.errors import OtherAccount, Rejected, SignInRejected
from chat_client.events import (
    ConnectionChanged,
    ConversationChanged,
    Event,
    MessageChanged,
    PresenceChanged,
    SessionEnded,
    Synced,
    TypingChanged,
)
from local.app import new_phone
from local.cloud import LocalCloud
from tests.system.chat import execute

PROJECT = Path(__file__).parents[2]
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


@dataclass(frozen=True)
class Pair:
    """Phones of Tina and Gus in one conversation, both online."""

    tina: Phone
    gus: Phone
    conversation: UUID

    def unread(self, phone: Phone) -> int:
        """The unread counter that a phone shows."""
        conversation = phone.client.conversation(self.conversation)
        assert conversation is not None
        return conversation.unread


@pytest.fixture
async def pair(open_phone: OpenPhone, tina: Account, gus: Account) -> Pair:
    phones = await open_phone(tina), await open_phone(gus)
    conversation = await phones[0].client.open_chat(gus.id)
    for phone in phones:
        await phone.until(ConnectionChanged, lambda event: event.state == "online")
        await phone.until(Synced)
        await phone.client.sync()
    return Pair(*phones, conversation)


async def test_edits_deletions_and_marks_arrive_live(pair: Pair) -> None:
    kept, deleted = pair.tina.client.send(pair.conversation, "helo"), pair.tina.client.send(pair.conversation, "oops")
    arrived = await pair.gus.until_message("oops")
    assert pair.unread(pair.gus) == 2

    pair.tina.client.edit(kept.id, "hello")
    await pair.gus.until_message("hello")
    pair.tina.client.delete(deleted.id)
    gone = await pair.gus.until(MessageChanged, lambda event: event.message.deleted_at)
    assert (gone.message.id, gone.message.text) == (arrived.id, "")
    assert pair.unread(pair.gus) == 1

    pair.gus.client.mark_read(arrived.id)
    assert pair.unread(pair.gus) == 0
    await pair.tina.until_message("hello", "read")


async def test_what_was_written_while_a_phone_was_in_the_background_arrives_with_the_foreground(pair: Pair) -> None:
    first = pair.tina.client.send(pair.conversation, "helo")
    await pair.gus.until_message("helo")
    pair.gus.client.background()
    await pair.gus.until(ConnectionChanged, lambda event: event.state == "offline")

    pair.tina.client.edit(first.id, "hello")
    pair.tina.client.send(pair.conversation, "are you there?")
    await pair.tina.until_message("are you there?", "sent")
    pair.gus.client.foreground()

    def newest() -> list[str]:
        return [message.text for message in pair.gus.client.messages(pair.conversation, limit=2)]

    await pair.gus.until(MessageChanged, lambda _: newest() == ["are you there?", "hello"])


async def test_lost_events_are_made_good_by_the_next_sync(cloud: LocalCloud, pair: Pair) -> None:
    cloud.realtime.lose("broadcast", 2)
    pair.tina.client.send(pair.conversation, "lost")
    await pair.tina.until_message("lost", "sent")

    await pair.gus.client.sync()

    await pair.gus.until_message("lost")


@pytest.mark.parametrize("fault", ["cut", "expire_tokens"])
async def test_a_connection_that_is_lost_comes_back_and_misses_nothing(
    cloud: LocalCloud, pair: Pair, fault: str
) -> None:
    getattr(cloud.realtime, fault)()
    pair.tina.client.send(pair.conversation, f"after {fault}")

    await pair.gus.until(ConnectionChanged, lambda event: event.state == "online")
    await pair.gus.until(Synced)
    assert pair.gus.client.messages(pair.conversation)[0].text == f"after {fault}"
    pair.tina.client.send(pair.conversation, f"live after {fault}")
    await pair.gus.until_message(f"live after {fault}")


async def test_a_connection_that_dies_silently_delays_messages_to_the_next_sync_and_foreground_replaces_it(
    cloud: LocalCloud, pair: Pair
) -> None:
    cloud.realtime.silence()
    pair.tina.client.send(pair.conversation, "silence")
    await pair.gus.client.sync()
    await pair.tina.until_message("silence", "sent")
    await pair.gus.client.sync()
    assert pair.gus.client.messages(pair.conversation)[0].text == "silence"

    pair.gus.client.foreground()
    await pair.gus.until(ConnectionChanged, lambda event: event.state == "online")
    pair.tina.client.send(pair.conversation, "sound")
    await pair.gus.until_message("sound")


async def test_realtime_that_refuses_connections_is_tried_until_it_accepts_them(cloud: LocalCloud, pair: Pair) -> None:
    cloud.realtime.refuse()
    cloud.realtime.cut()
    for _ in range(7):  # the client of supabase gives up after five
        await cloud.realtime.refused.wait()
        cloud.realtime.refused.clear()
    cloud.realtime.accept()

    await pair.gus.until(ConnectionChanged, lambda event: event.state == "online")


async def test_typing_ends_by_time_and_presence_is_tracked_again_after_a_reconnect(
    cloud: LocalCloud, pair: Pair, tina: Account, gus: Account
) -> None:
    both = frozenset({tina.id, gus.id})
    pair.tina.client.look_at(pair.conversation)
    pair.gus.client.look_at(pair.conversation)
    await pair.gus.until(PresenceChanged, lambda event: event.user_ids == both)
    await pair.tina.until(PresenceChanged, lambda event: event.user_ids == both)

    for _ in range(20):
        await pair.tina.client.typing()
    typing = await pair.gus.until(TypingChanged)
    assert (typing.user_id, typing.is_typing) == (tina.id, True)
    assert not (await pair.gus.until(TypingChanged)).is_typing

    cloud.realtime.cut()
    await pair.gus.until(PresenceChanged, lambda event: event.user_ids == both)
    await pair.tina.until(PresenceChanged, lambda event: event.user_ids == both)
    pair.tina.client.look_at(None)
    await pair.gus.until(PresenceChanged, lambda event: event.user_ids == {gus.id})


async def test_typing_ends_with_the_message(pair: Pair, tina: Account, gus: Account) -> None:
    for phone in (pair.tina, pair.gus):
        phone.client.look_at(pair.conversation)
    for phone in (pair.tina, pair.gus):
        await phone.until(PresenceChanged, lambda event: event.user_ids == {tina.id, gus.id})
    await pair.tina.client.typing()
    await pair.gus.until(TypingChanged, lambda event: event.is_typing)
    pair.tina.client.send(pair.conversation, "here it is")
    await pair.gus.until(TypingChanged, lambda event: not event.is_typing)


async def test_two_phones_of_one_person_show_the_same(open_phone: OpenPhone, pair: Pair, gus: Account) -> None:
    second = await open_phone(gus, "tablet")
    await second.until(Synced)
    pair.gus.client.send(pair.conversation, "from my phone")
    await second.until_message("from my phone")
    pair.tina.client.send(pair.conversation, "to both")
    on_tablet = await second.until_message("to both")
    await pair.gus.until_message("to both")

    second.client.mark_read(on_tablet.id)

    await pair.gus.until_message("to both", "read")
    assert (pair.unread(pair.gus), pair.unread(second)) == (0, 0)
    second.client.archive(pair.conversation)
    await pair.gus.until(ConversationChanged, lambda event: event.conversation.archived)


async def test_marks_that_were_made_offline_are_sent_later(open_phone: OpenPhone, pair: Pair, gus: Account) -> None:
    pair.tina.client.send(pair.conversation, "read me offline")
    arrived = await pair.gus.until_message("read me offline")
    pair.gus.client.background()
    pair.gus.client.mark_read(arrived.id)
    await pair.gus.client.close()

    await open_phone(gus)

    await pair.tina.until_message("read me offline", "read")


async def test_a_session_is_stored_and_renewed_when_its_token_is_rejected(
    cloud: LocalCloud, open_phone: OpenPhone, pair: Pair, gus: Account, tmp_path: Path
) -> None:
    await pair.gus.client.close()
    database = tmp_path / f"{gus.email}-phone.sqlite"
    with sqlite3.connect(database) as connection:
        [stored] = connection.execute("select value from meta where key = 'session'").fetchone()
        session = {**json.loads(stored), "access_token": "eyJhbGciOiJIUzI1NiJ9.e30.c2lnbmF0dXJl"}
        connection.execute("update meta set value = ? where key = 'session'", (json.dumps(session),))
    connection.close()

    phone = await open_phone(gus)

    assert phone.client.signed_in
    await phone.until(Synced)
    phone.client.send(pair.conversation, "renewed")
    await pair.tina.until_message("renewed")


async def test_a_session_that_was_ended_elsewhere_says_so_and_keeps_the_outbox_until_the_next_sign_in(
    cloud: LocalCloud, open_phone: OpenPhone, pair: Pair, gus: Account, tmp_path: Path
) -> None:
    await pair.gus.client.close()
    database = tmp_path / f"{gus.email}-phone.sqlite"
    with sqlite3.connect(database) as connection:
        [stored] = connection.execute("select value from meta where key = 'session'").fetchone()
        ended = {
            **json.loads(stored),
            "access_token": "eyJhbGciOiJIUzI1NiJ9.e30.c2lnbmF0dXJl",
            "refresh_token": "ended",
        }
        connection.execute("update meta set value = ? where key = 'session'", (json.dumps(ended),))
    connection.close()
    async with ChatClient(settings_of(cloud, database)) as client:
        phone = Phone(client)
        await phone.until(SessionEnded)
        client.send(pair.conversation, "kept")
        assert (client.signed_in, [entry.text for entry in client.outbox()]) == (False, ["kept"])

        await client.sign_in(gus.email, PASSWORD)

        await pair.tina.until_message("kept")


async def test_a_sign_out_removes_the_data_of_the_account_and_another_account_cannot_sign_in_before(
    open_phone: OpenPhone, pair: Pair, tina: Account, gus: Account
) -> None:
    pair.tina.client.send(pair.conversation, "private")
    await pair.gus.until_message("private")
    with pytest.raises(OtherAccount, match="sign_out"):
        await pair.gus.client.sign_in(tina.email, PASSWORD)
    assert not pair.gus.client.signed_in

    await pair.gus.client.sign_in(gus.email, PASSWORD)
    await pair.gus.client.sign_out()

    assert (pair.gus.client.conversations(), pair.gus.client.messages(pair.conversation)) == ([], [])
    await pair.gus.client.sign_in(tina.email, PASSWORD)
    await pair.gus.until(Synced, lambda _: pair.gus.client.conversations())
    assert pair.gus.client.user_id == tina.id
    assert [each.partner.id for each in pair.gus.client.conversations()] == [gus.id]


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


async def test_over_the_rate_limit_messages_wait_and_go_later_in_their_order(cloud: LocalCloud, pair: Pair) -> None:
    await execute(cloud, "update private.chat_settings set message_limit = 2, message_limit_window = '2 seconds'")
    try:
        texts = [f"message {number}" for number in range(5)]
        for text in texts:
            pair.tina.client.send(pair.conversation, text)
        await pair.gus.until_message(texts[-1])
    finally:
        await execute(cloud, "update private.chat_settings set message_limit = default, message_limit_window = default")
    listed = [message.text for message in pair.gus.client.messages(pair.conversation, limit=5)]
    assert listed == list(reversed(texts))


async def test_a_sender_that_is_killed_at_random_times_loses_no_message_and_sends_none_twice(
    cloud: LocalCloud, open_phone: OpenPhone, pair: Pair, tina: Account, tmp_path: Path
) -> None:
    await pair.tina.client.close()
    journal = tmp_path / "journal"
    settings = {
        "supabase_url": cloud.realtime.url,
        "publishable_key": cloud.supabase.publishable_key,
        "database": str(tmp_path / f"{tina.email}-phone.sqlite"),
        "conversation_id": str(pair.conversation),
        "journal": str(journal),
    }
    program = await asyncio.create_subprocess_exec(
        sys.executable,
        str(Path(__file__).with_name("killed_sender.py")),
        *("100", "17"),
        stdin=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(PROJECT / "client" / "python")},
    )
    await program.communicate(json.dumps(settings).encode())
    assert program.returncode == 0

    phone = await open_phone(tina)
    async with asyncio.timeout(60):
        while phone.client.outbox():  # noqa: ASYNC110 - a message may have been sent before the first look
            await asyncio.sleep(0.05)
    await pair.gus.client.sync()

    noted = journal.read_text().split()
    query: LiteralString = "select message from public.chat_messages where room_id = %s"
    stored = [text for (text,) in await rows_of(cloud, query, pair.conversation)]
    assert len(noted) >= 50
    assert [text for text in noted if stored.count(text) != 1] == []
    arrived = [message.text for message in pair.gus.client.messages(pair.conversation, limit=10_000)]
    assert [text for text in noted if arrived.count(text) != 1] == []


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
