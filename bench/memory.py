"""Peak memory of each function after real work, and the unzipped size of the layers.

Each function runs under the Runtime Interface Emulator with only the deployed code on its path. It does the largest
piece of work that it can receive at once: send_chat_push a batch of ten and a sweep of 1,000 conversations,
cleanup_receipts the receipts of these pushes, register_device and authorize_webhook twenty requests. The peak is VmHWM
of /proc. The layers are built for this machine by the same Makefile as for Lambda's arm64. The sizes for the two
architectures differ by less than a megabyte (tests/local asserts them).
"""

from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import psycopg

from bench.events import first_events, push_queue_event
from bench.fixtures import Fixtures, start_fixtures
from bench.report import Plot, Result, Target

MESSAGES = 1000
MEGABYTE = 1_000_000
LAYERS_LIMIT, MEMORY_LIMIT = 45, 128


async def run() -> Result:
    """Megabytes of memory by function, and of both layers together."""
    async with start_fixtures() as fixtures, AsyncExitStack() as running:
        functions = {
            name: await running.enter_async_context(fixtures.function(function))
            for name, function in fixtures.template.functions.items()
        }
        events = await first_events(fixtures)
        await functions["SendChatPush"].invoke(push_queue_event(await fixtures.write(10, rooms=10)))
        await fixtures.write(MESSAGES, rooms=MESSAGES)
        await functions["SendChatPush"].invoke(events["SendChatPush"])
        await _let_receipts_be_due(fixtures)
        await functions["CleanupReceipts"].invoke(events["CleanupReceipts"])
        for name in ("RegisterDevice", "AuthorizeWebhook"):
            for _ in range(20):
                await functions[name].invoke(events[name])
        peaks = {name: _peak(name, fixtures.aws.endpoint_url) for name in functions}
        [layers] = {function.layers for function in fixtures.template.functions.values()}
        sizes = {layer.name: unzipped_bytes(layer) / MEGABYTE for layer in layers}
    return Result(
        columns=("what", "megabytes", "limit"),
        rows=[
            *((f"{name}, peak RSS", peak, MEMORY_LIMIT) for name, peak in peaks.items()),
            *((f"{name}, unzipped", size, LAYERS_LIMIT) for name, size in sizes.items()),
        ],
        targets=[
            *(Target(f"{name}: peak RSS, MB", peak, MEMORY_LIMIT) for name, peak in peaks.items()),
            Target("both layers unzipped, MB", sum(sizes.values()), LAYERS_LIMIT),
        ],
        plot=Plot("what", ("megabytes",), "megabytes"),
    )


def unzipped_bytes(layer: Path) -> int:
    """The bytes of a layer's files in Lambda's file system."""
    return sum(file.stat().st_size for file in layer.rglob("*") if file.is_file())


async def _let_receipts_be_due(fixtures: Fixtures) -> None:
    async with await psycopg.AsyncConnection.connect(fixtures.postgres.dsn()) as connection:
        due = await connection.execute("update push.deliveries set receipt_due_at = clock_timestamp()")
        assert due.rowcount == MESSAGES + 10


def _peak(function: str, endpoint_url: str) -> float:
    """The peak RSS in megabytes of the function's process. `endpoint_url` identifies the processes of this run."""
    [status] = [
        (process / "status").read_text()
        for process in _processes()
        if {f"AWS_LAMBDA_FUNCTION_NAME={function}", f"AWS_ENDPOINT_URL={endpoint_url}"} <= _environment(process)
        and "lambda_bootstrap.py" in (process / "cmdline").read_text().split("\0")[3]
    ]
    [kilobytes] = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(kilobytes) * 1024 / MEGABYTE


def _processes() -> Iterator[Path]:
    return (folder for folder in Path("/proc").iterdir() if folder.name.isdecimal())


def _environment(process: Path) -> set[str]:
    try:
        return set((process / "environ").read_text(errors="replace").split("\0"))
    except OSError:  # the process has just ended, or belongs to another user
        return set()
