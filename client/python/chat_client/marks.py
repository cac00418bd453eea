"""Tells the server what has arrived on this device, and what the person has read. Marks wait in the local database."""

import asyncio
import logging
from collections.abc import Callable

from chat_client.errors import Rejected
from chat_client.server import Server
from chat_client.settings import Timing
from chat_client.store import Store
from chat_client.waiting import backoff, wait

_log = logging.getLogger(__name__)
_BATCH = 500  # message ids in one call


class Marks:
    """Works while `run` runs."""

    def __init__(
        self,
        store: Store,
        server: Server,
        timing: Timing,
        failed: Callable[[str, Exception], None],
    ) -> None:
        self._store = store
        self._server = server
        self._timing = timing
        self._failed = failed
        self._changed = asyncio.Event()

    def wake(self) -> None:
        """There may be new marks, or the server can be reached again."""
        self._changed.set()

    async def run(self) -> None:
        """Sends marks until it is cancelled."""
        failures = 0
        while True:
            delay = backoff(failures, self._timing.retry_base, self._timing.retry_cap) if failures else None
            await wait(self._changed, delay)
            if not failures:
                await asyncio.sleep(self._timing.marks_delay)  # so that a burst of messages is one call
            self._changed.clear()
            if not self._server.signed_in:
                failures = 0
                continue
            try:
                await self._send()
                failures = 0
            except Exception as error:
                failures += 1
                self._failed("the marks were not sent", error)

    async def _send(self) -> None:
        me, device_id = str(self._store.me), self._store.device_id()
        while arrived := self._store.delivered_marks(_BATCH):
            try:
                await self._server.rpc(
                    "mark_messages_delivered",
                    p_user_id=me,
                    p_message_ids=[str(each) for each in arrived],
                    p_device_id=device_id,
                )
            except Rejected as error:
                _log.warning("the server rejected marks of delivery: %s", error.code)
            self._store.remove_delivered_marks(arrived)
        for conversation_id, message_id in self._store.read_marks():
            async with self._store.counting:
                try:
                    await self._server.rpc(
                        "mark_messages_read",
                        p_user_id=me,
                        p_conversation_id=str(conversation_id),
                        p_up_to_message_id=str(message_id),
                        p_device_id=device_id,
                    )
                except Rejected as error:
                    # Such as a message that a backend has deleted for good since.
                    _log.warning("the server rejected the read mark of %s: %s", conversation_id, error.code)
                self._store.remove_read_mark(conversation_id, message_id)
