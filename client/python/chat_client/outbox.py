"""Sends what the local database's outbox has: messages, edits, deletions and archive flags.

Entries of one conversation go one after the other, in order; conversations do not wait for each other. An entry that
the server rejects has failed: it stays until the app retries or discards it, and the next one goes.
"""

import asyncio
import time
from collections.abc import Callable
from uuid import UUID

from chat_client.errors import (
    DatabaseError,
    NotSignedIn,
    RateLimited,
    Rejected,
    ServerFailed,
    ServerUnreachable,
    TooManyContacts,
)
from chat_client.models import Entry, Message, message_of
from chat_client.server import Server
from chat_client.settings import Timing
from chat_client.store import Store
from chat_client.waiting import backoff, wait

# A request that timed out may still be stored, but not later than any server lets a statement run.
_UNCERTAIN_SECONDS = 60


class Outbox:
    """Works while `run` runs. `attempts`: see Settings. `clock`: the phone's, in seconds since 1970."""

    def __init__(
        self,
        store: Store,
        server: Server,
        timing: Timing,
        attempts: int,
        failed: Callable[[str, Exception], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._server = server
        self._timing = timing
        self._attempts = attempts
        self._failed = failed
        self._clock = clock
        self._changed = asyncio.Event()
        self._sending: dict[UUID, asyncio.Task[None]] = {}
        self._pause = 0.0  # seconds
        self._paused_until = 0.0  # by the rate limit, which is one for all conversations, or a full disk

    def wake(self) -> None:
        """An entry is new, or changed."""
        self._changed.set()

    def make_due(self) -> None:
        """The server can be reached again: tries everything that is pending now."""
        self._store.make_due()
        self.wake()

    async def run(self) -> None:
        """Sends until it is cancelled."""
        while True:
            delay = await self.send_due()
            await wait(self._changed, delay)

    async def send_due(self) -> float | None:
        """Sends what is due. When nothing is due any more, returns the seconds until the next try; None: none waits."""
        async with asyncio.TaskGroup() as group:
            while True:
                self._changed.clear()
                try:
                    delay = self._start_due(group)
                except Exception as error:
                    delay = self._timing.retry_cap
                    self._failed("the outbox was not read", error)
                if not self._sending:
                    return delay
                await wait(self._changed, delay)

    def _start_due(self, group: asyncio.TaskGroup) -> float | None:
        """Starts to send what is due. Returns the seconds until more is due; None: not before `wake`."""
        if not self._server.signed_in:
            return None
        now = self._clock()
        # A phone's clock that was put back must not make an entry wait for hours.
        longest = now + max(self._timing.retry_cap, self._pause)
        waits = []
        for entry in self._store.next_entries():
            if entry.conversation_id in self._sending:
                continue
            due = min(max(entry.next_try, self._paused_until), longest)
            if due <= now:
                task = group.create_task(self._send(entry))
                self._sending[entry.conversation_id] = task
            else:
                waits.append(due - now)
        return min(waits, default=None)

    async def _send(self, entry: Entry) -> None:
        try:
            await self._attempt(entry)
        except Exception as error:  # of the database: when the entry is tried again could not be stored
            self._pause_all(self._timing.retry_cap)
            self._failed(f"the {entry.kind} of {entry.id} was not sent", error)
        finally:
            del self._sending[entry.conversation_id]
            self.wake()

    async def _attempt(self, due: Entry) -> None:
        entry = self._store.begin_attempt(due, self._clock())
        if entry is None:
            return
        try:
            await self._try(entry)
        except DatabaseError:
            raise
        except Exception as error:
            self._keep(entry, error)
            self._failed(f"the {entry.kind} of {entry.id} was not sent", error)

    def _keep(self, entry: Entry, error: Exception) -> None:
        """Decides what becomes of an entry that was not sent."""
        is_last = isinstance(error, ServerFailed) and entry.attempts + 1 >= self._attempts
        if is_last or isinstance(error, Rejected | TooManyContacts):
            self._store.fail(entry, str(error))
        elif isinstance(error, RateLimited):
            self._pause_all(error.retry_after)
            self._store.postpone(entry, self._paused_until, count=False)
        elif isinstance(error, NotSignedIn):
            self._store.postpone(entry, 0, count=False)
        else:
            delay = backoff(entry.attempts + 1, self._timing.retry_base, self._timing.retry_cap)
            self._store.postpone(entry, self._clock() + delay)

    def _pause_all(self, seconds: float) -> None:
        self._pause, self._paused_until = seconds, self._clock() + seconds

    async def _try(self, entry: Entry) -> None:
        match entry.kind:
            case "send":
                await self._send_message(entry)
            case "edit":
                row = await self._server.update_message(entry.id, message=entry.text)
                self._store.finish(entry, _message(row))
            case "delete":
                await self._delete(entry)
            case "archive" | "unarchive":
                await self._archive(entry)

    async def _send_message(self, entry: Entry) -> None:
        row = await self._server.send_message(
            entry.conversation_id, self._me(), entry.text, entry.attachments, str(entry.id)
        )
        self._store.finish(entry, _message(row))

    async def _delete(self, entry: Entry) -> None:
        message_id = entry.id
        if entry.id not in self._store.known(entry.conversation_id):
            # It was deleted while it was sent, and it is not known whether the server has it.
            row = await self._server.message_of_client_msg_id(self._me(), str(entry.id))
            if row is None and abs(self._clock() - entry.tried_at) < _UNCERTAIN_SECONDS and entry.tried_at:
                raise ServerUnreachable("the message may still arrive")
            if row is None:
                self._store.finish(entry, None)
                return
            self._store.apply_messages([_message(row)])  # It renames the entry.
            return
        row = await self._server.update_message(message_id, deleted_at="now")
        self._store.finish(entry, _message(row))

    async def _archive(self, entry: Entry) -> None:
        row = await self._server.conversation(entry.conversation_id)
        if row is None:
            raise Rejected("not_found", "the conversation does not exist")
        number = 1 if UUID(row["user1_id"]) == self._store.me else 2
        row = await self._server.update_conversation(
            entry.conversation_id, **{f"archived_by_user{number}": entry.kind == "archive"}
        )
        if row is not None:
            self._store.apply_conversations([row])
        self._store.finish(entry, None)

    def _me(self) -> UUID:
        if self._store.me is None:
            raise NotSignedIn("nobody is signed in: call sign_in")
        return self._store.me


def _message(row: dict[str, object] | None) -> Message:
    if row is None:
        raise Rejected("not_found", "the message does not exist")
    try:
        return message_of(row)
    except ValueError as error:
        raise ServerFailed(str(error)) from error
