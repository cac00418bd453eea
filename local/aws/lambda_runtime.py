"""Lambda functions: each in execution environments of its own, all under the concurrency limit of one account.

An environment takes one invocation at a time. An invocation that finds none idle starts another environment.

The environment variable CHAT_PUSH_LAMBDA_RUNTIME chooses the kind of environment (local/aws/execution_environment.py):
`emulator`, the default on Linux, or `process`, the default elsewhere.
"""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from local.aws.execution_environment import EmulatorEnvironment, Environment, ProcessEnvironment
from local.aws.execution_environment import FunctionError as FunctionError
from local.aws.template import Function
from local.types import Json

# The limit of a new AWS account, until AWS raises it: https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
ACCOUNT_CONCURRENCY = 10

_ENVIRONMENTS = {"emulator": EmulatorEnvironment, "process": ProcessEnvironment}


class TooManyRequests(FunctionError):
    """The account is at its concurrency limit: the function was not started. The caller may retry."""

    def __init__(self, function: str) -> None:
        super().__init__(function, "TooManyRequestsException", "Rate Exceeded.")


class Account:
    """The concurrency limit that all functions of an AWS account share."""

    def __init__(self, concurrency: int = ACCOUNT_CONCURRENCY) -> None:
        self.throttled = 0  # invocations that were rejected
        self._free = concurrency

    @contextmanager
    def execution(self, function: str) -> Iterator[None]:
        """Counts one invocation while the context is open. Raises TooManyRequests at once: no caller waits for room."""
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
        self._kind = _chosen_kind()
        self._environments: list[Environment] = []
        self._idle: list[Environment] = []
        self._invocations: set[asyncio.Task[Json]] = set()

    async def invoke(self, event: Json) -> Json:
        """The handler's answer to `event`; raises FunctionError, TooManyRequests if it was not started.

        As in Lambda, the invocation continues if the caller is cancelled.
        """
        invocation = asyncio.create_task(self._invoke(event))
        self._invocations.add(invocation)
        invocation.add_done_callback(self._forget)
        return await asyncio.shield(invocation)

    async def invoke_with_retries(self, event: Json, *, until: float, wait: float, longest_wait: float) -> Json:
        """The handler's answer to `event`. While the account is at its limit, try again after waits in s that double.

        Raises FunctionError; TooManyRequests if the next attempt would come after `until` (of time.monotonic()).
        """
        while True:
            try:
                return await self.invoke(event)
            except TooManyRequests:
                if time.monotonic() + wait > until:
                    raise
                await asyncio.sleep(wait)
                wait = min(2 * wait, longest_wait)

    async def kill(self) -> None:
        """Kills all processes at once. Invocations under way fail; the next invocation starts a new process."""
        await asyncio.gather(*(environment.kill() for environment in self._environments))

    def log_streams(self) -> list[list[str]]:
        """The lines that each execution environment has written so far; CloudWatch has a log stream for each, too.

        Each invocation has START, END and REPORT, with the function's own lines between START and END.
        """
        return [environment.log_lines() for environment in self._environments]

    def log_lines(self) -> list[str]:
        """All log streams, one after the other."""
        return [line for stream in self.log_streams() for line in stream]

    def environments(self) -> int:
        """How many execution environments there are, busy and idle."""
        return len(self._environments)

    async def close(self) -> None:
        """Kills the processes and ends the invocations that wait."""
        for invocation in self._invocations:
            invocation.cancel()
        await asyncio.gather(*self._invocations, return_exceptions=True)
        await self.kill()

    async def _invoke(self, event: Json) -> Json:
        with self._account.execution(self.name):
            if not self._idle:
                number = len(self._environments) + 1
                name = self.name if number == 1 else f"{self.name}-{number}"
                self._idle.append(self._kind(name, self._function, self._variables, self._folder))
                self._environments.append(self._idle[-1])
            environment = self._idle.pop()  # the one that was used last: under little load, all others stay idle
            try:
                return await environment.invoke(event)
            finally:
                self._idle.append(environment)

    def _forget(self, invocation: asyncio.Task[Json]) -> None:
        self._invocations.discard(invocation)
        if not invocation.cancelled():
            invocation.exception()  # read it, or asyncio warns about it if the caller was cancelled


@asynccontextmanager
async def lambda_function(
    function: Function,
    *,
    runtime: Path,
    environment: Mapping[str, str],
    folder: Path,
    account: Account | None = None,
) -> AsyncIterator[LambdaFunction]:
    """Runs a function of the template while the context is open; it logs to `folder/<name>.log`, `<name>-2.log`, ...

    `runtime` is the folder with the packages of Lambda's runtime (local/aws/build.py). `environment` is added to the
    variables of the template and of Lambda: endpoint and credentials of the AWS services. Without `account`, the
    function has one of its own. Raises ValueError if CHAT_PUSH_LAMBDA_RUNTIME has an unknown value.
    """
    running = LambdaFunction(function, runtime, environment, folder, account or Account())
    try:
        yield running
    finally:
        await running.close()


def _chosen_kind() -> type[Environment]:
    name = os.environ.get("CHAT_PUSH_LAMBDA_RUNTIME") or ("emulator" if sys.platform == "linux" else "process")
    if name not in _ENVIRONMENTS:
        raise ValueError(f"CHAT_PUSH_LAMBDA_RUNTIME is {name!r}; set it to {' or '.join(_ENVIRONMENTS)}")
    return _ENVIRONMENTS[name]


def _environment(function: Function, runtime: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """The environment variables of the function; its environments add a few of Lambda's own."""
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
        "HOME": "/nonexistent",  # otherwise boto3 would read the settings of the user who runs this
        "LAMBDA_TASK_ROOT": str(function.folder),
        "LANG": "C.UTF-8",
        "PATH": "/usr/bin:/bin",
        "PYTHONDONTWRITEBYTECODE": "1",  # Lambda's code folders are read-only
        "PYTHONPATH": ":".join(map(str, path)),
        "TZ": ":UTC",
    }
