"""Waiting: for an event or a time, and between attempts."""

import asyncio
import contextlib
import random


async def wait(event: asyncio.Event, seconds: float | None) -> None:
    """Waits for the event, or until the time is over. None: for the event."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)


def backoff(attempts: int, base: float, cap: float) -> float:
    """Seconds to wait after this many failed attempts in a row: doubling up to `cap`, less up to a half by chance.

    Without chance, all clients would come back at once after an outage.
    """
    longest: float = min(cap, base * 2 ** min(attempts - 1, 30))
    return longest * random.uniform(0.5, 1)  # noqa: S311
