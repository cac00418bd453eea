"""A process that speaks the protocol of client/conformance: a phone, which can be killed."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from local.types import Json


class Refused(Exception):
    """The client answered with an error. `name`: that of the error."""

    def __init__(self, error: Json) -> None:
        super().__init__(f"{error['name']}: {error['message']}")
        self.name = error["name"]


class Killed(Exception):
    """The process was killed before it answered."""


class Driver:
    """A running process. `heard` is called with each event of its client."""

    def __init__(self, folder: Path, command: Sequence[str]) -> None:
        self._folder = folder
        self._command = command
        self._number = 0
        self._calls: dict[int, asyncio.Future[Any]] = {}
        self._started = asyncio.Event()
        self._pid = 0
        self.heard: Callable[[Json], None] = lambda event: None

    async def call(self, call: str, *values: Any) -> Any:
        """The result of a call. Raises Refused, Killed and TimeoutError."""
        if not self._started.is_set():
            raise Killed  # The process that would read the command is dead, and the next one does not get it.
        self._number += 1
        self._calls[self._number] = asyncio.get_running_loop().create_future()
        assert self._process.stdin
        command = {"id": self._number, "call": call, "values": values}
        self._process.stdin.write(json.dumps(command).encode() + b"\n")
        try:
            async with asyncio.timeout(60):
                return await self._calls[self._number]
        finally:
            self._calls.pop(self._number, None)

    async def kill(self) -> None:
        """Kills the process with SIGKILL, and starts a new one."""
        self._started.clear()
        os.kill(self._pid, signal.SIGKILL)
        for call in self._calls.values():
            if not call.done():
                call.set_exception(Killed)
                call.exception()  # Nobody may await it.
        self._calls.clear()
        async with asyncio.timeout(60):
            await self._started.wait()

    async def run(self) -> None:
        """Keeps a process running until it ends without having been killed. Raises AssertionError if it fails."""
        while True:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                cwd=self._folder,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=2**24,
            )
            assert self._process.stdout
            async for line in self._process.stdout:
                self._read(line)
            code = await self._process.wait()
            if code != -signal.SIGKILL:
                assert code == 0, f"the driver in {self._folder} ended with {code}"
                return

    async def started(self) -> None:
        """Waits until the process runs."""
        await self._started.wait()

    def end(self) -> None:
        """Ends the process."""
        assert self._process.stdin
        self._process.stdin.close()

    def _read(self, line: bytes) -> None:
        if not self._started.is_set() and not line.startswith(b'{"started":'):
            return  # The rest of what a killed process wrote.
        message = json.loads(line)
        if "started" in message:
            self._pid = message["started"]
            self._started.set()
        elif "event" in message:
            self.heard(message["event"])
        elif call := self._calls.get(message["id"]):
            if "error" in message:
                call.set_exception(Refused(message["error"]))
            else:
                call.set_result(message["value"])


class Drivers:
    """The drivers of one client, which are used again: a process starts slowly.

    `command` is run in `folder`.
    """

    def __init__(self, folder: Path, command: Sequence[str]) -> None:
        self._folder = folder
        self._command = command
        self._running: dict[Driver, asyncio.Task[None]] = {}
        self._free: list[Driver] = []

    @asynccontextmanager
    async def take(self) -> AsyncIterator[Driver]:
        """A driver without an open client."""
        if self._free:
            driver = self._free.pop()
        else:
            driver = Driver(self._folder, self._command)
            self._running[driver] = asyncio.create_task(driver.run())
        await driver.started()
        yield driver
        # One whose scenario failed is not used again.
        await driver.call("close")
        driver.heard = lambda event: None
        self._free.append(driver)

    async def end(self) -> None:
        """Ends all processes. Raises AssertionError if one fails."""
        for driver in self._running:
            driver.end()
        await asyncio.gather(*self._running.values())
