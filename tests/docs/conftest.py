"""One local cloud for whatever the guides say."""

from collections.abc import AsyncIterator

import pytest

from local.cloud import LocalCloud, local_cloud


@pytest.fixture(scope="session")
async def cloud() -> AsyncIterator[LocalCloud]:
    async with local_cloud() as cloud:
        yield cloud
