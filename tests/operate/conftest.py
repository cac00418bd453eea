"""A running local cloud that tests break, examine with the doctor, and repair."""

import asyncio
import io
import json
import shlex
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch
from uuid import uuid4

import psycopg
import pytest
from botocore import session as sessions

from local.app import Person, chat_app, new_phone
from local.cloud import LocalCloud, local_cloud
from local.providers.phones import Phone
from operate.__main__ import main
from operate.doctor import system
from operate.doctor.command import CHECKS, examine, report
from operate.doctor.results import Finding, NotExamined, Result
from operate.doctor.system import System


def vault_update(name: str, value: str) -> str:
    """The statement that changes the value of a secret in the database's Vault."""
    return f"select vault.update_secret(id, '{value}') from vault.secrets where name = '{name}'"


@dataclass
class BreakableCloud:
    """A local cloud, the doctor's view of it, and ways to break it."""

    cloud: LocalCloud
    env_file: Path
    intact: System
    tina: Person
    gus: Person

    def system(self, **other: Any) -> System:
        """What the doctor examines, with other values for some fields. Nothing is cached in it yet."""
        return replace(self.intact, **other)

    async def examination(self, **other: Any) -> list[Result]:
        """The results of all checks, which are also printed. Asserts that the exit code agrees with them."""
        results = await asyncio.to_thread(lambda: list(examine(self.system(**other), CHECKS)))
        found, unknown = (any(isinstance(result, kind) for result in results) for kind in (Finding, NotExamined))
        assert report(results) == (1 if found else 2 if unknown else 0)
        return results

    async def finding(self, what: str, **other: Any) -> Finding:
        """The only finding, which contains this text. All checks were made."""
        results = await self.examination(**other)
        assert not any(isinstance(result, NotExamined) for result in results), results
        return self._only(what, results)

    async def finding_alone(self, what: str, **other: Any) -> Finding:
        """The only finding, which contains this text. It stopped other checks, which name it as the reason."""
        results = await self.examination(**other)
        finding = self._only(what, results)
        unknown = [result for result in results if isinstance(result, NotExamined)]
        assert unknown
        assert {result.why for result in unknown} == {finding.what}
        return finding

    @staticmethod
    def _only(what: str, results: list[Result]) -> Finding:
        findings = [result for result in results if isinstance(result, Finding)]
        assert [what in finding.what for finding in findings] == [True], findings
        return findings[0]

    async def is_healthy(self, **other: Any) -> None:
        """Asserts that there is no finding and that all checks were made."""
        wrong = [result for result in await self.examination(**other) if isinstance(result, Finding | NotExamined)]
        assert wrong == []

    async def recover(self) -> None:
        """Undoes what tests break, and removes devices, jobs and answers of pg_net."""
        self.cloud.expo.reset()
        await self.execute(
            "delete from push.jobs",
            "delete from public.user_devices",
            "delete from net._http_response",
            "delete from push.receipt_runs",
            "delete from push.providers where provider <> 'expo'",
            "alter table public.chat_messages enable row level security",
            "alter table public.user_devices enable row level security",
            "alter table public.chat_messages enable trigger user",
            "revoke execute on function public.claim_push_jobs from anon",
            "revoke usage on schema push from authenticated",
            f"select push.configure_webhook('{self.intact.webhook_url}', '{self.cloud.webhook_secret}')",
            "update push.settings set registration_limit = 10000",
        )

    async def execute(self, *statements: str, role: str = "postgres") -> None:
        """Runs statements as the SQL editor does."""
        async with await psycopg.AsyncConnection.connect(
            self.cloud.postgres.dsn(role=role), autocommit=True
        ) as connection:
            for statement in statements:
                await connection.execute(statement.encode())

    async def run(self, command: str) -> tuple[int, str]:
        """Runs a ./dev command without the set-up of ./dev. Returns the exit code and the output."""
        program, *arguments = shlex.split(command)
        assert program == "./dev"
        with patch.object(sys, "argv", [program, *arguments]), redirect_stdout(io.StringIO()) as output:
            code = await asyncio.to_thread(main)
        return code, output.getvalue()

    async def count(self, table: str) -> int:
        """The number of rows of a table."""
        async with await psycopg.AsyncConnection.connect(self.cloud.database_url) as connection:
            [found] = await (await connection.execute(f"select count(*) from {table}".encode())).fetchall()
        return int(found[0])

    def secret(self, value: str | Mapping[str, str | None]) -> str:
        """Creates a secret and returns its id, to be examined instead of one of the cloud's own.

        The cloud's own secrets stay unchanged, because the functions cache them for five minutes.
        """
        id = f"secret-{uuid4()}"
        text = value if isinstance(value, str) else json.dumps(value)
        self.cloud.aws.secrets_manager.create_secret(Name=id, SecretString=text)
        return id

    async def phone(self, person: Person, device_id: str, platform: Any = "ios") -> Phone:
        """A new phone on which this person logs in."""
        phone = new_phone(self.cloud.expo, platform)
        await person.log_in_on(phone, device_id)
        return phone


@pytest.fixture(scope="session", autouse=True)
def descriptions_of_aws() -> Iterator[None]:
    """Parses the description of each AWS service once, not for each session of boto3; a test has several of them."""
    with patch.object(sessions, "create_loader", cache(sessions.create_loader)):
        yield


@pytest.fixture(scope="session")
async def running_cloud(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[BreakableCloud]:
    async with local_cloud() as cloud, chat_app(cloud.supabase, cloud.api_url) as app:
        env_file = tmp_path_factory.mktemp("doctor") / "env"
        env_file.write_text("".join(f"{name}={value}\n" for name, value in cloud.environment().items()))
        intact = system.local_cloud(env_file)
        with intact.transport:
            yield BreakableCloud(
                cloud, env_file, intact, await app.sign_up("Tina", "tourist"), await app.sign_up("Gus", "guide")
            )


@pytest.fixture
async def breakable(running_cloud: BreakableCloud) -> BreakableCloud:
    """The cloud after recover(), so that earlier tests have no influence."""
    await running_cloud.recover()
    return running_cloud
