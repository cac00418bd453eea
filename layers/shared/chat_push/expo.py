"""Client of Expo's push service. expo_errors says what its errors mean; expo_session makes the HTTP requests.

The protocol: https://docs.expo.dev/push-notifications/sending-notifications/. `exponent-server-sdk` implements it.
Each request is a separate call of the SDK, so that a failed request loses no tickets of another.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import batched
from typing import Any, Self

import httpx
from exponent_server_sdk import PushClient, PushMessage, PushServerError

from chat_push.expo_errors import (
    ReceiptsUnavailable,
    RequestRefused,
    classify_error_response,
    classify_recipient,
    error_code,
    request_status,
)
from chat_push.expo_session import CONNECT_TIMEOUT_SECONDS, Session
from chat_push.notification import Notification
from chat_push.outcome import Outcome, as_ticket_id, request_outcome

MAX_RECIPIENTS_PER_REQUEST = 100
MAX_TICKETS_PER_REQUEST = 1000
MAX_CALLS_PER_REQUEST = 3
RESPONSE_TIMEOUT_SECONDS = 4.0
RECEIPTS_TIMEOUT_SECONDS = 8.0
# After a request without a response, this timeout applies for STALLED_SECONDS: if every worker waited longer, all
# pushes would be late. After that the longer one applies again, because Expo may just have become slower.
STALLED_RESPONSE_TIMEOUT_SECONDS = 2.0
STALLED_SECONDS = 30.0

_OUT_OF_TIME = replace(request_outcome("retry", "OutOfTime"), attempted=False)


class Expo:
    """A client of the push service, with kept-alive connections of its own.

    Tests replace `transport`, `pause` and `clock`. `clock` returns monotonic seconds.
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
        """One outcome for each notification, in order. It never raises for a response of Expo.

        `time_left` returns the seconds that may still be used. `send_at` is the send slot of all notifications, a
        time.monotonic() before which nothing is sent. `next_slot` reserves a slot for so many notifications that Expo
        refused, and returns it. Once an outcome says should_stop_sending, the rest is not attempted.
        """
        outcomes: list[Outcome] = []
        if not self._wait_for_slot(send_at, time_left):
            return [_OUT_OF_TIME] * len(notifications)
        for chunk in batched(notifications, MAX_RECIPIENTS_PER_REQUEST):
            outcomes += self._send_chunk(chunk, time_left, next_slot)
            if outcomes[-1].should_stop_sending:
                break
        left = len(notifications) - len(outcomes)
        return outcomes + [replace(outcomes[-1], attempted=False)] * left if left else outcomes

    def receipts(self, ticket_ids: Sequence[str], time_left: Callable[[], float]) -> dict[str, Outcome]:
        """The receipts that are ready, by ticket id, of at most MAX_TICKETS_PER_REQUEST tickets.

        It makes one request. If Expo refuses an id, halving finds it, and its outcome is receipt_lost. Raises
        ReceiptsUnavailable if Expo returns no receipts.
        """
        self._client.timeout = max(0.1, min(RECEIPTS_TIMEOUT_SECONDS, time_left()))
        try:
            returned = self._client.check_receipts_multiple([_Ticket(ticket_id) for ticket_id in ticket_ids])
        except httpx.RequestError as error:
            raise ReceiptsUnavailable(type(error).__name__) from None
        except PushServerError as error:
            http_status, code = error.response.status_code, error_code(error.response)
            is_single = len(ticket_ids) == 1
            is_refused_id = http_status == 400 and not (is_single and code == "PUSH_TOO_MANY_RECEIPTS")
            if not is_refused_id or time_left() < CONNECT_TIMEOUT_SECONDS:
                is_configuration_fault = request_status(http_status, code) == "configuration_fault"
                raise ReceiptsUnavailable(code, configuration_fault=is_configuration_fault) from None
            if is_single:
                return {ticket_ids[0]: Outcome("receipt_lost", code)}
            middle = len(ticket_ids) // 2
            return self.receipts(ticket_ids[:middle], time_left) | self.receipts(ticket_ids[middle:], time_left)
        requested = set(ticket_ids)
        return {
            receipt.id: Outcome("handed_over") if receipt.is_success() else classify_recipient(receipt.details)
            for receipt in returned
            if receipt.id in requested
        }

    def _wait_for_slot(self, send_at: float, time_left: Callable[[], float]) -> bool:
        """Waits for the slot. False, at once, if it begins too late."""
        wait = send_at - time.monotonic()
        if wait >= time_left():
            return False
        if wait > 0:
            self._pause(wait)
        return True

    def _send_chunk(
        self, chunk: Sequence[Notification], time_left: Callable[[], float], next_slot: Callable[[int], float]
    ) -> list[Outcome]:
        """Repeats a request only if Expo accepted none of it, and only while there is time.

        This is the only wait that Python computes. The database computes when a job is attempted again, from the
        retry_after_seconds of an outcome and its own backoff (push.retry_at).
        """
        calls = 0
        while True:
            calls += 1
            if time_left() < CONNECT_TIMEOUT_SECONDS:
                return [replace(_OUT_OF_TIME, attempted=calls > 1)] * len(chunk)
            try:
                return self._request(chunk, time_left)
            except RequestRefused as refused:
                if refused.parts:
                    return self._send_parts(chunk, refused.parts, time_left, next_slot)
                # 0.5 s, then 1 s. Retry-After is a floor.
                wait = max(refused.outcome.retry_after_seconds or 0, 0.25 * 2**calls)
                if refused.outcome.status != "retry" or calls == MAX_CALLS_PER_REQUEST or wait > time_left() / 2:
                    return [refused.outcome] * len(chunk)
            self._pause(wait)
            # The reserved slot has passed. Sending without a new one would exceed the rate limit.
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

    def _request(self, chunk: Sequence[Notification], time_left: Callable[[], float]) -> list[Outcome]:
        """One request. Raises RequestRefused if Expo accepted no recipient."""
        is_stalled = self._clock() < self._stalled_until
        timeout = STALLED_RESPONSE_TIMEOUT_SECONDS if is_stalled else RESPONSE_TIMEOUT_SECONDS
        self._client.timeout = min(timeout, time_left())
        try:
            tickets = self._client.publish_multiple([_Message(n.push_token, n.payload) for n in chunk])
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise RequestRefused(request_outcome("retry", type(error).__name__)) from None
        except httpx.RequestError as error:
            if isinstance(error, httpx.ReadTimeout) and not is_stalled:
                self._stalled_until = self._clock() + STALLED_SECONDS
            # Expo may have read the request, and then sends it: https://github.com/expo/expo/issues/27433
            return [request_outcome("maybe_sent", type(error).__name__)] * len(chunk)
        except PushServerError as error:
            return classify_error_response(error.response, chunk)
        return [
            Outcome("accepted", ticket_id=as_ticket_id(ticket.id))
            if ticket.is_success()
            else classify_recipient(ticket.details)
            for ticket in tickets
        ]


@dataclass(frozen=True)
class _Ticket:
    """The part of a ticket that the SDK reads when it requests a receipt."""

    id: str


class _Message(PushMessage):  # type: ignore[misc]  # The SDK has no types.
    """A message whose payload the SDK sends unchanged.

    The SDK's own message has no collapseId, tag, threadId and richContent, and it refuses tokens like ExpoPushToken[…].
    """

    def __new__(cls, push_token: str, payload: Mapping[str, Any]) -> Self:
        message: Self = super().__new__(cls, to=push_token, data=payload)
        return message

    def get_payload(self) -> dict[str, Any]:
        """The message as the SDK sends it."""
        return {"to": self.to, **self.data}
