"""The client of FCM, against a scripted HTTP/2 server and token endpoint.

The rules: https://firebase.google.com/docs/cloud-messaging/send/v1-api
"""

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs

import httpx
import pytest
from chat_push.fcm import Fcm
from chat_push.fcm_errors import CONFIGURATION_FAULT, ERRORS, STATUSES
from chat_push.notification import Notification
from chat_push.outcome import Outcome

from tests.credentials import service_account
from tests.http2_fakes import Action, Close, Http2Server, Reply

FCM_ERROR = "type.googleapis.com/google.firebase.fcm.v1.FcmError"
PAYLOAD = {"android": {"priority": "high"}}


def error(
    status: int, code: str | None = None, message: str = "no", details: tuple[Any, ...] = (), **headers: str
) -> Reply:
    """An error response of FCM."""
    more = [{"@type": FCM_ERROR, "errorCode": code}] if code else []
    body = {"error": {"code": status, "message": message, "status": "X", "details": [*details, *more]}}
    return Reply(status, body, {name.replace("_", "-"): value for name, value in headers.items()})


class Sender:
    """Sends with a scripted FCM. `now` is the clock of the client. Tokens of the endpoint are t1, t2, …"""

    def __init__(self, *script: Action, tokens: tuple[httpx.Response | Exception, ...] = ()) -> None:
        self.server = Http2Server(*script)
        self.tokens = list(tokens)
        self.token_requests: list[httpx.Request] = []
        self.now = 1_795_000_000.0
        self.account = service_account()
        self._fcm: Fcm | None = None

    def __call__(self, count: int = 1) -> list[Outcome]:
        self._fcm = self._fcm or Fcm(
            self.account,
            "https://fcm.example",
            self.server.connect,
            httpx.MockTransport(self._token),
            lambda: self.now,
        )
        return self._fcm.send([Notification(f"token{n}", PAYLOAD, provider="fcm") for n in range(count)], lambda: 5.0)

    def _token(self, request: httpx.Request) -> httpx.Response:
        self.token_requests.append(request)
        if self.tokens:
            answer = self.tokens.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer
        return httpx.Response(200, json={"access_token": f"t{len(self.token_requests)}", "expires_in": 3600})

    @property
    def bearers(self) -> list[str]:
        """The authorization of each request."""
        return [request.headers["authorization"] for request in self.server.requests]

    def close(self) -> None:
        if self._fcm:
            self._fcm.close()


class Senders:
    def __init__(self) -> None:
        self.made: list[Sender] = []

    def __call__(self, *script: Action, tokens: tuple[httpx.Response | Exception, ...] = ()) -> Sender:
        self.made.append(Sender(*script, tokens=tokens))
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
    def test_a_message_has_the_documented_address_headers_and_body(self, sender: Senders) -> None:
        send = sender()
        assert send() == [HANDED_OVER]
        [request] = send.server.requests
        assert request.headers[":method"] == "POST"
        assert request.headers[":path"] == "/v1/projects/chat-1/messages:send"
        assert request.headers[":authority"] == "fcm.example"
        assert request.headers["authorization"] == "Bearer t1"
        assert request.headers["content-type"] == "application/json"
        assert request.body == {"message": {"token": "token0", **PAYLOAD}}

    def test_the_name_of_the_message_is_the_ticket(self, sender: Senders) -> None:
        name = "projects/chat-1/messages/0:1%2"
        assert sender(Reply(200, {"name": name}))() == [Outcome("handed_over", ticket_id=name)]

    def test_each_message_gets_its_own_outcome(self, sender: Senders) -> None:
        send = sender()
        send.server.default = lambda request: (
            error(404, "UNREGISTERED") if request.body["message"]["token"] == "token7" else Reply()
        )
        outcomes = send(250)
        assert [index for index, outcome in enumerate(outcomes) if outcome != HANDED_OVER] == [7]

    def test_a_batch_of_a_hundred_takes_two_round_trips(self, sender: Senders) -> None:
        send = sender()
        send.server.hold = 99
        assert send(100) == [HANDED_OVER] * 100
        assert [request.open for request in send.server.requests] == [1, *range(1, 100)]


