"""Execution environments of a Lambda function: one process each, which takes one invocation at a time.

Both kinds run Lambda's own Python client (awslambdaric), which imports the handler, calls it and formats its errors.
They differ in what gives the client its invocations:

- `EmulatorEnvironment`: AWS's Runtime Interface Emulator, by the Runtime API. The emulator is a Linux binary.
- `ProcessEnvironment`: this program, by a socket. It runs wherever Python does.
"""

import asyncio
import json
import math
import platform
import signal
import socket
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import aiohttp

from local.aws.account import ACCOUNT, REGION
from local.aws.template import Function
from local.packages import package_folder
from local.processes import Child, answers, child, free_port, peak_memory
from local.types import Json

_EMULATORS = {"x86_64": "aws-lambda-rie-x86_64", "aarch64": "aws-lambda-rie-arm64"}
_KEYS_OF_AN_EXCEPTION = {"errorMessage", "errorType", "requestId", "stackTrace"}
_LONGEST_LINE = 2**23  # more than the 6 MB that Lambda allows an answer
_WATCH_SECONDS = 0.05  # between two looks at the memory, which has a high-water mark: no peak is missed

# Python with neither the packages installed here (-S) nor the folder of this project (-P) on its path.
_BOOTSTRAP = (sys.executable, "-S", "-P", Path(__file__).with_name("lambda_bootstrap.py"))

# Lambda gives the initialization 10 s. If they are over, it starts again within the timeout of the first invocation:
# https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html
_INIT_SECONDS = 10


class FunctionError(Exception):
    """The function gave no answer: its handler raised, it could not start, it timed out or was killed."""

    def __init__(self, function: str, error_type: str, message: str) -> None:
        super().__init__(f"{function}: {error_type}: {message}")
        self.error_type = error_type  # the exception's name, Runtime.…, Sandbox.Timedout or Sandbox.Killed
        self.message = message


class Environment(ABC):
    """Takes one invocation at a time. Its process starts with the first one, and again after it has ended."""

    def __init__(self, name: str, function: Function, variables: Mapping[str, str], folder: Path) -> None:
        self._name = name
        self._function = function
        self._variables = variables
        self._folder = folder
        self._log = folder / f"{name}.log"
        self._running = AsyncExitStack()
        self._child: Child | None = None
        self._starting = asyncio.Lock()

    async def invoke(self, event: Json) -> Json:
        """The handler's answer to `event`; raises FunctionError."""
        request = asyncio.create_task(self._request(event))
        try:
            while not await _ends(request):
                self._check_memory()
            self._check_memory()
            return request.result()
        except _OutOfMemory as error:
            await self.kill()
            raise self._exit_error("signal: killed") from error
        finally:
            request.cancel()
            await asyncio.gather(request, return_exceptions=True)

    async def kill(self) -> None:
        """Ends the process at once. The invocation that it works on fails with Sandbox.Killed."""
        async with self._starting:
            if self._child is not None:
                self._child.kill()
                self._child = None
            await self._running.aclose()

    def log_lines(self) -> list[str]:
        """All that it has written so far, also before it was killed and started again."""
        return self._log.read_text().splitlines() if self._log.exists() else []

    @abstractmethod
    async def _request(self, event: Json) -> Json:
        """Starts the process if it does not run, and passes it the event."""

    @abstractmethod
    async def _start(self) -> Child:
        """Starts the process."""

    @abstractmethod
    def _processes(self, child: Child) -> Iterable[int]:
        """The processes whose memory is that of the function."""

    async def _start_if_ended(self) -> None:
        async with self._starting:
            if self._child is None:
                self._child = await self._start()

    def _check_memory(self) -> None:
        limit = self._function.memory_megabytes * 1024**2
        if self._child and any(peak_memory(process) > limit for process in self._processes(self._child)):
            raise _OutOfMemory

    def _exit_error(self, status: str) -> FunctionError:
        """As Lambda words it, without the id of the request."""
        return self._error("Runtime.ExitError", f"Error: Runtime exited with error: {status}")

    def _error(self, error_type: str, message: str) -> FunctionError:
        return FunctionError(self._function.name, error_type, message)


