"""HTTP servers of the local cloud, of tests and of benchmarks."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web


@asynccontextmanager
async def serving(app: web.Application, port: int = 0, *, shutdown_timeout: float = 60) -> AsyncIterator[str]:
    """Serves an application on 127.0.0.1 while the context is open. Gives its base URL.

    Port 0 takes a free one. At the end, open requests have `shutdown_timeout` seconds to end; aiohttp waits
    for ever if it is 0. Raises OSError: the port is taken.
    """
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=shutdown_timeout)
    await runner.setup()
    listener = None
    try:
        listener = socket.create_server(("127.0.0.1", port), backlog=128)
        await web.SockSite(runner, listener).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        if listener:
            # asyncio leaks a connection that is accepted while its server closes, so no more are accepted before.
            asyncio.get_running_loop().remove_reader(listener)
            for _ in range(3):
                await asyncio.sleep(0)
        await runner.cleanup()
