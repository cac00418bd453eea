"""One Lambda function: AWS's Runtime Interface Emulator with Lambda's own Python client, and nothing else on the path.

The emulator takes one request at a time and dies of a second one, so invocations wait for each other.
"""

import asyncio
import json
import platform
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp

from local.cloudformation import Json
from local.packages import package_folder
from local.processes import Child, answers, child, free_port
from local.template import Function

_EMULATOR = {"x86_64": "aws-lambda-rie-x86_64", "aarch64": "aws-lambda-rie-arm64"}[platform.machine()]


class FunctionError(Exception):
    """The function did not answer: its handler raised, it could not start, it timed out or was killed."""

    def __init__(self, function: str, error_type: str, message: str) -> None:
        super().__init__(f"{function}: {error_type}: {message}")
        self.error_type = error_type  # the exception's name, Runtime.…, Sandbox.Timedout or Sandbox.Killed
        self.message = message


class LambdaFunction:
    """A function that can be invoked; its process starts with the first invocation, as in Lambda."""

    def __init__(self, function: Function, runtime: Path, environment: Mapping[str, str], folder: Path) -> None:
        self.name = function.name
        self.log = folder / f"{function.name}.log"
        self._function = function
        self._runtime = runtime
        self._services = environment
        self._folder = folder
        self._environment = _environment(function, runtime, environment)
        self._process = AsyncExitStack()
        self._emulator: Child | None = None
        self._invocations_url = ""
        self._one_at_a_time = asyncio.Lock()
        self._starting = asyncio.Lock()
        self._invocations: set[asyncio.Task[Json]] = set()

    async def invoke(self, event: Json) -> Json:
        """The handler's answer to `event`; raises FunctionError.

        A caller that goes away does not end the invocation, as in Lambda.
        """
        invocation = asyncio.create_task(self._invoke(event))
        self._invocations.add(invocation)
        invocation.add_done_callback(self._forget)
        return await asyncio.shield(invocation)

    def another(self) -> "LambdaFunction":
        """One more execution environment of the function, as Lambda starts under load; whoever wants it closes it."""
        return LambdaFunction(self._function, self._runtime, self._services, self._folder)

    async def kill(self) -> None:
        """End the process at once, whatever it is doing; the next invocation starts a new one."""
        async with self._starting:
            if self._emulator is not None:
                self._emulator.kill()
                self._emulator = None
            await self._process.aclose()

    def log_lines(self) -> list[str]:
        """What the function has written so far; between the lines START, END and REPORT of each invocation."""
        return self.log.read_text().splitlines() if self.log.exists() else []

    async def close(self) -> None:
        """Kill the process and end the invocations that wait."""
        for invocation in self._invocations:
            invocation.cancel()
        await asyncio.gather(*self._invocations, return_exceptions=True)
        await self.kill()

    async def _invoke(self, event: Json) -> Json:
        async with self._one_at_a_time:
            async with self._starting:
                if self._emulator is None:
                    await self._start()
            try:
                async with aiohttp.request("POST", self._invocations_url, json=event) as response:
                    return self._judge(response.status, await response.text())
            except aiohttp.ClientError as error:
                raise FunctionError(self.name, "Sandbox.Killed", "the process was killed") from error

    def _forget(self, invocation: asyncio.Task[Json]) -> None:
        self._invocations.discard(invocation)
        if not invocation.cancelled():
            invocation.exception()  # seen, even if the caller has gone away

    async def _start(self) -> None:
        emulator_address, runtime_api_address = (f"127.0.0.1:{free_port()}" for _ in range(2))
        emulator = await self._process.enter_async_context(
            child(
                self.name,
                package_folder("samcli") / "local" / "rapid" / _EMULATOR,
                *("--log-level", "error"),
                *("--runtime-interface-emulator-address", emulator_address),
                *("--runtime-api-address", runtime_api_address),
                # -S and -P: neither the packages installed here nor the folder of this project are on its path
                *(sys.executable, "-S", "-P", Path(__file__).with_name("lambda_bootstrap.py")),
                self._function.handler,
                folder=self._folder,
                env=self._environment,
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
            raise FunctionError(self.name, "Sandbox.Timedout", body) from None
        raised = isinstance(answer, dict) and answer.keys() == _KEYS_OF_AN_EXCEPTION
        if status != 200 or raised:
            raise FunctionError(self.name, answer["errorType"], answer["errorMessage"])
        return answer


_KEYS_OF_AN_EXCEPTION = {"errorMessage", "errorType", "requestId", "stackTrace"}


@asynccontextmanager
async def lambda_function(
    function: Function, *, runtime: Path, environment: Mapping[str, str], folder: Path
) -> AsyncIterator[LambdaFunction]:
    """Run a function of the template while the context is open; it logs to `folder/<name>.log`.

    `runtime` is what Lambda's runtime carries (local/build.py). `environment` is added to what the template and
    Lambda itself set: it names the AWS services' endpoint and credentials.
    """
    running = LambdaFunction(function, runtime, environment, folder)
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
