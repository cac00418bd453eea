"""Child processes of the local cloud: they log to a file, and none outlives the supervisor."""

import asyncio
import ctypes
import os
import pwd
import random
import re
import signal
import socket
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import aiohttp

# Below 32768, where Linux starts to take ports for outgoing connections: a server that is killed and started
# again finds its port still free. In random order, so that clouds side by side seldom try the same one.
_ports = iter(random.sample(range(20_000, 32_768), 12_768))

_PR_SET_PDEATHSIG = 1  # prctl(2)
_libc = ctypes.CDLL(None, use_errno=True)


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
        """Send a signal to the whole process group; nothing happens if it is gone."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)


def children(pid: int) -> list[int]:
    """The processes that any thread of a process has started and that are still there; none if it is gone itself."""
    found: list[int] = []
    for threads_children in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(FileNotFoundError, ProcessLookupError):  # the thread has ended
            found += map(int, threads_children.read_text().split())
    return found


def peak_memory(pid: int) -> int:
    """The most bytes of memory that a process has held at a time so far; 0 if it is gone."""
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

    Other users can enter but not list it: Postgres, which refuses to run as root, then runs as another user.
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
    stop_signal: signal.Signals = signal.SIGTERM,
    stop_seconds: float = 5,
) -> AsyncIterator[Child]:
    """Run `argv` while the context is open, with its output appended to `folder/<name>.log`.

    `env` replaces the whole environment (None: ours), `cwd` is `folder` unless given, `user` (only as root)
    is whom it runs as. On leaving, the process group gets `stop_signal` and, `stop_seconds` later at most,
    SIGKILL. If this process dies by any death, the kernel kills the child.
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
            preexec_fn=_die_with(os.getpid()),
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


def _die_with(parent: int) -> Callable[[], None]:
    """What a child does between fork and exec, so that the kernel kills it when our main thread ends."""

    def ask_for_death_signal() -> None:
        if _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) != 0 or os.getppid() != parent:
            os._exit(1)  # not supported, or the supervisor died before we could ask

    return ask_for_death_signal


async def run(
    name: str,
    *argv: str | Path,
    folder: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    user: str | None = None,
) -> None:
    """Run a command to its end, as `child` would; raise ChildError if it exits with anything but 0."""
    async with child(name, *argv, folder=folder, env=env, cwd=cwd, user=user) as command:
        code = await command.process.wait()
        if code != 0:
            raise command.error(f"ended with exit code {code}")


async def answers(child: Child, check: str | Callable[[], Awaitable[bool]], seconds: float = 60) -> None:
    """Wait until `check` holds: a URL that gives any HTTP answer, or a function that returns True.

    Raises ChildError when the child ends first, or `seconds` have passed.
    """
    holds = _gives_any_answer(check) if isinstance(check, str) else check
    try:
        async with asyncio.timeout(seconds):
            while True:
                held = await holds()
                if child.process.returncode is not None:  # then it was somebody else who answered
                    raise child.error(f"ended with exit code {child.process.returncode}")
                if held:
                    return
                await asyncio.sleep(0.05)  # nothing tells when a process begins to listen
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
