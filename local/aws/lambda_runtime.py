"""Lambda functions: each in execution environments of its own, all under the concurrency limit of one account.

An execution environment is AWS's Runtime Interface Emulator with Lambda's own Python client, and nothing else on the
path. The emulator takes one request at a time and dies of a second one, as an environment of Lambda would never get
one; whatever comes meanwhile starts another environment.
"""

import asyncio
import json
import platform
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import aiohttp

from local.aws.template import Function
from local.packages import package_folder
from local.processes import Child, answers, child, children, free_port, peak_memory
from local.types import Json

# Of a new AWS account, until AWS raises it: https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
ACCOUNT_CONCURRENCY = 10

_EMULATOR = {"x86_64": "aws-lambda-rie-x86_64", "aarch64": "aws-lambda-rie-arm64"}[platform.machine()]
_WATCH_SECONDS = 0.05  # between two looks at the memory; none misses a peak, only the end may come so much later


class FunctionError(Exception):
    """The function did not answer: its handler raised, it could not start, it timed out or was killed."""

    def __init__(self, function: str, error_type: str, message: str) -> None:
        super().__init__(f"{function}: {error_type}: {message}")
        self.error_type = error_type  # the exception's name, Runtime.…, Sandbox.Timedout or Sandbox.Killed
        self.message = message


class TooManyRequests(FunctionError):
    """The account runs as many invocations as it may: the function was not started. What retries this is the caller."""

    def __init__(self, function: str) -> None:
        super().__init__(function, "TooManyRequestsException", "Rate Exceeded.")


class Account:
    """What all functions of an AWS account share: so many invocations at a time, and no more."""

    def __init__(self, concurrency: int = ACCOUNT_CONCURRENCY) -> None:
        self.throttled = 0  # invocations that were refused
        self._free = concurrency

    @contextmanager
    def execution(self, function: str) -> Iterator[None]:
        """One invocation of a function. Raises TooManyRequests at once: Lambda lets no caller wait."""
        if self._free == 0:
            self.throttled += 1
            raise TooManyRequests(function)
        self._free -= 1
        try:
            yield
        finally:
            self._free += 1


class LambdaFunction:
    """A function that can be invoked; environments start when they are needed, and are kept for later invocations."""

    def __init__(
        self, function: Function, runtime: Path, environment: Mapping[str, str], folder: Path, account: Account
    ) -> None:
        self.name = function.name
        self._function = function
        self._variables = _environment(function, runtime, environment)
        self._folder = folder
        self._account = account
        self._environments: list[_Environment] = []
        self._idle: list[_Environment] = []
        self._invocations: set[asyncio.Task[Json]] = set()

    async def invoke(self, event: Json) -> Json:
        """The handler's answer to `event`; raises FunctionError, TooManyRequests if it was not started.

        A caller that goes away does not end the invocation, as in Lambda.
        """
        invocation = asyncio.create_task(self._invoke(event))
        self._invocations.add(invocation)
        invocation.add_done_callback(self._forget)
        return await asyncio.shield(invocation)

    async def kill(self) -> None:
        """End all processes at once, whatever they are doing; the next invocation starts a new one."""
        await asyncio.gather(*(environment.kill() for environment in self._environments))

    def log_streams(self) -> list[list[str]]:
        """The lines that each execution environment has written so far, as CloudWatch has a log stream of each.

        START, END and REPORT of each invocation, and the function's lines in between.
        """
        return [environment.log_lines() for environment in self._environments]

    def log_lines(self) -> list[str]:
        """What the function has written so far: its log streams, one after the other."""
        return [line for stream in self.log_streams() for line in stream]

    def environments(self) -> int:
        """How many execution environments there are, busy and idle."""
        return len(self._environments)

    async def close(self) -> None:
        """Kill the processes and end the invocations that wait."""
        for invocation in self._invocations:
            invocation.cancel()
        await asyncio.gather(*self._invocations, return_exceptions=True)
        await self.kill()

    async def _invoke(self, event: Json) -> Json:
        with self._account.execution(self.name):
            if not self._idle:
                number = len(self._environments) + 1
                name = self.name if number == 1 else f"{self.name}-{number}"
                self._idle.append(_Environment(name, self._function, self._variables, self._folder))
                self._environments.append(self._idle[-1])
            environment = self._idle.pop()  # the one that was used last, so that under little load all but one rest
            try:
                return await environment.invoke(event)
            finally:
                self._idle.append(environment)

    def _forget(self, invocation: asyncio.Task[Json]) -> None:
        self._invocations.discard(invocation)
        if not invocation.cancelled():
            invocation.exception()  # seen, even if the caller has gone away