class EmulatorEnvironment(Environment):
    """AWS's Runtime Interface Emulator, with the function's process as its child. Linux only.

    The emulator dies of a second request while one is under way, as an environment of Lambda would never get one.
    """

    _invocations_url = ""

    async def _request(self, event: Json) -> Json:
        await self._start_if_ended()
        try:
            async with aiohttp.request("POST", self._invocations_url, json=event) as response:
                return self._answer(response.status, await response.text())
        except aiohttp.ClientError as error:
            raise self._error("Sandbox.Killed", "the process was killed") from error

    async def _start(self) -> Child:
        emulator_address, runtime_api_address = (f"127.0.0.1:{free_port()}" for _ in range(2))
        emulator = await self._running.enter_async_context(
            child(
                self._name,
                package_folder("samcli") / "local" / "rapid" / _EMULATORS[platform.machine()],
                *("--log-level", "error"),
                *("--runtime-interface-emulator-address", emulator_address),
                *("--runtime-api-address", runtime_api_address),
                *(*_BOOTSTRAP, self._function.handler),
                folder=self._folder,
                env=self._variables,
                cwd=self._function.folder,
            )
        )
        await answers(emulator, f"http://{emulator_address}")
        self._invocations_url = f"http://{emulator_address}/2015-03-31/functions/function/invocations"
        return emulator

    def _processes(self, child: Child) -> Iterator[int]:
        """The children of all threads of the emulator; none if it has ended."""
        for children in Path(f"/proc/{child.process.pid}/task").glob("*/children"):
            with suppress(FileNotFoundError, ProcessLookupError):  # the thread has ended
                yield from map(int, children.read_text().split())

    def _answer(self, status: int, body: str) -> Json:
        """The answer in the emulator's response, which has status 200 for most errors, too."""
        try:
            answer = json.loads(body)
        except json.JSONDecodeError:  # "Task timed out after 2.00 seconds", without the quotes of a JSON string
            raise self._error("Sandbox.Timedout", body) from None
        raised = isinstance(answer, dict) and answer.keys() == _KEYS_OF_AN_EXCEPTION
        if status != 200 or raised:
            raise self._error(answer["errorType"], answer["errorMessage"])
        return answer


class ProcessEnvironment(Environment):
    """The function's process alone. lambda_bootstrap.py describes what it writes to its socket."""

    _reader: asyncio.StreamReader
    _writer: asyncio.StreamWriter

    async def _request(self, event: Json) -> Json:
        request_id = str(uuid4())
        began = time.monotonic()
        self._write_log(f"START RequestId: {request_id} Version: $LATEST")
        cold = self._child is None
        init_seconds = 0.0
        try:
            await self._start_if_ended()
            await self._read(_INIT_SECONDS + self._seconds)
            init_seconds = time.monotonic() - began if cold else 0.0
            deadline = int((time.time() + self._seconds) * 1000)
            arn = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{self._function.name}"
            self._writer.write(f"{request_id} {deadline} {arn} {json.dumps(event)}\n".encode())
            return json.loads(await self._read(self._seconds))
        finally:
            self._report(request_id, time.monotonic() - began, init_seconds)

    async def _start(self) -> Child:
        ours, theirs = socket.socketpair()
        with theirs:
            process = await self._running.enter_async_context(
                child(
                    self._name,
                    *(*_BOOTSTRAP, self._function.handler, str(theirs.fileno())),
                    folder=self._folder,
                    env={
                        **self._variables,
                        "_HANDLER": self._function.handler,
                        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
                        "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{self._function.name}",
                        "AWS_LAMBDA_LOG_STREAM_NAME": self._name,
                    },
                    cwd=self._function.folder,
                    pass_fds=(theirs.fileno(),),
                )
            )
        self._reader, self._writer = await asyncio.open_connection(sock=ours, limit=_LONGEST_LINE)
        self._running.callback(self._writer.close)
        return process

    def _processes(self, child: Child) -> list[int]:
        return [child.process.pid]

    @property
    def _seconds(self) -> float:
        return self._function.timeout.total_seconds()

    async def _read(self, seconds: float) -> bytes:
        """What follows the first word of the next line from the process; raises FunctionError if that is an error."""
        try:
            async with asyncio.timeout(seconds):
                line = await self._reader.readline()
        except TimeoutError:
            await self.kill()
            message = f"Task timed out after {self._seconds:.2f} seconds"
            self._write_log(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {message}")
            raise self._error("Sandbox.Timedout", message) from None
        except ConnectionError:
            line = b""
        if not line:
            raise await self._ended()
        kind, _, content = line.partition(b" ")
        if kind not in (b"error", b"init-error"):
            return content
        if kind == b"init-error":
            await self.kill()
        error = json.loads(content)
        raise self._error(error["errorType"], error["errorMessage"])

    async def _ended(self) -> FunctionError:
        """The error of an invocation whose process has ended."""
        if self._child is None:
            return self._error("Sandbox.Killed", "the process was killed")
        code = await self._child.process.wait()
        await self.kill()
        return self._exit_error(f"signal: {signal.strsignal(-code)}".lower() if code < 0 else f"exit status {code}")

    def _report(self, request_id: str, seconds: float, init_seconds: float) -> None:
        """Logs END and REPORT. The duration includes the start of the process, as in the emulator's lines."""
        duration = 1000 * seconds
        fields = [
            f"REPORT RequestId: {request_id}",
            *([f"Init Duration: {1000 * init_seconds:.2f} ms"] if init_seconds else []),
            f"Duration: {duration:.2f} ms",
            f"Billed Duration: {math.ceil(duration)} ms",
            f"Memory Size: {self._function.memory_megabytes} MB",
            *([f"Max Memory Used: {peak_memory(self._child.process.pid) // 1024**2} MB"] if self._child else []),
        ]
        self._write_log(f"END RequestId: {request_id}", "\t".join(fields))

    def _write_log(self, *lines: str) -> None:
        with self._log.open("a") as log:
            log.writelines(f"{line}\n" for line in lines)


class _OutOfMemory(Exception):
    """A process has used more memory than its function has."""


async def _ends(request: asyncio.Task[Json]) -> bool:
    done, _ = await asyncio.wait({request}, timeout=_WATCH_SECONDS)
    return bool(done)
