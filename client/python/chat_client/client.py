"""The chat of one person on one device."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, Self
from uuid import UUID

import httpx

from chat_client.choices import Choices
from chat_client.devices import Devices
from chat_client.errors import (
    ChatError,
    DatabaseError,
    NotSignedIn,
    Rejected,
    ServerUnreachable,
)
from chat_client.events import DatabaseFailed, Event, Events, SessionEnded
from chat_client.live import Live
from chat_client.marks import Marks
from chat_client.models import Attachment, Conversation, Entry, Message
from chat_client.outbox import Outbox
from chat_client.push import Tap, tap_of
from chat_client.server import Server
from chat_client.settings import Settings
from chat_client.store import Store
from chat_client.sync import Sync
from chat_client.waiting import backoff

_log = logging.getLogger(__name__)


class ChatClient:
    """Sends, syncs and shows the messages of one person. Use it as an async context manager.

    What the app reads comes from the local database, and what it writes goes there first. Background tasks bring both
    sides together, and `events` says what changed. So an app needs no network, and no error handling for it: only
    calls that say so raise ServerUnreachable.
    """

    def __init__(self, settings: Settings, *, transport: httpx.AsyncBaseTransport | None = None) -> None:
        """Opens the local database. `transport`: of all HTTP requests, for tests.

        Raises DatabaseInUse if another client has the file open, and DatabaseFull.
        """
        self._settings = settings
        self._events = Events()
        self._store = Store(settings.database, self._emit)
        timing = settings.timing
        self._http = httpx.AsyncClient(timeout=timing.request_timeout, transport=transport)
        self._server = Server(
            settings.supabase_url,
            settings.publishable_key,
            self._store.get("session"),
            self._save_session,
            self._http,
        )
        failed = self._failed
        self._outbox = Outbox(self._store, self._server, timing, settings.attempts, failed)
        self._marks = Marks(self._store, self._server, timing, failed)
        self._sync = Sync(self._store, self._server, timing, self._emit, self._marks.wake, failed)
        self._live = Live(
            self._store, self._server, settings.publishable_key, timing, self._emit,
            joined=self._reachable, sync=self._sync.request, applied=self._marks.wake, failed=failed,
        )  # fmt: skip
        self._devices = Devices(self._store, self._server, self._http, settings.api_url, timing, failed)
        #: What the person chooses: mute, block, report, quiet hours, …
        self.choices = Choices(self._store, self._server, self._sync.request, self._live.leave)
        self._tasks: list[asyncio.Task[None]] = []
        self._told_ended = False

    async def __aenter__(self) -> Self:
        """Starts to work, with the session that is stored, if any."""
        parts = (self._outbox.run, self._marks.run, self._sync.run, self._live.run, self._devices.run)
        self._tasks = [asyncio.create_task(_logged(part)) for part in (*parts, self._keep_session_fresh)]
        if self._server.signed_in:
            self.foreground()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Stops, and closes the local database. What waits in the outbox goes when it is opened again."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._tasks = []
        self._events.close()
        await self._http.aclose()
        self._store.close()

    # Account ------------------------------------------------------------------------------------

    @property
    def user_id(self) -> UUID | None:
        """The account whose data is stored, signed in or with an expired session. None: none."""
        return self._store.me

    @property
    def signed_in(self) -> bool:
        """Whether there is a session."""
        return self._server.signed_in

    @property
    def device_id(self) -> str:
        """The id of this installation."""
        return self._store.device_id()

    async def sign_in(self, email: str, password: str) -> UUID:
        """Signs in, and returns the id of the person. The session is stored: the next start needs no sign-in.

        Raises SignInRejected, ServerUnreachable, RateLimited, and OtherAccount if the file has data of somebody else.
        """
        user_id = await self._server.sign_in(email, password, self._store.me)
        self._store.put("user_id", str(user_id))
        self._server.keep_session()
        self._told_ended = False
        self.foreground()
        return user_id

    async def sign_out(self) -> None:
        """Unregisters the device, ends the session, and removes all local data of the account, also the outbox.

        Without the server the local data is removed all the same. The device may then get pushes until its token is
        replaced: delete the push token of the installation, as docs/client.md describes.
        """
        self.background()
        self._told_ended = True  # by the person
        if self._server.signed_in:
            # Each by itself: the end of the session also ends the pushes of a device that is still registered.
            unregister = () if self._settings.api_url is None else (self._devices.unregister,)
            for end in (*unregister, self._server.end_session):
                try:
                    await end()
                except ChatError as error:
                    _log.warning("signed out without the server: %s", type(error).__name__)
            self._server.forget_session()
        self._store.wipe()

    # App ----------------------------------------------------------------------------------------

    def events(self) -> AsyncIterator[Event]:
        """What changes from now on. Call it before you read what is on the screen. Any number of readers may call it.

        An exception in the reader ends its own loop only. The iterator ends when the client is closed.
        """
        return self._events.subscribe()

    def foreground(self) -> None:
        """The app is visible: connects anew, syncs, and sends what waits. Call it at each return to it."""
        if not self._server.signed_in:
            return
        self._devices.set_foreground(True)
        self._live.connect()
        self._reachable()

    def background(self) -> None:
        """The app is not visible: disconnects, because the system will stop its timers, and reports it."""
        self._devices.set_foreground(False)
        self._live.disconnect()

    def look_at(self, conversation_id: UUID | None) -> None:
        """Says which conversation is on the screen, if any: for presence, typing, and pushes that need no sound."""
        self._devices.look_at(conversation_id)
        self._live.look_at(conversation_id)

    async def typing(self, is_typing: bool = True) -> None:
        """Says that the person types in the conversation on the screen. Call it at each key; few events are sent."""
        await self._live.typing(is_typing)

    async def sync(self) -> None:
        """Syncs now, and returns when the local database is up to date. Raises ServerUnreachable and NotSignedIn."""
        await self._sync.once()

    def open_push(self, data: Mapping[str, Any]) -> Tap | None:
        """What a tapped push opens, and starts a sync. None: it is no push of a message, or one for another account."""
        tap = tap_of(data)
        if tap is None or tap.recipient_id not in (None, self._store.me):
            return None
        self._sync.request()
        return tap

    # Conversations ------------------------------------------------------------------------------

    def conversations(self) -> list[Conversation]:
        """All conversations, newest first, with previews and unread counters."""
        return self._store.conversations()

    def conversation(self, conversation_id: UUID) -> Conversation | None:
        """A conversation, or None if it is not stored."""
        return self._store.conversation(conversation_id)

    async def open_chat(self, other_id: UUID) -> UUID:
        """The id of the conversation with a person. It is created if there is none.

        A known conversation needs no server. Else raises ServerUnreachable, Rejected and NotSignedIn.
        """
        for conversation in self._store.conversations():
            if conversation.partner.id == other_id:
                return conversation.id
        me = self._me()
        found = await self._server.rpc("get_or_create_conversation", p_user1_id=str(me), p_user2_id=str(other_id))
        row = await self._server.conversation(UUID(found))
        if row is not None:
            self._store.apply_conversations([row])
            self._store.apply_people(await self._server.people(self._store.partners_without_profile()))
        return UUID(found)

    def archive(self, conversation_id: UUID, archived: bool = True) -> None:
        """Archives a conversation for this person, or brings it back. A new message brings it back, too."""
        self._me()
        self._store.enter_archive(conversation_id, archived, time.time())
        self._outbox.wake()

    # Messages -----------------------------------------------------------------------------------

    def messages(self, conversation_id: UUID, before: Message | None = None, limit: int = 30) -> list[Message]:
        """Messages of the local database, newest first; `before`: only those older than this one."""
        return self._store.messages(conversation_id, before, limit)

    async def load_messages(
        self, conversation_id: UUID, before: Message | None = None, limit: int = 30
    ) -> list[Message]:
        """As `messages`, after a page was read from the server. Without the server, what the local database has.

        A page has at most 200 messages.
        Call it when a conversation is opened, and with the oldest message on the screen to page back. Raises Rejected
        and NotSignedIn.
        """
        try:
            return await self._sync.page(conversation_id, before, limit)
        except ServerUnreachable:
            return self._store.messages(conversation_id, before, limit)

    def message(self, message_id: UUID) -> Message:
        """A message by its id, or by the id that it had before it was sent. Raises UnknownMessage."""
        return self._store.message(message_id)

    def send(self, conversation_id: UUID, text: str, attachments: Sequence[Attachment] = ()) -> Message:
        """Puts a message into the outbox, and returns it: pending. It survives a crash, and is sent once.

        Raises NotSignedIn if nobody has ever signed in, and DatabaseFull.
        """
        self._me()
        message = self._store.enter_message(conversation_id, text, attachments, time.time())
        self._outbox.wake()
        return message

    def edit(self, message_id: UUID, text: str) -> Message:
        """Replaces the text of an own message, sent or not. Raises UnknownMessage."""
        message = self._store.enter_edit(message_id, text, time.time())
        self._outbox.wake()
        return message

    def delete(self, message_id: UUID) -> None:
        """Deletes an own message for both people, sent or not. Raises UnknownMessage."""
        self._store.enter_delete(message_id, time.time())
        self._outbox.wake()

    def outbox(self) -> list[Entry]:
        """What is not sent, oldest first, with the reason of what has failed."""
        return self._store.entries()

    def retry(self, message_id: UUID) -> None:
        """Tries a failed message, edit or deletion again. Raises UnknownMessage if none has failed."""
        self._store.retry(message_id)
        self._outbox.wake()

    def discard(self, message_id: UUID) -> None:
        """Gives up a failed message, edit or deletion. Raises UnknownMessage if none has failed."""
        self._store.discard(message_id)

    def mark_read(self, message_id: UUID) -> None:
        """Says that its conversation was read up to this message: the newest that is visible on the screen."""
        if self._store.mark_read(self._store.message(message_id)):
            self._marks.wake()

    # Devices ------------------------------------------------------------------------------------

    async def register_device(
        self,
        push_token: str,
        platform: Literal["ios", "android", "web"],
        push_provider: Literal["expo", "fcm", "apns"] = "expo",
        app_version: str | None = None,
        locale: str | None = None,
    ) -> None:
        """Registers this device for pushes. Repeat it after each sign-in, and when the token changes.

        `locale`: the language of its pushes, as a BCP 47 tag; None: that of the process. Raises Rejected, RateLimited,
        ServerUnreachable and NotSignedIn.
        """
        await self._devices.register(push_token, platform, push_provider, app_version, locale)

    async def unregister_device(self) -> None:
        """Ends the pushes to this device. Raises what `register_device` raises."""
        await self._devices.unregister()

    # Internals ----------------------------------------------------------------------------------

    def _me(self) -> UUID:
        me = self._store.me
        if me is None:
            raise NotSignedIn("nobody is signed in: call sign_in")
        return me

    def _emit(self, event: Event) -> None:
        self._events.emit(event)

    def _save_session(self, session: str | None) -> None:
        if session is None:
            self._store.remove("session")
        else:
            self._store.put("session", session)

    def _reachable(self) -> None:
        """The server can probably be reached: sends and asks for all that waits."""
        self._sync.request()
        self._marks.wake()
        self._outbox.make_due()

    def _failed(self, what: str, error: Exception) -> None:
        """Says what went wrong in the background: to the app if it must act, and to the log."""
        if isinstance(error, NotSignedIn) and not self._server.signed_in and not self._told_ended:
            self._told_ended = True
            self._emit(SessionEnded())
        if isinstance(error, DatabaseError):
            self._emit(DatabaseFailed(error))
        # Errors of others may quote what they were about.
        reason = error if isinstance(error, ChatError) else type(error).__name__
        _log.log(_level(error), "%s: %s", what, reason)

    async def _keep_session_fresh(self) -> None:
        """Renews the session before it expires, so that neither requests nor Realtime meet an expired token."""
        timing = self._settings.timing
        failures = 0
        while True:
            delay = max(timing.retry_base, min(self._server.seconds_until_renewal(), timing.retry_cap))
            await asyncio.sleep(backoff(failures, timing.retry_base, timing.retry_cap) if failures else delay)
            if not self._server.signed_in:
                failures = 0
                continue
            try:
                if self._server.seconds_until_renewal() == 0:
                    await self._server.renew()
                failures = 0
                await self._live.use_token()
            except Exception as error:
                failures += 1
                self._failed("the session was not renewed", error)


def _level(error: Exception) -> int:
    if isinstance(error, ServerUnreachable | NotSignedIn):
        return logging.INFO
    return logging.WARNING if isinstance(error, Rejected) else logging.ERROR


async def _logged(part: Callable[[], Coroutine[Any, Any, None]]) -> None:
    try:
        await part()
    except Exception:  # whatever it is: nobody awaits the task before the client is closed
        _log.exception("a part of the chat client ended: this is a bug")
        raise
