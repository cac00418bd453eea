"""Requests with a key that is rotated while it is cached."""

import httpx
import pytest
from chat_push.key_refresh import RefreshKeyOnUnauthorized
from chat_push.secrets import SecretUnavailable


class Service:
    """A service that accepts one key. For httpx.MockTransport."""

    def __init__(self, key: str | None, status: int = 401) -> None:
        self.key = key
        self.status = status
        self.received: list[tuple[str | None, bytes]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        given = request.headers.get("apikey")
        self.received.append((given, request.content))
        return httpx.Response(200 if given == self.key else self.status)


class Secret:
    """A secret whose reads return these keys one after the other, in a cycle. It counts the reads."""

    def __init__(self, *keys: str | Exception | None) -> None:
        self.keys = keys
        self.reads = 0

    def read(self) -> str | None:
        key = self.keys[self.reads % len(self.keys)]
        self.reads += 1
        if isinstance(key, Exception):
            raise key
        return key


def call(service: Service, secret: Secret, key: str | None) -> int:
    """The status of a request with this cached key."""
    headers = {} if key is None else {"apikey": key}
    with httpx.Client(
        transport=RefreshKeyOnUnauthorized("apikey", secret.read, httpx.MockTransport(service))
    ) as client:
        return client.post("https://service.example/", content=b"body", headers=headers).status_code


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("cached", ["old", None])
def test_a_refused_request_is_repeated_with_the_current_key(status: int, cached: str | None) -> None:
    service = Service("new", status)
    assert call(service, Secret("new"), cached) == 200
    assert service.received == [(cached, b"body"), ("new", b"body")]


def test_an_accepted_key_is_not_read_again() -> None:
    secret = Secret("new")
    assert call(Service("old"), secret, "old") == 200
    assert secret.reads == 0


@pytest.mark.parametrize("current", ["old", SecretUnavailable("secret backend cannot be read")])
def test_a_refused_request_is_not_repeated_if_there_is_no_other_key(current: str | Exception) -> None:
    service = Service("new")
    assert call(service, Secret(current), "old") == 401
    assert len(service.received) == 1


def test_a_removed_key_is_not_sent_again() -> None:
    """Expo refuses a wrong access token even if it requires none."""
    service = Service(None)
    assert call(service, Secret(None), "old") == 200
    assert service.received == [("old", b"body"), (None, b"body")]


def test_a_refused_request_without_a_key_is_not_repeated_without_one() -> None:
    service = Service("new")
    assert call(service, Secret(None), None) == 401
    assert len(service.received) == 1


def test_a_refused_request_is_repeated_only_once() -> None:
    service = Service("newest")
    assert call(service, Secret("new", "newest"), "old") == 401
    assert [key for key, _ in service.received] == ["old", "new"]


def test_another_error_does_not_cause_a_read_of_the_key() -> None:
    secret = Secret("new")
    assert call(Service("new", 500), secret, "old") == 500
    assert secret.reads == 0
