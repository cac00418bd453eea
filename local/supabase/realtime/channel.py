"""A channel of one connection: from its join to its end. As lib/realtime_web/channels/realtime_channel.ex."""

import asyncio
import json
import logging
import time
import uuid
import zlib
from collections.abc import Awaitable, Callable
from functools import partial

import psycopg

from local.supabase.realtime.authorization import Rights, may_read, may_write
from local.supabase.realtime.frames import Broadcast, Frame
from local.supabase.realtime.hub import Hub, Rate, Topic
from local.supabase.realtime.messages import MOST_REPLAYED, InvalidKeeping, newest, seconds_to_keep, store
from local.supabase.realtime.postgres_changes import Binding, Subscriber, SubscriptionRejected, bind
from local.supabase.realtime.tokens import Rejected
from local.types import Json

_PRESENCE_WINDOW = 30  # seconds
_LONGEST_CONFIRMATION = 3600  # seconds after which a token is checked again at the latest

logger = logging.getLogger(__name__)


class _Closed(Exception):
    """The channel ends. The client receives phx_close."""


class Channel:
    """A channel, joined or joining. Its frames are handled one by one."""

    def __init__(self, hub: Hub, send: Callable[[Frame], None], api_claims: Json, join: Frame) -> None:
        self.inbox: asyncio.Queue[Frame | Callable[[], Awaitable[None]]] = asyncio.Queue()
        self.reads_broadcasts = self.reads_presence = True
        self.join = join
        self._hub = hub
        self._send = send
        payload = join.payload if isinstance(join.payload, dict) else {}
        config = _dictionary(payload.get("config"))
        self._broadcast = _dictionary(config.get("broadcast"))
        presence = _dictionary(config.get("presence"))
        self._presence_enabled = presence.get("enabled") is True
        self._presence_key = str(presence.get("key") or uuid.uuid1())
        self._tracked: Json = None
        self._calls = Rate(hub.limits.presence_calls, hub.clock, _PRESENCE_WINDOW)
        self._entries = [entry for entry in config.get("postgres_changes") or [] if isinstance(entry, dict)]
        self._waits = bool(_dictionary(config.get("postgres_changes_options")).get("wait"))
        self._topic = Topic(join.topic.removeprefix("realtime:"), private=config.get("private") is True)
        self._token = payload.get("access_token") or payload.get("user_token")
        self._renewed: float | None = None  # when the loop's clock showed the last new token
        self._held_token: str | None = None  # a newer one that is not used yet
        self._claims = api_claims  # of the API key, until the join has checked the token
        self._replayed_ids: set[str] = set()
        self._rights: Rights | None = None  # to send on a private channel; None: not checked yet
        self._subscriber: Subscriber | None = None
        self._timers: dict[str, asyncio.TimerHandle] = {}

    async def run(self) -> None:
        """Joins, and handles frames until the channel ends."""
        try:
            try:
                response = await self._join()
            except Rejected as error:
                await asyncio.sleep(self._hub.delays.rejected_join)
                self.reply(self.join.ref, "error", {"reason": str(error)})
                return
            self.reply(self.join.ref, "ok", response)
            await self._joined()
            while True:
                item = await self.inbox.get()
                await (self._handle(item) if isinstance(item, Frame) else item())
        except _Closed:
            self._send(Frame(self.join.topic, "phx_close", {}, self.join.join_ref, self.join.join_ref))
        except Exception:  # as a process of Phoenix that crashes: it ends this channel alone
            logger.exception("a channel failed; its client receives phx_error")
            self._send(Frame(self.join.topic, "phx_error", {}, self.join.join_ref, self.join.join_ref))
        finally:
            for timer in self._timers.values():
                timer.cancel()
            self._hub.dispatcher.subscribers.discard(self._subscriber)
            self._hub.leave(self._topic, self)

    def push(self, event: str, payload: Json | Broadcast) -> None:
        """Sends an event of the topic, unless it is a broadcast that the join has replayed."""
        if isinstance(payload, Broadcast) and payload.meta and payload.meta["id"] in self._replayed_ids:
            return
        self._send(Frame(self.join.topic, event, payload))

    def reply(self, ref: str | None, status: str, response: Json) -> None:
        """Answers a frame."""
        payload = {"status": status, "response": response}
        self._send(Frame(self.join.topic, "phx_reply", payload, ref, self.join.join_ref))

    def subscribe_again(self) -> None:
        """Subscribes to the rows again in a while, as after a loss of the database."""
        if self._entries:
            self._later("subscribe", self._hub.resubscription(), self._subscribe)

    def check_token(self) -> None:
        """Checks the token before the next frame; the channel ends if it has expired."""
        self.inbox.put_nowait(self._check_token)

    async def _check_token(self) -> None:
        if self._held_token:  # It takes the place of the one that may have expired.
            await self._renew(self._held_token)
            return
        try:
            self._confirm()
        except Rejected as error:
            self._shut_down(error.message)

    async def _join(self) -> Json:
        hub, topic = self._hub, self._topic
        if not topic.name:
            raise Rejected("TopicNameRequired", "You must provide a topic name")
        self._confirm()
        try:
            await self._authorize()
            await hub.inserts.ready()
            replayed = await self._replayed()
            if self._waits:
                await self._bind()
        except SubscriptionRejected as error:
            raise Rejected("RealtimeDisabledForConfiguration", str(error)) from error
        except psycopg.OperationalError as error:
            text = "Realtime was unable to connect to the project database"
            raise Rejected("UnableToConnectToProject", text) from error
        hub.members[topic].add(self)
        for message in replayed:
            self.inbox.put_nowait(partial(self._replay, message))
        return {"postgres_changes": [entry | {"id": _entry_id(entry)} for entry in self._entries]}

    async def _joined(self) -> None:
        if self._broadcast.get("replication_ready"):
            self._system("system", "ok", "Replication connection established")
        if self._presence_enabled:
            self._sync_presence()
        if self._subscriber:
            self._system("postgres_changes", "ok", "Subscribed to PostgreSQL")
        elif self._entries:
            self._later("subscribe", self._hub.delays.subscription, self._subscribe)

    def _confirm(self) -> None:
        """Sets the claims by the token, and checks it again when it expires. Raises Rejected."""
        if isinstance(self._token, str) and not self._token.startswith("sb_"):
            self._claims = self._hub.claims(self._token)
        left = self._claims["exp"] - time.time()
        self._later("token", min(left, _LONGEST_CONFIRMATION), self._check_token)

    async def _authorize(self) -> None:
        if not self._topic.private:
            return
        rights = await may_read(self._hub.session, self._topic.name, self._claims)
        if not (rights.broadcast or rights.presence):
            raise Rejected(
                "Unauthorized", f"You do not have permissions to read from this Channel topic: {self._topic.name}"
            )
        self.reads_broadcasts, self.reads_presence = rights.broadcast, rights.presence
        self._rights = None

    async def _replayed(self) -> list[Broadcast]:
        """The messages that the client asks for, from the oldest to the newest."""
        if "replay" not in self._broadcast:
            return []
        if not self._topic.private:
            raise Rejected("UnableToReplayMessages", "Replay is not allowed for public channels")
        replay = _dictionary(self._broadcast["replay"])
        since, limit = replay.get("since", 0), replay.get("limit") or MOST_REPLAYED
        if type(since) is not int or type(limit) is not int:
            raise Rejected("UnableToReplayMessages", "Replay params are not valid")
        messages = await newest(self._hub.session, self._topic.name, since, limit)
        self._replayed_ids = {message.meta["id"] for message in messages}
        return messages

    async def _replay(self, message: Broadcast) -> None:
        self._send(Frame(self.join.topic, "broadcast", message))

    async def _subscribe(self) -> None:
        try:
            await self._bind()
        except SubscriptionRejected as error:
            self._system("postgres_changes", "error", str(error))
            return
        except psycopg.OperationalError:
            self.subscribe_again()
            return
        self._system("postgres_changes", "ok", "Subscribed to PostgreSQL")

    async def _bind(self) -> None:
        hub = self._hub
        bindings: list[Binding] = []
        for entry in self._entries:
            bindings.append(await bind(hub.session, entry, _entry_id(entry), str(self._claims["role"])))
        await hub.changes.ready()
        hub.dispatcher.subscribers.discard(self._subscriber)
        self._subscriber = Subscriber(self._claims, tuple(bindings), self._receive_row)
        hub.dispatcher.subscribers.add(self._subscriber)

    def _receive_row(self, payload: Json) -> None:
        self._hub.messages.allows()
        self.push("postgres_changes", payload)

    async def _handle(self, frame: Frame) -> None:
        match frame.event, frame.payload:
            case "phx_leave", _:
                self.reply(frame.ref, "ok", {})
                raise _Closed
            case "access_token", {"access_token": str(token)}:
                await self._receive_token(token)
            case "broadcast", Broadcast() as message:
                await self._send_broadcast(frame, message)
            case "presence", {"event": str(event), **rest}:
                await self._handle_presence(frame, event.lower(), rest.get("payload", {}))

    async def _receive_token(self, token: str) -> None:
        """Uses a new token at once, or holds it if another one came shortly before."""
        if token.startswith("sb_") or token in (self._token, self._held_token):
            return
        now, pause = asyncio.get_running_loop().time(), self._hub.delays.token
        if self._renewed is None or now >= self._renewed + pause:
            await self._renew(token)
        else:
            self._held_token = token
            self._later("held token", self._renewed + pause - now, self._check_token)

    async def _renew(self, token: str) -> None:
        self._token, self._held_token = token, None
        self._renewed = asyncio.get_running_loop().time()
        read = self.reads_broadcasts, self.reads_presence
        try:
            self._confirm()
            await self._authorize()
        except Rejected as error:
            self._shut_down(error.message)
        except psycopg.OperationalError:
            self._shut_down("Realtime was unable to connect to the project database")
        if any(
            before and not now for before, now in zip(read, (self.reads_broadcasts, self.reads_presence), strict=True)
        ):
            self._shut_down(f"You no longer have permission to read from this Channel topic: {self._topic.name}")
        self.subscribe_again()

    async def _may_send(self) -> Rights:
        if not self._topic.private:
            return Rights(broadcast=True, presence=True)
        if self._rights is None:
            try:
                self._rights = await may_write(self._hub.session, self._topic.name, self._claims)
            except psycopg.OperationalError:
                return Rights(broadcast=False, presence=False)  # until the database is back
        return self._rights

    async def _send_broadcast(self, frame: Frame, message: Broadcast) -> None:
        try:
            seconds = seconds_to_keep(message.persist) if self._topic.private else None
        except InvalidKeeping:
            self._acknowledge(frame, "error", {"error": "invalid_persist_ttl"})
            return
        rights = await self._may_send()
        if not rights.broadcast:
            self._acknowledge(frame, "error", {"error": "unauthorized"})
            return
        if not self._hub.messages.allows():
            self._shut_down("Too many messages per second")
        if message.size > self._hub.limits.broadcast_bytes:
            self._acknowledge(frame, "error", {"error": "payload_size_exceeded"})
            return
        self._hub.broadcast(self._topic, message, None if self._broadcast.get("self") else self)
        response = {}
        if seconds and rights.persistence:
            try:
                response = {"id": await store(self._hub.session, self._topic.name, message, seconds)}
            except psycopg.Error:
                logger.exception("a broadcast was sent and is not stored")
        self._acknowledge(frame, "ok", response)

    def _acknowledge(self, frame: Frame, status: str, response: Json) -> None:
        """Answers a broadcast if the client asked for it in its join."""
        if self._broadcast.get("ack"):
            self.reply(frame.ref, status, response)

    async def _handle_presence(self, frame: Frame, event: str, payload: Json) -> None:
        if not self._calls.allows():
            self._shut_down("Client presence rate limit exceeded")
        if event == "untrack":
            self._tracked = None
            self._hub.untrack(self._topic, self)
        elif event != "track" or not (await self._may_send()).presence:
            self.reply(frame.ref, "error", {})
            return
        elif not isinstance(payload, dict):
            self.reply(frame.ref, "error", {"reason": "Presence track payload must be a map"})
            return
        elif payload != self._tracked:
            self._track(payload)
        self.reply(frame.ref, "ok", {})

    def _track(self, payload: Json) -> None:
        if len(json.dumps(payload)) > self._hub.limits.broadcast_bytes:
            self._shut_down("Track message size exceeded")
        if not self._hub.presence_messages.allows():
            self._shut_down("Too many presence messages per second")
        self._tracked = payload
        self._hub.track(self._topic, self, self._presence_key, payload)
        if not self._presence_enabled:  # The first track enables presence.
            self._presence_enabled = True
            self._sync_presence()

    def _sync_presence(self) -> None:
        if self.reads_presence:
            if not self._hub.presence_messages.allows():
                self._shut_down("Too many presence messages per second")
            self.push("presence_state", self._hub.presence_state(self._topic))

    def _system(self, extension: str, status: str, message: str) -> None:
        payload = {"extension": extension, "status": status, "message": message, "channel": self._topic.name}
        self._send(Frame(self.join.topic, "system", payload, None, self.join.join_ref))

    def _shut_down(self, message: str) -> None:
        self._system("system", "error", message)
        raise _Closed

    def _later(self, name: str, seconds: float, action: Callable[[], Awaitable[None]]) -> None:
        """Runs an action between two frames, in place of the action of this name that is still to come."""
        if name in self._timers:
            self._timers[name].cancel()
        loop = asyncio.get_running_loop()
        self._timers[name] = loop.call_later(seconds, self.inbox.put_nowait, action)


def _dictionary(value: Json) -> dict[str, Json]:
    return value if isinstance(value, dict) else {}


def _entry_id(entry: Json) -> int:
    """As on the real server, the same entry has the same id, which is never 0."""
    return zlib.crc32(json.dumps(entry, sort_keys=True).encode()) % (2**27 - 1) + 1
