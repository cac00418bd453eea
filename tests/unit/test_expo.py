"""The Expo client, with HTTP fakes of Expo.

The rules: https://docs.expo.dev/push-notifications/sending-notifications/, and the linked issues of Expo.
"""

import re
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, get_args

import httpx
import pytest
from chat_push.expo import Expo
from chat_push.expo_errors import CONFIGURATION_FAULT, RECIPIENT_ERRORS, ReceiptsUnavailable
from chat_push.notification import Notification
from chat_push.outcome import Outcome
from hypothesis import given
from hypothesis import strategies as st

from tests.http_fakes import (
    EXPO_URL,
    ExpoAnswer,
    Messages,
    PushService,
    ReceiptAnswer,
    ReceiptService,
    body_of,
    errors,
    ok,
    push_token,
    receipts,
    ticket_id,
)

ONE = push_token(1)
PAYLOAD = {"title": "Ana", "body": "Hello"}


class Sender:
    """Sends with a scripted Expo. Time passes only by the pauses of the client and by changes of `seconds`."""

    def __init__(self, *answers: ExpoAnswer, seconds: float = 60, access_token: str | None = None) -> None:
        self.service = PushService(*answers)
        self.pauses: list[float] = []
        self.seconds = seconds
        self.next_slot_in = 0.0
        self.slots: list[int] = []  # the notifications for which another slot was reserved
        self._expo = Expo(EXPO_URL, access_token, httpx.MockTransport(self.service), self.pauses.append)

    def __call__(self, *tokens: str, body: str = "Hello", in_seconds: float = 0) -> list[Outcome]:
        """Sends to these tokens, in a send slot that begins in so many seconds."""
        return self._expo.send(
            [Notification(token, {**PAYLOAD, "body": body}) for token in tokens],
            lambda: self.seconds - sum(self.pauses),
            time.monotonic() + in_seconds if in_seconds else 0,
            self._next_slot,
        )

    def _next_slot(self, notifications: int) -> float:
        self.slots.append(notifications)
        return time.monotonic() + self.next_slot_in if self.next_slot_in else 0


def accepted(*tokens: str) -> list[Outcome]:
    return [Outcome("accepted", ticket_id=ticket_id(token)) for token in tokens]


def tickets(*given: Any) -> httpx.Response:
    return httpx.Response(200, json={"data": list(given)})


def error_ticket(error: str | None, **details: Any) -> dict[str, Any]:
    return {"status": "error", "message": "no", "details": {"error": error, **details}}


def html(status: int) -> httpx.Response:
    return httpx.Response(status, html=f"<h1>{status} Bad Gateway</h1>")


