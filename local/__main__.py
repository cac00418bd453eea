"""The commands of the local cloud. `./dev` installs what they need and runs them."""

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from local.packages import UP_ENV
from operate.files import file_of_caller

ENDS = [signal.SIGINT, signal.SIGTERM]
if signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:  # nohup ignores it
    ENDS.append(signal.SIGHUP)  # the terminal was closed

# Each command imports its own modules: ./dev parses the options before anything is installed.


async def up(env_file: Path) -> int:
    """Runs a local cloud until a signal, and prints its URLs, its keys and commands to try.

    Meanwhile `env_file` has the URLs and keys, one NAME=value per line.
    """
    from local.cloud import local_cloud
    from local.demo.first_steps import first_steps

    async with local_cloud(schedules=True, direct=True) as cloud:
        lines = [f"{name}={value}" for name, value in cloud.environment().items()]
        with published("\n".join(lines) + "\n", env_file):
            lines += ["", f"logs: {cloud.folder}", "", first_steps(cloud, env_file), "", "Ctrl-C stops the cloud."]
            print("", *lines, sep="\n", flush=True)
            await asyncio.get_running_loop().create_future()
    return 0


@contextmanager
def published(text: str, file: Path) -> Iterator[None]:
    """Keeps a text in a file while the context is open, unless another cloud writes its own there."""
    file.parent.mkdir(exist_ok=True)
    # Renamed when complete: another program may wait for the file and read it at once.
    part = file.with_name(f"{file.name}.part")
    part.write_text(text)
    part.replace(file)
    try:
        yield
    finally:
        if file.exists() and file.read_text() == text:
            file.unlink()


def parser() -> argparse.ArgumentParser:
    """Returns the parser of all commands. `./dev` uses it before anything is installed."""
    options = argparse.ArgumentParser(prog="./dev")
    commands = options.add_subparsers(dest="command", required=True)

    command = commands.add_parser("up", description="Runs a local cloud until Ctrl-C, and prints its URLs and keys.")
    written = "write the URLs and keys to this file; ./dev chat finds them without it (default: .local/up.env)"
    command.add_argument("--env", type=_output, metavar="FILE", default=UP_ENV, help=written)

    about = "Opens the chat of one person in this terminal, on the local cloud of ./dev up or on a real project."
    command = commands.add_parser("chat", description=about)
    command.add_argument("--as", type=_name, required=True, metavar="NAME", dest="name", help="whose chat it is")
    read = "SUPABASE_URL and SUPABASE_PUBLISHABLE_KEY of a project, API_URL for pushes (default: those of ./dev up)"
    command.add_argument("--env", type=file_of_caller, metavar="FILE", default=UP_ENV, help=read)

    command = commands.add_parser("demo", description="Runs the demo in a new local cloud, and checks every push.")
    command.add_argument("--json", type=_output, metavar="FILE", help="also write the result of each step to this file")

    chaos = "Injects faults into the traffic of a new local cloud, and checks every invariant."
    command = commands.add_parser("chaos", description=chaos)
    messages = "how many messages to send: 100 or more (default: 2000)"
    command.add_argument("--messages", type=_messages, default=2000, metavar="N", help=messages)
    command.add_argument("--seed", type=int, metavar="N", help="repeat the random choices of an earlier run")
    command.add_argument(
        "--json", type=_output, metavar="FILE", help="also write the result of each invariant to this file"
    )

    commands.add_parser("openapi", description="Writes docs/openapi.json from the code of register_device.")
    return options


def _output(text: str) -> Path:
    """A file that can be written. What it is for exists only after minutes."""
    file = file_of_caller(text)
    if file.is_dir() or not os.access(file if file.exists() else file.parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"no file can be written at {text}")
    return file


def _messages(text: str) -> int:
    if not text.isdecimal() or int(text) < 100:
        raise argparse.ArgumentTypeError("use 100 or more: with fewer messages some faults find no push to strike")
    return int(text)


def _name(text: str) -> str:
    name = text.strip()
    if not (0 < len(name) <= 40 and name.isprintable()):
        raise argparse.ArgumentTypeError("use 1 to 40 characters that can be printed")
    return name


def main() -> int:
    """Runs a command and returns its exit code. On a signal it stops every child process first."""
    arguments = parser().parse_args()
    match arguments.command:
        case "openapi":
            from local.openapi import DOCUMENT, openapi

            DOCUMENT.write_text(openapi())
            return 0
        case "up":
            command = up(arguments.env)
        case "chat":
            from local.console.run import chat

            command = chat(arguments.name, arguments.env)
        case "demo":
            from local.demo.run import demo

            command = demo(arguments.json)
        case _:
            from local.chaos.run import chaos

            command = chaos(arguments.messages, arguments.seed, arguments.json)

    async def until_signal() -> int:
        task = asyncio.ensure_future(command)
        for number in ENDS:
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        return await task

    try:
        return asyncio.run(until_signal())
    except asyncio.CancelledError:
        return 0 if arguments.command == "up" else 130


if __name__ == "__main__":
    sys.exit(main())
