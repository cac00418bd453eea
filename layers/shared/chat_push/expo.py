"""Expo's push service. The only module that knows its protocol, its SDK and its errors.

`exponent-server-sdk` speaks the protocol, over an httpx session of ours. Each request is a call of its own, so that one
that fails never costs the tickets of another. The rules come from Expo's documentation of sending notifications and
from the behaviour recorded in the issues of its SDKs.
"""

import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from itertools import batched
from typing import Any, Literal, Self

import httpx
from exponent_server_sdk import PushClient, PushMessage, PushServerError

from chat_push.expo_session import CONNECT_TIMEOUT_SECONDS, Response, Session
from chat_push.notification import Notification

MAX_RECIPIENTS_PER_REQUEST = 100
MAX_TICKETS_PER_REQUEST = 1000
MAX_CALLS_PER_REQUEST = 3
RESPONSE_TIMEOUT_SECONDS = 4.0
RECEIPTS_TIMEOUT_SECONDS = 8.0
# After a request that Expo never answered: workers that all wait so long would hold up everybody's pushes. Not for
# longer than STALLED_SECONDS, or an Expo that has become slower would never be waited for again.
STALLED_RESPONSE_TIMEOUT_SECONDS = 2.0
STALLED_SECONDS = 30.0


@dataclass(frozen=True)
class Outcome:
    """What is known of one notification after sending it.

    accepted: Expo answered 200 and named no error (without ticket_id if its tickets could not be read); maybe_sent:
    nobody knows; retry: refused for now; failed: refused for good; configuration_fault: refused until it is mended;
    handed_over: by its receipt, APNs or FCM took it; receipt_lost: Expo gives no receipt for its ticket.
    """

    status: Literal["accepted", "maybe_sent", "retry", "failed", "configuration_fault", "handed_over", "receipt_lost"]
    error: str | None = None
    ticket_id: str | None = None
    retry_after_seconds: float | None = None
    whole_request: bool = False  # Expo refused the request, not this recipient.
    attempted: bool = True  # False: it was not sent, because there was no time, or Expo refused those before it.

    @property
    def should_stop_sending(self) -> bool:
        """Whether Expo takes nothing from us at the moment."""
        return self.whole_request and self.status in ("retry", "configuration_fault")


_OUT_OF_TIME = Outcome("retry", "OutOfTime", whole_request=True, attempted=False)


class ReceiptsUnavailable(Exception):
    """Expo gives no receipts now; the text is the reason's code. A configuration fault is mended by a person."""

    def __init__(self, code: str, *, configuration_fault: bool = False) -> None:
        super().__init__(code)
        self.configuration_fault = configuration_fault


# Errors of one recipient, in tickets and receipts alike. Every other code is final for the message and keeps the token.
_RECIPIENT_ERRORS: dict[str, Literal["retry", "failed", "configuration_fault"]] = {
    "DeviceNotRegistered": "failed",
    "MessageTooBig": "failed",
    "DeveloperError": "failed",
    "MessageRateExceeded": "retry",
    "ExpoError": "retry",
    "ProviderError": "retry",
    "InvalidCredentials": "configuration_fault",
    "MismatchSenderId": "configuration_fault",
}


# What failures are counted by: each code is billed as a metric of its own, and codes come from outside.
_FAILURE_CODES = {
    *(code for code, status in _RECIPIENT_ERRORS.items() if status == "failed"),
    *("VALIDATION_ERROR", "API_ERROR", "PUSH_TOO_MANY_NOTIFICATIONS"),
    *(f"Http{status.value}" for status in HTTPStatus if status.is_client_error),
}


def failure_code(outcome: Outcome) -> str:
    """The code of a failure if it is one of those that are known, else `other`."""
    return outcome.error if outcome.error in _FAILURE_CODES else "other"


def classify_recipient(details: object) -> Outcome:
    """The outcome for one recipient from the `details` of an error ticket or receipt."""
    details = details if isinstance(details, dict) else {}
    error = _code(details.get("error")) or "UnknownError"
    fcm = details.get("fcm")
    if isinstance(fcm, dict) and fcm.get("error") == "MismatchSenderId":
        error = "MismatchSenderId"  # Also seen inside a ProviderError.
    return Outcome(_RECIPIENT_ERRORS.get(error, "failed"), error)


def _code(value: object) -> str | None:
    """The value if it looks like a code; what does not may quote a text or a token, and codes are logged."""
    return value if isinstance(value, str) and re.fullmatch(r"\w{1,100}", value, re.ASCII) else None


def _ticket_id(value: object) -> str | None:
    """The id if it looks like one; what does not would be refused when its receipt is asked for, or by the database."""
    return value if isinstance(value, str) and re.fullmatch(r"[ -~]{1,200}", value) else None


