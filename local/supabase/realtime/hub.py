"""What all connections share: topics and their members, presence, limits, the changes from the database, the faults."""

import asyncio
import json
import logging
import random
import secrets
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

import psycopg

from local.supabase.realtime.database import Session, replication_slot
from local.supabase.realtime.frames import Broadcast, Frame
from local.supabase.realtime.pgoutput import Change
from local.supabase.realtime.postgres_changes import PUBLICATION, Dispatcher
from local.supabase.realtime.tokens import Keys
from local.types import Json

_MESSAGES_PUBLICATION = "supabase_realtime_messages_publication"
_CHANGES_PER_READ = 100


logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Delays:
    """Seconds that the real server takes. A client that works only with shorter ones has a race."""

    changes: float = 0.1  # between two reads of changed rows
    idle_changes: float = 0.5  # the same after a read without a change
    messages: float = 0.02  # between two reads of realtime.messages; the real server streams them
    subscription: float = 1.0  # from SUBSCRIBED to "Subscribed to PostgreSQL"; the real server takes 0 to 3
    resubscription: tuple[float, float] = (1.0, 3.0)  # the same after a new token or a loss of the database
    rejected_join: float = 5.0
    rejected_connection: float = 2.0
    silent_client: float = 60.0  # until a connection without any frame is closed
    token: float = 10.0  # between two new tokens of a channel; of those in between, the last one counts


@dataclass(frozen=True)
class Limits:
    """Limits of the Pro plan: https://supabase.com/docs/guides/realtime/limits.

    The page also limits a presence to 10 keys. The server does not check it.
    """

    connections: int = 500
    channels: int = 100  # of a connection
    joins: int = 500  # per second
    messages: int = 500  # per second, sent and received
    presence_messages: int = 50  # per second
    presence_calls: int = 5  # of a channel, in 30 seconds
    broadcast_bytes: int = 3_000_000
    row_bytes: int = 1024 * 1024


type Clock = Callable[[], float]  # seconds


class Rate:
    """Counts events in windows of some seconds."""

    def __init__(self, limit: int, clock: Clock, seconds: float = 1) -> None:
        self._limit = limit
        self._clock = clock
        self._seconds = seconds
        self._start = clock()
        self._count = 0

    def allows(self, count: int = 1) -> bool:
        """Counts events. Returns whether the window is still within the limit."""
        now = self._clock()
        if now >= self._start + self._seconds:
            self._start, self._count = now, 0
        self._count += count
        return self._count <= self._limit


@dataclass(frozen=True)
class Topic:
    """The name of a channel. A private and a public channel of the same name share nothing."""

    name: str
    private: bool


class Member(Protocol):
    """A joined channel of one connection."""

    reads_broadcasts: bool
    reads_presence: bool

    def push(self, event: str, payload: Json | Broadcast) -> None:
        """Sends a frame to the client."""

    def check_token(self) -> None:
        """Checks the token again; the channel ends if it has expired."""

    def subscribe_again(self) -> None:
        """Subscribes to changed rows again."""


@dataclass(frozen=True)
class Present:
    """A tracked presence of one channel."""

    key: str
    meta: Json

    @property
    def entry(self) -> Json:
        """Its form in presence_state and presence_diff."""
        return {self.key: {"metas": [self.meta]}}


class Feed:
    """Reads the changes of a publication and hands them over, from the first use on."""

    def __init__(
        self,
        dsn: str,
        publication: str,
        pauses: tuple[float, float],
        handle: Callable[[Change], Awaitable[None]],
        recovered: Callable[[], None],
    ) -> None:
        self._dsn = dsn
        self._publication = publication
        self._busy, self._idle = pauses
        self._handle = handle
        self._recovered = recovered
        self._ready = asyncio.Event()
        self._reader: asyncio.Task[None] | None = None

    async def ready(self) -> None:
        """Starts to read. Returns when a change that commits from now on will be read."""
        if self._reader is None:
            self._reader = asyncio.create_task(self._read())
        await self._ready.wait()

    async def close(self) -> None:
        """Stops to read. Raises what made it fail."""
        if self._reader is not None:
            self._reader.cancel()
            (result,) = await asyncio.gather(self._reader, return_exceptions=True)
            if isinstance(result, Exception):
                raise result

    async def _read(self) -> None:
        lost = False
        while True:
            try:
                name = f"realtime_{secrets.token_hex(6)}"
                async with replication_slot(self._dsn, name, self._publication) as slot:
                    self._ready.set()
                    if lost:
                        self._recovered()
                    while True:
                        changes = await slot.read(_CHANGES_PER_READ)
                        for change in changes:
                            await self._handle(change)
                        await asyncio.sleep(self._busy if changes else self._idle)
            except psycopg.OperationalError:
                lost = True
                self._ready.clear()
                await asyncio.sleep(0.1)  # There is no event for a server that is back.


