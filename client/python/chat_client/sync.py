"""Brings the local database up to date. It is the truth: live events are only faster.

A sync reads all messages that changed since the cursor, which is a time of the server, with an overlap that the
server adds. It runs on start, on foreground, after each (re)join of the live channel, and now and then.
"""

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from uuid import UUID

from chat_client.errors import ServerUnreachable
from chat_client.events import Event, Synced
from chat_client.models import Json, Message, message_of
from chat_client.server import Server, iso, rows_of
from chat_client.settings import Timing
from chat_client.store import Store
from chat_client.waiting import backoff, wait

_log = logging.getLogger(__name__)
_PAGE = 500
_LARGEST_PAGE = 200  # of get_messages_paginated


class Sync:
    """Works while `run` runs. `applied` is called after each change, because it may have left marks to send."""

    def __init__(
        self,
        store: Store,
        server: Server,
        timing: Timing,
        emit: Callable[[Event], None],
        applied: Callable[[], None],
        failed: Callable[[str, Exception], None],
    ) -> None:
        self._store = store
        self._server = server
        self._timing = timing
        self._emit = emit
        self._applied = applied
        self._failed = failed
        self._requested = asyncio.Event()

    def request(self) -> None:
        """Asks for a sync soon. Several requests may become one."""
        self._requested.set()

    async def run(self) -> None:
        """Syncs on request, and at times, until it is cancelled."""
        failures = 0
        while True:
            delay = (
                backoff(failures, self._timing.retry_base, self._timing.retry_cap)
                if failures
                else self._timing.sync_interval
            )
            await wait(self._requested, delay)
            self._requested.clear()
            if not self._server.signed_in:
                failures = 0
                continue
            try:
                await self.once()
                failures = 0
            except Exception as error:
                failures += 1
                self._failed("the sync failed", error)

    async def once(self) -> None:
        """Syncs now. Raises ServerUnreachable, Rejected, NotSignedIn and DatabaseError."""
        async with self._store.counting:
            stored = self._store.get("cursor")
            if stored is None:
                # A new phone does not load the whole past: the list, and each conversation when it is opened.
                self._store.put("cursor", iso(_time(await self._server.rpc("sync_cursor"))))
            else:
                await self._read_changes(datetime.fromisoformat(stored))
            # After the messages: the counters of a conversation must not be older than they are.
            # One that begins while they are read may not be among them, and stays.
            known = [each.id for each in self._store.conversations()]
            self._store.apply_conversations(await self._server.conversations(), known=known)
            self._store.apply_people(await self._server.people(self._store.partners_without_profile()))
            self._applied()
            self._emit(Synced())

    async def _read_changes(self, cursor: datetime) -> None:
        after: str | None = None
        while True:
            rows = await self._server.rpc(
                "get_changed_messages",
                p_user_id=str(self._store.me),
                p_since=iso(cursor),
                p_after_id=after,
                p_limit=_PAGE,
            )
            if not rows_of(rows):
                return
            last, after = _time(rows[-1].get("changed_at")), str(rows[-1].get("id"))
            # The first page overlaps: its last row may be older than the cursor.
            stored = self._store.get("cursor")
            self._store.apply_messages(readable(rows), max(datetime.fromisoformat(stored), last) if stored else last)
            cursor = last

    async def page(self, conversation_id: UUID, before: Message | None, limit: int) -> list[Message]:
        """Reads a page of a conversation, newest first, from the server into the local database.

        Raises ServerUnreachable, Rejected and NotSignedIn.
        """
        limit = min(limit, _LARGEST_PAGE)  # A page with fewer rows than were asked for would count as the last one.
        known = self._store.known(conversation_id)
        at = before.server_timestamp if before else None
        rows = await self._server.rpc(
            "get_messages_paginated",
            p_conversation_id=str(conversation_id),
            p_limit=limit,
            p_cursor_timestamp=iso(at) if at else None,
            p_cursor_id=str(before.id) if before else None,
        )
        self._store.apply_page(conversation_id, readable(rows_of(rows)), before, known, complete=len(rows) < limit)
        self._applied()
        return self._store.messages(conversation_id, before, limit)


def _time(value: object) -> datetime:
    try:
        return datetime.fromisoformat(str(value)).astimezone(UTC)
    except ValueError as error:
        raise ServerUnreachable("the Data API gave an answer that has no time") from error


def readable(rows: list[Json]) -> list[Message]:
    """The messages in rows. Malformed rows are logged, without their content, and left out."""
    messages = []
    for row in rows:
        try:
            messages.append(message_of(row))
        except ValueError as error:
            _log.warning("skipped a %s", error)
    return messages