class TestAccessToken:
    def test_the_token_is_requested_with_a_signed_assertion_and_kept(self, sender: Senders) -> None:
        send = sender()
        send()
        send(3)
        [request] = send.token_requests
        assert (request.method, str(request.url)) == ("POST", "https://oauth2.googleapis.com/token")
        form = parse_qs(request.content.decode())
        assert form["grant_type"] == ["urn:ietf:params:oauth:grant-type:jwt-bearer"]
        assert form["assertion"][0].count(".") == 2

    def test_a_token_is_replaced_five_minutes_before_its_end(self, sender: Senders) -> None:
        send = sender()
        for seconds, requests in [(0, 1), (3299, 1), (2, 2)]:
            send.now += seconds
            send()
            assert len(send.token_requests) == requests

    def test_a_refused_token_is_fetched_again_once_and_its_messages_are_repeated(self, sender: Senders) -> None:
        send = sender(error(401))
        assert send(3) == [HANDED_OVER] * 3
        assert send.bearers == ["Bearer t1", *["Bearer t2"] * 3]

    def test_a_message_that_was_accepted_is_not_repeated_with_the_next_token(self, sender: Senders) -> None:
        send = sender(Reply(), error(401))
        assert send(3) == [HANDED_OVER] * 3
        tokens = [request.body["message"]["token"] for request in send.server.requests]
        assert tokens.count("token0") == 1

    def test_a_second_refusal_is_a_configuration_fault_of_all_messages(self, sender: Senders) -> None:
        send = sender(error(401), error(401))
        outcomes = send(5)
        assert {(outcome.status, outcome.error) for outcome in outcomes} == {("configuration_fault", "UNAUTHENTICATED")}
        assert outcomes[0].should_stop_sending
        assert len(send.server.requests) == 2

    @pytest.mark.parametrize(
        ("answer", "status", "code"),
        [
            (httpx.Response(400, json={"error": "invalid_grant"}), "configuration_fault", "invalid_grant"),
            (httpx.Response(401, json={"error": "invalid_client"}), "configuration_fault", "invalid_client"),
            (httpx.Response(404, html="<h1>no</h1>"), "configuration_fault", "TokenHttp404"),
            (httpx.Response(400, json=["x"]), "configuration_fault", "TokenHttp400"),
            (httpx.Response(429, json={"error": "slow_down"}), "retry", "slow_down"),
            (httpx.Response(503, html="<h1>no</h1>"), "retry", "TokenHttp503"),
            (httpx.Response(200, json={"access_token": "x"}), "retry", "TokenHttp200"),
            (httpx.ConnectError("refused"), "retry", "TokenConnectError"),
            (httpx.ReadTimeout("slow"), "retry", "TokenReadTimeout"),
        ],
    )
    def test_without_a_token_nothing_is_sent(
        self, sender: Senders, answer: httpx.Response | Exception, status: str, code: str
    ) -> None:
        send = sender(tokens=(answer,))
        outcomes = send(2)
        assert [(outcome.status, outcome.error, outcome.attempted) for outcome in outcomes] == [
            (status, code, False)
        ] * 2
        assert outcomes[0].should_stop_sending
        assert send.server.requests == []
        assert send() == [HANDED_OVER], "the next batch tries again"

    @pytest.mark.parametrize("text", ["", "AIza" + "x" * 35, "{}"])
    def test_a_wrong_service_account_is_a_configuration_fault(self, sender: Senders, text: str) -> None:
        send = sender()
        send.account = text
        [outcome] = send()
        assert (outcome.status, outcome.error) == ("configuration_fault", "InvalidServiceAccount")
        assert send.token_requests == []


TOKEN_VIOLATION = {
    "@type": "type.googleapis.com/google.rpc.BadRequest",
    "fieldViolations": [{"field": "message.token", "description": "Invalid registration token"}],
}
OTHER_VIOLATION = {
    "@type": "type.googleapis.com/google.rpc.BadRequest",
    "fieldViolations": [{"field": "message.data[0].value", "description": "Invalid value"}],
}
QUOTA = "type.googleapis.com/google.rpc.QuotaFailure"
BAD_TOKEN = "The registration token is not a valid FCM registration token"

