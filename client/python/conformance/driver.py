"""A phone with this client, for the scenarios of client/conformance, which describes the protocol."""

import asyncio
import inspect
import json
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import fields, is_dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx

from chat_client import ChatClient, Settings, Timing
from chat_client.errors import ChatError, Rejected

type Json = dict[str, Any]

_PARSERS: dict[object, Callable[[str], object]] = {
    UUID: UUID,
    UUID | None: UUID,
    datetime | None: datetime.fromisoformat,
}

_certificates = httpx.create_ssl_context()  # Each process would read them again.


class Driver:
    """Answers commands. At most one client is open."""

    def __init__(self) -> None:
        self._opened = AsyncExitStack()
        self._client: ChatClient | None = None
        self._telling: asyncio.Task[None] | None = None

    async def answer(self, command: Json) -> None:
        """Runs one command, and writes its result or its error."""
        number = command["id"]
        try:
            write({"id": number, "value": await self._run(command["call"], command["values"])})
        except (ChatError, TypeError, ValueError) as error:
            code = error.code if isinstance(error, Rejected) else None
            write({"id": number, "error": {"name": type(error).__name__, "code": code, "message": str(error)}})

    async def close(self) -> None:
        """Closes the client, if one is open."""
        self._client = None
        await self._opened.aclose()
        if self._telling is not None:
            await self._telling

    async def _run(self, call: str, values: list[Any]) -> object:
        own: dict[str, Callable[..., Any]] = {"open": self._open, "close": self.close}
        parts = (self._client, getattr(self._client, "choices", None))
        method = own.get(call) or next((found for part in parts if (found := getattr(part, call, None))), None)
        if method is None or call.startswith("_"):
            raise TypeError(f"an open ChatClient has no method {call}")
        parameters = inspect.signature(method).parameters.values()
        given = [
            _PARSERS.get(parameter.annotation, str)(value) if isinstance(value, str) else value
            for parameter, value in zip(parameters, values, strict=False)
        ]
        result = method(*given)
        return await result if inspect.isawaitable(result) else result

    async def _open(self, options: Json) -> None:
        settings = Settings(
            supabase_url=options["supabase_url"],
            publishable_key=options["publishable_key"],
            api_url=options["api_url"],
            database=Path(options["database"]),
            attempts=options["attempts"],
            timing=Timing(**options["timing"]),
        )
        client = ChatClient(settings, transport=httpx.AsyncHTTPTransport(verify=_certificates))
        self._telling = asyncio.create_task(_tell(client))
        self._client = await self._opened.enter_async_context(client)


async def _tell(client: ChatClient) -> None:
    async for event in client.events():
        name = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in type(event).__name__)
        write({"event": {"type": name.removeprefix("_"), **_plain(event)}})


def write(value: Json) -> None:
    """Writes a line at once: the process may be killed after it."""
    line = json.dumps(value, default=_plain).encode() + b"\n"
    while line:
        line = line[os.write(1, line) :]


def _plain(value: object) -> Any:
    if is_dataclass(value):
        return {field.name: _with_texts_as_keys(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, frozenset):
        return list(value)
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value)


def _with_texts_as_keys(value: object) -> object:
    return {str(key): each for key, each in value.items()} if isinstance(value, Mapping) else value


async def serve() -> None:
    """Answers the commands of the standard input until it ends."""
    driver = Driver()
    commands = asyncio.StreamReader(limit=2**20)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    write({"started": os.getpid()})
    async with asyncio.TaskGroup() as answers:
        async for line in commands:
            answers.create_task(driver.answer(json.loads(line)))
    await driver.close()


def main() -> None:
    """Serves in a fork of this process: after a kill, the next phone need not load the packages again."""
    while True:
        child = os.fork()
        if child == 0:
            asyncio.run(serve())
            return
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            sys.exit(os.waitstatus_to_exitcode(status))
        _skip_unread_commands()
        os.write(1, b"\n")  # It may have been killed within a line.


def _skip_unread_commands() -> None:
    """Reads what was written to the process that was killed: the next one would answer it."""
    os.set_blocking(0, False)
    with suppress(BlockingIOError):
        while os.read(0, 2**16):
            pass


main()