class TestRequest:
    def test_a_send_request_has_the_documented_address_and_headers(self) -> None:
        send = Sender()
        send(ONE)
        [request] = send.service.requests
        assert (request.method, str(request.url)) == ("POST", "https://exp.host/--/api/v2/push/send")
        assert request.headers["accept"] == "application/json"
        assert request.headers["accept-encoding"] == "gzip, deflate"
        assert request.headers["content-type"] == "application/json"
        assert request.headers["user-agent"]
        assert "authorization" not in request.headers

    def test_the_access_token_is_sent_as_bearer(self) -> None:
        send = Sender(access_token="robot")
        send(ONE)
        assert send.service.requests[0].headers["authorization"] == "Bearer robot"

    def test_the_body_is_a_list_even_for_one_message_and_contains_only_the_given_fields(self) -> None:
        send = Sender()
        send(ONE)
        assert body_of(send.service.requests[0]) == [{"to": ONE, **PAYLOAD}]

    @pytest.mark.parametrize(("characters", "encoding"), [(10, None), (900, None), (1100, "gzip")])
    def test_only_a_body_above_1_kib_is_gzipped(self, characters: int, encoding: str | None) -> None:
        send = Sender()
        send(ONE, body="x" * characters)
        [request] = send.service.requests
        assert request.headers.get("content-encoding") == encoding
        assert body_of(request) == [{"to": ONE, **PAYLOAD, "body": "x" * characters}]
        assert int(request.headers["content-length"]) == len(request.content)

    @pytest.mark.parametrize("token", ["ExpoPushToken[xxxxxxxxxxxxxxxxxxxxxx]", "f0e5ee9c-3a2c-4f8f-9d2b-000000000000"])
    def test_every_form_of_expo_token_is_sent(self, token: str) -> None:
        """The SDK's own message class refuses these."""
        send = Sender()
        assert send(token) == accepted(token)

    @pytest.mark.parametrize(("seconds", "read", "connect"), [(60, 4, 2), (3, 3, 2)])
    def test_the_timeout_of_a_send_request_is_at_most_the_time_left(
        self, seconds: float, read: float, connect: float
    ) -> None:
        send = Sender(seconds=seconds)
        send(ONE)
        timeout = send.service.requests[0].extensions["timeout"]
        assert (timeout["read"], timeout["connect"]) == (read, connect)

    def test_without_time_left_no_send_request_is_made(self) -> None:
        send = Sender(seconds=1)
        [outcome] = send(ONE)
        assert (outcome.status, outcome.error, send.service.requests) == ("retry", "OutOfTime", [])

    def test_no_request_is_made_before_its_send_slot(self) -> None:
        send = Sender()
        assert send(*[push_token(number) for number in range(101)], in_seconds=30)[0].status == "accepted"
        [pause] = send.pauses
        assert 0 < pause <= 30

    def test_a_send_slot_after_the_time_left_is_not_waited_for(self) -> None:
        send = Sender(seconds=5)
        outcomes = send(ONE, push_token(2), in_seconds=6)
        assert [(outcome.status, outcome.error) for outcome in outcomes] == [("retry", "OutOfTime")] * 2
        assert all(outcome.should_stop_sending for outcome in outcomes), "otherwise a sweep would continue to claim"
        assert (send.service.requests, send.pauses) == ([], [])

    def test_after_a_request_without_a_response_the_timeout_is_two_seconds_for_half_a_minute(self) -> None:
        """Otherwise every worker would wait 4 seconds for each request, and all pushes would be late."""
        service = PushService(httpx.ReadTimeout("slow"), ok, httpx.ReadTimeout("slow"))
        now = 1000.0
        expo = Expo(EXPO_URL, None, httpx.MockTransport(service), clock=lambda: now)

        def timeout() -> float:
            expo.send([Notification(ONE, PAYLOAD)], lambda: 60)
            read: float = service.requests[-1].extensions["timeout"]["read"]
            return read

        assert [timeout() for _ in range(3)] == [4, 2, 2]
        now += 31
        assert timeout() == 4, "a timeout of two seconds does not extend the half minute"


