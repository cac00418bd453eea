"""The endpoint of APNs, /3/device/<token>, without HTTP/2: from a request to its answer."""

import hashlib
import json
from dataclasses import dataclass, field
from datetime import datetime

from local.providers.apns.faults import Fault, Rejection
from local.providers.apns.protocol import (
    HOSTS,
    STATUSES,
    ApnsNotification,
    Environment,
    Headers,
    RejectedError,
    check_request_line,
    new_notification_id,
    read_notification,
)
from local.providers.apns.provider_tokens import TokensOfConnection
from local.providers.apns.state import ApnsService, LoggedRequest


@dataclass(frozen=True)
class Answer:
    """What a stream carries back. An accepted request has no body."""

    status: int
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    reason: str | None = None


@dataclass(frozen=True)
class Call:
    """A request that was read. `notification`: None if APNs rejects the request itself."""

    logged: LoggedRequest
    answer: Answer
    notification: ApnsNotification | None = None
    fault: Fault | None = None
    is_authorized: bool = False  # by a valid provider token


def handle(
    apns: ApnsService, connection: int, port: Environment, tokens: TokensOfConnection, pairs: Headers, body: bytes
) -> Call:
    """Reads a request that came to the port of an environment. Delivers nothing yet."""
    headers = dict(pairs)
    host = headers.get(":authority") or headers.get("host", "")
    environment = HOSTS.get(host.partition(":")[0], port)
    logged = _log(apns, connection, environment, headers, body)
    notification_id = headers.get("apns-id") or new_notification_id()
    answered = [("apns-id", notification_id)]
    is_authorized = False
    try:
        check_request_line(headers)
        key = tokens.check(headers.get("authorization"), apns.keys, environment, apns.now())
        is_authorized = True
        notification = read_notification(pairs, body, notification_id)
        apns.check(notification, environment, key)
    except RejectedError as error:
        answer = _rejection(error.reason, STATUSES[error.reason], error.timestamp, answered)
        return Call(logged, answer, is_authorized=is_authorized)
    fault = apns.faults.take("send", notification.token)
    if fault is not None:
        logged.fault = fault.kind
    match fault:
        case Rejection(reason=reason, status=status):
            if reason == "ExpiredProviderToken":
                tokens.expire()
            timestamp = (fault.timestamp or apns.now()) if status == 410 else None
            retry_after = [] if fault.retry_after is None else [("retry-after", str(fault.retry_after))]
            answer = _rejection(reason, status, timestamp, answered + retry_after)
            return Call(logged, answer, notification, fault, is_authorized=status != 403)
    if environment == "sandbox":
        answered.append(("apns-unique-id", new_notification_id()))
    return Call(logged, Answer(200, answered), notification, fault, is_authorized=True)


def server_error(call: Call) -> Answer:
    """The answer 500 in place of the one of the call."""
    return _rejection("InternalServerError", 500, None, call.answer.headers)


def _log(
    apns: ApnsService, connection: int, environment: Environment, headers: dict[str, str], body: bytes
) -> LoggedRequest:
    authorization = headers.get("authorization")
    try:
        payload = json.loads(body)
    except ValueError:
        payload = None
    logged = LoggedRequest(
        at=apns.now(),
        connection=connection,
        environment=environment,
        token=headers[":path"].rpartition("/")[2],
        headers=headers | ({} if authorization is None else {"authorization": "(left out)"}),
        provider_token=authorization and hashlib.sha256(authorization.encode()).hexdigest()[:16],
        payload=payload if isinstance(payload, dict) else None,
    )
    apns.requests.append(logged)
    apns.changed()
    return logged


def _rejection(reason: str, status: int, timestamp: datetime | None, headers: Headers) -> Answer:
    body: dict[str, str | int] = {"reason": reason}
    if timestamp is not None:
        body["timestamp"] = int(timestamp.timestamp() * 1000)
    return Answer(status, [*headers, ("content-type", "application/json")], json.dumps(body).encode(), reason)
