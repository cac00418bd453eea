"""The users of a chaos run. They write, read and view with the Python client, and log in and out by the HTTP API."""

import asyncio
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Literal
from uuid import UUID, uuid4

import httpx
from postgrest import APIError

from chat_client import ChatClient, Message, Timing
from chat_client.errors import ServerUnreachable
from chat_client.models import Preview
from local.app import App, Network, Person, new_phone, signed_in_client, until
from local.cloud import LocalCloud
from local.providers.apns.state import ApnsService
from local.providers.expo.state import ExpoService
from local.providers.fcm.state import FcmService
from local.providers.phones import Condition, DeadTokenReport, Phone
from local.providers.pushes import Platform
from local.types import Json

USERS = 8
PAUSE_SECONDS = 0.3  # on average, between two actions of a user

# The timeout of an app, and how soon its outbox tries again.
ANSWER_SECONDS = 5.0
STORED_SECONDS = 90.0  # until a message is stored, also while the database restarts
TIMING = Timing(request_timeout=ANSWER_SECONDS, retry_base=0.3, retry_cap=0.5, stable_connection=1)

# What a request raises while a fault strikes.
_NO_ANSWER = (APIError, httpx.HTTPError, TimeoutError, ValueError, ServerUnreachable)


@dataclass
class Actor:
    """A user of the run. `client`: on one more device, which gets no pushes; from the start of the traffic."""

    person: Person
    random: Random
    client: ChatClient = field(init=False)
    network: Network = field(default_factory=Network)
    conversations: list[UUID] = field(default_factory=list)
    sent: list[UUID] = field(default_factory=list)
    phones: list[Phone] = field(default_factory=list)  # on which the app believes to be logged in