class TestChunks:
    @pytest.mark.parametrize("recipients", [0, 1, 99, 100, 101, 450, 999])
    def test_a_request_has_at_most_a_hundred_recipients_and_each_gets_its_own_ticket(self, recipients: int) -> None:
        """No token is left out or sent twice."""
        tokens = [push_token(number) for number in range(recipients)]
        send = Sender()
        assert send(*tokens) == accepted(*tokens)
        assert [token for chunk in send.service.recipients for token in chunk] == tokens
        assert len(send.service.requests) == -(-recipients // 100)
        assert all(len(chunk) <= 100 for chunk in send.service.recipients)

    @pytest.mark.parametrize("failure", [errors(500, "INTERNAL_SERVER_ERROR"), httpx.ReadError("reset"), html(502)])
    def test_a_failed_request_neither_repeats_earlier_ones_nor_stops_later_ones(self, failure: ExpoAnswer) -> None:
        tokens = [push_token(number) for number in range(250)]
        send = Sender(ok, failure)
        outcomes = send(*tokens)
        assert outcomes[:100] == accepted(*tokens[:100])
        assert {outcome.status for outcome in outcomes[100:200]} == {"maybe_sent"}
        assert outcomes[200:] == accepted(*tokens[200:])
        assert len(send.service.requests) == 3

    @pytest.mark.parametrize(
        ("refusals", "status"),
        [([httpx.Response(429)] * 3, "retry"), ([errors(403, "UNAUTHORIZED")], "configuration_fault")],
    )
    def test_once_expo_rejects_a_request_as_a_whole_the_rest_is_not_attempted(
        self, refusals: list[httpx.Response], status: str
    ) -> None:
        tokens = [push_token(number) for number in range(250)]
        send = Sender(ok, *refusals)
        outcomes = send(*tokens)
        assert outcomes[:100] == accepted(*tokens[:100])
        assert [outcome.status for outcome in outcomes[100:]] == [status] * 150
        assert len(send.service.requests) == 1 + len(refusals)

    def test_an_error_of_each_recipient_does_not_stop_the_next_request(self) -> None:
        tokens = [push_token(number) for number in range(101)]
        send = Sender(lambda messages: tickets(*[error_ticket("InvalidCredentials")] * len(messages)))
        assert send(*tokens)[100:] == accepted(tokens[100])


def refusing(*bad: str) -> ExpoAnswer:
    """Expo's response that refuses a whole request because of one bad token."""

    def answer(messages: Messages) -> httpx.Response:
        indexes = [index for index, message in enumerate(messages) if message["to"] in bad]
        return errors(400, "VALIDATION_ERROR", message=f'"{indexes[0]}.to": Invalid') if indexes else ok(messages)

    return answer


class TestIsolation:
    @pytest.mark.parametrize("bad", [[0], [99], [41], [3, 41, 42]])
    def test_a_bad_message_is_isolated_and_the_others_are_sent_once(self, bad: list[int]) -> None:
        """Expo sends no message of a request with a VALIDATION_ERROR."""
        tokens = [push_token(number) for number in range(100)]
        bad_tokens = [tokens[number] for number in bad]
        send = Sender(*[refusing(*bad_tokens)] * 60)
        outcomes = dict(zip(tokens, send(*tokens), strict=True))
        for token in bad_tokens:
            assert (outcomes[token].status, outcomes[token].error) == ("failed", "VALIDATION_ERROR")
        good = [token for token in tokens if token not in bad_tokens]
        assert [outcomes[token] for token in good] == accepted(*good)
        assert [message["to"] for message in send.service.accepted] == good
        assert len(send.service.requests) <= 1 + 2 * 7 * len(bad)

    def test_isolating_a_bad_message_ends_when_the_time_is_over(self) -> None:
        """A message that was not refused alone is attempted again later."""

        def refuse_slowly(messages: Messages) -> httpx.Response:
            send.seconds -= 10
            return errors(400, "VALIDATION_ERROR")

        send = Sender(*[refuse_slowly] * 9)
        outcomes = send(*[push_token(number) for number in range(100)])
        assert {(outcome.status, outcome.error) for outcome in outcomes} == {("retry", "OutOfTime")}
        assert len(send.service.requests) == 6


def of_projects(project_of: dict[str, str]) -> ExpoAnswer:
    """Expo's response that refuses tokens of several projects, and names the projects that it knows."""

    def answer(messages: Messages) -> httpx.Response:
        details: dict[str, Any] = {}
        for message in messages:
            if message["to"] in project_of:
                details.setdefault(project_of[message["to"]], []).append(message["to"])
        return errors(400, "PUSH_TOO_MANY_EXPERIENCE_IDS", details=details) if len(details) > 1 else ok(messages)

    return answer


class TestProjects:
    def test_tokens_of_several_projects_are_sent_in_one_request_for_each_project(self) -> None:
        """https://github.com/expo/expo/issues/43172"""
        tokens = [push_token(number) for number in range(9)]
        project_of = {token: f"@owner/app{number % 3}" for number, token in enumerate(tokens)}
        send = Sender(*[of_projects(project_of)] * 4)
        assert send(*tokens) == accepted(*tokens)
        assert send.service.recipients == [tokens, tokens[0::3], tokens[1::3], tokens[2::3]]
        assert sorted(message["to"] for message in send.service.accepted) == tokens

    def test_a_token_without_a_known_project_is_sent_in_a_request_of_its_own(self) -> None:
        tokens = [push_token(number) for number in range(3)]
        send = Sender(*[of_projects({tokens[0]: "@a/a", tokens[2]: "@b/b"})] * 4)
        assert send(*tokens) == accepted(*tokens)
        assert send.service.recipients[1:] == [[token] for token in tokens]

    def test_a_project_conflict_that_remains_after_splitting_is_a_configuration_fault(self) -> None:
        """The typical cause is a renamed project: Expo then refuses each of its requests."""
        tokens = [push_token(1), push_token(2)]
        details: dict[str, Any] = {"@old/app": tokens[:1], "@new/app": tokens[1:]}
        send = Sender(*[errors(400, "PUSH_TOO_MANY_EXPERIENCE_IDS", details=details)] * 9)
        assert [outcome.status for outcome in send(*tokens)] == ["configuration_fault"] * 2
        assert send.service.recipients == [tokens, tokens[:1], tokens[1:]]

    @pytest.mark.parametrize(
        "details",
        [{"@owner/app": [push_token(1), push_token(2)]}, {}, None, "text", {"@owner/app": None}, {"@owner/app": 5}],
    )
    def test_a_project_conflict_without_two_groups_is_not_sent_again(self, details: Any) -> None:
        """Splitting by a single group would never end."""
        send = Sender(errors(400, "PUSH_TOO_MANY_EXPERIENCE_IDS", details=details))
        outcomes = send(push_token(1), push_token(2))
        assert [(outcome.status, outcome.error) for outcome in outcomes] == [
            ("configuration_fault", "PUSH_TOO_MANY_EXPERIENCE_IDS")
        ] * 2
        assert len(send.service.requests) == 1


UNREADABLE = ("accepted", "UnreadableResponse", 1)

REQUEST_CASES = {
    # Expo accepted nothing, so that a retry is safe.
    "429": (errors(429, "TOO_MANY_REQUESTS"), ("retry", "TOO_MANY_REQUESTS", 3)),
    "429 without a body": (httpx.Response(429), ("retry", "Http429", 3)),
    "429 of another code": (errors(429, "SLOW_DOWN"), ("retry", "SLOW_DOWN", 3)),
    "too many requests as 400": (errors(400, "TOO_MANY_REQUESTS"), ("retry", "TOO_MANY_REQUESTS", 3)),
    "no connection": (httpx.ConnectError("refused"), ("retry", "ConnectError", 3)),
    "no connection in time": (httpx.ConnectTimeout("slow"), ("retry", "ConnectTimeout", 3)),
    "no free connection": (httpx.PoolTimeout("busy"), ("retry", "PoolTimeout", 3)),
    # An operator must fix it.
    "401": (errors(401, "UNAUTHORIZED"), ("configuration_fault", "UNAUTHORIZED", 1)),
    "403": (errors(403, "UNAUTHORIZED"), ("configuration_fault", "UNAUTHORIZED", 1)),
    "unauthorized as 400": (errors(400, "UNAUTHORIZED"), ("configuration_fault", "UNAUTHORIZED", 1)),
    "401 without a body": (httpx.Response(401), ("configuration_fault", "Http401", 1)),
    "403 of another code": (errors(403, "FORBIDDEN"), ("configuration_fault", "FORBIDDEN", 1)),
    "wrong access token": (
        httpx.Response(401, json={"error": "invalid_token", "error_description": "The bearer token is invalid"}),
        ("configuration_fault", "invalid_token", 1),
    ),
    "wrong address": (html(404), ("configuration_fault", "Http404", 1)),
    # Expo rejects it for good.
    "one too many": (errors(400, "PUSH_TOO_MANY_NOTIFICATIONS"), ("failed", "PUSH_TOO_MANY_NOTIFICATIONS", 1)),
    "invalid": (errors(400, "VALIDATION_ERROR"), ("failed", "VALIDATION_ERROR", 1)),
    "invalid, with 200": (errors(200, "VALIDATION_ERROR"), ("failed", "VALIDATION_ERROR", 1)),
    "invalid, formerly": (errors(400, "API_ERROR"), ("failed", "API_ERROR", 1)),
    "400 without a code": (httpx.Response(400, json={"errors": [{"message": "no"}]}), ("failed", "Http400", 1)),
    "400 with any JSON": (httpx.Response(400, json={"foo": "bar"}), ("failed", "Http400", 1)),
    "413": (html(413), ("failed", "Http413", 1)),
    # Expo may have sent it: https://github.com/expo/expo/issues/15152
    "500": (errors(500, "INTERNAL_SERVER_ERROR"), ("maybe_sent", "INTERNAL_SERVER_ERROR", 1)),
    "errors in a 200": (errors(200, "INTERNAL_SERVER_ERROR"), ("maybe_sent", "INTERNAL_SERVER_ERROR", 1)),
    "odd errors in a 200": (httpx.Response(200, json={"errors": []}), ("maybe_sent", "Http200", 1)),
    "500 without a body": (httpx.Response(500), ("maybe_sent", "Http500", 1)),
    "500 with tickets": (httpx.Response(500, json={"data": [{"status": "ok"}]}), ("maybe_sent", "Http500", 1)),
    "502": (html(502), ("maybe_sent", "Http502", 1)),
    "503": (httpx.Response(503, text="no healthy upstream"), ("maybe_sent", "Http503", 1)),
    "504": (html(504), ("maybe_sent", "Http504", 1)),
    "reset while writing": (httpx.WriteError("reset"), ("maybe_sent", "WriteError", 1)),
    "reset while reading": (httpx.ReadError("reset"), ("maybe_sent", "ReadError", 1)),
    "closed without a response": (httpx.RemoteProtocolError("closed"), ("maybe_sent", "RemoteProtocolError", 1)),
    "no response in time": (httpx.ReadTimeout("slow"), ("maybe_sent", "ReadTimeout", 1)),
    # Expo accepted it, but the tickets cannot be assigned to recipients.
    "truncated JSON": (httpx.Response(200, text='{"data":[{"status":"ok","id":"019b'), UNREADABLE),
    "nested too deeply": (httpx.Response(200, text="[" * 200_000), UNREADABLE),
    "null": (httpx.Response(200, json=None), UNREADABLE),
    "a list": (httpx.Response(200, json=[]), UNREADABLE),
    "no data": (httpx.Response(200, json={}), UNREADABLE),
    "data is null": (httpx.Response(200, json={"data": None}), UNREADABLE),
    "data is text": (httpx.Response(200, json={"data": "ok"}), UNREADABLE),
    "tickets are no objects": (tickets("ok"), UNREADABLE),
    "a ticket too few": (tickets(), UNREADABLE),
    "a ticket too many": (tickets({"status": "ok", "id": "a"}, {"status": "ok", "id": "b"}), UNREADABLE),
}

RECIPIENT_CASES: dict[str, tuple[dict[str, Any], tuple[str, str]]] = {
    **{
        error: (error_ticket(error), (status, error))
        for error, status in {
            "DeviceNotRegistered": "failed",
            "MessageTooBig": "failed",
            "DeveloperError": "failed",
            "MessageRateExceeded": "retry",
            "ExpoError": "retry",
            "ProviderError": "retry",
            "MismatchSenderId": "configuration_fault",
            "InvalidCredentials": "configuration_fault",
            "SomethingNew": "failed",
        }.items()
    },
    "mismatch inside of a provider error": (
        error_ticket("ProviderError", fcm={"error": "MismatchSenderId"}),
        ("configuration_fault", "MismatchSenderId"),
    ),
    "another provider error": (
        error_ticket("ProviderError", fcm={"httpStatus": 503, "error": "UNAVAILABLE"}),
        ("retry", "ProviderError"),
    ),
    "no details": ({"status": "error", "message": "no"}, ("failed", "UnknownError")),
    "no code in the details": (error_ticket(None), ("failed", "UnknownError")),
    "details are text": ({"status": "error", "details": "no"}, ("failed", "UnknownError")),
    "no status": ({"id": "a"}, ("failed", "UnknownError")),
    "status decides, not the id": (
        {"id": "a", **error_ticket("DeviceNotRegistered", fault="developer")},
        ("failed", "DeviceNotRegistered"),
    ),
}


class TestErrors:
    def test_every_listed_code_of_expo_has_a_test_case_and_every_configuration_fault_a_remedy(self) -> None:
        assert RECIPIENT_CASES.keys() >= RECIPIENT_ERRORS.keys()
        for code, status in RECIPIENT_ERRORS.items():
            assert status != "configuration_fault" or f"{code}: " in CONFIGURATION_FAULT

    @pytest.mark.parametrize("no_errors", [[], None])
    def test_tickets_beside_an_empty_list_of_errors_are_kept(self, no_errors: list[object] | None) -> None:
        send = Sender(httpx.Response(200, json={"data": [{"status": "ok", "id": "a"}], "errors": no_errors}))
        [outcome] = send(ONE)
        assert (outcome.status, outcome.ticket_id) == ("accepted", "a")

    @pytest.mark.parametrize(("answer", "expected"), REQUEST_CASES.values(), ids=REQUEST_CASES)
    def test_each_error_of_a_whole_request_has_its_outcome_code_and_number_of_calls(
        self, answer: ExpoAnswer, expected: tuple[str, str, int]
    ) -> None:
        send = Sender(*[answer] * 9)
        [outcome] = send(ONE)
        assert (outcome.status, outcome.error, len(send.service.requests)) == expected
        assert outcome.ticket_id is None

    @pytest.mark.parametrize(("ticket", "expected"), RECIPIENT_CASES.values(), ids=RECIPIENT_CASES)
    def test_an_error_of_one_recipient_does_not_affect_the_others(
        self, ticket: dict[str, Any], expected: tuple[str, str]
    ) -> None:
        good = {"status": "ok", "id": ticket_id(ONE)}
        send = Sender(tickets(good, ticket, good))
        before, outcome, after = send(ONE, push_token(2), ONE)
        assert (outcome.status, outcome.error) == expected
        assert outcome.ticket_id is None
        assert [before, after] == accepted(ONE, ONE)
        assert len(send.service.requests) == 1

    def test_a_single_ticket_outside_of_a_list_is_accepted(self) -> None:
        send = Sender(httpx.Response(200, json={"data": {"status": "ok", "id": ticket_id(ONE)}}))
        assert send(ONE) == accepted(ONE)

    @pytest.mark.parametrize("odd", ["", "t\u0000", "x" * 201, "zwölf", 5, {"a": 1}])
    def test_a_ticket_with_an_unusable_id_is_accepted_without_it(self, odd: Any) -> None:
        """Postgres could not store it, or Expo would refuse the whole receipt request with it."""
        send = Sender(tickets({"status": "ok", "id": odd}))
        assert send(ONE) == [Outcome("accepted")]

    def test_a_ticket_without_id_is_accepted(self) -> None:
        send = Sender(tickets({"status": "ok"}))
        assert send(ONE) == [Outcome("accepted")]

    @pytest.mark.parametrize("code", ["bad token ExponentPushToken[x]", 5, None, "x" * 101, ""])
    def test_an_error_text_that_is_not_a_code_is_replaced(self, code: Any) -> None:
        """It would be logged and stored, and it may contain a text or a token."""
        for answer, error in [
            (tickets(error_ticket(code)), "UnknownError"),
            (errors(500, code), "Http500"),
            (httpx.Response(500, json={"error": code}), "Http500"),
        ]:
            assert Sender(answer)(ONE)[0].error == error

    @given(
        status=st.sampled_from([200, 302, 400, 401, 429, 500]),
        body=st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(),
            lambda inner: (
                st.lists(inner, max_size=2)
                | st.dictionaries(
                    st.sampled_from(["data", "errors", "error", "code", "details", "status", "id", "fcm"]), inner
                )
            ),
        ),
    )
    def test_send_returns_outcomes_for_any_response_of_expo(self, status: int, body: Any) -> None:
        outcomes = Sender(*[httpx.Response(status, json=body)] * 9)(ONE, push_token(2))
        assert len(outcomes) == 2
        for outcome in outcomes:
            assert outcome.status in get_args(Outcome.__annotations__["status"])
            assert outcome.ticket_id is None or isinstance(outcome.ticket_id, str)
            assert outcome.error is None or re.fullmatch(r"\w{1,100}", outcome.error)


