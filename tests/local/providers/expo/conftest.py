"""A fake Expo service with three phones, and a sender."""

from collections.abc import AsyncIterator

import aiohttp
import pytest

from local.providers.expo.service import expo_service
from local.providers.expo.state import ExpoService
from tests.local.providers.expo.sending import FOREIGN, IPHONE, PIXEL, Clock, Sender


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def expo(clock: Clock) -> AsyncIterator[ExpoService]:
    """The service, with an iPhone and a Pixel of one project and a phone of another one."""
    async with expo_service(clock=clock) as service:
        service.install(IPHONE, "ios")
        service.install(PIXEL, "android")
        service.install(FOREIGN, "ios", project="@other/app")
        yield service


@pytest.fixture
async def http(expo: ExpoService) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(expo.url) as session:
        yield session


@pytest.fixture
def sender(http: aiohttp.ClientSession) -> Sender:
    return Sender(http)
