"""The protocol of FCM HTTP v1: messages and errors.

Sources: https://firebase.google.com/docs/reference/fcm/rest/v1/projects.messages, the errors at
https://firebase.google.com/docs/reference/fcm/rest/v1/ErrorCode, and answers of the service that users have published.
Where these are not clear, this fake takes the stricter reading, so that a sender that passes here also passes there.
"""

import json
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails, PydanticCustomError

MAX_PAYLOAD_BYTES = 4096
MAX_TTL_SECONDS = 2_419_200  # four weeks

type Json = dict[str, JsonValue]

# A registration token, and a Firebase installation id, which FCM accepts in its place since 2026.
REGISTRATION_TOKEN = r"^(?:[A-Za-z0-9_-]{11,}:[A-Za-z0-9_-]{100,}|[c-f][A-Za-z0-9_-]{21})$"
PROJECT_ID = r"^[a-z][a-z0-9-]{4,28}[a-z0-9]$"

_FCM_ERROR = "type.googleapis.com/google.firebase.fcm.v1.FcmError"
_BAD_REQUEST = "type.googleapis.com/google.rpc.BadRequest"
_ERROR_INFO = "type.googleapis.com/google.rpc.ErrorInfo"


class RefusedError(Exception):
    """The request is rejected and nothing was sent. `body` and `status` are the answer."""

    def __init__(self, status: int, body: Json) -> None:
        super().__init__(f"{status} {body}")
        self.status = status
        self.body = body


def _refusal(status: int, name: str, message: str, *details: Json) -> RefusedError:
    error: Json = {"code": status, "message": message, "status": name}
    return RefusedError(status, {"error": error | ({"details": list(details)} if details else {})})


def _fcm_error(code: str) -> Json:
    return {"@type": _FCM_ERROR, "errorCode": code}


def invalid_field(field: str, description: str, *further: Json) -> RefusedError:
    """A 400 for a field of the request, with a BadRequest detail that names it."""
    violation: Json = {"field": field, "description": description}
    bad_request: Json = {"@type": _BAD_REQUEST, "fieldViolations": [violation]}
    return _refusal(400, "INVALID_ARGUMENT", description, bad_request, *further)


def unauthenticated() -> RefusedError:
    """The access token is missing, unknown, expired or revoked."""
    message = (
        "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or other valid "
        "authentication credential. See https://developers.google.com/identity/sign-in/web/devconsole-project."
    )
    return _refusal(401, "UNAUTHENTICATED", message)


def insufficient_scope() -> RefusedError:
    """The access token is for another API."""
    info: Json = {"@type": _ERROR_INFO, "reason": "ACCESS_TOKEN_SCOPE_INSUFFICIENT", "domain": "googleapis.com"}
    return _refusal(403, "PERMISSION_DENIED", "Request had insufficient authentication scopes.", info)


def permission_denied(project: str) -> RefusedError:
    """The service account may not send messages of the project, or there is no such project."""
    resource = f"//cloudresourcemanager.googleapis.com/projects/{project}"
    message = f"Permission 'cloudmessaging.messages.create' denied on resource '{resource}' (or it may not exist)."
    info: Json = {
        "@type": _ERROR_INFO,
        "reason": "IAM_PERMISSION_DENIED",
        "domain": "cloudresourcemanager.googleapis.com",
    }
    return _refusal(403, "PERMISSION_DENIED", message, info)


def service_disabled(project: str) -> RefusedError:
    """The API is not enabled in the project."""
    message = f"Firebase Cloud Messaging API has not been used in project {project} before or it is disabled."
    info: Json = {"@type": _ERROR_INFO, "reason": "SERVICE_DISABLED", "domain": "googleapis.com"}
    return _refusal(403, "PERMISSION_DENIED", message, info)


def unregistered() -> RefusedError:
    """The app was removed, or the token has expired."""
    return _refusal(404, "NOT_FOUND", "Requested entity was not found.", _fcm_error("UNREGISTERED"))


def not_found() -> RefusedError:
    """A 404 without FcmError, which says nothing about the token."""
    return _refusal(404, "NOT_FOUND", "Requested entity was not found.")


