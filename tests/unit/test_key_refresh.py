"""A key that is refused is read anew, at the HTTP border."""

import httpx
import pytest
from chat_push.key_refresh import RefreshKeyOnUnauthorized
from chat_push.secrets import SecretUnavailable


class Service:
    """Lets one key in. A handler for httpx.MockTransport."""

    def __init__(self, key: str | None, status: int = 401) -> None:
        self.key = key
        self.status = status
        self.asked: list[tuple[str | None, bytes]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        given = request.headers.get("apikey")
        self.asked.append((given, request.content))
        return httpx.Response(200 if given == self.key else self.status)


class Secret:
    """The secret as it is now, or as it is each time it is read; it counts how often."""

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
    """The status of a request with this key."""
    headers = {} if key is None else {"apikey": key}
    with httpx.Client(
        transport=RefreshKeyOnUnauthorized("apikey", secret.read, httpx.MockTransport(service))
    ) as client:
        return client.post("https://service.example/", content=b"body", headers=headers).status_code


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("cached", ["old", None])
def test_a_refused_request_is_repeated_with_the_key_of_now(status: int, cached: str | None) -> None:
    service = Service("new", status)
    assert call(service, Secret("new"), cached) == 200
    assert service.asked == [(cached, b"body"), ("new", b"body")]


def test_a_key_that_is_let_in_is_not_read_again() -> None:
    secret = Secret("new")
    assert call(Service("old"), secret, "old") == 200
    assert secret.reads == 0


@pytest.mark.parametrize("by_now", ["old", SecretUnavailable("secret backend cannot be read")])
def test_a_refusal_stands_if_there_is_no_other_key(by_now: str | Exception) -> None:
    service = Service("new")
    assert call(service, Secret(by_now), "old") == 401
    assert len(service.asked) == 1


def test_a_key_that_was_removed_is_sent_no_more() -> None:
    """Expo refuses a wrong access token even where none is needed."""
    service = Service(None)
    assert call(service, Secret(None), "old") == 200
    assert service.asked == [("old", b"body"), (None, b"body")]


def test_a_refusal_stands_where_no_key_is_needed() -> None:
    service = Service("new")
    assert call(service, Secret(None), None) == 401
    assert len(service.asked) == 1


def test_a_request_is_repeated_only_once_even_if_the_secret_changes_again() -> None:
    service = Service("newest")
    assert call(service, Secret("new", "newest"), "old") == 401
    assert [key for key, _ in service.asked] == ["old", "new"]


def test_other_faults_are_none_of_the_key() -> None:
    secret = Secret("new")
    assert call(Service("new", 500), secret, "old") == 500
    assert secret.reads == 0