class Expo:
    """A client of the push service with its own kept-alive connections.

    `transport`, `pause` and `clock` are there for tests; `clock` gives seconds that only go forward.
    """

    def __init__(
        self,
        url: str,
        access_token: str | None = None,
        transport: httpx.BaseTransport | None = None,
        pause: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._session = Session(access_token, transport)
        self._client = PushClient(host=url, session=self._session)
        self._pause = pause
        self._clock = clock
        self._stalled_until = -math.inf

    def send(
        self,
        notifications: Sequence[Notification],
        time_left: Callable[[], float],
        send_at: float = 0.0,
        next_slot: Callable[[int], float] = lambda notifications: 0.0,
    ) -> list[Outcome]:
        """One outcome for each notification, in order; never raises for what Expo answers.

        `time_left` gives the seconds that may still be used. Nothing is sent before its send slot, a time.monotonic():
        `send_at` is that of all, and `next_slot` reserves another for so many that were refused. Once Expo turns
        requests away, the rest is not attempted.
        """
        outcomes: list[Outcome] = []
        if not self._wait_for_slot(send_at, time_left):
            return [_OUT_OF_TIME] * len(notifications)
        for chunk in batched(notifications, MAX_RECIPIENTS_PER_REQUEST):
            outcomes += self._send_chunk(chunk, time_left, next_slot)
            if outcomes[-1].should_stop_sending:
                break
        untried = len(notifications) - len(outcomes)
        return outcomes + [replace(outcomes[-1], attempted=False)] * untried if untried else outcomes

    def _wait_for_slot(self, send_at: float, time_left: Callable[[], float]) -> bool:
        """Whether there was time to."""
        wait = send_at - time.monotonic()
        if wait >= time_left():
            return False
        if wait > 0:
            self._pause(wait)
        return True

    def _send_chunk(
        self, chunk: Sequence[Notification], time_left: Callable[[], float], next_slot: Callable[[int], float]
    ) -> list[Outcome]:
        """Calls again at once only for what was certainly not accepted, and only while there is time."""
        calls = 0
        while True:
            calls += 1
            if time_left() < CONNECT_TIMEOUT_SECONDS:
                return [replace(_OUT_OF_TIME, attempted=calls > 1)] * len(chunk)
            try:
                return self._call(chunk, time_left)
            except _RequestRefused as refused:
                if refused.parts:
                    return self._send_parts(chunk, refused.parts, time_left, next_slot)
                wait = max(refused.outcome.retry_after_seconds or 0, 0.25 * 2**calls)
                if refused.outcome.status != "retry" or calls == MAX_CALLS_PER_REQUEST or wait > time_left() / 2:
                    return [refused.outcome] * len(chunk)
            self._pause(wait)
            # Its slot has passed by now: without another it would take the place of others, who were refused then.
            if not self._wait_for_slot(next_slot(len(chunk)), time_left):
                return [replace(_OUT_OF_TIME, attempted=True)] * len(chunk)

    def _send_parts(
        self,
        chunk: Sequence[Notification],
        parts: Sequence[Sequence[int]],
        time_left: Callable[[], float],
        next_slot: Callable[[int], float],
    ) -> list[Outcome]:
        outcomes: dict[int, Outcome] = {}
        for part in parts:
            sent = self._send_chunk([chunk[index] for index in part], time_left, next_slot)
            outcomes.update(zip(part, sent, strict=True))
        return [outcomes[index] for index in range(len(chunk))]

    def _call(self, chunk: Sequence[Notification], time_left: Callable[[], float]) -> list[Outcome]:
        """One request. Raises _RequestRefused when none of the recipients was accepted."""
        is_stalled = self._clock() < self._stalled_until
        timeout = STALLED_RESPONSE_TIMEOUT_SECONDS if is_stalled else RESPONSE_TIMEOUT_SECONDS
        self._client.timeout = min(timeout, time_left())
        try:
            tickets = self._client.publish_multiple([_Message(n.push_token, n.payload) for n in chunk])
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise _RequestRefused(request_outcome("retry", type(error).__name__)) from None
        except httpx.RequestError as error:
            if isinstance(error, httpx.ReadTimeout) and not is_stalled:
                self._stalled_until = self._clock() + STALLED_SECONDS
            # The request may have been read: Expo has delivered what it answered with a reset or a 504.
            return [request_outcome("maybe_sent", type(error).__name__)] * len(chunk)
        except PushServerError as error:
            return classify_error_response(error.response, chunk)
        return [
            Outcome("accepted", ticket_id=_ticket_id(ticket.id))
            if ticket.is_success()
            else classify_recipient(ticket.details)
            for ticket in tickets
        ]

    def receipts(self, ticket_ids: Sequence[str], time_left: Callable[[], float]) -> dict[str, Outcome]:
        """The receipts that are ready, by ticket id, of at most MAX_TICKETS_PER_REQUEST tickets.

        One request, unless Expo refuses an id: then it is found by halving, and its receipt is lost. Raises
        ReceiptsUnavailable if Expo does not answer with receipts.
        """
        self._client.timeout = max(0.1, min(RECEIPTS_TIMEOUT_SECONDS, time_left()))
        try:
            answered = self._client.check_receipts_multiple([_Ticket(ticket_id) for ticket_id in ticket_ids])
        except httpx.RequestError as error:
            raise ReceiptsUnavailable(type(error).__name__) from None
        except PushServerError as error:
            answer: Response = error.response
            code = _error_code(answer)
            one = len(ticket_ids) == 1
            is_refused_id = answer.status_code == 400 and not (one and code == "PUSH_TOO_MANY_RECEIPTS")
            if not is_refused_id or time_left() < CONNECT_TIMEOUT_SECONDS:
                raise ReceiptsUnavailable(code, configuration_fault=_is_configuration_fault(answer, code)) from None
            if one:
                return {ticket_ids[0]: Outcome("receipt_lost", code)}
            middle = len(ticket_ids) // 2
            return self.receipts(ticket_ids[:middle], time_left) | self.receipts(ticket_ids[middle:], time_left)
        asked = set(ticket_ids)
        return {
            receipt.id: Outcome("handed_over") if receipt.is_success() else classify_recipient(receipt.details)
            for receipt in answered
            if receipt.id in asked
        }


@dataclass(frozen=True)
class _Ticket:
    """What the SDK wants to be asked with."""

    id: str


class _RequestRefused(Exception):
    """Expo accepted nothing of a request. `parts` are indexes to send apart from one another, if that can help."""

    def __init__(self, outcome: Outcome, parts: Sequence[Sequence[int]] = ()) -> None:
        super().__init__(outcome.error)
        self.outcome = outcome
        self.parts = parts


def request_outcome(
    status: Literal["maybe_sent", "retry", "failed", "configuration_fault"],
    error: str,
    retry_after_seconds: float | None = None,
) -> Outcome:
    return Outcome(status, error, retry_after_seconds=retry_after_seconds, whole_request=True)


def _error_code(answer: Response) -> str:
    return _code(answer.error().get("code")) or f"Http{answer.status_code}"


def _is_configuration_fault(answer: Response, code: str) -> bool:
    return answer.status_code in (401, 403, 404) or code in ("UNAUTHORIZED", "invalid_token")


def classify_error_response(answer: Response, chunk: Sequence[Notification]) -> list[Outcome]:
    """What an answer without usable tickets means for its recipients. Raises _RequestRefused if none was accepted."""
    status, error = answer.status_code, answer.error()
    code = _error_code(answer)
    if status == 429 or code == "TOO_MANY_REQUESTS":
        raise _RequestRefused(request_outcome("retry", code, answer.retry_after_seconds()))
    if _is_configuration_fault(answer, code):
        raise _RequestRefused(request_outcome("configuration_fault", code))
    if code == "PUSH_TOO_MANY_EXPERIENCE_IDS":
        # With one project only, its slug was renamed: then it refuses every batch.
        raise _RequestRefused(
            request_outcome("configuration_fault", code), _indexes_by_project(error.get("details"), chunk)
        )
    if status == 200 and not error:
        # Expo took the request, but its tickets cannot be attributed: sending it again would be a second push.
        return [Outcome("accepted", "UnreadableResponse")] * len(chunk)
    if 400 <= status < 500 or code in ("VALIDATION_ERROR", "API_ERROR", "PUSH_TOO_MANY_NOTIFICATIONS"):
        # One bad message refuses a hundred: halve until it is alone.
        middle = len(chunk) // 2
        halves = (range(middle), range(middle, len(chunk))) if middle else ()
        raise _RequestRefused(request_outcome("failed", code), halves)
    return [request_outcome("maybe_sent", code)] * len(chunk)


def _indexes_by_project(details: object, chunk: Sequence[Notification]) -> Sequence[Sequence[int]]:
    """Indexes grouped by Expo project, from `details` = {"@owner/slug": [tokens]}; none if there is but one group."""
    if not isinstance(details, dict):
        return ()
    project_of = {
        token: project
        for project, tokens in details.items()
        if isinstance(tokens, list)
        for token in tokens
        if isinstance(token, str)
    }
    groups: dict[str | None, list[int]] = {}
    for index, notification in enumerate(chunk):
        groups.setdefault(project_of.get(notification.push_token), []).append(index)
    return list(groups.values()) if len(groups) > 1 else ()


class _Message(PushMessage):  # type: ignore[misc]  # The SDK has no types.
    """The SDK's own message knows no collapseId, tag, threadId or richContent, and refuses ExpoPushToken[…]."""

    def __new__(cls, push_token: str, payload: Mapping[str, Any]) -> Self:
        message: Self = super().__new__(cls, to=push_token, data=payload)
        return message

    def get_payload(self) -> dict[str, Any]:
        return {"to": self.to, **self.data}