class Traffic:
    """What all users do. They write at most as many messages as was allowed. `written` and `stored` grow with each."""

    def __init__(self, cloud: LocalCloud, messages: int, actors: list[Actor]) -> None:
        self.messages = messages
        self.written: list[str] = []  # client_msg_id
        self.stored: list[UUID] = []
        self.done = Counter(dict.fromkeys(["messages written", "inserts repeated", *_ACTIONS], 0))
        self.actors = actors
        self._allowed = 0
        self._cloud = cloud
        self._change = asyncio.Condition()
        self._devices: dict[str, str] = {}  # device_id by token
        self.were_off: set[str] = set()  # tokens of phones that were switched off

    async def allow(self, number: int) -> None:
        """Lets users write until there are `number` messages."""
        async with self._change:
            self._allowed = max(self._allowed, min(number, self.messages))
            self._change.notify_all()

    async def allow_more(self, number: int) -> None:
        """Lets users write `number` messages more, at once and in all."""
        async with self._change:
            self._allowed += number
            self.messages += number
            self._change.notify_all()

    async def until_written(self, number: int) -> None:
        """Waits until `number` messages were written."""
        async with self._change:
            await self._change.wait_for(lambda: len(self.written) >= min(number, self.messages))

    async def run(self) -> None:
        """Runs all users until every message is written and stored."""
        async with self._clients(), asyncio.TaskGroup() as users:
            for actor in self.actors:
                users.create_task(self._act(actor))
        self.done["inserts repeated"] = sum(actor.network.inserts for actor in self.actors) - len(self.written)

    async def settle(self) -> None:
        """After the faults: each user takes each phone in hand, ends what silences them, and gets last messages.

        Otherwise, chance would decide whether the phones have anything at the end that can be checked.
        """
        for actor in self.actors:
            for phone in list(actor.phones):
                await self.log_in(actor, phone)
            await self._call(actor, "set_notification_preferences", p_preferences={"snoozed_until": None})
            for conversation in actor.conversations:
                await self._call(actor, "unmute_conversation", p_room_id=str(conversation))
        for actor in self.actors:
            for conversation in actor.conversations:
                client_msg_id = str(uuid4())
                self.written.append(client_msg_id)
                text = f"Last message of {actor.person.name} in {conversation}"
                await actor.person.send(conversation, text, client_msg_id=client_msg_id)

    async def _call(self, actor: Actor, function: str, **values: Json) -> None:
        await actor.person.client.rpc(function, values).execute()

    @asynccontextmanager
    async def _clients(self) -> AsyncIterator[None]:
        """Signs the users in, before the first fault strikes."""
        url, key = self._cloud.realtime.url, self._cloud.supabase.publishable_key
        async with AsyncExitStack() as clients:
            folder = Path(clients.enter_context(tempfile.TemporaryDirectory()))
            for actor in self.actors:
                database = folder / f"{actor.person.name}.sqlite"
                actor.client = await clients.enter_async_context(
                    signed_in_client(url, key, actor.person, database, TIMING, actor.network)
                )
            yield

    async def _act(self, actor: Actor) -> None:
        names = [None, *_ACTIONS]
        weights = [WRITES, *(weight for weight, _ in _ACTIONS.values())]
        while len(self.written) < self.messages:
            await asyncio.sleep(actor.random.expovariate(1 / PAUSE_SECONDS))
            [name] = actor.random.choices(names, weights)
            if name is None:
                await self._write(actor)
                continue
            _, action = _ACTIONS[name]
            with suppress(*_NO_ANSWER):  # the app repeats it later
                async with asyncio.timeout(ANSWER_SECONDS):
                    await action(self, actor)
                    self.done[name] += 1

    async def _write(self, actor: Actor) -> None:
        """Puts a message into the client's outbox, and waits until it is stored."""
        async with self._change:
            await self._change.wait_for(lambda: len(self.written) < self._allowed or self._allowed == self.messages)
            if len(self.written) >= self.messages:
                return
            # Each message has another text, also when its insert is repeated.
            text = f"Message {len(self.written) + 1}"
            message = actor.client.send(actor.random.choice(actor.conversations), text)
            self.written.append(str(message.id))
            self._change.notify_all()
        self.done["messages written"] += 1
        stored = await _stored(actor.client, message)
        actor.sent.append(stored)
        self.stored.append(stored)

    async def view(self, actor: Actor) -> None:
        """Looks at one of the user's conversations, or at none."""
        actor.client.look_at(actor.random.choice([*actor.conversations, None]))

    async def read(self, actor: Actor) -> None:
        """Marks all messages of a conversation as read that the client has received."""
        messages = actor.client.messages(actor.random.choice(actor.conversations))
        if received := [message for message in messages if message.sender_id != actor.person.id]:
            actor.client.mark_read(received[0].id)

    async def delete(self, actor: Actor) -> None:
        """Deletes one of the last three messages of the user."""
        if actor.sent:
            message_id = actor.random.choice(actor.sent[-3:])
            actor.sent.remove(message_id)
            actor.client.delete(message_id)

    async def edit(self, actor: Actor) -> None:
        """Changes the text of one of the last three messages of the user."""
        if actor.sent:
            actor.client.edit(actor.random.choice(actor.sent[-3:]), f"Edited {actor.random.random()}")

    async def mute(self, actor: Actor) -> None:
        """Mutes a conversation, or ends that, more often: a muted conversation shows nothing that could be checked."""
        choices, conversation = actor.client.choices, actor.random.choice(actor.conversations)
        if actor.random.random() < 0.3:
            await choices.mute_conversation(conversation)
        else:
            await choices.unmute_conversation(conversation)

    async def snooze(self, actor: Actor) -> None:
        """Snoozes all notifications, or ends that."""
        until = datetime.now(UTC) + timedelta(days=1) if actor.random.random() < 0.3 else None
        while_quiet: Literal["silent", "none"] = "none" if actor.random.random() < 0.5 else "silent"
        await actor.client.choices.set_notification_preferences({"snoozed_until": until, "while_quiet": while_quiet})

    async def preview(self, actor: Actor) -> None:
        """Chooses what notifications show."""
        previews: tuple[Preview, ...] = ("full", "full", "name", "none")
        await actor.client.choices.set_notification_preferences({"preview": actor.random.choice(previews)})

    async def switch(self, actor: Actor) -> None:
        """Switches a phone of the user off, or on again."""
        if actor.phones:
            phone = actor.random.choice(actor.phones)
            self.were_off.add(phone.token)
            self._cloud.service_of(phone).change_phone(phone.token, Condition(is_on=not phone.is_on))

    async def log_in_anywhere(self, actor: Actor) -> None:
        """Logs in on any phone. If it is another user's, the phone changes accounts."""
        phones = [phone for phone in self._cloud.phones.values() if phone.uninstalled is None]
        await self.log_in(actor, actor.random.choice(phones))

    async def register_again(self, actor: Actor) -> None:
        """Registers a phone again, as an app does at each start."""
        if actor.phones:
            await self.log_in(actor, actor.random.choice(actor.phones))

    async def log_out(self, actor: Actor) -> None:
        """Logs out of a phone, on which another user may have logged in since."""
        if len(actor.phones) > 1:
            phone = actor.random.choice(actor.phones)
            actor.phones.remove(phone)
            await actor.person.log_out_of(self._devices[phone.token])
            if phone.account == str(actor.person.id):  # otherwise the app is another user's by now
                self._cloud.service_of(phone).change_phone(phone.token, Condition(account=None))

    async def log_in(self, actor: Actor, phone: Phone) -> None:
        """Registers a phone for a user, as docs/client.md describes."""
        await actor.person.log_in_on(phone, self._devices[phone.token])
        self._cloud.service_of(phone).change_phone(phone.token, Condition(account=str(actor.person.id)))
        if phone not in actor.phones:
            actor.phones.append(phone)

    async def new_phone(
        self, actor: Actor, service: ExpoService | FcmService | ApnsService, platform: Platform
    ) -> None:
        """Installs the app on another phone of the user, with a token of this service, and logs in."""
        phone = new_phone(service, platform)
        phone.background_budget = 1_000_000  # The hour of an iPhone's budget is longer than the run.
        self._devices[phone.token] = f"phone-{len(self._devices)}"
        await self.log_in(actor, phone)

    async def replace_phone(self, random: Random, report: DeadTokenReport | None) -> None:
        """Uninstalls the app of a random user from a phone, and installs it on a new one.

        `report`: where Expo reports it. None: on a phone of FCM or APNs, which report it in their answers.
        """
        actor, phone = random.choice(
            [
                (actor, phone)
                for actor in self.actors
                for phone in actor.phones
                if (phone.provider == "expo") == (report is not None)
            ]
        )
        service = self._cloud.service_of(phone)
        if isinstance(service, ExpoService):
            service.uninstall(phone.token, report or "ticket")
        else:
            service.uninstall(phone.token)
        for other in self.actors:
            other.phones = [kept for kept in other.phones if kept.token != phone.token]
        with suppress(*_NO_ANSWER):
            async with asyncio.timeout(ANSWER_SECONDS):
                await self.new_phone(actor, service, phone.platform)

    async def wrong_clock(self, random: Random) -> None:
        """Writes presence and receipts from a phone whose clock is hours off."""
        actor = random.choice(self.actors)
        wrong_time = (datetime.now(UTC) + timedelta(hours=random.choice([-9, -1, 1, 9]))).isoformat()
        presence = {
            "user_id": str(actor.person.id),
            "is_online": True,
            "current_conversation_id": str(random.choice(actor.conversations)),
            "last_seen_at": wrong_time,
        }
        receipts = actor.person.client.table("message_receipts")
        with suppress(*_NO_ANSWER):
            async with asyncio.timeout(ANSWER_SECONDS):
                await actor.person.client.table("user_presence").upsert(presence).execute()
                messages = actor.person.client.table("chat_messages").select("id").neq("sender_id", actor.person.id)
                answer = await messages.order("server_timestamp", desc=True).limit(4).execute()
                for number, row in enumerate(answer.data):
                    assert isinstance(row, dict)
                    receipt = {"message_id": row["id"], "user_id": str(actor.person.id), "delivered_at": wrong_time}
                    receipt |= {"read_at": wrong_time} if number % 2 else {}
                    await receipts.upsert(receipt, on_conflict="message_id,user_id").execute()


