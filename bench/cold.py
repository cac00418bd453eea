"""Cold start: from the start of a process to its first answer, and the imports alone.

Each function runs from its built artefacts under AWS's Runtime Interface Emulator. The floor imports httpx, pydantic
and the Logger and does nothing. The naive function imports supabase, boto3, PyJWT and others at the top, from packages
without bytecode. Three more functions show what ours cannot avoid, because all four read a secret first: "floor + a
signature" reads it with the least of AWS's library, "floor + a secret" reads it with boto3, and "floor + packages" also
imports postgrest and Expo's SDK, which both workers need. The first answer is a real one: send_chat_push and
cleanup_receipts read their secret and ask the database for due work, register_device lists the devices of a signed-in
user, and authorize_webhook compares the secret. The duration is that of the emulator's REPORT line and includes the
start of Python. The imports alone are measured with a bare Python on the same path. SnapStart, which restores a
function after its imports, does not exist locally. The functions alternate, because the machine is noisy.
"""

import asyncio
import re
import statistics
import sys
import sysconfig
import time
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import timedelta
from typing import Any

from bench.events import first_events
from bench.fixtures import BENCH, Fixtures, start_fixtures
from bench.report import Plot, Result, Target
from local.aws.lambda_runtime import LambdaFunction
from local.aws.template import Function

ROUNDS = 7
TIMEOUT = timedelta(minutes=2)  # of an invocation: a busy machine starts slowly
BOUNDS = {"floor + a signature": "signature", "floor + a secret": "secret", "floor + packages": "packages"}
OURS = ("SendChatPush", "CleanupReceipts", "RegisterDevice", "AuthorizeWebhook")


async def run() -> Result:
    """Milliseconds to the first answer, and milliseconds of the imports, by function."""
    async with start_fixtures() as fixtures, AsyncExitStack() as running:
        functions = {
            "floor": _like_ours(fixtures, "floor"),
            **{name: _like_ours(fixtures, folder) for name, folder in BOUNDS.items()},
            **{name: fixtures.template.functions[name] for name in OURS},
            "naive": _naive(fixtures),
        }
        events = {"floor": {}, **{name: {} for name in BOUNDS}, **await first_events(fixtures), "naive": {}}
        # Bytecode that an earlier Python left beside the packages must not be used.
        without = {"PYTHONPYCACHEPREFIX": str(fixtures.folder / "no-bytecode")}
        started = {
            name: await running.enter_async_context(
                fixtures.function(replace(function, timeout=TIMEOUT), without if name == "naive" else None)
            )
            for name, function in functions.items()
        }
        first: dict[str, list[float]] = {name: [] for name in functions}
        imports: dict[str, list[float]] = {name: [] for name in functions}
        for _ in range(ROUNDS):
            for name, function in functions.items():
                first[name].append(await _first_answer(started[name], events[name]))
                imports[name].append(await _import(fixtures, function, without if name == "naive" else {}))
    answer, imported = ({name: statistics.median(values) for name, values in of.items()} for of in (first, imports))
    return Result(
        columns=("function", "first answer ms", "/ floor", "/ naive", "imports alone ms"),
        rows=[
            (name, answer[name], answer[name] / answer["floor"], answer[name] / answer["naive"], imported[name])
            for name in functions
        ],
        targets=[
            target
            for name in OURS
            for target in (
                Target(f"{name}: first answer / floor", answer[name] / answer["floor"], 1.5),
                Target(f"{name}: first answer / naive", answer[name] / answer["naive"], 0.5),
            )
        ],
        plot=Plot("function", ("first answer ms", "imports alone ms"), "milliseconds, median"),
        notes=("If floor + a signature exceeds 1.5, so does each function that signs a request by AWS's library.",),
    )


def _like_ours(fixtures: Fixtures, name: str) -> Function:
    return replace(fixtures.template.functions["SendChatPush"], name=name, folder=BENCH / "cold_functions" / name)


def _naive(fixtures: Fixtures) -> Function:
    """The naive function, with the packages of this environment, which pip installed without bytecode."""
    layer = fixtures.folder / "naive-layer"
    layer.mkdir()
    (layer / "python").symlink_to(sysconfig.get_path("purelib"))
    naive = BENCH / "cold_functions" / "naive"
    return replace(fixtures.template.functions["SendChatPush"], name="Naive", folder=naive, layers=(layer,))


async def _first_answer(function: LambdaFunction, event: Any) -> float:
    """Milliseconds from the start of the function's process to its answer, by the emulator's REPORT."""
    await function.kill()
    before = len(_durations(function))
    await function.invoke(event)
    async with asyncio.timeout(10):
        while True:
            if len(durations := _durations(function)) > before:
                return durations[-1]
            await asyncio.sleep(0.01)  # The report follows the answer, without a signal.


def _durations(function: LambdaFunction) -> list[float]:
    return [float(value) for value in re.findall(r"REPORT .*\tDuration: ([\d.]+) ms", "\n".join(function.log_lines()))]


async def _import(fixtures: Fixtures, function: Function, environment: dict[str, str]) -> float:
    """Milliseconds of a Python process that only imports the handler's module."""
    path = [function.folder, *(layer / "python" for layer in function.layers), fixtures.build.runtime]
    began = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-S", "-P", "-c", "import app"),
        env={
            **function.environment,
            **fixtures.aws.environment,
            **environment,
            "PYTHONPATH": ":".join(map(str, path)),
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        stdout=asyncio.subprocess.DEVNULL,
    )
    assert await process.wait() == 0
    return (time.perf_counter() - began) * 1000
