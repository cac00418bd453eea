"""Plays a scenario of client/conformance on the local cloud. Its README describes the steps."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from itertools import cycle
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg

from local.cloud import LocalCloud
from local.types import Json
from tests.system.accounts import PASSWORD, Account, open_chat, sign_up
from tests.system.chat import execute
from tests.system.conformance.driver import Driver, Drivers, Killed, Refused
from tests.system.conformance.network import Network, network

_TIMING = {
    "retry_base": 0.05,
    "retry_cap": 0.4,
    "marks_delay": 0.02,
    "typing_interval": 0.5,
    "typing_timeout": 1,
    "stable_connection": 1,
}
_SECONDS = 30  # until an expectation must hold
_INSERT = (
    "insert into public.chat_messages (room_id, sender_id, message, client_msg_id)"
    " values (%s, %s, %s, gen_random_uuid())"
)
_INSERT_OLD = """
insert into public.chat_messages (room_id, sender_id, message, is_read, server_timestamp, created_at, changed_at)
select %s, %s, 'message ' || number, true, at, at, at
from generate_series(1, %s) number, lateral (select now() - interval '1 day' + number * interval '1 second') time (at)
"""
_MESSAGES = 3  # that a phone writes before it is killed


class Phone:
    """A phone: a client in a process, its network, and what it has said. `person`: whose session it has."""

    def __init__(self, person: str, driver: Driver, network: Network, options: Json, wake: Callable[[], None]) -> None:
        self.person = person
        self.driver = driver
        self.network = network
        self.events: list[Json] = []
        self.seen = 0  # events that an expectation has used, or that came before the last action
        self.confirmed: list[str] = []  # messages that `send` has returned before a kill
        self._options = options
        self._wake = wake
        driver.heard = self._hear

    async def open(self) -> None:
        """Opens the client on the local database of this phone."""
        await self.driver.call("open", self._options)

    def _hear(self, event: Json) -> None:
        self.events.append(event)
        self._wake()


class Player:
    """The phones and people of one scenario. Each method is what the step with this name does."""

    def __init__(self, cloud: LocalCloud, scenario: Json, clients: Sequence[Drivers], folder: Path) -> None:
        self._cloud = cloud
        self._scenario = scenario
        self._clients = cycle(clients)  # the phones take turns
        self._folder = folder
        self._opened = AsyncExitStack()
        self._changed = asyncio.Event()  # at the next event or request of a phone
        self._phones: dict[str, Phone] = {}
        self._people: dict[str, Account] = {}
        self._conversations: dict[frozenset[str], UUID] = {}
        self._names: dict[str, str] = {}  # of people, by id
        self._transaction: psycopg.AsyncConnection | None = None

    async def play(self) -> None:
        """Plays the scenario. Raises AssertionError with the step that failed, and what was found instead."""
        async with self._opened:
            await self._set_up()
            for number, [who, verb, *values] in enumerate(self._scenario["steps"], 1):
                try:
                    await self._step(who, verb, values)
                except Exception as error:
                    error.add_note(f"step {number}: {[who, verb, *values]}")
                    raise

    async def _set_up(self) -> None:
        phones = self._scenario.get("phones", ["tina", "gus"])
        people = self._scenario.get("people", list(dict.fromkeys(map(_owner, phones))))
        tourist, *guides = people
        self._people[tourist] = await sign_up(self._cloud, tourist, "tourist")
        for guide in guides:
            self._people[guide] = await sign_up(self._cloud, guide, "guide")
        self._names = {str(account.id): name for name, account in self._people.items()}
        for guide in guides:
            conversation = await open_chat(self._cloud, self._people[tourist], self._people[guide])
            self._conversations[frozenset((tourist, guide))] = conversation
        await asyncio.gather(*map(self._start, phones))

    async def _start(self, name: str) -> None:
        phone = await self._new_phone(name)
        await phone.open()
        account = self._people[_owner(name)]
        await phone.driver.call("sign_in", account.email, PASSWORD)
        await self.event(phone, {"type": "connection_changed", "state": "online"})
        await phone.driver.call("sync")

    async def _new_phone(self, name: str) -> Phone:
        client = next(self._clients)
        self._phones[name] = phone = await self._opened.enter_async_context(self._phone(name, client))
        return phone

    @asynccontextmanager
    async def _phone(self, name: str, client: Drivers) -> AsyncIterator[Phone]:
        cloud = self._cloud
        wake = self._wake
        async with network(cloud.supabase.url, cloud.realtime.url, wake) as phone_network, client.take() as driver:
            options = {
                "supabase_url": phone_network.url,
                "publishable_key": cloud.supabase.publishable_key,
                "api_url": cloud.api_url,
                "database": str(self._folder / f"{name}.sqlite"),
                "attempts": self._scenario.get("attempts", 8),
                "timing": {**_TIMING, **self._scenario.get("timing", {})},
            }
            yield Phone(_owner(name), driver, phone_network, options, wake)

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _step(self, who: str, verb: str, values: list[Any]) -> None:
        if verb in _EXPECTATIONS:
            await getattr(self, verb)(self._phones[who], *values)
            return
        for phone in self._phones.values():
            phone.seen = len(phone.events)
        if who == "realtime":
            await self._realtime(verb, *values)
        elif who == "server":
            await getattr(self, f"server_{verb}")(*values)
        elif verb == "open":
            await (self._phones.get(who) or await self._new_phone(who)).open()
        else:
            await self._act(who, verb, values)

    async def _act(self, who: str, verb: str, values: list[Any]) -> None:
        phone = self._phones[who]
        is_refused = bool(values) and isinstance(values[-1], dict) and "error" in values[-1]
        refusal: Json = values[-1] if is_refused else {}
        values = values[:-1] if is_refused else values
        try:
            if action := getattr(self, verb, None):
                await action(phone, *values)
            else:
                await phone.driver.call(verb, *await self._arguments(phone, verb, values))
        except Refused as error:
            if error.name != refusal.get("error") or refusal.get("names", "") not in str(error):
                raise
        else:
            assert not refusal, f"there was no {refusal}"

    async def _arguments(self, phone: Phone, verb: str, values: list[Any]) -> list[Any]:
        """Values of a call, with ids in place of names and texts."""
        match verb, values:
            case "open_chat", [name]:
                return [str(self._people[name].id)]
            case "block_user" | "unblock_user" | "report_user", [name, *rest]:
                return [str(self._people[name].id), *rest]
            case (
                "send"
                | "look_at"
                | "load_messages"
                | "archive"
                | "mute_conversation"
                | "unmute_conversation"
                | "set_conversation_sound"
                | "accept_conversation",
                [str(partner), *rest],
            ):
                return [str(self._conversation(phone, partner)), *rest]
            case "edit" | "delete" | "retry" | "discard" | "mark_read" | "report_message", [text, *rest]:
                return [(await self._message(phone, text))["id"], *rest]
        return values

    # Actions on a phone ---------------------------------------------------------------------------

    async def sign_in(self, phone: Phone, person: str) -> None:
        account = self._people[person]
        await phone.driver.call("sign_in", account.email, PASSWORD)
        phone.person = person

    async def type(self, phone: Phone, keys: int) -> None:
        for _ in range(keys):
            await phone.driver.call("typing")

    async def kill(self, phone: Phone) -> None:
        await phone.driver.kill()

    async def kill_at_random(self, phone: Phone, partner: str, times: int) -> None:
        """Opens the client, sends messages, and kills it, again and again."""
        chance = random.Random(17)
        conversation = self._conversation(phone, partner)
        for number in range(times):
            confirmed = asyncio.Event()
            writing = asyncio.create_task(_write(phone, conversation, f"message {number}", confirmed))
            # Most are killed after their first message, however slow the machine is; some while they open the database.
            if chance.random() < 0.8:
                await asyncio.wait(
                    {writing, asyncio.create_task(confirmed.wait())}, return_when=asyncio.FIRST_COMPLETED
                )
            await asyncio.sleep(chance.uniform(0, 0.1))
            await phone.driver.kill()
            with suppress(Killed):
                await writing

    async def go_offline(self, phone: Phone) -> None:
        phone.network.go_offline()

    async def go_online(self, phone: Phone) -> None:
        phone.network.go_online()

    async def lose_answers(self, phone: Phone, kind: str, count: int) -> None:
        phone.network.to_lose[kind] = count

    async def fail(self, phone: Phone, text: str, status: int, code: str) -> None:
        phone.network.failing[text] = (status, code)

    async def recover(self, phone: Phone, text: str) -> None:
        del phone.network.failing[text]

    async def reject_token(self, phone: Phone) -> None:
        phone.network.reject_token()

    async def end_session(self, phone: Phone) -> None:
        phone.network.end_session()

    async def forget_requests(self, phone: Phone) -> None:
        phone.network.requests.clear()

    # Actions of the server ------------------------------------------------------------------------

    async def _realtime(self, verb: str, *values: Any) -> None:
        realtime = self._cloud.realtime
        if verb == "refuse_until":
            async with asyncio.timeout(_SECONDS):
                for _ in range(*values):
                    await realtime.refused.wait()
                    realtime.refused.clear()
        else:
            getattr(realtime, verb)(*values)

    async def server_send(self, sender: str, receiver: str, count: int) -> None:
        """A backend inserts messages `message 1`, `message 2`, …"""
        conversation = self._conversations[frozenset((sender, receiver))]
        sender_id = self._people[sender].id
        async with await psycopg.AsyncConnection.connect(self._cloud.database_url) as connection:
            await connection.execute("set local role service_role")
            rows = [(conversation, sender_id, f"message {number}") for number in range(1, count + 1)]
            await connection.cursor().executemany(_INSERT, rows)

    async def server_have(self, sender: str, receiver: str, count: int) -> None:
        """`message 1`, `message 2`, … were sent yesterday, and read."""
        conversation = self._conversations[frozenset((sender, receiver))]
        async with await psycopg.AsyncConnection.connect(self._cloud.database_url) as connection:
            await connection.execute("alter table public.chat_messages disable trigger user")
            await connection.execute(_INSERT_OLD, (conversation, self._people[sender].id, count))
            await connection.execute("alter table public.chat_messages enable trigger user")

    async def server_begin(self, sender: str, receiver: str, text: str) -> None:
        """Inserts a message in a transaction that stays open."""
        conversation = self._conversations[frozenset((sender, receiver))]
        connect = psycopg.AsyncConnection.connect(self._cloud.database_url)
        self._transaction = await self._opened.enter_async_context(await connect)
        await self._transaction.execute(_INSERT, (conversation, self._people[sender].id, text))

    async def server_commit(self) -> None:
        assert self._transaction
        await self._transaction.commit()

    async def server_remove(self, text: str) -> None:
        """A backend deletes a message for good."""
        conversations = list(self._conversations.values())
        statement = "delete from public.chat_messages where message = %s and room_id = any(%s)"
        await execute(self._cloud, statement, text, conversations)

    async def server_limit(self, messages: int, window: str) -> None:
        """Limits how many messages a person may send in a time, until the scenario ends."""
        statement = "update private.chat_settings set message_limit = {}, message_limit_window = {}"
        self._opened.push_async_callback(execute, self._cloud, statement.format("default", "default"))
        await execute(self._cloud, statement.format(messages, f"'{window}'"))

    async def server_limit_contacts(self, strangers: int) -> None:
        """Limits to how many strangers a person may begin to write, until the scenario ends."""
        statement = "update private.chat_settings set new_contact_limit = {}"
        self._opened.push_async_callback(execute, self._cloud, statement.format("default"))
        await execute(self._cloud, statement.format(strangers))

    async def server_suspend(self, person: str) -> None:
        await execute(self._cloud, "select public.suspend_user(%s)", self._people[person].id)

    async def server_unsuspend(self, person: str) -> None:
        await execute(self._cloud, "select public.unsuspend_user(%s)", self._people[person].id)

    # Expectations ---------------------------------------------------------------------------------

    async def shows(self, phone: Phone, partner: str, expected: list[Any]) -> None:
        await self._until(expected, lambda: self._messages(phone, self._conversation(phone, partner)))

    async def shows_each_once(self, phone: Phone, partner: str) -> None:
        """Each message that the partner's phones had confirmed before they were killed, and none twice."""
        confirmed = [text for each in self._phones.values() for text in each.confirmed]
        assert confirmed

        async def lost_or_twice() -> list[str]:
            texts = [each["text"] for each in await self._messages(phone, self._conversation(phone, partner))]
            return sorted({*confirmed} - {*texts} | {text for text in texts if texts.count(text) > 1})

        await self._until([], lost_or_twice)

    async def lists(self, phone: Phone, expected: list[Json]) -> None:
        async def listed() -> list[Json]:
            found = await phone.driver.call("conversations")
            return [{"with": self._names[each["partner"]["id"]], **each} for each in found]

        await self._until(expected, listed)

    async def blocks(self, phone: Phone, expected: list[str]) -> None:
        """The people whom the person blocks."""

        async def blocked() -> list[str]:
            return [self._names[each["user_id"]] for each in await phone.driver.call("blocked_users")]

        await self._until(expected, blocked)

    async def preferences(self, phone: Phone, expected: Json) -> None:
        partners = {
            str(conversation): next(iter(people - {phone.person}))
            for people, conversation in self._conversations.items()
        }

        async def chosen() -> Json:
            found = await phone.driver.call("my_notification_preferences")
            named = {
                field: {partners[conversation]: value for conversation, value in found[field].items()}
                for field in ("muted", "sounds")
            }
            return {**found, **named}

        await self._until(expected, chosen)

    async def outbox(self, phone: Phone, expected: list[Any]) -> None:
        await self._until(expected, lambda: phone.driver.call("outbox"))

    async def requests(self, phone: Phone, kind: str, expected: Any) -> None:
        async def counted() -> int:
            requests = phone.network.requests
            return requests.total() if kind == "any" else requests[kind]

        await self._until(expected, counted)

    async def event(self, phone: Phone, expected: Json) -> None:
        """An event since the last action, and after the one that the last expectation found."""
        at = -1

        async def is_there() -> list[Json]:
            nonlocal at
            new = [self._named(event) for event in phone.events[phone.seen :]]
            at = next((at for at, event in enumerate(new) if _matches(event, expected)), -1)
            return [new[at]] if at >= 0 else new

        await self._until([expected], is_there)
        phone.seen += at + 1

    async def new(self, phone: Phone, text: str, expected: int) -> None:
        """How often the client said that a message is new."""

        async def counted() -> int:
            return sum(
                event["type"] == "message_changed" and event["is_new"] and event["message"]["text"] == text
                for event in phone.events
            )

        await self._until(expected, counted)

    # ----------------------------------------------------------------------------------------------

    async def _until(self, expected: Any, read: Callable[[], Awaitable[Any]]) -> None:
        """Reads again after each event and request until what is read matches. Raises AssertionError."""
        found = None
        try:
            async with asyncio.timeout(_SECONDS):
                while True:
                    changed = self._changed
                    found = await read()
                    if _matches(found, expected):
                        return
                    await changed.wait()
        except TimeoutError:
            raise AssertionError(f"expected {expected}, found {found}") from None

    def _conversation(self, phone: Phone, partner: str) -> UUID:
        return self._conversations[frozenset((phone.person, partner))]

    async def _messages(self, phone: Phone, conversation: UUID) -> list[Json]:
        """The messages on a phone, oldest first."""
        found = await phone.driver.call("messages", str(conversation), None, 10_000)
        return [
            {
                **message,
                "from": self._names[message["sender_id"]],
                "edited": message["edited_at"] is not None,
                "deleted": message["deleted_at"] is not None,
            }
            for message in reversed(found)
        ]

    async def _message(self, phone: Phone, text: str) -> Json:
        for conversation in await phone.driver.call("conversations"):
            for message in await self._messages(phone, conversation["id"]):
                if message["text"] == text:
                    return message
        raise AssertionError(f"there is no message {text!r} on the phone")

    def _named(self, value: Any) -> Any:
        """A value with names in place of the ids of people."""
        if isinstance(value, dict):
            return {key: self._named(each) for key, each in value.items()}
        if isinstance(value, list):
            return sorted(map(self._named, value), key=str)
        return self._names.get(value, value) if isinstance(value, str) else value


_EXPECTATIONS = {"shows", "shows_each_once", "lists", "blocks", "preferences", "outbox", "requests", "event", "new"}


async def _write(phone: Phone, conversation: UUID, text: str, confirmed: asyncio.Event) -> None:
    await phone.open()
    for part in range(_MESSAGES):
        await phone.driver.call("send", str(conversation), f"{text}, part {part}")
        phone.confirmed.append(f"{text}, part {part}")
        confirmed.set()


def _owner(phone: str) -> str:
    return phone.split("'")[0]


def _matches(found: Any, expected: Any) -> bool:
    """Whether a value is as expected. An object may have more fields; a text is short for {"text": …}."""
    match expected:
        case {"at_least": least}:
            return bool(found >= least)
        case {"at_most": most}:
            return bool(found <= most)
        case dict():
            return isinstance(found, dict) and all(_matches(found.get(key), value) for key, value in expected.items())
        case list():
            return len(found) == len(expected) and all(map(_matches, found, expected))
        case str() if isinstance(found, dict):
            return bool(found["text"] == expected)
    return bool(found == expected)
