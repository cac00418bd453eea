"""The commands of the local cloud; ./dev sets everything up and calls them."""

import argparse
import asyncio
import signal
import sys
from pathlib import Path

from local.chaos import chaos
from local.cloud import local_cloud
from local.demo import demo
from local.openapi import DOCUMENT, openapi


async def up(env_file: Path | None) -> int:
    """Keeps a local cloud running until SIGINT or SIGTERM; prints, and writes, how to reach it."""
    async with local_cloud(schedules=True) as cloud:
        lines = [f"{name}={value}" for name, value in cloud.environment().items()]
        if env_file:
            # Whole or not at all: whoever waits for the file may read it at once.
            part = env_file.with_name(f"{env_file.name}.part")
            part.write_text("\n".join(lines) + "\n")
            part.replace(env_file)
        print("\n".join(["", *lines, "", f"logs: {cloud.folder}", "Ctrl-C ends it."]), flush=True)
        await asyncio.get_running_loop().create_future()
    return 0


def main() -> int:
    """Runs a command; the exit code. A signal ends it in order, so that no process stays behind."""
    parser = argparse.ArgumentParser(prog="local")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("up").add_argument("--env", type=Path, metavar="FILE")
    commands.add_parser("demo").add_argument("--json", type=Path, metavar="FILE")
    commands.add_parser("openapi")
    run = commands.add_parser("chaos")
    run.add_argument("--messages", type=int, default=2000)
    run.add_argument("--seed", type=int)
    run.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    if arguments.command == "openapi":
        DOCUMENT.write_text(openapi())
        return 0
    match arguments.command:
        case "up":
            command = up(arguments.env)
        case "demo":
            command = demo(arguments.json)
        case _:
            if arguments.messages < 100:
                run.error("--messages: at least 100, or not every fault finds a push to strike")
            command = chaos(arguments.messages, arguments.seed, arguments.json)

    async def until_signal() -> int:
        task = asyncio.ensure_future(command)
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        return await task

    try:
        return asyncio.run(until_signal())
    except asyncio.CancelledError:
        return 0 if arguments.command == "up" else 130


if __name__ == "__main__":
    sys.exit(main())
