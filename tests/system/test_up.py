"""`python -m local up` writes what other programs need. Clouds run side by side, and leave nothing behind."""

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from uuid import uuid4

import aiohttp
import psutil
import psycopg
import pytest
from boto3.session import Session

from local.__main__ import published
from local.packages import PROJECT
from local.processes import temporary_folder
from tests.local.aws.conftest import is_running


@dataclass
class Supervisor:
    """A `python -m local up` in a process of its own."""

    process: asyncio.subprocess.Process
    temporary: Path  # its TMPDIR
    env_file: Path

    async def until_printed(self, pattern: str, seconds: float = 120) -> None:
        """Waits until it prints a line that matches."""
        assert self.process.stdout
        printed = []
        async with asyncio.timeout(seconds):
            async for line in self.process.stdout:
                printed.append(line.decode())
                if re.search(pattern, printed[-1]):
                    return
        raise AssertionError(f"ended without printing {pattern}: {''.join(printed)}")

    def folders(self) -> list[Path]:
        """Returns the folders of its state."""
        return list(self.temporary.glob("chat-push-*"))

    def environment(self) -> dict[str, str]:
        """Returns the variables that it wrote for other programs."""
        return dict(line.split("=", 1) for line in self.env_file.read_text().splitlines())

    async def end(self, number: signal.Signals) -> int:
        """Sends it a signal, waits until it and its descendants have ended, and returns its exit code."""
        family = psutil.Process(self.process.pid).children(recursive=True)
        self.process.send_signal(number)
        code = await asyncio.wait_for(self.process.wait(), 30)
        _, alive = await asyncio.to_thread(psutil.wait_procs, family, 10)
        outliving = [process for process in alive if is_running(process.pid)]
        assert not outliving, f"processes outlive their supervisor for 10 s: {outliving}"
        return code


@asynccontextmanager
async def _supervisor() -> AsyncIterator[Supervisor]:
    with temporary_folder() as folder:
        env_file = folder / "env"
        temporary = folder / "temporary"
        temporary.mkdir(mode=0o711)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "local", "up", "--env", env_file),
            cwd=PROJECT,
            env={**os.environ, "TMPDIR": str(temporary)},
            stdout=asyncio.subprocess.PIPE,
            preexec_fn=partial(signal.signal, signal.SIGHUP, signal.SIG_DFL),  # the tests may run under nohup
        )
        try:
            yield Supervisor(process, temporary, env_file)
        finally:
            with suppress(ProcessLookupError):
                process.terminate()
            await process.communicate()


@pytest.fixture(scope="module")
async def supervisors() -> AsyncIterator[list[Supervisor]]:
    """Two clouds that start at the same time and run side by side."""
    async with AsyncExitStack() as stack:
        clouds = [await stack.enter_async_context(_supervisor()) for _ in range(2)]
        async with asyncio.TaskGroup() as starts:
            for cloud in clouds:
                starts.create_task(cloud.until_printed("Ctrl-C stops the cloud"))
        yield clouds


async def test_each_url_and_key_in_the_env_file_works(supervisors: list[Supervisor]) -> None:
    for supervisor in supervisors:
        env = supervisor.environment()
        assert list(env) == [
            *("API_URL", "WEBHOOK_SECRET"),
            *("SUPABASE_URL", "SUPABASE_PUBLISHABLE_KEY", "SUPABASE_SECRET_KEY"),
            *("DATABASE_URL", "EXPO_URL", "EXPO_CONTROL_URL", "SQS_URL", "DEAD_LETTERS_URL"),
            *("AWS_ACCESS_KEY_ID", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_REGION", "AWS_SECRET_ACCESS_KEY"),
            "FOLDER",
        ]
        token = f"ExponentPushToken[{uuid4().hex[:22]}]"
        webhook = {"record": {"id": str(uuid4())}}
        push = {"to": token, "title": "Hello"}
        async with aiohttp.ClientSession() as http:

            async def answer(method: str, url: str, http: aiohttp.ClientSession = http, **request: object) -> int:
                async with http.request(method, url, **request) as response:  # type: ignore[arg-type]
                    return response.status

            rest = f"{env['SUPABASE_URL']}/rest/v1/chat_messages"
            webhook_url = f"{env['API_URL']}/api/push/chat-message"
            assert await answer("GET", rest, headers={"apikey": env["SUPABASE_SECRET_KEY"]}) == 200
            assert await answer("GET", rest, headers={"apikey": env["SUPABASE_PUBLISHABLE_KEY"]}) == 401
            health = f"{env['SUPABASE_URL']}/auth/v1/health"
            assert await answer("GET", health, headers={"apikey": env["SUPABASE_PUBLISHABLE_KEY"]}) == 200
            assert await answer("POST", webhook_url, json=webhook) == 401
            assert (
                await answer("POST", webhook_url, json=webhook, headers={"x-webhook-secret": env["WEBHOOK_SECRET"]})
                == 202
            )
            installation = {"token": token, "platform": "ios"}
            assert await answer("POST", f"{env['EXPO_CONTROL_URL']}/phones", json=installation) == 200
            assert await answer("POST", f"{env['EXPO_URL']}/--/api/v2/push/send", json=push) == 200
            assert await answer("GET", f"{env['EXPO_CONTROL_URL']}/phones/{token}") == 200
        async with await psycopg.AsyncConnection.connect(env["DATABASE_URL"]) as connection:
            await connection.execute("update push.settings set time_to_live = time_to_live")
        assert await asyncio.to_thread(_queue_exists, env, env["SQS_URL"])
        assert await asyncio.to_thread(_queue_exists, env, env["DEAD_LETTERS_URL"])
    first, second = (supervisor.environment() for supervisor in supervisors)
    account = {"AWS_ACCESS_KEY_ID", "AWS_DEFAULT_REGION", "AWS_REGION", "AWS_SECRET_ACCESS_KEY"}
    assert {name for name in first if first[name] == second[name]} == account


def _queue_exists(env: dict[str, str], url: str) -> bool:
    session = Session(env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"], region_name=env["AWS_REGION"])
    sqs = session.client("sqs", endpoint_url=env["AWS_ENDPOINT_URL"])
    return "Attributes" in sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])


async def test_sigterm_leaves_neither_a_process_nor_a_file_behind(supervisors: list[Supervisor]) -> None:
    assert len(psutil.Process(supervisors[0].process.pid).children(recursive=True)) > 5
    assert len(supervisors[0].folders()) == 1
    assert await supervisors[0].end(signal.SIGTERM) == 0
    assert supervisors[0].folders() == []
    assert not supervisors[0].env_file.exists()


async def test_no_process_outlives_a_killed_supervisor(supervisors: list[Supervisor]) -> None:
    assert len(psutil.Process(supervisors[1].process.pid).children(recursive=True)) > 5
    assert await supervisors[1].end(signal.SIGKILL) == -signal.SIGKILL


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP], ids=["Ctrl-C", "closed terminal"])
async def test_an_end_during_the_start_leaves_neither_a_process_nor_a_file_behind(number: signal.Signals) -> None:
    async with _supervisor() as supervisor:
        await supervisor.until_printed("Supabase")
        assert await supervisor.end(number) == 0
        assert supervisor.folders() == []
        assert not supervisor.env_file.exists()


def test_the_env_file_of_a_cloud_that_started_later_stays(tmp_path: Path) -> None:
    file = tmp_path / "new" / "up.env"
    with published("of the first", file), published("of the second", file):
        assert file.read_text() == "of the second"
    assert not file.exists()
    with published("of the first", file):
        file.write_text("of the second")
    assert file.read_text() == "of the second"
