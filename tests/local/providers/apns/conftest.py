"""A fake APNs with three iPhones, and a connection of a sender."""

from collections.abc import AsyncIterator

import pytest

from local.providers.apns.service import apns_service
from local.providers.apns.state import ApnsService
from tests.local.providers.apns.sending import DEBUG_IPHONE, IPHONE, OTHER_IPHONE, Clock, Connection, connected


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def apns(clock: Clock) -> AsyncIterator[ApnsService]:
    """The service, with two iPhones in production and one in the sandbox."""
    async with apns_service(clock=clock) as service:
        service.install(IPHONE)
        service.install(OTHER_IPHONE)
        service.install(DEBUG_IPHONE, "sandbox")
        yield service


@pytest.fixture
async def connection(apns: ApnsService) -> AsyncIterator[Connection]:
    async with connected(apns) as one:
        yield one
