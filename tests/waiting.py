"""How tests wait for something that raises no event here."""

import asyncio
from collections.abc import Callable


async def eventually[T](found: Callable[[], T], seconds: float = 60) -> T:
    """Polls until a value is true, and returns it. Raises TimeoutError."""
    async with asyncio.timeout(seconds):
        while not (value := found()):  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0.02)
    return value
