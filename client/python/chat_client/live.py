"""Live events over Supabase Realtime. They are hints: what is lost here, the next sync brings.

Each connection has a client of `realtime` of its own, without its reconnects: those give up after five attempts, come
without a delay when a server accepts and drops, and keep an expired token. Callbacks only put what they get into a
queue, because an exception in one would end that client's reader silently.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from time import monotonic
from typing import Any
from uuid import UUID

from realtime import AsyncRealtimeChannel, AsyncRealtimeClient, RealtimeChannelOptions, RealtimeSubscribeStates

from chat_client.errors import NotSignedIn, ServerUnreachable
from chat_client.events import ConnectionChanged, Event, PresenceChanged, TypingChanged
from chat_client.models import Json, message_of
from chat_client.server import Server
from chat_client.settings import Timing
from chat_client.store import Store
from chat_client.waiting import backoff, wait

_log = logging.getLogger(__name__)
# It logs frames that it cannot read, which may be messages, and losses, which are handled here.
logging.getLogger("realtime").setLevel(logging.CRITICAL)


class _ChannelLost(ServerUnreachable):
    """A channel could not be joined, or was closed or lost."""


@dataclass(frozen=True)
class _Frame:
    """What a callback of a channel got: a broadcast, or a change of presence."""

    event: str
    payload: Json


class Live:
    """Works while `run` runs.

    `joined` is called after each join of the person's channel: what was sent before it has to be synced.
    `sync` asks for a sync. `applied` is called after a change, because it may have left marks to send.
    """

    def __init__(
        self,
        store: Store,
        server: Server,
        key: str,
        timing: Timing,
        emit: Callable[[Event], None],
        joined: Callable[[], None],
        sync: Callable[[], None],
        applied: Callable[[], None],
        failed: Callable[[str, Exception], None],
    ) -> None:
        self._store = store
        self._server = server
        self._key = key
        self._timing = timing
        self._emit = emit
        self._joined = joined
        self._sync = sync
        self._applied = applied
        self._failed = failed
        self._wanted = asyncio.Event()
        self._restart = asyncio.Event()
        self._room: UUID | None = None
        self._room_changed = asyncio.Event()
        self._room_channel: AsyncRealtimeChannel | None = None
        self._connection: AsyncRealtimeClient | None = None
        self._token: str | None = None
        self._typed_at = -1e9
        self._typists: dict[UUID, asyncio.TimerHandle] = {}

    # What the app says ---------------------------------------------------------------------------

    def connect(self) -> None:
        """Connects, or connects anew: a phone that slept cannot know whether its connection still works."""
        self._wanted.set()
        self._restart.set()

    def disconnect(self) -> None:
        """Disconnects, until `connect`."""
        self._wanted.clear()
        self._restart.set()

    def look_at(self, conversation_id: UUID | None) -> None:
        """Joins the channel of the conversation on the screen, for typing and presence. None: leaves it."""
        if conversation_id != self._room:
            self._room = conversation_id
            self._typed_at = -1e9
            self._room_changed.set()

    def leave(self, conversation_id: UUID) -> None:
        """Leaves the channel of a conversation, if it is on the screen: a server asks for the right only at a join."""
        if conversation_id == self._room:
            self.look_at(None)

    async def typing(self, is_typing: bool) -> None:
        """Tells the partner on the channel that this person types or has stopped. Call it at each key: few are sent."""
        channel, me = self._room_channel, self._store.me
        now = monotonic()
        if channel is None or not channel.is_joined:
            return
        if is_typing and now < self._typed_at + self._timing.typing_interval:
            return
        if not is_typing and self._typed_at < 0:
            return
        self._typed_at = now if is_typing else -1e9
        try:
            await channel.send_broadcast("typing", {"user_id": str(me), "is_typing": is_typing})
        except Exception as error:  # the socket's errors; the supervisor sees the loss itself
            _log.info("a typing event was not sent: %s", type(error).__name__)

    async def use_token(self) -> None:
        """Passes the renewed access token to the channels, which would be closed when the old one expires."""
        if self._connection is not None and self._token != self._server.access_token:
            self._token = self._server.access_token
            try:
                await self._connection.set_auth(self._token)
            except Exception as error:  # as above
                _log.info("the token was not passed to Realtime: %s", type(error).__name__)

    # Supervision ---------------------------------------------------------------------------------

    async def run(self) -> None:
        """Keeps the connection until it is cancelled."""
        failures = 0
        while True:
            await self._wanted.wait()
            self._restart.clear()
            if not self._server.signed_in:
                self._wanted.clear()
                continue
            began = monotonic()
            try:
                await self._until_restart(self._stay_connected())
                failures = 0
                continue
            except NotSignedIn as error:
                self._failed("the live connection has ended", error)
                self._wanted.clear()
                failures = 0
                continue
            except Exception as error:
                self._failed("the live connection was lost", error)
            # A server that accepts and then drops must not be called again at once.
            failures = 1 if monotonic() - began > self._timing.stable_connection else failures + 1
            delay = backoff(failures, self._timing.retry_base, self._timing.retry_cap)
            await wait(self._restart, delay)

    async def _until_restart(self, work: Any) -> None:
        """Runs `work` until it ends, or is ended by connect or disconnect. Raises what it raises."""
        working, restart = asyncio.ensure_future(work), asyncio.ensure_future(self._restart.wait())
        try:
            await asyncio.wait({working, restart}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            restart.cancel()
            working.cancel()
            await asyncio.wait({working})
        if not working.cancelled() and (error := working.exception()) is not None:
            raise error

    async def _stay_connected(self) -> None:
        async with self._connected() as connection:
            me = self._store.me
            frames: asyncio.Queue[_Frame | Exception] = asyncio.Queue()
            channel = connection.channel(f"user:{me}", _private())
            for event in ("message", "receipts", "conversation"):
                channel.on_broadcast(event, partial(_put_broadcast, frames, event))
            _watch_reader(connection, frames)
            await self._join(channel, frames)
            self._emit(ConnectionChanged("online"))
            self._joined()
            rooms = asyncio.ensure_future(self._stay_in_room(connection))
            rooms.add_done_callback(partial(_put_end, frames))
            try:
                while True:
                    frame = await frames.get()
                    if isinstance(frame, Exception):
                        raise frame
                    self._apply(frame)
            finally:
                rooms.cancel()
                await asyncio.wait({rooms})
                self._emit(ConnectionChanged("offline"))

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[AsyncRealtimeClient]:
        self._token = self._server.access_token
        connection = AsyncRealtimeClient(
            self._server.realtime_url, self._key, auto_reconnect=False, timeout=int(self._timing.request_timeout)
        )
        # Before the join: a join without the token would be one of nobody.
        await connection.set_auth(self._token)
        try:
            try:
                await connection.connect()
            except Exception as error:  # websockets, TLS, DNS: no common base
                raise ServerUnreachable(f"Realtime gave no answer: {type(error).__name__}") from error
            self._connection = connection
            yield connection
        finally:
            self._connection = None
            socket = connection._ws_connection
            for channel in connection.get_channels():
                channel.rejoin_timer.reset()
            try:
                await asyncio.wait_for(connection.close(), 1)
            except Exception as error:  # it is given up in any case
                _log.debug("close of the live connection: %s", type(error).__name__)
                await connection.close()  # Without the closing handshake now: it ends the tasks.
            if socket is not None:
                socket.transport.abort()

    async def _join(self, channel: AsyncRealtimeChannel, frames: "asyncio.Queue[_Frame | Exception]") -> None:
        """Joins. Later, a loss of the channel is put into the queue. Raises _ChannelLost."""
        token = self._server.access_token
        answers: asyncio.Queue[tuple[RealtimeSubscribeStates, str]] = asyncio.Queue()
        joined = False

        def status(state: RealtimeSubscribeStates, error: Exception | None) -> None:
            if not joined:
                answers.put_nowait((state, str(error)))
            elif state is not RealtimeSubscribeStates.SUBSCRIBED:
                frames.put_nowait(_ChannelLost(f"{channel.topic.split(':')[1]}: {state.value}"))

        try:
            await channel.subscribe(status)
            state, reason = await asyncio.wait_for(answers.get(), self._timing.request_timeout)
        except Exception as error:  # the socket's errors have no common base
            raise _ChannelLost(type(error).__name__) from error
        channel.rejoin_timer.reset()
        if state is not RealtimeSubscribeStates.SUBSCRIBED:
            if "oken" in reason or "JWT" in reason:
                await self._server.renew(token)
            raise _ChannelLost(f"join: {state.value}")
        joined = True
        # The session may have been renewed during the join, which set_auth does not reach.
        self._token = token
        await self.use_token()

    async def _stay_in_room(self, connection: AsyncRealtimeClient) -> None:
        """Keeps the channel of the conversation on the screen joined, and this person's presence on it."""
        failures = 0
        while True:
            self._room_changed.clear()
            room = self._room
            delay = None
            if room is not None:
                try:
                    await self._visit(connection, room)
                    failures = 0
                except (ServerUnreachable, TimeoutError) as error:
                    failures += 1
                    delay = backoff(failures, self._timing.retry_base, self._timing.retry_cap)
                    _log.info("the channel of the conversation %s was lost: %s", room, error)
            await wait(self._room_changed, delay)

    async def _visit(self, connection: AsyncRealtimeClient, room: UUID) -> None:
        """Joins the channel of a conversation, and stays until another one is on the screen."""
        me = self._store.me
        frames: asyncio.Queue[_Frame | Exception] = asyncio.Queue()
        channel = connection.channel(f"room:{room}", _private(str(me)))
        channel.on_broadcast("typing", partial(_put_broadcast, frames, "typing"))
        channel.on_presence_sync(lambda: frames.put_nowait(_Frame("presence", {})))
        changed = asyncio.ensure_future(self._room_changed.wait())
        reading: asyncio.Future[Any] | None = None
        try:
            await self._join(channel, frames)
            # After each join: the server has forgotten it with the channel.
            await channel.track({"user_id": str(me)})
            self._room_channel = channel
            while True:
                reading = asyncio.ensure_future(frames.get())
                await asyncio.wait({reading, changed}, return_when=asyncio.FIRST_COMPLETED)
                if changed.done():
                    return
                frame = reading.result()
                if isinstance(frame, Exception):
                    raise frame
                self._apply_room(room, channel, frame)
        finally:
            self._room_channel = None
            changed.cancel()
            if reading is not None:
                reading.cancel()
            for typist in list(self._typists):
                self._stopped_typing(room, typist)
            try:
                await connection.remove_channel(channel)
            except Exception as error:  # the connection may be gone
                _log.debug("leave of a channel: %s", type(error).__name__)

    # Frames --------------------------------------------------------------------------------------

    def _apply(self, frame: _Frame) -> None:
        """Applies an event of the person's channel. One that cannot be read is logged, and a sync replaces it."""
        if not self._server.signed_in:
            return  # It came with the sign-out.
        try:
            match frame.event:
                case "message":
                    self._apply_message(frame.payload["operation"], frame.payload["record"])
                case "receipts":
                    self._apply_receipts(frame.payload)
                case "conversation" if frame.payload["operation"] == "DELETE":
                    self._store.remove_conversation(UUID(frame.payload["record"]["id"]))
                case _:
                    self._sync()
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            _log.warning("malformed event %s: %s", frame.event, type(error).__name__)
            self._sync()

    def _apply_message(self, operation: str, record: Json) -> None:
        if operation == "DELETE":
            self._store.remove_message(UUID(record["room_id"]), UUID(record["id"]))
        elif "sender_id" not in record:  # The message is too large for an event.
            self._sync()
        else:
            message = message_of(record)
            if self._store.apply_messages([message]) or message.deleted_at is not None:
                self._sync()  # The conversation is new, or needs another preview.
            self._stopped_typing(message.conversation_id, message.sender_id)
            self._applied()

    def _apply_receipts(self, payload: Json) -> None:
        delivered_at, read_at = payload["delivered_at"], payload["read_at"]
        self._store.apply_marks(
            UUID(payload["room_id"]),
            [UUID(each) for each in payload["message_ids"]],
            datetime.fromisoformat(delivered_at) if delivered_at else None,
            datetime.fromisoformat(read_at) if read_at else None,
            bool(payload["is_read"]),
            datetime.fromisoformat(payload["changed_at"]),
        )

    def _apply_room(self, room: UUID, channel: AsyncRealtimeChannel, frame: _Frame) -> None:
        try:
            if frame.event == "presence":
                present = frozenset(UUID(key) for key in channel.presence_state())
                self._emit(PresenceChanged(room, present))
                return
            person = UUID(frame.payload["user_id"])
            if person == self._store.me:
                return
            if frame.payload["is_typing"]:
                self._typing(room, person)
            else:
                self._stopped_typing(room, person)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            _log.warning("malformed event %s: %s", frame.event, type(error).__name__)

    def _typing(self, room: UUID, person: UUID) -> None:
        timer = self._typists.pop(person, None)
        if timer is not None:
            timer.cancel()
        else:
            self._emit(TypingChanged(room, person, True))
        # A phone that dies while its user types sends no end.
        self._typists[person] = asyncio.get_running_loop().call_later(
            self._timing.typing_timeout, self._stopped_typing, room, person
        )

    def _stopped_typing(self, room: UUID, person: UUID) -> None:
        timer = self._typists.pop(person, None)
        if timer is not None:
            timer.cancel()
            self._emit(TypingChanged(room, person, False))


def _private(presence_key: str = "") -> RealtimeChannelOptions:
    return {
        "config": {
            "broadcast": {"ack": False, "self": False},
            "presence": {"key": presence_key, "enabled": bool(presence_key)},
            "private": True,
        }
    }


def _watch_reader(connection: AsyncRealtimeClient, frames: "asyncio.Queue[_Frame | Exception]") -> None:
    """Notes the end of the task that reads the socket. If an exception ends it, no public member shows that."""
    reader = connection._listen_task

    def ended(task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        frames.put_nowait(_ChannelLost(f"the reader of the socket ended: {type(error).__name__}"))

    if reader is not None:
        reader.add_done_callback(ended)


def _put_end(frames: "asyncio.Queue[_Frame | Exception]", task: asyncio.Future[None]) -> None:
    if not task.cancelled() and isinstance(error := task.exception(), Exception):
        frames.put_nowait(error)


def _put_broadcast(frames: "asyncio.Queue[_Frame | Exception]", event: str, message: Any) -> None:
    frames.put_nowait(_Frame(event, message["payload"]))
