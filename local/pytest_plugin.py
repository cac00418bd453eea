"""Fixtures for the tests of an app: `pytest -p local.pytest_plugin`. docs/client.md shows how to use them.

The cloud runs in a thread and an event loop of its own. So a test is an ordinary function, and the code under test
may block while the cloud works.
"""

from collections.abc import Awaitable, Callable, Iterator

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal

from local import App, LocalCloud, chat_app, local_cloud


@pytest.fixture(scope="session")
def _portal() -> Iterator[BlockingPortal]:
    """The thread of the cloud and of the app."""
    with start_blocking_portal() as portal:
        yield portal


@pytest.fixture(scope="session")
def chat_push_cloud(_portal: BlockingPortal) -> Iterator[LocalCloud]:
    """A running local cloud. Its schedules do not fire by themselves."""
    with _portal.wrap_async_context_manager(local_cloud()) as cloud:
        yield cloud


@pytest.fixture(scope="session")
def chat_push_app(_portal: BlockingPortal, chat_push_cloud: LocalCloud) -> Iterator[App]:
    """The app, in which people sign up."""
    with _portal.wrap_async_context_manager(chat_app(chat_push_cloud.supabase, chat_push_cloud.api_url)) as app:
        yield app


@pytest.fixture(scope="session")
def chat_push_run[T](_portal: BlockingPortal) -> Callable[[Awaitable[T]], T]:
    """Runs a coroutine of the cloud, of the app or of a person to its end. Returns its result."""
    return lambda coroutine: _portal.call(lambda: coroutine)