@dataclass
class Faults:
    """Faults that are switched on."""

    refusal: int | None = None  # the HTTP status of new connections; 0: the connection is dropped without an answer
    late: float = 0  # seconds by which each frame to a client is late
    to_lose: dict[str, int] = field(default_factory=lambda: defaultdict(int))  # events: frames to drop
    expired_before: float = 0  # Tokens that were issued before this time are expired.


class Hub:
    """The state of the server."""

    def __init__(self, dsn: str, keys: Keys, delays: Delays, limits: Limits, clock: Clock) -> None:
        self.keys = keys
        self.delays = delays
        self.limits = limits
        self.faults = Faults()
        self.session = Session(dsn)
        self.clock = clock  # of the limits
        self.joins = Rate(limits.joins, clock)
        self.messages = Rate(limits.messages, clock)
        self.presence_messages = Rate(limits.presence_messages, clock)
        self.members: dict[Topic, set[Member]] = defaultdict(set)
        self.present: dict[Topic, dict[Member, Present]] = defaultdict(dict)
        self.dispatcher = Dispatcher(self.session, limits.row_bytes)
        self.changes = Feed(
            dsn, PUBLICATION, (delays.changes, delays.idle_changes), self._changed, self._subscribe_again
        )
        self.inserts = Feed(
            dsn, _MESSAGES_PUBLICATION, (delays.messages, delays.messages), self._inserted, lambda: None
        )

    async def close(self) -> None:
        """Ends the work on the database."""
        try:
            await self.changes.close()
        finally:
            try:
                await self.inserts.close()
            finally:
                await self.session.close()

    def claims(self, token: str) -> Json:
        """The claims of a user's token. Raises Rejected."""
        return self.keys.claims(token, not_before=self.faults.expired_before)

    def broadcast(self, topic: Topic, message: Broadcast, sender: Member | None = None) -> None:
        """Sends a message to the members of a topic, except for its sender."""
        for member in list(self.members[topic]):
            if member is not sender and member.reads_broadcasts:
                self.messages.allows()
                member.push("broadcast", message)

    def leave(self, topic: Topic, member: Member) -> None:
        """Removes a member and its presence."""
        self.untrack(topic, member)
        self.members[topic].discard(member)

    def track(self, topic: Topic, member: Member, key: str, payload: Json) -> None:
        """Sets the presence of a member. The members receive the difference."""
        before = self.present[topic].get(member)
        meta = payload | {"phx_ref": secrets.token_urlsafe(12)}
        if before:
            meta["phx_ref_prev"] = before.meta["phx_ref"]
        self.present[topic][member] = Present(key, meta)
        self._send_diff(topic, joins=self.present[topic][member].entry, leaves=before.entry if before else {})

    def untrack(self, topic: Topic, member: Member) -> None:
        """Removes the presence of a member. The members receive the difference."""
        if before := self.present[topic].pop(member, None):
            self._send_diff(topic, joins={}, leaves=before.entry)

    def presence_state(self, topic: Topic) -> Json:
        """Everyone present on a topic."""
        state: Json = {}
        for present in self.present[topic].values():
            state.setdefault(present.key, {"metas": []})["metas"].append(present.meta)
        return state

    def loses(self, frame: Frame) -> bool:
        """Whether a fault drops this frame."""
        if not self.faults.to_lose[frame.event]:
            return False
        self.faults.to_lose[frame.event] -= 1
        return True

    def _send_diff(self, topic: Topic, joins: Json, leaves: Json) -> None:
        for member in list(self.members[topic]):
            if member.reads_presence:
                member.push("presence_diff", {"joins": joins, "leaves": leaves})

    async def _changed(self, change: Change) -> None:
        if not self.messages.allows(0):  # Above the limit, the real server drops rows.
            return
        try:
            await self.dispatcher.dispatch(change)
        except psycopg.OperationalError:
            raise
        except psycopg.Error:  # such as a table that was changed meanwhile
            logger.exception("a change of %s.%s is lost", change.relation.schema, change.relation.name)

    async def _inserted(self, change: Change) -> None:
        row = change.new
        if change.action != "INSERT" or row["extension"] != "broadcast" or row["event"] is None:
            return
        if row["skip_broadcast"] == "t":
            return
        binary, text = row["binary_payload"], row["payload"]
        content = bytes.fromhex(binary[2:]) if binary else json.loads(text or "{}")
        topic = Topic(row["topic"] or "", private=row["private"] == "t")
        self.broadcast(topic, Broadcast(row["event"], content, {"id": row["id"]}))

    def _subscribe_again(self) -> None:
        for members in self.members.values():
            for member in members:
                member.subscribe_again()

    def resubscription(self) -> float:
        """Seconds until rows flow again."""
        return random.uniform(*self.delays.resubscription)
