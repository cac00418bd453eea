"""Databases with a crowd in them: as they are after weeks of use, filled in one statement for each table."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import md5
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
from psycopg import sql

from local.processes import temporary_folder
from local.supabase.postgres import SUPERUSER, Postgres, postgres
from local.supabase.project import create_database, migrate

type Connection = psycopg.AsyncConnection[tuple[Any, ...]]

# As bench/sql has them.
GUIDES, ROOMS, MESSAGES_OF_A_ROOM = 500, 10_000, 100

SQL = Path(__file__).parent / "sql"


# The same work at every size: caches that hold everything, and nothing in the background that strikes now and then.
SETTINGS = {
    "shared_buffers": "1GB",
    "autovacuum": "off",
    "checkpoint_timeout": "1h",
    "max_wal_size": "16GB",
    "full_page_writes": "off",
    "maintenance_work_mem": "256MB",
}


@asynccontextmanager
async def quiet_postgres() -> AsyncIterator[Postgres]:
    """An empty server with SETTINGS."""
    with temporary_folder() as folder:
        async with postgres(folder) as server:
            async with await connect(server.dsn(role=SUPERUSER)) as connection:
                for name, value in SETTINGS.items():
                    await connection.execute(
                        sql.SQL("alter system set {} = {}").format(sql.Identifier(name), sql.Literal(value))
                    )
            await server.restart()
            yield server


async def create_database_with_devices(server: Postgres) -> str:
    """A database with the migrations, 100,000 devices and no message; its name, to be copied."""
    name = "people"
    await migrate(await create_database(server, name))
    await _fill(server, name, "people.sql")
    return name


async def copy_with_messages(server: Postgres, people: str, messages: int) -> str:
    """A copy of the database `people` with so many messages, and what became of them; its name."""
    name = f"messages_{messages}"
    async with await connect(server.dsn()) as connection:
        await connection.execute(
            sql.SQL("create database {} template {}").format(sql.Identifier(name), sql.Identifier(people))
        )
    await _fill(server, name, "messages.sql", messages)
    return name


@dataclass(frozen=True)
class Room:
    """A conversation by its number, from 1."""

    number: int

    @property
    def id(self) -> UUID:
        return _id("room", self.number)

    @property
    def guide(self) -> UUID:
        return _id("person", 1 + self.number % GUIDES)

    @property
    def tourist(self) -> UUID:
        return _id("person", GUIDES + self.number)


async def connect(dsn: str) -> Connection:
    """A connection in autocommit."""
    return await psycopg.AsyncConnection.connect(dsn, autocommit=True)


def _id(kind: str, number: int) -> UUID:
    return UUID(md5(f"{kind}{number}".encode()).hexdigest())


async def _fill(server: Postgres, database: str, file: str, messages: int = 0) -> None:
    """Run a file without triggers and foreign keys, then leave the tables as autovacuum would."""
    async with await connect(server.dsn(database, SUPERUSER)) as connection:
        await connection.execute("set session_replication_role = replica")
        await connection.execute("select set_config('bench.messages', %s, false)", (str(messages),))
        await connection.execute((SQL / file).read_bytes())
        await connection.execute("vacuum (analyze)")
        await connection.execute("checkpoint")