# (answer, status, code, concerns the provider, seconds to wait)
CASES: dict[str, tuple[Reply, str, str, bool, float | None]] = {
    "UNREGISTERED": (error(404, "UNREGISTERED"), "failed", "UNREGISTERED", False, None),
    "SENDER_ID_MISMATCH": (error(403, "SENDER_ID_MISMATCH"), "failed", "SENDER_ID_MISMATCH", False, None),
    "InvalidToken": (error(400, "INVALID_ARGUMENT", message=BAD_TOKEN), "failed", "InvalidToken", False, None),
    "InvalidToken by field": (
        error(400, "INVALID_ARGUMENT", details=(TOKEN_VIOLATION,)),
        "failed",
        "InvalidToken",
        False,
        None,
    ),
    "InvalidToken without FcmError": (error(400, details=(TOKEN_VIOLATION,)), "failed", "InvalidToken", False, None),
    "INVALID_ARGUMENT": (
        error(400, "INVALID_ARGUMENT", details=(OTHER_VIOLATION,)),
        "failed",
        "INVALID_ARGUMENT",
        False,
        None,
    ),
    "INVALID_ARGUMENT without details": (error(400), "failed", "INVALID_ARGUMENT", False, None),
    "UNSPECIFIED_ERROR": (error(400, "UNSPECIFIED_ERROR"), "failed", "UNSPECIFIED_ERROR", False, None),
    "a new code": (error(409, "SOMETHING_NEW"), "failed", "SOMETHING_NEW", False, None),
    "QUOTA_EXCEEDED": (error(429, "QUOTA_EXCEEDED"), "retry", "QUOTA_EXCEEDED", True, 60),
    "QUOTA_EXCEEDED with Retry-After": (
        error(429, "QUOTA_EXCEEDED", retry_after="90"),
        "retry",
        "QUOTA_EXCEEDED",
        True,
        90,
    ),
    "DeviceQuotaExceeded": (
        error(429, "QUOTA_EXCEEDED", details=({"@type": QUOTA, "violations": [{"subject": "device:x"}]},)),
        "retry",
        "DeviceQuotaExceeded",
        False,
        60,
    ),
    "UNAVAILABLE": (error(503, "UNAVAILABLE"), "retry", "UNAVAILABLE", True, 10),
    "INTERNAL": (error(500, "INTERNAL"), "retry", "INTERNAL", False, 10),
    "THIRD_PARTY_AUTH_ERROR": (
        error(401, "THIRD_PARTY_AUTH_ERROR"),
        "configuration_fault",
        "THIRD_PARTY_AUTH_ERROR",
        False,
        None,
    ),
    "APNS_AUTH_ERROR": (error(401, "APNS_AUTH_ERROR"), "configuration_fault", "APNS_AUTH_ERROR", False, None),
    "403": (error(403), "configuration_fault", "PERMISSION_DENIED", True, None),
    "404": (error(404), "configuration_fault", "NOT_FOUND", True, None),
    "404 of a proxy": (Reply(404, "<h1>Not found</h1>"), "configuration_fault", "NOT_FOUND", True, None),
    "429": (error(429), "retry", "QUOTA_EXCEEDED", True, 60),
    "500": (Reply(500, ""), "retry", "INTERNAL", False, 10),
    "502": (Reply(502, "<h1>Bad gateway</h1>"), "maybe_sent", "Http502", False, None),
    "503": (Reply(503, "", {"retry-after": "7"}), "retry", "UNAVAILABLE", True, 7),
    "413": (Reply(413, ""), "failed", "Http413", False, None),
    "malformed": (Reply(400, {"error": {"details": "x"}}), "failed", "INVALID_ARGUMENT", False, None),
}


class TestErrors:
    @pytest.mark.parametrize(("answer", "status", "code", "of_provider", "wait"), CASES.values(), ids=CASES)
    def test_each_error_of_fcm_has_its_outcome(
        self, sender: Senders, answer: Reply, status: str, code: str, of_provider: bool, wait: float | None
    ) -> None:
        send = sender(answer)
        [outcome] = send()
        assert (outcome.status, outcome.error) == (status, code)
        assert (outcome.whole_request, outcome.retry_after_seconds) == (of_provider, wait)
        assert len(send.server.requests) == 1

    def test_every_listed_code_has_a_test_case_and_every_configuration_fault_a_remedy(self) -> None:
        codes = {code for _, _, code, _, _ in CASES.values()} | {"UNAUTHENTICATED"}  # of TestAccessToken
        assert ERRORS.keys() | {code for code, _ in STATUSES.values()} <= codes
        faults = {code for _, status, code, _, _ in CASES.values() if status == "configuration_fault"}
        assert all(code in CONFIGURATION_FAULT for code in faults - {"APNS_AUTH_ERROR"})

    def test_the_fcm_error_is_found_by_its_type_and_not_by_its_position(self, sender: Senders) -> None:
        first = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "errorCode": "UNREGISTERED"}
        [outcome] = sender(error(503, "UNAVAILABLE", details=(first,)))()
        assert outcome.error == "UNAVAILABLE"

    @pytest.mark.parametrize("answer", [error(403), error(429), error(503)])
    def test_once_fcm_refuses_everything_nothing_more_is_sent(self, sender: Senders, answer: Reply) -> None:
        send = sender(answer)
        outcomes = send(50)
        assert len(send.server.requests) == 1
        assert {(outcome.status, outcome.error) for outcome in outcomes} == {(outcomes[0].status, outcomes[0].error)}
        assert [outcome.attempted for outcome in outcomes] == [True] + [False] * 49

    def test_the_error_of_one_device_does_not_stop_the_others(self, sender: Senders) -> None:
        outcomes = sender(error(404, "UNREGISTERED"), Reply(), error(400, "INVALID_ARGUMENT"))(4)
        assert [outcome.status for outcome in outcomes] == ["failed", "handed_over", "failed", "handed_over"]


class TestLostAnswers:
    def test_a_message_without_an_answer_may_have_been_sent(self, sender: Senders) -> None:
        [outcome] = sender(Close())()
        assert (outcome.status, outcome.error) == ("maybe_sent", "ConnectionLost")

    def test_without_a_connection_each_message_is_sent_again_later(self, sender: Senders) -> None:
        send = sender()
        send.server.connect_fault = ConnectionRefusedError()
        outcomes = send(2)
        assert [(outcome.status, outcome.error) for outcome in outcomes] == [("retry", "ConnectionRefusedError")] * 2
        assert outcomes[0].should_stop_sending


def test_the_repr_and_the_state_of_a_sender_show_no_credential(sender: Senders) -> None:
    send = sender()
    send()
    key = json.loads(send.account)["private_key"]
    assert key[40:80] not in repr(send._fcm)
