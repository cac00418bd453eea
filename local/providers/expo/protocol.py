"""The protocol of the Expo push service: messages, tickets, receipts and rejected requests.

Sources: https://docs.expo.dev/push-notifications/sending-notifications/ and answers of the service itself. Where
neither is clear, this fake takes the stricter reading, so that a sender that passes here also passes there.
"""

import json
import re
import secrets
from collections.abc import Mapping
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Annotated, Literal
from uuid import UUID, uuid4

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    TypeAdapter,
    ValidationError,
)
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

MAX_RECIPIENTS = 100  # per request, and per list `to`
MAX_RECEIPT_IDS = 1000  # per request
MAX_PAYLOAD_BYTES = 4096  # of one message as Expo passes it to APNs or FCM
MAX_COLLAPSE_ID_BYTES = 64  # of APNs; how Expo reports a longer one is not documented
RECEIPTS_KEPT = timedelta(hours=24)

type Json = dict[str, JsonValue]

_UUID = r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"
# What a backend should accept as a push token, and the narrower form that Expo issues: Expo calls
# `ExponentPushToken[xd]` invalid. PUSH_TOKEN is for pydantic, whose `$` allows no trailing newline.
PUSH_TOKEN = rf"^(?:(?:Exponent|Expo)PushToken\[[^\[\]\s]+\]|{_UUID})$"
_ISSUED_TOKEN = re.compile(rf"(?:Exponent|Expo)PushToken\[[A-Za-z0-9_-]{{22}}\]|{_UUID}")


class RefusedError(Exception):
    """The whole request is rejected and nothing was sent. `body` and `status` are the answer."""

    def __init__(self, status: HTTPStatus, body: Json) -> None:
        super().__init__(f"{status.value} {body}")
        self.status = status
        self.body = body


def errors_body(code: str, message: str, **further: JsonValue) -> Json:
    """The body of a failed request: `{"errors": [{code, message, requestId, ...}]}`."""
    return {"errors": [{"code": code, "message": message, "requestId": str(uuid4()), **further}]}


def bad_request(code: str, message: str, **further: JsonValue) -> RefusedError:
    """A 400, the only status for which `type` and `isTransient` have been observed."""
    body = errors_body(code, message, type="USER", isTransient=False, **further)
    return RefusedError(HTTPStatus.BAD_REQUEST, body)


def too_many_requests(limit_per_second: int) -> RefusedError:
    """More notifications per second than the project may send."""
    message = f"Exceeded {limit_per_second} notifications per second, please try again."
    return RefusedError(HTTPStatus.TOO_MANY_REQUESTS, errors_body("TOO_MANY_REQUESTS", message))


def unauthorized() -> RefusedError:
    """Push security is on and the bearer is missing or has no rights. Its status is not documented."""
    message = "Insufficient permissions to send push notifications."
    return RefusedError(HTTPStatus.FORBIDDEN, errors_body("UNAUTHORIZED", message))


def invalid_token() -> RefusedError:
    """A bearer that Expo does not know; not in the `errors` shape."""
    body: Json = {"error": "invalid_token", "error_description": "The bearer token is invalid"}
    return RefusedError(HTTPStatus.UNAUTHORIZED, body)


def mixed_projects(tokens_of: Mapping[str, list[str]]) -> RefusedError:
    """Recipients of several projects in one request; `details` maps each project to its tokens."""
    return bad_request(
        "PUSH_TOO_MANY_EXPERIENCE_IDS",
        "All push notification messages in the same request must be for the same project; "
        "check the details field to investigate conflicting tokens.",
        details={project: list[JsonValue](tokens) for project, tokens in tokens_of.items()},
    )


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, alias_generator=to_camel)


class CriticalSound(_Strict):
    critical: bool = False
    name: str | None = None
    volume: Annotated[float, Field(ge=0, le=1)] = 1


class RichContent(_Strict):
    image: Annotated[str, Field(pattern="^https?://")]


def _recipients(to: object) -> object:
    if isinstance(to, list) and len(to) > MAX_RECIPIENTS:
        # The text of the service, in which "character(s)" means list entries.
        raise PydanticCustomError("too_long", "String must contain at most 100 character(s)")
    return to if isinstance(to, list) else [to]


def _collapse_id(value: str) -> str:
    if len(value.encode()) > MAX_COLLAPSE_ID_BYTES:
        raise PydanticCustomError("too_long", "String must contain at most 64 bytes")
    return value


