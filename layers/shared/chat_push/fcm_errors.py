"""What each error of FCM means. To support another code, add it here.

https://firebase.google.com/docs/reference/fcm/rest/v1/ErrorCode, https://firebase.google.com/docs/cloud-messaging/scale-fcm
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from chat_push.outcome import Meaning, Outcome, as_code, as_ticket_id, parse_retry_after

if TYPE_CHECKING:  # An Expo-only stack counts codes, and must not import h2.
    from chat_push.http2 import Answer

_FCM_ERROR = "type.googleapis.com/google.firebase.fcm.v1.FcmError"

# By errorCode of the FcmError detail.
ERRORS: Mapping[str, Meaning] = {
    # The token is dead: the app was removed, or has another token. The database decides (push.is_dead_token).
    "UNREGISTERED": Meaning("failed"),
    "SENDER_ID_MISMATCH": Meaning("failed"),  # The token belongs to another Firebase project.
    "InvalidToken": Meaning("failed"),  # Our name for INVALID_ARGUMENT that concerns the token.
    # The message can never be sent. The device stays active.
    "INVALID_ARGUMENT": Meaning("failed"),
    "UNSPECIFIED_ERROR": Meaning("failed"),
    # Not now.
    "QUOTA_EXCEEDED": Meaning("retry", of_provider=True, wait_seconds=60),
    "DeviceQuotaExceeded": Meaning("retry", wait_seconds=60),  # Our name for QUOTA_EXCEEDED of one device.
    "UNAVAILABLE": Meaning("retry", of_provider=True, wait_seconds=10),
    "INTERNAL": Meaning("retry", wait_seconds=10),
    # Web Push credentials in the Firebase console are wrong. Android devices do not need them.
    "THIRD_PARTY_AUTH_ERROR": Meaning("configuration_fault"),
    "APNS_AUTH_ERROR": Meaning("configuration_fault"),  # Its old name.
}

# Without an FcmError detail: by HTTP status. Others are failed (4xx) or maybe_sent.
STATUSES: Mapping[int, tuple[str, Meaning]] = {
    401: ("UNAUTHENTICATED", Meaning("configuration_fault", of_provider=True)),
    403: ("PERMISSION_DENIED", Meaning("configuration_fault", of_provider=True)),
    404: ("NOT_FOUND", Meaning("configuration_fault", of_provider=True)),  # A wrong project, or a wrong FcmUrl.
    429: ("QUOTA_EXCEEDED", ERRORS["QUOTA_EXCEEDED"]),
    500: ("INTERNAL", ERRORS["INTERNAL"]),
    503: ("UNAVAILABLE", ERRORS["UNAVAILABLE"]),
}

CONFIGURATION_FAULT = (
    "FCM refuses the project. InvalidServiceAccount, invalid_grant, UNAUTHENTICATED: put another service account into "
    "BackendSecret (./dev secrets put), and check that its key still exists. PERMISSION_DENIED: enable the Firebase "
    "Cloud Messaging API, and give the account the role Firebase Cloud Messaging API Admin. NOT_FOUND: the project of "
    "the account does not exist. THIRD_PARTY_AUTH_ERROR: correct the Web Push certificates in the Firebase console."
)

COUNTED_CODES = {code for code, meaning in ERRORS.items() if meaning.status == "failed"}


def classify(answer: "Answer") -> Outcome:
    """The outcome of one notification from the response of FCM."""
    if answer.status == 200:
        return Outcome("handed_over", ticket_id=as_ticket_id(answer.json().get("name")))
    error = answer.json().get("error")
    error = error if isinstance(error, dict) else {}
    details = [detail for detail in _list(error.get("details")) if isinstance(detail, dict)]
    retry_after = parse_retry_after(answer.headers.get("retry-after", ""))
    code = next((as_code(detail.get("errorCode")) for detail in details if detail.get("@type") == _FCM_ERROR), None)
    if answer.status == 400 and code in (None, "INVALID_ARGUMENT"):
        code = "InvalidToken" if _is_about_token(error, details) else "INVALID_ARGUMENT"
    if code == "QUOTA_EXCEEDED" and _is_of_device(details):
        code = "DeviceQuotaExceeded"
    if code is not None:
        return ERRORS.get(code, ERRORS["UNSPECIFIED_ERROR"]).outcome(code, retry_after)
    by_status = Meaning("failed" if 400 <= answer.status < 500 else "maybe_sent")
    code, meaning = STATUSES.get(answer.status, (f"Http{answer.status}", by_status))
    return meaning.outcome(code, retry_after)


def _is_about_token(error: Mapping[str, Any], details: list[dict[str, Any]]) -> bool:
    """FCM reports a bad token in two shapes: https://github.com/rails/action_push_native/issues/141"""
    violations = [violation for detail in details for violation in _list(detail.get("fieldViolations"))]
    fields = [violation.get("field") for violation in violations if isinstance(violation, dict)]
    return "message.token" in fields or "not a valid FCM registration token" in str(error.get("message"))


def _is_of_device(details: list[dict[str, Any]]) -> bool:
    """Whether a QuotaFailure names the device: https://firebase.google.com/docs/cloud-messaging/throttling-and-quotas"""
    violations = [violation for detail in details for violation in _list(detail.get("violations"))]
    return any("device" in str(violation).lower() for violation in violations)


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
