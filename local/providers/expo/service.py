"""Starts the fake Expo push service, which stands in for https://exp.host."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from aiohttp import web

from local.http_server import serving
from local.providers.apns.state import ApnsService
from local.providers.expo import control, push_api
from local.providers.expo.state import ExpoService
from local.providers.fcm.state import FcmService
from local.providers.push_service import Clock


@asynccontextmanager
async def expo_service(
    port: int = 0,
    clock: Clock = lambda: datetime.now(UTC),
    *,
    fcm: FcmService | None = None,
    apns: ApnsService | None = None,
) -> AsyncIterator[ExpoService]:
    """A fake Expo service on 127.0.0.1, ready to be used; port 0 takes a free one.

    `clock` (aware datetimes) decides about receipts and the rate limit; latency and hangs take real time.
    `fcm`, `apns`: services whose phones the control API serves, too. Raises OSError: the port is taken.
    """
    expo = ExpoService(clock)
    app = web.Application()
    app.add_routes(push_api.routes(expo))
    app.add_routes(control.routes(control.Services(expo, fcm, apns)))
    # The timeout ends requests that hang by script.
    async with serving(app, port, shutdown_timeout=0.1) as expo.url:
        yield expo