def sender_id_mismatch() -> RefusedError:
    """The token belongs to another project."""
    return _refusal(403, "PERMISSION_DENIED", "SenderId mismatch", _fcm_error("SENDER_ID_MISMATCH"))


def invalid_token() -> RefusedError:
    """A malformed token, by the first of two shapes: only the message names the token."""
    message = "The registration token is not a valid FCM registration token"
    return _refusal(400, "INVALID_ARGUMENT", message, _fcm_error("INVALID_ARGUMENT"))


def invalid_token_field() -> RefusedError:
    """A malformed token, by the second of two shapes: a BadRequest detail names the field."""
    return invalid_field("message.token", "Invalid registration token", _fcm_error("INVALID_ARGUMENT"))


def invalid_payload() -> RefusedError:
    """A 400 with an FcmError that does not say what is wrong."""
    message = "Request contains an invalid argument."
    return _refusal(400, "INVALID_ARGUMENT", message, _fcm_error("INVALID_ARGUMENT"))


def too_big() -> RefusedError:
    """The payload is too big. This error has no details."""
    return _refusal(400, "INVALID_ARGUMENT", "Android message is too big")


def third_party_auth_error(code: Literal["THIRD_PARTY_AUTH_ERROR", "APNS_AUTH_ERROR"]) -> RefusedError:
    """The project's APNs key or web push key is wrong. The second code is the older one."""
    return _refusal(401, "UNAUTHENTICATED", "Auth error from APNS or Web Push Service", _fcm_error(code))


def quota_exceeded() -> RefusedError:
    """Too many messages of the project, or to one device."""
    message = "Quota exceeded for quota metric 'Messages sent' and limit 'Messages sent per minute'."
    return _refusal(429, "RESOURCE_EXHAUSTED", message, _fcm_error("QUOTA_EXCEEDED"))


def internal() -> RefusedError:
    """A fault of the service."""
    return _refusal(500, "INTERNAL", "Internal error encountered.", _fcm_error("INTERNAL"))


def unavailable() -> RefusedError:
    """The service is overloaded."""
    return _refusal(503, "UNAVAILABLE", "The service is currently unavailable.", _fcm_error("UNAVAILABLE"))


def unspecified() -> RefusedError:
    """An error about which FCM says nothing."""
    return _refusal(400, "UNKNOWN", "Unknown error.", _fcm_error("UNSPECIFIED_ERROR"))


def _duration(value: str) -> str:
    if not re.fullmatch(r"-?\d+(\.\d{1,9})?s", value):
        raise PydanticCustomError("duration", "Illegal duration format; duration must end with 's'")
    return value


def _ttl(value: str) -> str:
    if not 0 <= float(_duration(value)[:-1]) <= MAX_TTL_SECONDS:
        raise PydanticCustomError("ttl", "Invalid ttl value. It must be between 0 and 2419200 seconds (4 weeks)")
    return value


def _color(value: str) -> str:
    if not re.fullmatch("#[0-9A-Fa-f]{6}", value):
        raise PydanticCustomError("color", "Invalid color. It must have the form #rrggbb")
    return value


def _app_data(value: dict[str, str]) -> dict[str, str]:
    for key in value:
        if key in ("from", "message_type") or key.startswith(("google.", "gcm.")):
            raise PydanticCustomError("reserved", "Invalid data payload key: {key}", {"key": key})
    return value


def _web_ttl(value: dict[str, str]) -> dict[str, str]:
    headers = {name.lower(): each for name, each in value.items()}
    if not headers.get("ttl", "0").isdecimal():
        raise PydanticCustomError("ttl", "The header TTL must be a number of seconds")
    if headers.get("urgency", "normal") not in ("very-low", "low", "normal", "high"):
        raise PydanticCustomError("urgency", "The header Urgency must be very-low, low, normal or high")
    return value


def _upper(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


# Errors that FCM finds in a message that Google's JSON parser has accepted. They have an FcmError as well.
_BY_FCM = ("ttl", "color", "reserved", "urgency")

type Data = Annotated[dict[str, str], AfterValidator(_app_data)]
type Duration = Annotated[str, AfterValidator(_duration)]


class _Strict(BaseModel):
    """Field names are accepted in snake_case and in camelCase, as Google does."""

    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        frozen=True,
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
    )

    @model_validator(mode="before")
    @classmethod
    def _null_is_not_set(cls, value: object) -> object:
        return {name: each for name, each in value.items() if each is not None} if isinstance(value, dict) else value