class PushMessage(_Strict):
    """One message. Any other field is rejected.

    https://docs.expo.dev/push-notifications/sending-notifications/#message-request-format
    """

    to: Annotated[list[str], Field(min_length=1), BeforeValidator(_recipients)]
    title: str = ""
    body: str = ""
    data: Json = {}
    ttl: Annotated[int, Field(ge=0)] = 0
    expiration: Annotated[int, Field(ge=0)] = 0
    priority: Literal["default", "normal", "high"] = "default"
    subtitle: str = ""
    sound: str | CriticalSound | None = None
    badge: Annotated[int, Field(ge=0)] = 0
    interruption_level: Literal["active", "critical", "passive", "time-sensitive"] = "active"
    channel_id: str | None = None
    icon: str = ""
    rich_content: RichContent | None = None
    category_id: str = ""
    collapse_id: Annotated[str, AfterValidator(_collapse_id)] = ""
    tag: str = ""
    thread_id: str = ""
    target_content_id: str = ""
    relevance_score: Annotated[float, Field(ge=0, le=1)] = 0
    filter_criteria: str = ""
    mutable_content: bool = False
    content_available: bool = False
    old_content_available: Annotated[bool, Field(alias="_contentAvailable")] = False
    display_in_foreground: Annotated[bool, Field(alias="_displayInForeground")] = False

    def payload(self) -> Json:
        """The fields that were sent, under their wire names, without `to`."""
        return self.model_dump(by_alias=True, exclude_unset=True, exclude={"to"})


class ReceiptsRequest(_Strict):
    ids: list[Annotated[str, Field(min_length=1)]]


_MESSAGES: TypeAdapter[list[PushMessage]] = TypeAdapter(Annotated[list[PushMessage], Field(min_length=1)])


def read_messages(body: object) -> list[PushMessage]:
    """The messages of a send request, whose body is one message or an array of them.

    Raises RefusedError: VALIDATION_ERROR (the text names index and field), PUSH_TOO_MANY_NOTIFICATIONS.
    """
    try:
        messages = _MESSAGES.validate_python(body if isinstance(body, list) else [body])
    except ValidationError as error:
        raise _validation_refusal(error) from error
    received = sum(len(message.to) for message in messages)
    if received > MAX_RECIPIENTS:
        raise bad_request("PUSH_TOO_MANY_NOTIFICATIONS", _too_many("send", "notifications", MAX_RECIPIENTS, received))
    return messages


def read_receipt_ids(body: object) -> list[str]:
    """The ids of a getReceipts request. Raises RefusedError: VALIDATION_ERROR, PUSH_TOO_MANY_RECEIPTS."""
    try:
        ids = ReceiptsRequest.model_validate(body).ids
    except ValidationError as error:
        raise _validation_refusal(error) from error
    if len(ids) > MAX_RECEIPT_IDS:
        raise bad_request("PUSH_TOO_MANY_RECEIPTS", _too_many("request", "receipts", MAX_RECEIPT_IDS, len(ids)))
    return ids


def _validation_refusal(error: ValidationError) -> RefusedError:
    found = (f'"{".".join(map(str, item["loc"]))}": {item["msg"]}.' for item in error.errors(include_input=False))
    return bad_request("VALIDATION_ERROR", " ".join(found))


def _too_many(verb: str, noun: str, limit: int, received: int) -> str:
    return f"You can {verb} a maximum of {limit} {noun} per request (received {received}); divide your requests."


def payload_bytes(payload: Json) -> int:
    """Bytes of a message as compact UTF-8 JSON. Expo's own overhead is unknown and not counted."""
    return len(json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode())


def error_outcome(message: str, code: str | None, **further: JsonValue) -> Json:
    """An error ticket or receipt. Without a code it carries no `details`, which senders must tolerate."""
    outcome: Json = {"status": "error", "message": message}
    if code is not None or further:
        outcome["details"] = further if code is None else {"error": code, **further}
    return outcome


def not_registered_ticket(token: str) -> Json:
    """The ticket for a token that is malformed, was never issued, or whose app is known to be removed."""
    issued = _ISSUED_TOKEN.fullmatch(token)
    what = "a registered push notification recipient" if issued else "a valid Expo push token"
    return error_outcome(f'"{token}" is not {what}', "DeviceNotRegistered", expoPushToken=token)


def uuid7(now: datetime) -> UUID:
    """A version 7 UUID: its first 48 bits are `now` in milliseconds, as in Expo's ticket ids."""
    milliseconds = int(now.timestamp() * 1000)
    random = secrets.randbits(74)
    return UUID(int=milliseconds << 80 | 0x7 << 76 | (random >> 62) << 64 | 0b10 << 62 | random & (1 << 62) - 1)
