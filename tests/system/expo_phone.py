"""A phone with the TypeScript client, in a process of Node.js (client/expo/conformance/driver.ts)."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from local.cloud import LocalCloud
from local.packages import PROJECT, node

_DRIVER = PROJECT / "client" / "expo" / "conformance" / "driver.ts"
_TIMING = {"retryBase": 0.1, "retryCap": 0.5, "marksDelay": 0.02, "typingTimeout": 1, "stableConnection": 1}


class ExpoPhone:
    """An open client. `events`: all that it has emitted."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._calls: dict[int, asyncio.Future[Any]] = {}
        self._changed = asyncio.Condition()
        self.events: list[dict[str, Any]] = []

    async def call(self, method: str, *values: Any) -> Any:
        """Calls a method of ChatClient, and returns its result as JSON. Raises RuntimeError with the error's name."""
        number = len(self._calls)
        self._calls[number] = asyncio.get_running_loop().create_future()
        assert self._process.stdin
        self._process.stdin.write(json.dumps({"id": number, "call": method, "values": values}).encode() + b"\n")
        async with asyncio.timeout(30):
            return await self._calls[number]

    async def until(
        self, kind: str, holds: Callable[[dict[str, Any]], Any] = lambda event: True, after: int = 0
    ) -> dict[str, Any]:
        """The first event of a kind, of those after the first `after`, for which a condition holds.

        It may have come already. Raises TimeoutError.
        """
        seen = after
        async with asyncio.timeout(30), self._changed:
            while True:
                for event in self.events[seen:]:
                    if event["type"] == kind and holds(event):
                        return event
                seen = len(self.events)
                await self._changed.wait()

    async def until_message(self, text: str, status: str | None = None) -> dict[str, Any]:
        """The message with this text, when it has this status."""
        event = await self.until(
            "messageChanged", lambda e: e["message"]["text"] == text and status in (None, e["message"]["status"])
        )
        message: dict[str, Any] = event["message"]
        return message

    async def read(self) -> None:
        """Reads answers and events until the process ends."""
        assert self._process.stdout
        async for line in self._process.stdout:
            answer = json.loads(line)
            if event := answer.get("event"):
                async with self._changed:
                    self.events.append(event)
                    self._changed.notify_all()
            elif error := answer.get("error"):
                self._calls[answer["id"]].set_exception(RuntimeError(f"{error['name']}: {error['message']}"))
            else:
                self._calls[answer["id"]].set_result(answer["value"])
        for call in self._calls.values():
            if not call.done():
                call.set_exception(RuntimeError("the process of the client has ended"))


@asynccontextmanager
async def expo_phone(cloud: LocalCloud, database: Path, url: str | None = None) -> AsyncIterator[ExpoPhone]:
    """A started client with this local database. `url`: of Supabase, if not that of the cloud.

    It is closed at the end, and must end without an error.
    """
    process = await asyncio.create_subprocess_exec(
        node(), _DRIVER, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=2**24
    )
    phone = ExpoPhone(process)
    reading = asyncio.create_task(phone.read())
    try:
        await phone.call(
            "open",
            {
                "supabaseUrl": url or cloud.realtime.url,
                "publishableKey": cloud.supabase.publishable_key,
                "apiUrl": cloud.api_url,
                "database": str(database),
                "timing": _TIMING,
            },
        )
        yield phone
    finally:
        assert process.stdin
        process.stdin.close()
        try:
            async with asyncio.timeout(30):
                code = await process.wait()
        except TimeoutError:
            process.kill()
            raise
        await reading
    assert code == 0
