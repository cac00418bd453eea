"""One PostgreSQL server for the session, and databases with the migrations applied, copied from one template."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

import pytest
from psycopg import sql

from local.processes import temporary_folder
from local.supabase.postgres import SUPERUSER, Postgres, postgres
from local.supabase.project import create_database, migrate
from tests.database.chat import Chat, Connection, Database, connected, start_chat

_numbers = count(1)


@pytest.fixture(scope="session")
async def server() -> AsyncIterator[Postgres]:
    with temporary_folder() as folder:
        async with postgres(folder) as running:
            yield running


@pytest.fixture(scope="session")
async def template(server: Postgres) -> str:
    await migrate(await create_database(server, "migrated"))
    return "migrated"


@asynccontextmanager
async def copy(server: Postgres, template: str) -> AsyncIterator[Database]:
    """A new database, copied from a template. It is dropped at the end, before the disk has to write it."""
    name = f"test_{next(_numbers)}"
    async with connected(server.dsn()) as owner:
        await owner.execute(
            sql.SQL("create database {} template {}").format(sql.Identifier(name), sql.Identifier(template))
        )
    database = Database(server, name)
    yield database
    await database.close()
    # Backends of the superuser may not have ended yet.
    async with connected(server.dsn(role=SUPERUSER)) as superuser:
        await superuser.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


@pytest.fixture
async def database(server: Postgres, template: str) -> AsyncIterator[Database]:
    """A new database. No other test sees what a test commits in it."""
    async with copy(server, template) as database:
        yield database


@pytest.fixture(scope="module")
async def module_database(server: Postgres, template: str) -> AsyncIterator[Database]:
    """A new database for rows that are slow to insert and that tests only read."""
    async with copy(server, template) as database:
        yield database


@pytest.fixture(scope="session")
async def shared_connection(server: Postgres, template: str) -> AsyncIterator[Connection]:
    """For tests that leave nothing behind."""
    async with copy(server, template) as database:
        yield await database.connect()


@pytest.fixture
async def chat(shared_connection: Connection) -> AsyncIterator[Chat]:
    """A conversation on one connection, in a transaction that the end of the test rolls back."""
    async with shared_connection.transaction(force_rollback=True):
        yield await start_chat(shared_connection)
