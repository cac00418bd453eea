"""Databases with many users, devices and messages, as after weeks of use. One statement fills each table."""

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

# The numbers in bench/sql.
GUIDES, ROOMS, MESSAGES_OF_A_ROOM = 500, 10_000, 100

SQL = Path(__file__).parent / "sql"


# For the same work at every size, the caches hold all data and no background task runs.
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
    """Runs an empty server with SETTINGS."""
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
    """Creates a database with the migrations, 100,000 devices and no message. Returns its name.

    Each user has chosen all that can be chosen.
    """
    name = "devices"
    await migrate(await create_database(server, name))
    await _fill(server, name, "people.sql")
    await _fill(server, name, "preferences.sql")
    return name


async def copy_with_messages(server: Postgres, template: str, messages: int) -> str:
    """Copies the database `template` and adds messages with their receipts and jobs. Returns its name."""
    name = f"messages_{messages}"
    async with await connect(server.dsn()) as connection:
        await connection.execute(
            sql.SQL("create database {} template {}").format(sql.Identifier(name), sql.Identifier(template))
        )
    await _fill(server, name, "messages.sql", messages)
    return name


@dataclass(frozen=True)
class Room:
    """A conversation, by its number from 1."""

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
    """Runs a file of bench/sql without triggers and foreign keys, then vacuums and analyzes all tables."""
    async with await connect(server.dsn(database, SUPERUSER)) as connection:
        await connection.execute("set session_replication_role = replica")
        await connection.execute("select set_config('bench.messages', %s, false)", (str(messages),))
        await connection.execute((SQL / file).read_bytes())
        await connection.execute("vacuum (analyze)")
        await connection.execute("checkpoint")