class Notification(_Strict):
    title: str = ""
    body: str = ""
    image: str = ""


class Color(_Strict):
    red: float = 0
    green: float = 0
    blue: float = 0
    alpha: float = 1


class LightSettings(_Strict):
    color: Color
    light_on_duration: Duration
    light_off_duration: Duration


class AndroidNotification(Notification):
    icon: str = ""
    color: Annotated[str, AfterValidator(_color)] | None = None
    sound: str = ""
    tag: str = ""
    click_action: str = ""
    body_loc_key: str = ""
    body_loc_args: list[str] = []
    title_loc_key: str = ""
    title_loc_args: list[str] = []
    channel_id: str = ""
    ticker: str = ""
    sticky: bool = False
    event_time: str = ""
    local_only: bool = False
    notification_priority: Annotated[
        Literal[
            "PRIORITY_UNSPECIFIED", "PRIORITY_MIN", "PRIORITY_LOW", "PRIORITY_DEFAULT", "PRIORITY_HIGH", "PRIORITY_MAX"
        ],
        BeforeValidator(_upper),
    ] = "PRIORITY_UNSPECIFIED"
    default_sound: bool = False
    default_vibrate_timings: bool = False
    default_light_settings: bool = False
    vibrate_timings: list[Duration] = []
    visibility: Annotated[Literal["VISIBILITY_UNSPECIFIED", "PRIVATE", "PUBLIC", "SECRET"], BeforeValidator(_upper)] = (
        "VISIBILITY_UNSPECIFIED"
    )
    notification_count: Annotated[int, Field(ge=0, lt=2**31)] = 0
    light_settings: LightSettings | None = None
    bypass_proxy_notification: bool = False
    proxy: Annotated[Literal["PROXY_UNSPECIFIED", "ALLOW", "DENY", "IF_PRIORITY_LOWERED"], BeforeValidator(_upper)] = (
        "PROXY_UNSPECIFIED"
    )


class FcmOptions(_Strict):
    analytics_label: Annotated[str, Field(pattern=r"^[a-zA-Z0-9-_.~%]{0,50}$")] = ""


class WebpushFcmOptions(FcmOptions):
    link: Annotated[str, Field(pattern="^https://")] | None = None


class ApnsFcmOptions(FcmOptions):
    image: str = ""


class AndroidConfig(_Strict):
    collapse_key: str = ""
    # The reference has upper case; the guides and official clients have lower case.
    priority: Annotated[Literal["NORMAL", "HIGH"], BeforeValidator(_upper)] = "NORMAL"
    ttl: Annotated[str, AfterValidator(_ttl)] = f"{MAX_TTL_SECONDS}s"
    restricted_package_name: str = ""
    data: Data | None = None
    notification: AndroidNotification | None = None
    fcm_options: FcmOptions | None = None
    direct_boot_ok: bool = False
    bandwidth_constrained_ok: bool = False
    restricted_satellite_ok: bool = False


class WebpushConfig(_Strict):
    headers: Annotated[dict[str, str], AfterValidator(_web_ttl)] = {}
    data: Data | None = None
    notification: Json | None = None
    fcm_options: WebpushFcmOptions | None = None


class ApnsConfig(_Strict):
    headers: dict[str, str] = {}
    payload: Json = {}
    fcm_options: ApnsFcmOptions | None = None
    live_activity_token: str = ""


class Message(_Strict):
    """One message. Any other field is rejected."""

    name: str = ""
    data: Data = {}
    notification: Notification | None = None
    android: AndroidConfig | None = None
    webpush: WebpushConfig | None = None
    apns: ApnsConfig | None = None
    fcm_options: FcmOptions | None = None
    token: str = ""
    fid: str = ""
    topic: str = ""
    condition: str = ""

    @property
    def device(self) -> str:
        """The registration token or installation id; empty for a topic or a condition."""
        return self.token or self.fid

    @property
    def is_data_only(self) -> bool:
        """Whether FCM has nothing to show on any system."""
        aps = self.apns.payload.get("aps") if self.apns else None
        shows = isinstance(aps, dict) and bool(aps.get("alert") or aps.get("sound") or "badge" in aps)
        return self.notification is None and not shows