async def _stored(client: ChatClient, message: Message) -> UUID:
    """The id of a message on the server, once it is there. What has failed is tried again, as a person does."""
    while True:
        await until(client, lambda: client.message(message.id).status != "pending", STORED_SECONDS)
        if client.message(message.id).status != "failed":
            return client.message(message.id).id
        await asyncio.sleep(TIMING.retry_cap)
        client.retry(message.id)


# name: (relative frequency, action)
_ACTIONS: dict[str, tuple[int, Callable[[Traffic, Actor], Awaitable[None]]]] = {
    "heartbeats": (14, Traffic.view),
    "conversations read": (6, Traffic.read),
    "messages deleted": (4, Traffic.delete),
    "messages edited": (4, Traffic.edit),
    "conversations muted or not": (6, Traffic.mute),
    "snoozes begun or ended": (3, Traffic.snooze),
    "previews chosen": (3, Traffic.preview),
    "phones switched off or on": (1, Traffic.switch),
    "logins and account switches": (3, Traffic.log_in_anywhere),
    "registrations repeated": (3, Traffic.register_again),
    "logouts": (2, Traffic.log_out),
}
WRITES = 60  # relative frequency of writing


async def sign_up_users(cloud: LocalCloud, app: App, random: Random, messages: int) -> Traffic:
    """Signs up tourists and guides. Each has two conversations and three phones.

    Two phones get their pushes by Expo. The third one is an Android phone by FCM or an iPhone by APNs.
    """
    actors = []
    for number in range(USERS):
        person = await app.sign_up(f"Person{number}", "tourist" if number % 2 else "guide")
        actors.append(Actor(person, Random(random.random())))
    for number, actor in enumerate(actors):
        other = actors[(number + 1) % USERS]
        conversation = await actor.person.open_chat(other.person)
        actor.conversations.append(conversation)
        other.conversations.append(conversation)
    traffic = Traffic(cloud, messages, actors)
    for number, actor in enumerate(actors):
        await traffic.new_phone(actor, cloud.expo, "ios")
        await traffic.new_phone(actor, cloud.expo, "android")
        if number % 2:
            await traffic.new_phone(actor, cloud.fcm, "android")
        else:
            await traffic.new_phone(actor, cloud.apns, "ios")
    return traffic