class ReceiptReader:
    """Requests receipts from a scripted Expo."""

    def __init__(self, *answers: ReceiptAnswer, seconds: float = 60, access_token: str | None = None) -> None:
        self.service = ReceiptService(*answers)
        self.seconds = seconds
        self._expo = Expo(EXPO_URL, access_token, httpx.MockTransport(self.service))

    def __call__(self, *ticket_ids: str) -> dict[str, Outcome]:
        return self._expo.receipts(ticket_ids, lambda: self.seconds)


HANDED_OVER = Outcome("handed_over")

NO_RECEIPTS: dict[str, tuple[ReceiptAnswer, str, bool]] = {
    "429": (errors(429, "TOO_MANY_REQUESTS"), "TOO_MANY_REQUESTS", False),
    "429 without a body": (httpx.Response(429), "Http429", False),
    "too many": (errors(400, "PUSH_TOO_MANY_RECEIPTS"), "PUSH_TOO_MANY_RECEIPTS", False),
    "500": (errors(500, "INTERNAL_SERVER_ERROR"), "INTERNAL_SERVER_ERROR", False),
    "errors in a 200": (errors(200, "INTERNAL_SERVER_ERROR"), "INTERNAL_SERVER_ERROR", False),
    "HTML of a gateway": (html(502), "Http502", False),
    "HTML with 200": (html(200), "Http200", False),
    "no response in time": (httpx.ReadTimeout("slow"), "ReadTimeout", False),
    "no connection": (httpx.ConnectError("refused"), "ConnectError", False),
    "reset": (httpx.ReadError("reset"), "ReadError", False),
    "truncated JSON": (httpx.Response(200, text='{"data":{"019b'), "Http200", False),
    "null": (httpx.Response(200, json=None), "Http200", False),
    "no data": (httpx.Response(200, json={}), "Http200", False),
    "data is a list": (httpx.Response(200, json={"data": []}), "Http200", False),
    "500 with receipts": (httpx.Response(500, json={"data": {"a": {"status": "ok"}}}), "Http500", False),
    "401": (errors(401, "UNAUTHORIZED"), "UNAUTHORIZED", True),
    "403": (errors(403, "FORBIDDEN"), "FORBIDDEN", True),
    "wrong access token": (httpx.Response(401, json={"error": "invalid_token"}), "invalid_token", True),
    "wrong address": (html(404), "Http404", True),
}


