"""Starts the fake APNs, which stands in for https://api.push.apple.com and https://api.sandbox.push.apple.com."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial

from local.providers.apns.connection import ApnsConnection
from local.providers.apns.protocol import HOSTS, Environment
from local.providers.apns.state import ApnsService
from local.providers.certificates import server_tls
from local.providers.push_service import Clock


@asynccontextmanager
async def apns_service(
    port: int = 0, sandbox_port: int = 0, clock: Clock = lambda: datetime.now(UTC)
) -> AsyncIterator[ApnsService]:
    """A fake APNs on 127.0.0.1, ready to be used; port 0 takes a free one.

    A client that names one of Apple's hosts gets the environment of this host, on either port. `clock` (aware
    datetimes) decides about provider tokens; latency and slow answers take real time. Raises OSError: a port is taken.
    """
    apns = ApnsService(clock)

    async def listen(tls: ssl.SSLContext, environment: Environment, port: int) -> asyncio.Server:
        connection = partial(ApnsConnection, apns, environment)
        return await asyncio.get_running_loop().create_server(connection, "127.0.0.1", port, ssl=tls)

    with server_tls([*HOSTS]) as (tls, apns.authority):
        tls.set_alpn_protocols(["h2"])
        async with (
            await listen(tls, "production", port) as production,
            await listen(tls, "sandbox", sandbox_port) as sandbox,
        ):
            apns.url, apns.sandbox_url = map(_url, (production, sandbox))
            try:
                yield apns
            finally:
                for connection in list(apns.connections):
                    connection.abort()


def _url(server: asyncio.Server) -> str:
    return f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
