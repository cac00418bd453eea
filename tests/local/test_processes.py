"""No child of the local cloud outlives it, and a child that fails says why."""

import asyncio
import signal
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from local.processes import ChildError, answers, child, free_port, run
from tests.local.aws.conftest import eventually


def is_running(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_a_child_dies_with_its_supervisor_even_by_sigkill(tmp_path: Path) -> None:
    supervisor = """
        import asyncio, os, signal, sys
        from pathlib import Path
        from local.processes import child

        async def main():
            async with child("sleeper", "sleep", "100", folder=Path(sys.argv[1])) as sleeper:
                print(sleeper.process.pid, flush=True)
                os.kill(os.getpid(), signal.SIGKILL)

        asyncio.run(main())
    """
    program = (sys.executable, "-c", dedent(supervisor), tmp_path)
    process = await asyncio.create_subprocess_exec(*program, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    assert process.returncode == -signal.SIGKILL
    await eventually(lambda: not is_running(int(output)))


async def test_leaving_ends_the_whole_group_even_what_ignores_sigterm(tmp_path: Path) -> None:
    script = "trap '' TERM; sleep 100 & echo $!; wait"
    async with child("stubborn", "sh", "-c", script, folder=tmp_path, stop_seconds=0.1) as stubborn:
        await eventually(lambda: stubborn.log.read_text().endswith("\n"))
        pids = [stubborn.process.pid, int(stubborn.log.read_text())]
    await eventually(lambda: not any(is_running(pid) for pid in pids))


async def test_cancelling_ends_the_child(tmp_path: Path) -> None:
    started = asyncio.Event()
    pid = 0

    async def supervise() -> None:
        nonlocal pid
        async with child("sleeper", "sleep", "100", folder=tmp_path) as sleeper:
            pid = sleeper.process.pid
            started.set()
            await asyncio.Event().wait()

    supervisor = asyncio.create_task(supervise())
    await started.wait()
    supervisor.cancel()
    with pytest.raises(asyncio.CancelledError):
        await supervisor
    assert not is_running(pid)


async def test_a_child_that_ends_before_it_answers_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    async with child("failing", "sh", "-c", "echo no disk; exit 3", folder=tmp_path) as failing:
        with pytest.raises(ChildError, match=r"failing ended with exit code 3(.|\n)*no disk"):
            await answers(failing, f"http://127.0.0.1:{free_port()}/")


async def test_a_child_that_does_not_answer_in_time_is_an_error(tmp_path: Path) -> None:
    async with child("silent", "sleep", "100", folder=tmp_path) as silent:
        with pytest.raises(ChildError, match=r"silent did not answer within 0\.1 s"):
            await answers(silent, f"http://127.0.0.1:{free_port()}/", seconds=0.1)


async def test_a_command_that_fails_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    await run("fine", "true", folder=tmp_path)
    with pytest.raises(ChildError, match=r"broken ended with exit code 2(.|\n)*no such table"):
        await run("broken", "sh", "-c", "echo no such table >&2; exit 2", folder=tmp_path)


def test_no_port_is_given_twice() -> None:
    assert len({free_port() for _ in range(50)}) == 50
