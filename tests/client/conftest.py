"""A local database, and a client that talks to the fake server."""

import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from uuid import UUID

import httpx
import pytest

from chat_client.errors import NotSignedIn
from chat_client.events import Event, SessionEnded
from chat_client.outbox import Outbox
from chat_client.server import Server
from chat_client.settings import Timing
from chat_client.store import Store
from chat_client.sync import Sync
from tests.client.fake_server import KEY, ME, URL, FakeServer

TIMING = Timing(retry_base=0.01, retry_cap=0.02)


class Clock:
    """The phone's clock."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "chat.sqlite"


@pytest.fixture
def events() -> list[Event]:
    """What the stores of this test have emitted."""
    return []


@pytest.fixture
def open_store(path: Path, events: list[Event]) -> Iterator[Callable[[], Store]]:
    """Opens the local database of ME. Closes the one that this test has opened before."""
    opened: list[Store] = []

    def open_store() -> Store:
        if opened:
            opened[-1].close()
        opened.append(Store(path, events.append))
        opened[-1].put("user_id", str(ME))
        return opened[-1]

    yield open_store
    if opened:
        opened[-1].close()


@pytest.fixture
def store(open_store: Callable[[], Store]) -> Store:
    return open_store()


@pytest.fixture
def server() -> FakeServer:
    return FakeServer()


@pytest.fixture
def room(server: FakeServer, store: Store) -> UUID:
    """A conversation that is stored."""
    room = server.open_room()
    store.apply_conversations(list(server.rooms.values()))
    return room


class Client:
    """The outbox and the sync of ME, without the background tasks of a whole client, on a clock of the test."""

    def __init__(self, store: Store, server: FakeServer, events: list[Event], http: httpx.AsyncClient) -> None:
        self.store = store
        self.clock = Clock()
        session = store.get("session") or json.dumps(server.session())
        self.server = Server(URL, KEY, session, self._save, http)
        self.outbox = Outbox(store, self.server, TIMING, 3, self._failed, self.clock)
        self.sync = Sync(store, self.server, TIMING, events.append, lambda: None, self._failed)
        self._events = events
        self.failures: list[Exception] = []  # of the background

    def _save(self, session: str | None) -> None:
        if session is None:
            self.store.remove("session")
        else:
            self.store.put("session", session)

    def _failed(self, what: str, error: Exception) -> None:
        self.failures.append(error)
        if isinstance(error, NotSignedIn):
            self._events.append(SessionEnded())

    async def send_due(self) -> float | None:
        """Sends what is due by the clock of the test. Returns the seconds until more is due, or None."""
        return await self.outbox.send_due()

    async def send_all(self) -> None:
        """Sends until nothing is pending: the clock goes on to each next attempt."""
        while (seconds := await self.outbox.send_due()) is not None:
            self.clock.now += seconds


@pytest.fixture
async def open_client(server: FakeServer, events: list[Event]) -> AsyncIterator[Callable[[Store], Client]]:
    async with AsyncExitStack() as connections:

        def open_client(store: Store) -> Client:
            http = httpx.AsyncClient(transport=server)
            connections.push_async_callback(http.aclose)
            return Client(store, server, events, http)

        yield open_client


@pytest.fixture
def client(open_client: Callable[[Store], Client], store: Store) -> Client:
    return open_client(store)
