"""No unit test reaches the network, not even this machine's own: what needs 127.0.0.1 is in tests/local."""

from collections.abc import Iterator

import pytest
from pytest_socket import disable_socket, enable_socket


@pytest.fixture(autouse=True)
def _no_sockets() -> Iterator[None]:
    # asyncio wakes its loop through a unix socket.
    disable_socket(allow_unix_socket=True)
    yield
    enable_socket()
