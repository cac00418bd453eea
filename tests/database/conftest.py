"""One PostgreSQL server for the session, and databases with the migrations applied, copied from one template."""

from collections.abc import AsyncIterator
from itertools import count

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import dict_row

from local.postgres import Postgres, postgres
from local.processes import temporary_folder
from local.supabase import create_database, migrate
from tests.database.chat import Chat, Connection, start_chat

_numbers = count(1)


class Database:
    """A database of a test's own, for what happens between connections."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self._connections: list[Connection] = []

    async def connect(self) -> Connection:
        """A new connection as the owner, in autocommit; closed with the database."""
        connection = await psycopg.AsyncConnection.connect(self.dsn, autocommit=True, row_factory=dict_row)
        self._connections.append(connection)
        return connection

    async def close(self) -> None:
        for connection in self._connections:
            await connection.close()


@pytest.fixture(scope="session")
async def server() -> AsyncIterator[Postgres]:
    with temporary_folder() as folder:
        async with postgres(folder) as running:
            yield running


@pytest.fixture(scope="session")
async def template(server: Postgres) -> str:
    await migrate(await create_database(server, "migrated"))
    return "migrated"


async def copy(server: Postgres, template: str) -> Database:
    name = f"test_{next(_numbers)}"
    async with await psycopg.AsyncConnection.connect(server.dsn(), autocommit=True) as connection:
        await connection.execute(
            sql.SQL("create database {} template {}").format(sql.Identifier(name), sql.Identifier(template))
        )
    return Database(server.dsn(name))


@pytest.fixture
async def database(server: Postgres, template: str) -> AsyncIterator[Database]:
    """A fresh database: what a test commits in it, no other test sees."""
    database = await copy(server, template)
    yield database
    await database.close()


@pytest.fixture(scope="session")
async def shared_connection(server: Postgres, template: str) -> AsyncIterator[Connection]:
    database = await copy(server, template)
    yield await database.connect()
    await database.close()


@pytest.fixture
async def chat(shared_connection: Connection) -> AsyncIterator[Chat]:
    """A conversation on one connection, in a transaction that the end of the test rolls back."""
    async with shared_connection.transaction(force_rollback=True):
        yield await start_chat(shared_connection)
