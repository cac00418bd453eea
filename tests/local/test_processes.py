"""No child of the local cloud outlives it. The error of a child that fails holds the end of its log."""

import asyncio
import signal
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from local.processes import ChildError, answers, child, free_port, run
from tests.local.aws.conftest import is_running
from tests.waiting import eventually


async def test_a_child_is_killed_when_its_supervisor_is_killed(tmp_path: Path) -> None:
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


async def test_closing_the_context_ends_the_whole_process_group_even_if_it_ignores_sigterm(tmp_path: Path) -> None:
    script = "trap '' TERM; sleep 100 & echo $!; wait"
    async with child("stubborn", "sh", "-c", script, folder=tmp_path, stop_seconds=0.1) as stubborn:
        await eventually(lambda: stubborn.log.read_text().endswith("\n"))
        pids = [stubborn.process.pid, int(stubborn.log.read_text())]
    await eventually(lambda: not any(is_running(pid) for pid in pids))


async def test_cancelling_the_supervisor_ends_the_child(tmp_path: Path) -> None:
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


async def test_a_child_that_ends_before_it_answers_raises_an_error_with_its_last_lines(tmp_path: Path) -> None:
    async with child("failing", "sh", "-c", "echo no disk; exit 3", folder=tmp_path) as failing:
        with pytest.raises(ChildError, match=r"failing ended with exit code 3(.|\n)*no disk"):
            await answers(failing, f"http://127.0.0.1:{free_port()}/")


async def test_a_child_that_does_not_answer_in_time_raises_an_error(tmp_path: Path) -> None:
    async with child("silent", "sleep", "100", folder=tmp_path) as silent:
        with pytest.raises(ChildError, match=r"silent did not answer within 0\.1 s"):
            await answers(silent, f"http://127.0.0.1:{free_port()}/", seconds=0.1)


async def test_a_command_that_fails_raises_an_error_with_its_last_lines(tmp_path: Path) -> None:
    await run("fine", "true", folder=tmp_path)
    with pytest.raises(ChildError, match=r"broken ended with exit code 2(.|\n)*no such table"):
        await run("broken", "sh", "-c", "echo no such table >&2; exit 2", folder=tmp_path)


def test_free_port_never_returns_the_same_port_twice() -> None:
    assert len({free_port() for _ in range(50)}) == 50
