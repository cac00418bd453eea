"""The people of a chaos run: they write, read, look, log in and out, all through the Data API as an app does."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Literal
from uuid import UUID, uuid4

import httpx
from postgrest import APIError

from local.app import App, Person, new_phone
from local.cloud import LocalCloud
from local.providers.phones import DeadTokenReport, Phone

PEOPLE = 8
PAUSE_SECONDS = 0.3  # of a person, on average, between two actions

# An app does not wait longer for an answer.
ANSWER_SECONDS = 5.0
OUTBOX_RETRY_SECONDS = 0.3

# What a network and a database that fail make of a request.
_NO_ANSWER = (APIError, httpx.HTTPError, TimeoutError, ValueError)


@dataclass
class Actor:
    """A person of the run."""

    person: Person
    random: Random
    conversations: list[UUID] = field(default_factory=list)
    sent: list[UUID] = field(default_factory=list)
    phones: list[Phone] = field(default_factory=list)  # where they believe to be logged in


class Traffic:
    """Everybody's doings. `written` grows with each message; nobody writes more than `allowed` messages."""

    def __init__(self, cloud: LocalCloud, messages: int, actors: list[Actor]) -> None:
        self.messages = messages
        self.written: list[str] = []  # client_msg_id
        self.stored: list[UUID] = []
        self.done = Counter(dict.fromkeys(["messages written", "inserts sent again", *_ACTIONS], 0))
        self.actors = actors
        self._allowed = 0
        self._cloud = cloud
        self._change = asyncio.Condition()
        self._devices: dict[str, str] = {}  # device_id by token

    async def allow(self, number: int) -> None:
        """Lets people write until there are so many messages."""
        async with self._change:
            self._allowed = min(number, self.messages)
            self._change.notify_all()

    async def until_written(self, number: int) -> None:
        """Waits until so many messages were written."""
        async with self._change:
            await self._change.wait_for(lambda: len(self.written) >= min(number, self.messages))

    async def run(self) -> None:
        """Until every message is written and stored."""
        async with asyncio.TaskGroup() as everybody:
            for actor in self.actors:
                everybody.create_task(self._live(actor))

    async def _live(self, actor: Actor) -> None:
        names = [None, *_ACTIONS]
        weights = [WRITES, *(weight for weight, _ in _ACTIONS.values())]
        while len(self.written) < self.messages:
            await asyncio.sleep(actor.random.expovariate(1 / PAUSE_SECONDS))
            [name] = actor.random.choices(names, weights)
            if name is None:
                await self._write(actor)
                continue
            _, action = _ACTIONS[name]
            with suppress(*_NO_ANSWER):  # the app does it another time
                async with asyncio.timeout(ANSWER_SECONDS):
                    await action(self, actor)
                    self.done[name] += 1

    async def _write(self, actor: Actor) -> None:
        """Into the outbox, and from there until it is stored: with the same client_msg_id each time."""
        async with self._change:
            await self._change.wait_for(lambda: len(self.written) < self._allowed or self._allowed == self.messages)
            if len(self.written) >= self.messages:
                return
            client_msg_id = str(uuid4())
            self.written.append(client_msg_id)
            self._change.notify_all()
        conversation = actor.random.choice(actor.conversations)
        self.done["messages written"] += 1
        while True:
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    text = f"Message {len(self.written)}"
                    message_id = await actor.person.send(conversation, text, client_msg_id=client_msg_id)
                    break
            except _NO_ANSWER as error:
                if isinstance(error, APIError) and error.code == "23505":
                    return  # an earlier attempt was stored, and only its answer was lost
                self.done["inserts sent again"] += 1
                await asyncio.sleep(OUTBOX_RETRY_SECONDS)
        actor.sent.append(message_id)
        self.stored.append(message_id)

    async def look(self, actor: Actor) -> None:
        """At one of their conversations, or at none."""
        await actor.person.look_at(actor.random.choice([*actor.conversations, None]))

    async def read(self, actor: Actor) -> None:
        """All of a conversation."""
        await actor.person.read(actor.random.choice(actor.conversations))

    async def delete(self, actor: Actor) -> None:
        """A message that they wrote just now."""
        if actor.sent:
            await actor.person.delete(actor.random.choice(actor.sent[-3:]))

    async def log_in_anywhere(self, actor: Actor) -> None:
        """On any phone, also somebody else's: then its account is switched."""
        phones = [phone for phone in self._cloud.expo.phones.values() if phone.uninstalled is None]
        await self.log_in(actor, actor.random.choice(phones))

    async def register_again(self, actor: Actor) -> None:
        """An app does so at each start."""
        if actor.phones:
            await self.log_in(actor, actor.random.choice(actor.phones))

    async def log_out(self, actor: Actor) -> None:
        """Perhaps late: of a phone that is somebody else's by now."""
        if len(actor.phones) > 1:
            phone = actor.random.choice(actor.phones)
            actor.phones.remove(phone)
            await actor.person.log_out_of(self._devices[phone.token])

    async def log_in(self, actor: Actor, phone: Phone) -> None:
        """Registers a phone for a person, as the README tells apps to."""
        await actor.person.log_in_on(phone, self._devices[phone.token])
        if phone not in actor.phones:
            actor.phones.append(phone)

    async def new_phone(self, actor: Actor, platform: Literal["ios", "android"]) -> None:
        """A person installs the app on another phone and logs in."""
        phone = new_phone(self._cloud.expo, platform)
        self._devices[phone.token] = f"phone-{len(self._devices)}"
        await self.log_in(actor, phone)

    async def replace_phone(self, random: Random, report: DeadTokenReport) -> None:
        """Somebody removes the app from a phone and installs it on a new one."""
        actor = random.choice([actor for actor in self.actors if actor.phones])
        phone = actor.phones.pop(random.randrange(len(actor.phones)))
        self._cloud.expo.uninstall(phone.token, report)
        for other in self.actors:
            other.phones = [kept for kept in other.phones if kept.token != phone.token]
        with suppress(*_NO_ANSWER):
            async with asyncio.timeout(ANSWER_SECONDS):
                await self.new_phone(actor, phone.platform)

    async def wrong_clock(self, random: Random) -> None:
        """A phone whose clock is hours off says when it was there, and when messages were delivered and read."""
        actor = random.choice(self.actors)
        told = (datetime.now(UTC) + timedelta(hours=random.choice([-9, -1, 1, 9]))).isoformat()
        presence = {
            "user_id": str(actor.person.id),
            "is_online": True,
            "current_conversation_id": str(random.choice(actor.conversations)),
            "last_seen_at": told,
        }
        receipts = actor.person.client.table("message_receipts")
        with suppress(*_NO_ANSWER):
            async with asyncio.timeout(ANSWER_SECONDS):
                await actor.person.client.table("user_presence").upsert(presence).execute()
                messages = actor.person.client.table("chat_messages").select("id").neq("sender_id", actor.person.id)
                answer = await messages.order("server_timestamp", desc=True).limit(4).execute()
                for number, row in enumerate(answer.data):
                    assert isinstance(row, dict)
                    receipt = {"message_id": row["id"], "user_id": str(actor.person.id), "delivered_at": told}
                    receipt |= {"read_at": told} if number % 2 else {}
                    await receipts.upsert(receipt, on_conflict="message_id,user_id").execute()


# name: (how often, what)
_ACTIONS: dict[str, tuple[int, Callable[[Traffic, Actor], Awaitable[None]]]] = {
    "heartbeats": (14, Traffic.look),
    "conversations read": (6, Traffic.read),
    "messages deleted": (4, Traffic.delete),
    "logins and account switches": (3, Traffic.log_in_anywhere),
    "registrations again": (3, Traffic.register_again),
    "logouts": (2, Traffic.log_out),
}
WRITES = 60  # as often


async def people(cloud: LocalCloud, app: App, random: Random, messages: int) -> Traffic:
    """Tourists and guides, each with an iPhone and an Android phone, and two conversations with each other."""
    actors = []
    for number in range(PEOPLE):
        person = await app.sign_up(f"Person{number}", "tourist" if number % 2 else "guide")
        actors.append(Actor(person, Random(random.random())))
    for number, actor in enumerate(actors):
        other = actors[(number + 1) % PEOPLE]
        conversation = await actor.person.open_chat(other.person)
        actor.conversations.append(conversation)
        other.conversations.append(conversation)
    traffic = Traffic(cloud, messages, actors)
    for actor in actors:
        await traffic.new_phone(actor, "ios")
        await traffic.new_phone(actor, "android")
    return traffic
