"""The stored broadcasts: those of the database, and those that a client asked to keep."""

import json
from datetime import UTC, datetime

from local.supabase.realtime.database import Session
from local.supabase.realtime.frames import Broadcast
from local.types import Json

MOST_REPLAYED = 25
LONGEST_KEPT = 72 * 3600  # seconds


class InvalidKeeping(ValueError):
    """The option `persist` of a broadcast is not accepted."""


def seconds_to_keep(persist: Json) -> int | None:
    """How long a client asks to keep a broadcast, by the option `persist`; None: it does not.

    The option is true for the longest time, or {"ttl": seconds}. In the query of a URL all of it is text. Raises
    InvalidKeeping.
    """
    match persist:
        case None | False | "false":
            return None
        case True | "true":
            return LONGEST_KEPT
        case {"ttl": str(ttl)} if ttl.isdecimal():
            return seconds_to_keep({"ttl": int(ttl)})
        case {"ttl": bool()}:
            pass
        case {"ttl": int(ttl)} if 1 <= ttl <= LONGEST_KEPT:
            return ttl
        case {"ttl": value} if value is not None:
            pass
        case dict():
            return LONGEST_KEPT
    raise InvalidKeeping(f"persist is true, or has a ttl from 1 to {LONGEST_KEPT} seconds")


async def store(session: Session, topic: str, message: Broadcast, seconds: int) -> str:
    """Stores a broadcast of a private channel that was sent already. Returns its id."""
    binary = message.content if isinstance(message.content, bytes) else None
    async with session.transaction() as connection:
        cursor = await connection.execute(
            """insert into realtime.messages
                 (topic, extension, event, private, skip_broadcast, payload, binary_payload, expires_at)
               values (%s, 'broadcast', %s, true, true, %s, %s, timezone('utc', now()) + make_interval(secs => %s))
               returning id::text""",
            (topic, message.event, json.dumps(message.content) if binary is None else None, binary, seconds),
        )
        (id,) = await cursor.fetchone() or ("",)
        return str(id)


async def newest(session: Session, topic: str, since: int, limit: int) -> list[Broadcast]:
    """The newest broadcasts of a private channel since a time in milliseconds, from the oldest to the newest."""
    async with session.transaction() as connection:
        cursor = await connection.execute(
            """select id::text, event, payload, binary_payload from realtime.messages
               where topic = %s and private and extension = 'broadcast' and inserted_at >= %s
                 and (expires_at is null or expires_at > timezone('utc', now()))
               order by inserted_at desc limit %s""",
            (
                topic,
                datetime.fromtimestamp(since / 1000, UTC).replace(tzinfo=None),
                max(1, min(limit, MOST_REPLAYED)),
            ),
        )
        rows = await cursor.fetchall()
    return [
        Broadcast(event, payload if binary is None else binary, {"replayed": True, "id": id})
        for id, event, payload, binary in reversed(rows)
    ]
