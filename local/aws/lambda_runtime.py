"""Lambda functions: each in execution environments of its own, all under the concurrency limit of one account.

An environment takes one invocation at a time. An invocation that finds none idle starts another environment.

The environment variable CHAT_PUSH_LAMBDA_RUNTIME chooses the kind of environment (local/aws/execution_environment.py):
`emulator`, the default on Linux, or `process`, the default elsewhere.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from local.aws.execution_environment import EmulatorEnvironment, Environment, ProcessEnvironment
from local.aws.execution_environment import FunctionError as FunctionError
from local.aws.template import Function
from local.types import Json

# Of a new AWS account, until AWS raises it: https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
ACCOUNT_CONCURRENCY = 10

_ENVIRONMENTS = {"emulator": EmulatorEnvironment, "process": ProcessEnvironment}


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
        self._kind = _chosen_kind()
        self._environments: list[Environment] = []
        self._idle: list[Environment] = []
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
                self._idle.append(self._kind(name, self._function, self._variables, self._folder))
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


def _chosen_kind() -> type[Environment]:
    name = os.environ.get("CHAT_PUSH_LAMBDA_RUNTIME") or ("emulator" if sys.platform == "linux" else "process")
    if name not in _ENVIRONMENTS:
        raise ValueError(f"CHAT_PUSH_LAMBDA_RUNTIME is {name!r}; set it to {' or '.join(_ENVIRONMENTS)}")
    return _ENVIRONMENTS[name]


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