class _Environment:
    """A process that takes one invocation at a time; it starts with the first."""

    def __init__(self, name: str, function: Function, variables: Mapping[str, str], folder: Path) -> None:
        self._name = name
        self._function = function
        self._variables = variables
        self._folder = folder
        self._log = folder / f"{name}.log"
        self._process = AsyncExitStack()
        self._emulator: Child | None = None
        self._invocations_url = ""
        self._starting = asyncio.Lock()

    async def invoke(self, event: Json) -> Json:
        async with self._starting:
            if self._emulator is None:
                await self._start()
            emulator = self._emulator
        assert emulator
        request = asyncio.create_task(self._request(event))
        try:
            while not await self._ends(request):
                self._check_memory(emulator)
            self._check_memory(emulator)
            return request.result()
        except _OutOfMemory as error:
            await self.kill()
            # As Lambda says it, without the id of the request.
            message = "Error: Runtime exited with error: signal: killed"
            raise FunctionError(self._function.name, "Runtime.ExitError", message) from error
        finally:
            request.cancel()
            await asyncio.gather(request, return_exceptions=True)

    async def kill(self) -> None:
        async with self._starting:
            if self._emulator is not None:
                self._emulator.kill()
                self._emulator = None
            await self._process.aclose()

    def log_lines(self) -> list[str]:
        """What it has written so far, also before it was killed and started again."""
        return self._log.read_text().splitlines() if self._log.exists() else []

    async def _ends(self, request: asyncio.Task[Json]) -> bool:
        done, _ = await asyncio.wait({request}, timeout=_WATCH_SECONDS)
        return bool(done)

    def _check_memory(self, emulator: Child) -> None:
        limit = self._function.memory_megabytes * 1024**2
        if any(peak_memory(process) > limit for process in children(emulator.process.pid)):
            raise _OutOfMemory

    async def _request(self, event: Json) -> Json:
        try:
            async with aiohttp.request("POST", self._invocations_url, json=event) as response:
                return self._judge(response.status, await response.text())
        except aiohttp.ClientError as error:
            raise FunctionError(self._function.name, "Sandbox.Killed", "the process was killed") from error

    async def _start(self) -> None:
        emulator_address, runtime_api_address = (f"127.0.0.1:{free_port()}" for _ in range(2))
        emulator = await self._process.enter_async_context(
            child(
                self._name,
                package_folder("samcli") / "local" / "rapid" / _EMULATOR,
                *("--log-level", "error"),
                *("--runtime-interface-emulator-address", emulator_address),
                *("--runtime-api-address", runtime_api_address),
                # -S and -P: neither the packages installed here nor the folder of this project are on its path
                *(sys.executable, "-S", "-P", Path(__file__).with_name("lambda_bootstrap.py")),
                self._function.handler,
                folder=self._folder,
                env=self._variables,
                cwd=self._function.folder,
            )
        )
        await answers(emulator, f"http://{emulator_address}")
        self._invocations_url = f"http://{emulator_address}/2015-03-31/functions/function/invocations"
        self._emulator = emulator

    def _judge(self, status: int, body: str) -> Json:
        """The answer in the emulator's response, which has status 200 for most errors, too."""
        try:
            answer = json.loads(body)
        except json.JSONDecodeError:  # "Task timed out after 2.00 seconds", without the quotes of a JSON string
            raise FunctionError(self._function.name, "Sandbox.Timedout", body) from None
        raised = isinstance(answer, dict) and answer.keys() == _KEYS_OF_AN_EXCEPTION
        if status != 200 or raised:
            raise FunctionError(self._function.name, answer["errorType"], answer["errorMessage"])
        return answer


_KEYS_OF_AN_EXCEPTION = {"errorMessage", "errorType", "requestId", "stackTrace"}


class _OutOfMemory(Exception):
    """A process has used more memory than its function has."""


@asynccontextmanager
async def lambda_function(
    function: Function,
    *,
    runtime: Path,
    environment: Mapping[str, str],
    folder: Path,
    account: Account | None = None,
) -> AsyncIterator[LambdaFunction]:
    """Run a function of the template while the context is open; it logs to `folder/<name>.log`, `<name>-2.log`, ...

    `runtime` is what Lambda's runtime carries (local/aws/build.py). `environment` is added to what the template and
    Lambda itself set: it names the AWS services' endpoint and credentials. `account`: its own unless given.
    """
    running = LambdaFunction(function, runtime, environment, folder, account or Account())
    try:
        yield running
    finally:
        await running.close()


def _environment(function: Function, runtime: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """All environment variables of the function; the emulator adds a few of Lambda's own."""
    path = [function.folder]
    path += [layer / "python" for layer in function.layers]
    path += [runtime]
    return {
        **function.environment,
        **environment,
        "AWS_EXECUTION_ENV": "AWS_Lambda_python3.13",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(function.memory_megabytes),
        "AWS_LAMBDA_FUNCTION_NAME": function.name,
        "AWS_LAMBDA_FUNCTION_TIMEOUT": str(int(function.timeout.total_seconds())),
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "HOME": "/nonexistent",  # else boto3 would find the settings of whoever runs this
        "LAMBDA_TASK_ROOT": str(function.folder),
        "LANG": "C.UTF-8",
        "PATH": "/usr/bin:/bin",
        "PYTHONDONTWRITEBYTECODE": "1",  # Lambda's code folders are read-only
        "PYTHONPATH": ":".join(map(str, path)),
        "TZ": ":UTC",
    }
