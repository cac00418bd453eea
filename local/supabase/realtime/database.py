"""Connections of the stand-in to the database, as its superuser."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg

from local.supabase.realtime.pgoutput import Change, Decoder
from local.types import Json

type Connection = psycopg.AsyncConnection[tuple[Any, ...]]


class Session:
    """A connection that is opened at its first use, and again after it was lost. Its transactions run one by one."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._lock = asyncio.Lock()
        self._connection: Connection | None = None

    @asynccontextmanager
    async def transaction(self, *, rollback: bool = False) -> AsyncIterator[Connection]:
        """A transaction. Raises psycopg.OperationalError if there is no database."""
        async with self._lock:
            if self._connection is None or self._connection.closed:
                self._connection = await psycopg.AsyncConnection.connect(self._dsn, autocommit=True)
            async with self._connection.transaction(force_rollback=rollback):
                yield self._connection

    async def close(self) -> None:
        """Closes the connection."""
        if self._connection is not None:
            await self._connection.close()


async def act_as(connection: Connection, claims: Json) -> None:
    """Makes the rest of a transaction run as the owner of the claims, as a request to the Data API does.

    auth.uid() of Supabase Lite reads only request.jwt.claim.sub. That of hosted Supabase also reads the claims.
    """
    await connection.execute(
        """select set_config('request.jwt.claims', %s, true), set_config('request.jwt.claim.sub', %s, true),
             set_config('request.jwt.claim.role', %s, true), set_config('request.headers', '{}', true),
             set_config('role', %s, true)""",
        (json.dumps(claims), claims.get("sub", ""), claims["role"], claims["role"]),
    )


@asynccontextmanager
async def replication_slot(dsn: str, name: str, publication: str) -> AsyncIterator["Slot"]:
    """A temporary slot. It ends with its connection; then the changes that were not read are lost."""
    connection = await psycopg.AsyncConnection.connect(dsn, autocommit=True)
    async with connection:
        await connection.execute("select pg_create_logical_replication_slot(%s, 'pgoutput', true)", (name,))
        yield Slot(connection, name, publication)


class Slot:
    """The changes of the tables of a publication, in the order of their commits."""

    def __init__(self, connection: Connection, name: str, publication: str) -> None:
        self._connection = connection
        self._name, self._publication = name, publication
        self._end = ""  # of the WAL, when nothing was left before it

    async def read(self, limit: int) -> list[Change]:
        """The next changes: whole transactions, until there are `limit` changes."""
        cursor = await self._connection.execute("select pg_current_wal_flush_lsn()::text")
        [[end]] = await cursor.fetchall()
        if end == self._end:  # Nothing was written. To decode nothing takes ten times as long as to ask for the end.
            return []
        cursor = await self._connection.execute(
            """select data from pg_logical_slot_get_binary_changes(
                %s, null, %s, 'proto_version', '1', 'publication_names', %s)""",
            (self._name, limit, self._publication),
        )
        messages = await cursor.fetchall()
        self._end = "" if messages else end  # The limit may have left some.
        decoder = Decoder()
        return [change for (data,) in messages for change in decoder.decode(data)]
