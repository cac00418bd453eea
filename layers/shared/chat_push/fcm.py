"""Client of Firebase Cloud Messaging, HTTP v1. fcm_errors says what its errors mean, fcm_payload writes its messages.

https://firebase.google.com/docs/cloud-messaging/send/v1-api
"""

import json
import time
from collections.abc import Callable, Sequence
from functools import cached_property

import httpx

from chat_push import https
from chat_push.credentials import CredentialInvalid, ServiceAccount, parse_service_account
from chat_push.fcm_errors import classify
from chat_push.http2 import (
    CONNECT_TIMEOUT_SECONDS,
    Answer,
    Connect,
    Http2,
    NoAnswer,
    Request,
    Verdict,
    outcome_without_answer,
)
from chat_push.notification import Notification
from chat_push.outcome import Outcome, as_code, not_attempted, parse_retry_after, request_outcome

# A token lives an hour. It is replaced so long before its end.
REPLACE_BEFORE_SECONDS = 300.0
TOKEN_TIMEOUT_SECONDS = 5.0
_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"


class Fcm:
    """A client with a kept connection and access token. Tests replace `connect`, `transport` and `clock`."""

    def __init__(
        self,
        service_account: str,
        url: str = "https://fcm.googleapis.com",
        connect: Connect | None = None,
        transport: httpx.BaseTransport | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._text = service_account
        self._http2 = Http2(url, connect, clock)
        self._http = httpx.Client(transport=transport or https.transport())
        self._clock = clock
        self._token: str | None = None
        self._token_until = 0.0

    def send(self, notifications: Sequence[Notification], time_left: Callable[[], float]) -> list[Outcome]:
        """One outcome for each notification, in order. It never raises for a response of FCM.

        A message may be sent once more, with another access token, if FCM refuses the token of the first try.
        """
        outcomes: list[Outcome | None] = [None] * len(notifications)
        for _ in range(2):
            open_indexes = [index for index, outcome in enumerate(outcomes) if outcome is None]
            if not open_indexes:
                break
            try:
                token = self._access_token(time_left())
            except _NoToken as error:
                return [outcome or not_attempted(error.outcome) for outcome in outcomes]
            answers = self._exchange([notifications[index] for index in open_indexes], token, time_left)
            stop = next((found for found in map(_stop, answers) if found), None)
            is_refused = stop is not None and stop.error == "UNAUTHENTICATED"
            for index, answer in zip(open_indexes, answers, strict=True):
                outcome = _outcome(answer, stop)
                outcomes[index] = None if is_refused and outcome.error == "UNAUTHENTICATED" else outcome
            if is_refused:
                self._token = None
        unauthenticated = request_outcome("configuration_fault", "UNAUTHENTICATED")
        return [outcome or unauthenticated for outcome in outcomes]

    def close(self) -> None:
        """Closes the connections. The next send opens others."""
        self._http2.close()
        self._http.close()

    @cached_property
    def _account(self) -> ServiceAccount:
        return parse_service_account(self._text)

    def _exchange(
        self, notifications: Sequence[Notification], token: str, time_left: Callable[[], float]
    ) -> list[Answer | NoAnswer]:
        path = f"/v1/projects/{self._account.project_id}/messages:send"
        headers = (("authorization", f"Bearer {token}"), ("content-type", "application/json"))
        requests = [
            Request(
                path,
                headers,
                json.dumps({"message": {"token": n.push_token, **n.payload}}, ensure_ascii=False).encode(),
            )
            for n in notifications
        ]
        return self._http2.exchange(requests, time_left, _judge)

    def _access_token(self, seconds: float) -> str:
        """The access token, which is kept. A request for another one may take so many seconds. Raises _NoToken."""
        if self._token and self._clock() < self._token_until:
            return self._token
        try:
            account = self._account
            form = {"grant_type": _GRANT, "assertion": account.assertion()}
            limit = max(0.1, min(TOKEN_TIMEOUT_SECONDS, seconds))
            timeout = httpx.Timeout(limit, connect=min(limit, CONNECT_TIMEOUT_SECONDS))
            answer = self._http.post(account.token_url, data=form, timeout=timeout)
        except CredentialInvalid:
            raise _NoToken(request_outcome("configuration_fault", "InvalidServiceAccount")) from None
        except httpx.HTTPError as error:
            raise _NoToken(request_outcome("retry", f"Token{type(error).__name__}")) from None
        try:
            body = answer.json()
            if answer.is_success:
                self._token, lives = str(body["access_token"]), float(body["expires_in"])
                self._token_until = self._clock() + lives - REPLACE_BEFORE_SECONDS
                return self._token
            code = as_code(body.get("error")) or f"TokenHttp{answer.status_code}"
        except (ValueError, KeyError, TypeError, AttributeError):
            code = f"TokenHttp{answer.status_code}"
        is_passing = answer.status_code in (408, 429) or answer.status_code >= 500 or answer.is_success
        wait = parse_retry_after(answer.headers.get("Retry-After", ""))
        raise _NoToken(request_outcome("retry" if is_passing else "configuration_fault", code, wait))


class _NoToken(Exception):
    """There is no access token. `outcome`: of each notification."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.error)
        self.outcome = outcome


def _judge(answer: Answer) -> Verdict:
    return "stop" if classify(answer).should_stop_sending else "keep"


def _stop(answer: Answer | NoAnswer) -> Outcome | None:
    """The outcome, if because of it the rest was not sent."""
    outcome = classify(answer) if isinstance(answer, Answer) else None
    return outcome if outcome and outcome.should_stop_sending else None


def _outcome(answer: Answer | NoAnswer, stop: Outcome | None) -> Outcome:
    return classify(answer) if isinstance(answer, Answer) else outcome_without_answer(answer, stop)
