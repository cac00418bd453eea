"""What RLS of realtime.messages allows the owner of a token on a private channel."""

from dataclasses import dataclass

import psycopg

from local.supabase.realtime.database import Session, act_as
from local.types import Json

_PROBE = "insert into realtime.messages (topic, extension) values (%s, %s)"


@dataclass(frozen=True)
class Rights:
    """The rights on a topic: broadcast, presence, and to let Realtime store what was broadcast."""

    broadcast: bool
    presence: bool
    persistence: bool = False


async def may_read(session: Session, topic: str, claims: Json) -> Rights:
    """Which messages the owner of the claims could read: the server inserts two, looks, and rolls back."""
    async with session.transaction(rollback=True) as connection:
        cursor = connection.cursor()
        probes = {}
        for extension in ("broadcast", "presence"):
            await cursor.execute(_PROBE + " returning id", (topic, extension))
            (probes[extension],) = await cursor.fetchone() or (None,)
        await connection.execute("select set_config('realtime.topic', %s, true)", (topic,))
        await act_as(connection, claims)
        try:
            async with connection.transaction():
                await cursor.execute(
                    "select extension from realtime.messages where topic = %s and id = any (%s)",
                    (topic, list(probes.values())),
                )
                visible = {extension for (extension,) in await cursor.fetchall()}
        except psycopg.OperationalError:
            raise
        except psycopg.Error:  # A policy that fails allows nothing.
            visible = set()
    return Rights("broadcast" in visible, "presence" in visible)


async def may_write(session: Session, topic: str, claims: Json) -> Rights:
    """Which messages the owner of the claims could insert."""
    allowed = set()
    async with session.transaction(rollback=True) as connection:
        await connection.execute("select set_config('realtime.topic', %s, true)", (topic,))
        await act_as(connection, claims)
        for extension in ("broadcast", "presence", "persistence"):
            try:
                async with connection.transaction():
                    await connection.execute(_PROBE, (topic, extension))
                allowed.add(extension)
            except psycopg.OperationalError:
                raise
            except psycopg.Error:
                continue
    return Rights("broadcast" in allowed, "presence" in allowed, "persistence" in allowed)
