"""The commands of the local cloud; ./dev sets everything up and calls them."""

import argparse
import asyncio
import signal
import sys
from pathlib import Path

# What a command imports, it imports itself: ./dev parses options before anything is installed.


async def up(env_file: Path | None) -> int:
    """Keeps a local cloud running until SIGINT or SIGTERM; prints, and writes, how to reach it and what to try."""
    from local.cloud import local_cloud
    from local.demo.first_steps import first_steps

    async with local_cloud(schedules=True) as cloud:
        lines = [f"{name}={value}" for name, value in cloud.environment().items()]
        if env_file:
            # Whole or not at all: whoever waits for the file may read it at once.
            part = env_file.with_name(f"{env_file.name}.part")
            part.write_text("\n".join(lines) + "\n")
            part.replace(env_file)
        steps = first_steps(cloud, env_file)
        print("\n".join(["", *lines, "", f"logs: {cloud.folder}", "", steps, "", "Ctrl-C ends it."]), flush=True)
        await asyncio.get_running_loop().create_future()
    return 0


def parser() -> argparse.ArgumentParser:
    """The options, which ./dev shows and checks before anything is installed."""
    options = argparse.ArgumentParser(prog="./dev")
    commands = options.add_subparsers(dest="command", required=True)

    up_command = commands.add_parser("up", description="Keeps a local cloud running and prints its URLs and keys.")
    up_command.add_argument("--env", type=Path, metavar="FILE", help="also write them to this file")
    story = commands.add_parser("demo", description="Tells a story in a fresh local cloud, and checks every push.")
    story.add_argument("--json", type=Path, metavar="FILE", help="also write what happened as data")
    commands.add_parser("openapi", description="Writes docs/openapi.json anew.")
    faults = commands.add_parser("chaos", description="Injects faults into real traffic, and checks every invariant.")
    faults.add_argument("--messages", type=_messages, default=2000, metavar="N", help="at least 100; 2000 without it")
    faults.add_argument("--seed", type=int, metavar="N", help="of an earlier run, to have its faults again")
    faults.add_argument("--json", type=Path, metavar="FILE", help="also write the verdicts as data")
    return options


def _messages(text: str) -> int:
    if not text.isdecimal() or int(text) < 100:
        raise argparse.ArgumentTypeError("at least 100, or not every fault finds a push to strike")
    return int(text)


def main() -> int:
    """Runs a command; the exit code. A signal ends it in order, so that no process stays behind."""
    arguments = parser().parse_args()
    match arguments.command:
        case "openapi":
            from local.openapi import DOCUMENT, openapi

            DOCUMENT.write_text(openapi())
            return 0
        case "up":
            command = up(arguments.env)
        case "demo":
            from local.demo.run import demo

            command = demo(arguments.json)
        case _:
            from local.chaos.run import chaos

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
