"""Client of Apple's push service. apns_errors says what its errors mean, apns_payload writes its notifications.

https://developer.apple.com/documentation/usernotifications/sending-notification-requests-to-apns
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from uuid import uuid4

from chat_push.apns_errors import ERRORS, RECONNECT, classify, reason_of
from chat_push.credentials import ApnsKey, CredentialInvalid, parse_apns_key
from chat_push.http2 import Answer, Connect, Http2, Request, Verdict, outcome_without_answer
from chat_push.models import Environment
from chat_push.notification import Notification
from chat_push.outcome import Outcome, not_attempted, request_outcome

URLS: Mapping[Environment, str] = {
    "production": "https://api.push.apple.com",
    "sandbox": "https://api.sandbox.push.apple.com",
}


class Apns:
    """A client with a kept connection to each environment. Tests replace `connect` and `clock`."""

    def __init__(
        self,
        key: str,
        key_id: str | None,
        team_id: str | None,
        topic: str | None,
        urls: Mapping[Environment, str] = URLS,
        connect: Mapping[Environment, Connect] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._key_fields = key, key_id, team_id, topic
        self._servers = {name: Http2(url, connect[name] if connect else None, clock) for name, url in urls.items()}
        self._clock = clock

    def send(self, notifications: Sequence[Notification], time_left: Callable[[], float]) -> list[Outcome]:
        """One outcome for each notification, in order. It never raises for a response of APNs."""
        try:
            key = self._key
        except CredentialInvalid:
            return [not_attempted(request_outcome("configuration_fault", "InvalidApnsKey"))] * len(notifications)
        outcomes: dict[int, Outcome] = {}
        for environment, server in self._servers.items():
            indexes = [index for index, n in enumerate(notifications) if n.environment == environment]
            sent = self._send_to(server, key, [notifications[index] for index in indexes], time_left)
            outcomes.update(zip(indexes, sent, strict=True))
        return [outcomes[index] for index in range(len(notifications))]

    def close(self) -> None:
        """Closes the connections. The next send opens others."""
        for server in self._servers.values():
            server.close()

    @cached_property
    def _key(self) -> ApnsKey:
        return parse_apns_key(*self._key_fields)

    def _send_to(
        self, server: Http2, key: ApnsKey, notifications: Sequence[Notification], time_left: Callable[[], float]
    ) -> list[Outcome]:
        now = self._clock()
        common = (("authorization", f"bearer {key.provider_token(now)}"), ("apns-topic", key.topic))
        answers = server.exchange([_request(n, common, now) for n in notifications], time_left, _judge)
        answered = {
            index: classify(answer, notifications[index].registered_at)
            for index, answer in enumerate(answers)
            if isinstance(answer, Answer)
        }
        stop = next((outcome for outcome in answered.values() if outcome.should_stop_sending), None)
        return [
            answered[index] if isinstance(answer, Answer) else outcome_without_answer(answer, stop)
            for index, answer in enumerate(answers)
        ]


def _request(notification: Notification, common: Sequence[tuple[str, str]], now: float) -> Request:
    payload = notification.payload
    headers = (
        *common,
        *payload["headers"].items(),
        ("apns-expiration", str(int(now) + payload["ttl"])),
        ("apns-id", str(uuid4())),  # Apple's reports name it. A repeated request keeps it.
    )
    body = json.dumps(payload["body"], ensure_ascii=False, separators=(",", ":")).encode()
    return Request(f"/3/device/{notification.push_token}", headers, body)


def _judge(answer: Answer) -> Verdict:
    if answer.status == 200:
        return "keep"
    reason = reason_of(answer)
    if reason in RECONNECT:
        return "reconnect"
    return "stop" if reason in ERRORS and ERRORS[reason].outcome(reason).should_stop_sending else "keep"
