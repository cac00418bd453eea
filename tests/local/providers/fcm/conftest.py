"""A fake FCM with phones and a browser, and a sender."""

from collections.abc import AsyncIterator

import pytest

from local.providers.fcm.service import fcm_service
from local.providers.fcm.state import FcmService
from tests.local.providers.fcm.sending import BROWSER, FOREIGN, IPHONE, PIXEL, Sender, client


def install_all(fcm: FcmService) -> None:
    fcm.install(PIXEL, "android")
    fcm.install(BROWSER, "web")
    fcm.install(IPHONE, "ios")
    fcm.install(FOREIGN, "android", project="other-app")


@pytest.fixture
async def fcm() -> AsyncIterator[FcmService]:
    """The service without TLS, with three devices of one project and a phone of another one."""
    async with fcm_service() as service:
        install_all(service)
        yield service


@pytest.fixture
async def secure_fcm() -> AsyncIterator[FcmService]:
    """The same with TLS."""
    async with fcm_service(tls=True) as service:
        install_all(service)
        yield service


@pytest.fixture
async def sender(fcm: FcmService) -> AsyncIterator[Sender]:
    """A sender over HTTP/2 that has an access token."""
    async with client(fcm) as http:
        sender = Sender(http, fcm)
        await sender.log_in()
        yield sender
