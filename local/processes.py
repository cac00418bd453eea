"""Child processes of the local cloud: they log to a file, and none outlives the supervisor."""

import asyncio
import os
import pwd
import random
import re
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import aiohttp
import psutil

# Linux takes ports from 32768 on for outgoing connections, macOS from 49152 on. Below, a server that is killed and
# started again finds its port still free. The order is random, so that clouds side by side seldom try the same port.
_ports = iter(random.sample(range(20_000, 32_768), 12_768))

# Reads process groups from its standard input: 7 has started, -7 has ended. Kills what is left when the input ends.
_REAPER = """
import os, signal, sys
groups = set()
for line in sys.stdin:
    group = int(line)
    groups.add(group) if group > 0 else groups.discard(-group)
for group in groups:
    try:
        os.killpg(group, signal.SIGKILL)
    except (PermissionError, ProcessLookupError):
        pass
"""


class ChildError(Exception):
    """A child process ended, or did not answer in time; the message carries the tail of its log."""


@dataclass(frozen=True)
class Child:
    """A running child process, leader of a process group of its own."""

    name: str
    process: asyncio.subprocess.Process
    log: Path

    def error(self, what: str) -> ChildError:
        """The error to raise when this child is at fault: `what`, and the last 40 lines of its log."""
        tail = self.log.read_text(errors="replace").splitlines()[-40:]
        return ChildError("\n".join([f"{self.name} {what}; the end of {self.log}:", *tail]))

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Sends a signal to the whole process group; nothing happens if it has ended."""
        with suppress(PermissionError, ProcessLookupError):  # macOS forbids signals to a group of zombies
            os.killpg(self.process.pid, number)


def peak_memory(pid: int) -> int:
    """The most bytes of memory that a process has held so far; 0 if it has ended.

    Only Linux keeps a high-water mark of another process. Elsewhere this is what the process holds now.
    """
    if sys.platform != "linux":
        try:
            return int(psutil.Process(pid).memory_info().rss)
        except psutil.NoSuchProcess:
            return 0
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    peak = re.search(r"^VmHWM:\s*(\d+) kB$", status, re.MULTILINE)
    return int(peak[1]) * 1024 if peak else 0  # a process that has just ended has no memory


def free_port() -> int:
    """A TCP port of 127.0.0.1 on which nothing listens; never the same one twice in this process."""
    for port in _ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port in TIME_WAIT is free
            with suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port
    raise OSError("no free TCP port between 20000 and 32767")


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder for the state of one local cloud, removed at the end.

    Other users can enter but not list it: Postgres refuses to run as root, and then runs as another user.
    """
    with tempfile.TemporaryDirectory(prefix="chat-push-", ignore_cleanup_errors=True) as folder:
        os.chmod(folder, 0o711)  # to enter, not to list  # nosec B103
        yield Path(folder)


@asynccontextmanager
async def child(
    name: str,
    *argv: str | Path,
    folder: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    user: str | None = None,
    pass_fds: Collection[int] = (),
    stop_signal: signal.Signals = signal.SIGTERM,
    stop_seconds: float = 5,
) -> AsyncIterator[Child]:
    """Runs `argv` while the context is open, with its output appended to `folder/<name>.log`.

    `env` replaces the whole environment (None: ours). `cwd` is `folder` unless given. The child runs as `user` (only
    if we are root) and inherits the file descriptors `pass_fds`. When the context closes, its process group gets
    `stop_signal` and, after `stop_seconds`, SIGKILL. If this process is killed, a reaper process kills the group.
    """
    log = folder / f"{name}.log"
    account = pwd.getpwnam(user) if user else None
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=env,
            cwd=cwd or folder,
            user=account and account.pw_uid,
            group=account and account.pw_gid,
            extra_groups=[] if account else None,
            process_group=0,  # Ctrl-C in the terminal reaches the supervisor alone, and it ends the children
            pass_fds=pass_fds,
            preexec_fn=_report_to(_reaper()),
        )
    running = Child(name, process, log)
    try:
        yield running
    finally:
        try:
            running.kill(stop_signal)
            with suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), stop_seconds)
        finally:
            running.kill()  # also what the leader left behind in its group
            await process.wait()
            os.write(_reaper(), f"-{process.pid}\n".encode())


@cache
def _reaper() -> int:
    """The standard input of a process that outlives us, and then kills the children that we left."""
    read, write = os.pipe()
    argv = [sys.executable, "-I", "-S", "-c", _REAPER]
    null = [(os.POSIX_SPAWN_OPEN, descriptor, os.devnull, os.O_WRONLY, 0) for descriptor in (1, 2)]
    actions = [(os.POSIX_SPAWN_DUP2, read, 0), *null]
    os.posix_spawn(sys.executable, argv, os.environ, file_actions=actions, setpgroup=0)
    os.close(read)
    return write


def _report_to(reaper: int) -> Callable[[], None]:
    """What a child does between fork and exec. Until then it holds the pipe open: the reaper misses no child."""

    def report() -> None:
        os.write(reaper, f"{os.getpid()}\n".encode())

    return report


async def run(
    name: str,
    *argv: str | Path,
    folder: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    user: str | None = None,
) -> None:
    """Runs a command to its end, as `child` would; raises ChildError if it exits with anything but 0."""
    async with child(name, *argv, folder=folder, env=env, cwd=cwd, user=user) as command:
        code = await command.process.wait()
        if code != 0:
            raise command.error(f"ended with exit code {code}")


async def answers(child: Child, check: str | Callable[[], Awaitable[bool]], seconds: float = 60) -> None:
    """Waits until `check` holds: a URL that gives any HTTP answer, or a function that returns True.

    Raises ChildError when the child ends first, or `seconds` have passed.
    """
    holds = _gives_any_answer(check) if isinstance(check, str) else check
    try:
        async with asyncio.timeout(seconds):
            while True:
                held = await holds()
                if child.process.returncode is not None:  # then another process answered
                    raise child.error(f"ended with exit code {child.process.returncode}")
                if held:
                    return
                await asyncio.sleep(0.05)  # no event tells when a process begins to listen
    except TimeoutError:
        raise child.error(f"did not answer within {seconds:g} s") from None


def _gives_any_answer(url: str) -> Callable[[], Awaitable[bool]]:
    async def ask() -> bool:
        try:
            async with aiohttp.request("GET", url):
                return True
        except aiohttp.ClientError:
            return False

    return ask