class TestReceipts:
    def test_a_receipt_request_has_the_documented_address_and_the_bearer(self) -> None:
        """The SDK's own session would send no bearer with it."""
        read = ReceiptReader(access_token="robot")
        read("a")
        [request] = read.service.requests
        assert (request.method, str(request.url)) == ("POST", "https://exp.host/--/api/v2/push/getReceipts")
        assert request.headers["content-type"] == "application/json"
        assert request.headers["authorization"] == "Bearer robot"
        assert body_of(request) == {"ids": ["a"]}

    def test_receipts_are_assigned_by_id_and_absent_ones_are_left_out(self) -> None:
        """Expo returns them in any order."""
        given = {"c": {"status": "ok"}, "a": error_ticket("MessageTooBig"), "b": {"status": "ok"}}
        read = ReceiptReader(receipts(given))
        assert read("a", "b", "c", "d") == {
            "a": Outcome("failed", "MessageTooBig"),
            "b": HANDED_OVER,
            "c": HANDED_OVER,
        }

    def test_a_thousand_receipts_take_one_request(self) -> None:
        read = ReceiptReader()
        ids = [f"t{number}" for number in range(1000)]
        assert read(*ids) == dict.fromkeys(ids, HANDED_OVER)
        assert read.service.requested == [ids]
        assert read.service.requests[0].headers["content-encoding"] == "gzip"

    @pytest.mark.parametrize("malformed", ["ok", None, [], 5])
    def test_a_malformed_receipt_counts_as_missing_and_does_not_affect_the_others(self, malformed: Any) -> None:
        assert ReceiptReader(receipts({"a": malformed, "b": {"status": "ok"}}))("a", "b") == {"b": HANDED_OVER}

    def test_a_receipt_that_was_not_requested_is_ignored(self) -> None:
        given = {"a": {"status": "ok"}, "of another project": error_ticket("DeviceNotRegistered")}
        assert ReceiptReader(receipts(given))("a") == {"a": HANDED_OVER}

    @pytest.mark.parametrize(("answer", "code", "configuration_fault"), NO_RECEIPTS.values(), ids=NO_RECEIPTS)
    def test_a_response_without_receipts_raises_receipts_unavailable_after_one_call(
        self, answer: ReceiptAnswer, code: str, configuration_fault: bool
    ) -> None:
        """The next run requests the receipts again."""
        read = ReceiptReader(answer)
        with pytest.raises(ReceiptsUnavailable) as raised:
            read("a")
        assert (str(raised.value), raised.value.configuration_fault) == (code, configuration_fault)
        assert len(read.service.requests) == 1

    def test_a_refused_ticket_id_is_found_and_the_other_receipts_are_returned(self) -> None:
        def answer(ids: list[str]) -> httpx.Response:
            if "bad" in ids:
                return errors(400, "VALIDATION_ERROR", message='"ids[2]": Invalid')
            return receipts({id_: {"status": "ok"} for id_ in ids})

        read = ReceiptReader(*[answer] * 9)
        assert read("a", "b", "bad", "c") == {
            **dict.fromkeys("abc", HANDED_OVER),
            "bad": Outcome("receipt_lost", "VALIDATION_ERROR"),
        }

    def test_a_refused_ticket_id_is_not_searched_for_without_time_left(self) -> None:
        read = ReceiptReader(errors(400, "VALIDATION_ERROR"), seconds=1)
        with pytest.raises(ReceiptsUnavailable, match="VALIDATION_ERROR"):
            read("a", "b")

    @pytest.mark.parametrize(("seconds", "timeout"), [(60, 8), (5, 5), (-1, 0.1)])
    def test_the_timeout_of_a_receipt_request_is_at_most_the_time_left(self, seconds: float, timeout: float) -> None:
        read = ReceiptReader(seconds=seconds)
        read("a")
        assert read.service.requests[0].extensions["timeout"]["read"] == timeout

    @pytest.mark.parametrize(("entry", "expected"), RECIPIENT_CASES.values(), ids=RECIPIENT_CASES)
    def test_an_error_code_means_the_same_in_a_ticket_and_in_a_receipt(
        self, entry: dict[str, Any], expected: tuple[str, str]
    ) -> None:
        [of_ticket] = Sender(tickets(entry))(ONE)
        of_receipt = ReceiptReader(receipts({"a": entry}))("a")["a"]
        assert of_ticket == of_receipt
        assert (of_receipt.status, of_receipt.error) == expected