class SendRequest(_Strict):
    validate_only: bool = False
    message: Message


def read_request(body: bytes) -> SendRequest:
    """The request in a body. Raises RefusedError: not JSON, an unknown field, a wrong value, no or several targets."""
    try:
        value = json.loads(body)
    except ValueError as error:
        raise _refusal(400, "INVALID_ARGUMENT", f"Invalid JSON payload received. {error}") from error
    try:
        request = SendRequest.model_validate(value)
    except ValidationError as error:
        raise _validation_refusal(error.errors()[0]) from error
    message = request.message
    targets = [name for name in ("token", "fid", "topic", "condition") if getattr(message, name)]
    if not targets:
        raise invalid_field("message", "Recipient of the message is not set.", _fcm_error("INVALID_ARGUMENT"))
    if len(targets) > 1:
        first, second = targets[:2]
        raise invalid_field(
            "message",
            f"Invalid value at 'message' (oneof), 'target' is already set to '{first}'. Cannot set '{second}'",
        )
    if payload_bytes(message) > MAX_PAYLOAD_BYTES:
        raise too_big()
    return request


def check_token(token: str) -> None:
    """Raises RefusedError: it has not the form of a registration token."""
    if not re.fullmatch(REGISTRATION_TOKEN, token):
        raise invalid_token()


def check_ios(message: Message) -> None:
    """Raises RefusedError: a message without a notification has not the normal priority that iOS needs for it."""
    headers = {name.lower(): value for name, value in message.apns.headers.items()} if message.apns else {}
    if message.is_data_only and headers.get("apns-priority") != "5":
        raise invalid_field(
            "message.apns.headers", "A data-only message needs apns-priority 5", _fcm_error("INVALID_ARGUMENT")
        )


def _validation_refusal(error: ErrorDetails) -> RefusedError:
    *parents, last = map(str, error["loc"] or ("",))
    if error["type"] == "extra_forbidden":
        parent = ".".join(parents)
        where = f" at '{parent}'" if parent else ""
        text = f'Invalid JSON payload received. Unknown name "{last}"{where}: Cannot find field.'
        return invalid_field(parent, text)
    field = ".".join([*parents, last])
    if error["type"] in _BY_FCM:
        return invalid_field(field, error["msg"], _fcm_error("INVALID_ARGUMENT"))
    return invalid_field(field, f"Invalid value at '{field}': {error['msg']}")


def payload_bytes(message: Message) -> int:
    """Bytes of a message without its target, as compact UTF-8 JSON. FCM counts less, namely keys and values."""
    payload = message.model_dump(
        by_alias=True, exclude_unset=True, exclude={"token", "fid", "topic", "condition", "name"}
    )
    return len(json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode())


# What the fault of this name answers.
ERRORS: Mapping[str, Callable[[], RefusedError]] = {
    "UNREGISTERED": unregistered,
    "NOT_FOUND": not_found,
    "INVALID_TOKEN": invalid_token,
    "INVALID_TOKEN_FIELD": invalid_token_field,
    "INVALID_FIELD": partial(invalid_field, "message.android.ttl", "Invalid value at 'message.android.ttl'"),
    "INVALID_PAYLOAD": invalid_payload,
    "TOO_BIG": too_big,
    "SENDER_ID_MISMATCH": sender_id_mismatch,
    "PERMISSION_DENIED": partial(permission_denied, "chat-push"),
    "SERVICE_DISABLED": partial(service_disabled, "chat-push"),
    "THIRD_PARTY_AUTH_ERROR": partial(third_party_auth_error, "THIRD_PARTY_AUTH_ERROR"),
    "APNS_AUTH_ERROR": partial(third_party_auth_error, "APNS_AUTH_ERROR"),
    "UNAUTHENTICATED": unauthenticated,
    "QUOTA_EXCEEDED": quota_exceeded,
    "INTERNAL": internal,
    "UNAVAILABLE": unavailable,
    "UNSPECIFIED_ERROR": unspecified,
}
