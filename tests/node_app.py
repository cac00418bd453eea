"""An app that runs in Node.js: it reads commands on its standard input and answers each on its standard output."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from local.packages import node


class AppError(Exception):
    """An error that the app threw. `code`: of the server, or the reason of PushUnavailable."""

    def __init__(self, name: str, code: str | None, message: str) -> None:
        super().__init__(f"{name}: {message}")
        self.name = name
        self.code = code


class NodeApp:
    """A running app."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin
        assert process.stdout
        self._stdin, self._stdout = process.stdin, process.stdout

    async def do(self, command: str, *values: Any) -> Any:
        """Run a command and return its result. Raises AppError."""
        self._stdin.write(json.dumps([command, *values]).encode() + b"\n")
        async with asyncio.timeout(60):
            answer = json.loads(await self._stdout.readline() or '{"error": {"name": "ended", "message": "ended"}}')
        if error := answer.get("error"):
            raise AppError(error["name"], error.get("code"), error["message"])
        return answer["value"]


@asynccontextmanager
async def node_app(folder: Path, environment: Mapping[str, str]) -> AsyncIterator[NodeApp]:
    """Runs main.ts of a folder, with the modules that its resolve.mjs resolves."""
    process = await asyncio.create_subprocess_exec(
        node(),
        "--import",
        folder / "resolve.mjs",
        folder / "main.ts",
        env={**os.environ, **environment},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=2**20,  # bytes of an answer
    )
    try:
        yield NodeApp(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