class TestRetry:
    @pytest.mark.parametrize("refusals", [1, 2])
    @pytest.mark.parametrize("refusal", [httpx.Response(429), httpx.ConnectError("refused")])
    def test_a_request_that_expo_did_not_accept_is_repeated(self, refusal: ExpoAnswer, refusals: int) -> None:
        send = Sender(*[refusal] * refusals)
        assert send(ONE) == accepted(ONE)
        assert send.pauses == [0.5, 1.0][:refusals]
        assert send.service.recipients == [[ONE]] * (refusals + 1)

    def test_a_repeated_request_waits_for_a_send_slot_of_its_own(self) -> None:
        send = Sender(httpx.Response(429))
        send.next_slot_in = 20
        assert send(ONE, push_token(2)) == accepted(ONE, push_token(2))
        [pause, wait] = send.pauses
        assert (pause, send.slots) == (0.5, [2])
        assert 0 < wait <= 20

    def test_a_second_send_slot_after_the_time_left_is_not_waited_for(self) -> None:
        send = Sender(httpx.Response(429), seconds=60)
        send.next_slot_in = 3600
        [outcome] = send(ONE)
        assert (outcome.status, outcome.error, outcome.should_stop_sending) == ("retry", "OutOfTime", True)
        assert (len(send.service.requests), send.pauses) == (1, [0.5])

    def test_no_pause_follows_the_last_call_to_expo(self) -> None:
        send = Sender(*[httpx.Response(429)] * 9)
        assert send(ONE)[0].status == "retry"
        assert (len(send.service.requests), len(send.pauses)) == (3, 2)

    @pytest.mark.parametrize(
        ("retry_after", "pause"),
        [
            ("7", 7),
            ("0", 0.5),
            ("Sun, 06 Nov 1994 08:49:37 GMT", 0.5),
            ("Tue, 31 Nov 2026 10:00:00 GMT", 0.5),
            (f"Tue, 01 Nov {'9' * 20} 10:00:00 GMT", 0.5),
            (f"Tue, 01 Nov 2026 10:00:00 +{'9' * 20}", 0.5),
            ("-5", 0.5),
            ("soon", 0.5),
            ("", 0.5),
            (None, 0.5),
        ],
    )
    def test_retry_after_is_a_floor_for_the_pause(self, retry_after: str | None, pause: float) -> None:
        """It may be absent or malformed."""
        headers = {} if retry_after is None else {"Retry-After": retry_after}
        send = Sender(httpx.Response(429, headers=headers))
        assert send(ONE) == accepted(ONE)
        assert send.pauses == [pause]

    def test_retry_after_may_be_a_date(self) -> None:
        date = format_datetime(datetime.now(UTC) + timedelta(seconds=20), usegmt=True)
        send = Sender(httpx.Response(429, headers={"Retry-After": date}))
        assert send(ONE) == accepted(ONE)
        assert send.pauses == [pytest.approx(20, abs=5)]

    def test_a_retry_after_that_takes_most_of_the_time_left_is_left_to_the_database(self) -> None:
        send = Sender(httpx.Response(429, headers={"Retry-After": "40"}))
        [outcome] = send(ONE)
        assert (outcome.status, outcome.retry_after_seconds) == ("retry", 40)
        assert (len(send.service.requests), send.pauses) == (1, [])

    @pytest.mark.parametrize("retry_after", ["86400", "9" * 400, "Fri, 31 Dec 9999 23:59:59 GMT"])
    def test_retry_after_is_limited_to_an_hour(self, retry_after: str) -> None:
        send = Sender(httpx.Response(429, headers={"Retry-After": retry_after}))
        assert send(ONE)[0].retry_after_seconds == 3600
