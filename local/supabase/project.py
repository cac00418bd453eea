"""A Supabase project on a local PostgreSQL server: APIs by Supabase Lite, migrations by the Supabase CLI."""

import os
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import psycopg
from psycopg import sql

from local.packages import NODE_MODULES, NPM_PLATFORM, PROJECT, node
from local.processes import answers, child, free_port, run, temporary_folder
from local.supabase.postgres import SQL, SUPERUSER, Postgres


class Supabase:
    """A running project, with keys of its own."""

    def __init__(self, folder: Path, server: Postgres) -> None:
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self.publishable_key = f"sb_publishable_{secrets.token_urlsafe(24)}"
        self.secret_key = f"sb_secret_{secrets.token_urlsafe(24)}"
        self.jwt_secret = secrets.token_urlsafe(48)  # signs the users' tokens with HS256
        self._folder = folder
        self._database_url = server.dsn(role="supabase_lite")
        self._running = AsyncExitStack()

    async def start(self) -> None:
        """Starts Supabase Lite; returns when it answers."""
        lite = await self._running.enter_async_context(
            child(
                "supabase",
                *(node(), NODE_MODULES / "@supabase" / "lite" / "dist" / "cli" / "index.js"),
                *("start", "--no-admin"),  # otherwise a request without a key acts as service_role
                folder=self._folder,
                env={
                    **os.environ,
                    **_NO_TELEMETRY,
                    "EXPERIMENTAL_STORAGE": "1",
                    "LITE_DATABASE_URL": self._database_url,
                    "LITE_PORT": str(self._port),
                    "LITE_JWT_SECRET": self.jwt_secret,
                    "LITE_AUTH_BCRYPT_COST": "4",  # the least: its people are invented, and have no password to protect
                    "SUPABASE_PUBLISHABLE_KEY": self.publishable_key,
                    "SUPABASE_SECRET_KEY": self.secret_key,
                },
            )
        )
        await answers(lite, f"{self.url}/auth/v1/health")

    async def stop(self) -> None:
        """Stops Supabase Lite; database and users stay."""
        await self._running.aclose()

    async def restart(self) -> None:
        """Starts Supabase Lite again on the same port, with the same keys; it reads the schema again."""
        await self.stop()
        await self.start()


_NO_TELEMETRY = {"DO_NOT_TRACK": "1", "SUPABASE_TELEMETRY_DISABLED": "1"}


@asynccontextmanager
async def supabase(folder: Path, server: Postgres) -> AsyncIterator[Supabase]:
    """A new project in the server's database `postgres`, with this repository's migrations applied."""
    for file in ("platform.sql", "vault.sql", "pg_net.sql", "realtime.sql", "lite.sql"):
        await server.execute_file(SQL / file)
    config = folder / "supabase" / "config.mjs"  # where Lite looks for it
    config.parent.mkdir()
    config.symlink_to(Path(__file__).parent / "lite.config.mjs")
    project = Supabase(folder, server)
    try:
        await project.start()  # creates the schema auth, which the migrations refer to
        await migrate(server.dsn())
        await project.restart()
        yield project
    finally:
        await project.stop()


async def create_database(server: Postgres, name: str) -> str:
    """Creates a database as hosted Supabase has it before the first migration; returns its URL for migrations.

    In place of an Auth server it has sql/auth.sql.
    """
    async with await psycopg.AsyncConnection.connect(server.dsn(role=SUPERUSER), autocommit=True) as connection:
        await connection.execute(sql.SQL("create database {} owner postgres").format(sql.Identifier(name)))
    for file in ("platform.sql", "vault.sql", "pg_net.sql", "realtime.sql", "auth.sql"):
        await server.execute_file(SQL / file, database=name)
    return server.dsn(name)


async def migrate(dsn: str) -> None:
    """Applies this repository's migrations with `supabase db push`; raises ChildError if one fails."""
    await supabase_cli("db", "push", "--yes", "--db-url", f"{dsn}?sslmode=disable")


async def supabase_cli(*arguments: str, project: Path = PROJECT) -> None:
    """Runs the Supabase CLI on a repository; raises ChildError, with its output, if it fails."""
    cli = NODE_MODULES / "@supabase" / f"cli-{NPM_PLATFORM}" / "bin" / "supabase"
    with temporary_folder() as home:
        await run(
            "supabase-cli",
            cli,
            *(*arguments, "--workdir", str(project)),
            folder=home,
            env={**os.environ, **_NO_TELEMETRY, "HOME": str(home), "TMPDIR": str(home)},  # it writes files to both
        )
