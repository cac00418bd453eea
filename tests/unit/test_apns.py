"""The client of APNs, against a scripted HTTP/2 server.

The rules: https://developer.apple.com/documentation/usernotifications/sending-notification-requests-to-apns
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import jwt
import pytest
from chat_push.apns import Apns
from chat_push.apns_errors import CONFIGURATION_FAULT, ERRORS
from chat_push.http2 import Connect
from chat_push.models import Environment
from chat_push.notification import Notification
from chat_push.outcome import Outcome

from tests.credentials import APNS, ec_key, pem
from tests.http2_fakes import Action, Close, GoAway, Http2Server, Reply

PAYLOAD: dict[str, Any] = {
    "headers": {"apns-push-type": "alert", "apns-priority": "10", "apns-collapse-id": "room"},
    "ttl": 3600,
    "body": {"aps": {"alert": {"title": "Ana", "body": "Olá"}}},
}
REGISTERED_AT = datetime(2026, 11, 20, tzinfo=UTC)


def error(status: int, reason: str, **fields: Any) -> Reply:
    return Reply(status, {"reason": reason, **fields})


class Sender:
    """Sends with a scripted APNs for each environment. `now` is the clock of the client."""

    def __init__(self, *script: Action) -> None:
        self.server = Http2Server(*script)
        self.sandbox = Http2Server()
        self.now = 1_795_000_000.0
        self.key = pem(ec_key())
        self._apns: Apns | None = None

    def __call__(self, count: int = 1, environment: Environment = "production") -> list[Outcome]:
        return self.send([environment] * count)

    def send(self, environments: list[Environment]) -> list[Outcome]:
        if self._apns is None:
            connect: dict[Environment, Connect] = {"production": self.server.connect, "sandbox": self.sandbox.connect}
            self._apns = Apns(
                self.key, APNS["key_id"], APNS["team_id"], APNS["topic"], connect=connect, clock=lambda: self.now
            )
        notifications = [
            Notification(f"{number:064x}", PAYLOAD, (), "apns", environment, REGISTERED_AT)
            for number, environment in enumerate(environments)
        ]
        return self._apns.send(notifications, lambda: 5.0)

    def close(self) -> None:
        if self._apns:
            self._apns.close()


class Senders:
    def __init__(self) -> None:
        self.made: list[Sender] = []

    def __call__(self, *script: Action) -> Sender:
        self.made.append(Sender(*script))
        return self.made[-1]


@pytest.fixture
def sender() -> Iterator[Senders]:
    """Makes senders. This fixture closes their connections; a function never does."""
    senders = Senders()
    yield senders
    for made in senders.made:
        made.close()


HANDED_OVER = Outcome("handed_over")


class TestRequest:
    def test_a_notification_has_the_documented_address_headers_and_body(self, sender: Senders) -> None:
        send = sender()
        assert send() == [HANDED_OVER]
        [request] = send.server.requests
        headers = request.headers
        assert (headers[":method"], headers[":path"]) == ("POST", "/3/device/" + "0" * 64)
        assert headers[":authority"] == "api.push.apple.com"
        assert headers["apns-topic"] == "com.example.app"
        assert headers["apns-push-type"] == "alert"
        assert headers["apns-priority"] == "10"
        assert headers["apns-collapse-id"] == "room"
        assert headers["apns-expiration"] == str(1_795_000_000 + 3600)
        assert str(UUID(headers["apns-id"])) == headers["apns-id"]
        assert request.body == PAYLOAD["body"]

    def test_the_apns_id_is_the_ticket(self, sender: Senders) -> None:
        apns_id = "0b6ac5d6-95d4-4d44-9b3a-5b1c8f3a5d1e"
        assert sender(Reply(200, None, {"apns-id": apns_id}))() == [Outcome("handed_over", ticket_id=apns_id)]

    def test_each_environment_has_its_own_server(self, sender: Senders) -> None:
        send = sender()
        assert send.send(["sandbox", "production", "sandbox"]) == [HANDED_OVER] * 3
        assert [len(server.requests) for server in (send.server, send.sandbox)] == [1, 2]
        assert send.sandbox.requests[0].headers[":authority"] == "api.sandbox.push.apple.com"

    def test_the_first_notification_on_a_connection_is_alone_and_the_others_are_sent_at_once(
        self, sender: Senders
    ) -> None:
        send = sender()
        send.server.hold = 99
        assert send(100) == [HANDED_OVER] * 100
        assert [request.open for request in send.server.requests] == [1, *range(1, 100)]

    def test_the_provider_token_changes_every_40_minutes(self, sender: Senders) -> None:
        send = sender()
        for _ in range(9):
            send()
            send.now += 600
        tokens = [request.headers["authorization"].removeprefix("bearer ") for request in send.server.requests]
        assert len(set(tokens)) == 3
        for token in tokens:
            jwt.decode(token, ec_key().public_key(), ["ES256"], options={"verify_iat": False})

    def test_a_wrong_key_is_a_configuration_fault_and_nothing_is_sent(self, sender: Senders) -> None:
        send = sender()
        send.key = "-----BEGIN CERTIFICATE-----"
        [outcome] = send()
        assert (outcome.status, outcome.error) == ("configuration_fault", "InvalidApnsKey")
        assert send.server.connections == []


STATUS_OF = {
    **dict.fromkeys(
        ["BadTopic", "MissingTopic", "TopicDisallowed", "BadDeviceToken", "DeviceTokenNotForTopic", "BadCollapseId"],
        400,
    ),
    **dict.fromkeys(["BadExpirationDate", "BadMessageId", "BadPriority", "DuplicateHeaders", "InvalidPushType"], 400),
    **dict.fromkeys(["MissingDeviceToken", "PayloadEmpty", "IdleTimeout"], 400),
    **dict.fromkeys(["Unregistered", "ExpiredToken"], 410),
    **dict.fromkeys(["TooManyRequests", "TooManyProviderTokenUpdates"], 429),
    **{"BadPath": 404, "MethodNotAllowed": 405, "PayloadTooLarge": 413, "InternalServerError": 500},
    **dict.fromkeys(["ServiceUnavailable", "Shutdown"], 503),
}
# The rest of the table: what an operator must fix, with 403.
FAULTS = {
    *("BadTopic", "MissingTopic", "TopicDisallowed", "InvalidProviderToken", "MissingProviderToken"),
    *("ExpiredProviderToken", "BadEnvironmentKeyIdInToken", "BadEnvironmentKeyInToken", "UnrelatedKeyIdInToken"),
    *("BadCertificate", "BadCertificateEnvironment", "Forbidden", "TooManyProviderTokenUpdates"),
}
RETRIES = {"TooManyRequests", "InternalServerError", "ServiceUnavailable", "IdleTimeout", "Shutdown"}
REASONS = [reason for reason in ERRORS if reason != "RegisteredAgain"]


class TestErrors:
    @pytest.mark.parametrize("reason", REASONS)
    def test_each_reason_of_apns_has_its_outcome(self, sender: Senders, reason: str) -> None:
        send = sender(*[error(STATUS_OF.get(reason, 403), reason)] * 3)
        [outcome] = send()
        expected = "configuration_fault" if reason in FAULTS else "retry" if reason in RETRIES else "failed"
        assert (outcome.status, outcome.error) == (expected, reason)
        assert outcome.should_stop_sending == (reason in FAULTS or reason == "ServiceUnavailable")

    @pytest.mark.parametrize("reason", sorted(FAULTS))
    def test_a_configuration_fault_stops_sending_and_touches_no_device(self, sender: Senders, reason: str) -> None:
        send = sender(*[error(403, reason)] * 3)
        outcomes = send(50)
        assert {outcome.status for outcome in outcomes} == {"configuration_fault"}
        assert len(send.server.requests) == (3 if reason == "UnrelatedKeyIdInToken" else 1)
        assert [outcome.attempted for outcome in outcomes] == [True] + [False] * 49

    @pytest.mark.parametrize("reason", ["IdleTimeout", "Shutdown", "UnrelatedKeyIdInToken"])
    def test_a_refusal_of_the_connection_is_repeated_on_another_one_with_the_same_id(
        self, sender: Senders, reason: str
    ) -> None:
        send = sender(error(STATUS_OF.get(reason, 403), reason))
        assert send() == [HANDED_OVER]
        first, second = send.server.requests
        assert (first.connection, second.connection) == (1, 2)
        assert first.headers["apns-id"] == second.headers["apns-id"]

    @pytest.mark.parametrize("reason", ["BadDeviceToken", "Unregistered", "PayloadTooLarge", "TooManyRequests"])
    def test_the_error_of_one_device_does_not_stop_the_others(self, sender: Senders, reason: str) -> None:
        outcomes = sender(Reply(), error(400, reason))(5)
        assert [outcome == HANDED_OVER for outcome in outcomes] == [True, False, True, True, True]

    @pytest.mark.parametrize(
        ("answer", "status", "code"),
        [
            (error(400, "SomethingNew"), "failed", "SomethingNew"),
            (error(503, "SomethingNew"), "retry", "SomethingNew"),
            (Reply(502, "<h1>Bad gateway</h1>"), "retry", "Http502"),
            (Reply(400, "[]"), "failed", "Http400"),
            (error(400, "a text with a token"), "failed", "Http400"),
        ],
    )
    def test_an_unknown_reason_counts_by_its_status(
        self, sender: Senders, answer: Reply, status: str, code: str
    ) -> None:
        [outcome] = sender(answer)()
        assert (outcome.status, outcome.error) == (status, code)

    def test_every_configuration_fault_that_an_operator_can_cause_has_a_remedy(self) -> None:
        for code in ("InvalidApnsKey", "InvalidProviderToken", "TopicDisallowed", "BadEnvironmentKeyInToken"):
            assert code in CONFIGURATION_FAULT


class TestDeadTokens:
    @pytest.mark.parametrize("reason", ["Unregistered", "ExpiredToken"])
    @pytest.mark.parametrize(("seconds", "code"), [(-1, "RegisteredAgain"), (0, None), (1, None)])
    def test_a_token_that_was_dead_before_its_last_registration_is_not(
        self, sender: Senders, reason: str, seconds: int, code: str | None
    ) -> None:
        """APNs may learn late that an app was removed, and the device may have installed it again."""
        timestamp = int((REGISTERED_AT.timestamp() + seconds) * 1000)
        [outcome] = sender(error(410, reason, timestamp=timestamp))()
        assert (outcome.status, outcome.error) == ("failed", code or reason)

    @pytest.mark.parametrize("timestamp", [None, "soon", True, []])
    def test_without_a_readable_timestamp_the_token_is_dead(self, sender: Senders, timestamp: Any) -> None:
        [outcome] = sender(error(410, "Unregistered", timestamp=timestamp))()
        assert outcome.error == "Unregistered"


class TestGoAway:
    def test_notifications_that_goaway_does_not_count_are_sent_on_another_connection(self, sender: Senders) -> None:
        send = sender(Reply(), GoAway("Shutdown"))
        assert send(5) == [HANDED_OVER] * 5

    def test_a_notification_that_may_have_been_handled_is_not_sent_twice(self, sender: Senders) -> None:
        send = sender(Reply(), GoAway(handled=True))
        outcomes = send(2)
        assert [outcome.status for outcome in outcomes] == ["handed_over", "maybe_sent"]

    def test_a_lost_connection_leaves_notifications_that_may_have_been_sent(self, sender: Senders) -> None:
        assert [outcome.status for outcome in sender(Close())()] == ["maybe_sent"]
