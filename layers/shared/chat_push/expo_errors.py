"""What each error of Expo means: retry, reject, or fix the configuration. To support another code, add it here.

Codes come at two levels, and one code never means two things:
- a ticket or a receipt reports the error of one recipient: RECIPIENT_ERRORS;
- an HTTP response without tickets reports the error of the whole request: request_status().
"""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Literal

from chat_push.expo_session import Response
from chat_push.notification import Notification
from chat_push.outcome import Outcome, as_code, request_outcome

type ErrorStatus = Literal["retry", "failed", "configuration_fault"]

# Tickets and receipts use the same codes. A code that is not listed is "failed".
RECIPIENT_ERRORS: Mapping[str, ErrorStatus] = {
    # Deactivate: the push token is dead. Python only reports this code; the database decides (push.deactivate_device).
    # https://docs.expo.dev/push-notifications/sending-notifications/#push-ticket-errors
    "DeviceNotRegistered": "failed",
    # Reject: the message can never be sent to this device. The device stays active.
    # https://docs.expo.dev/push-notifications/sending-notifications/#push-receipt-errors
    "MessageTooBig": "failed",
    "DeveloperError": "failed",  # Not documented. https://github.com/expo/expo-server-sdk-node/blob/main/src/ExpoClient.ts
    # Retry: the database decides when, and how often.
    # https://docs.expo.dev/push-notifications/sending-notifications/#push-receipt-errors
    "MessageRateExceeded": "retry",
    "ExpoError": "retry",  # Not documented, like DeveloperError.
    "ProviderError": "retry",  # Not documented, like DeveloperError.
    # Configuration fault: an operator must fix it, see CONFIGURATION_FAULT. It uses up no attempt.
    # https://docs.expo.dev/push-notifications/sending-notifications/#push-receipt-errors
    "InvalidCredentials": "configuration_fault",
    "MismatchSenderId": "configuration_fault",
}

_REJECTED_REQUESTS = ("VALIDATION_ERROR", "API_ERROR", "PUSH_TOO_MANY_NOTIFICATIONS")


def request_status(http_status: int, code: str) -> ErrorStatus | Literal["maybe_sent"]:
    """What an error of the whole request means for its recipients.

    https://docs.expo.dev/push-notifications/sending-notifications/#request-errors
    """
    match http_status, code:
        case (429, _) | (_, "TOO_MANY_REQUESTS"):
            return "retry"
        case (401 | 403 | 404, _) | (_, "UNAUTHORIZED" | "invalid_token" | "PUSH_TOO_MANY_EXPERIENCE_IDS"):
            return "configuration_fault"
    if 400 <= http_status < 500 or code in _REJECTED_REQUESTS:
        return "failed"
    # A 5xx does not say whether Expo sent it: https://github.com/expo/expo/issues/15152
    return "maybe_sent"


# The log message of both workers. It names the fix for each configuration fault above.
CONFIGURATION_FAULT = (
    "Expo, APNs or FCM refuse the project. InvalidCredentials: upload its push credentials (eas credentials). "
    "MismatchSenderId: google-services.json and the FCM key are of different Firebase projects. "
    "401, 403, invalid_token: set expo_access_token in BackendSecret to one that may send pushes. 404: correct ExpoUrl."
)

# CloudWatch bills each code as a metric of its own, and codes come from outside: only these are counted by name.
COUNTED_CODES = {
    *(code for code, status in RECIPIENT_ERRORS.items() if status == "failed"),
    *_REJECTED_REQUESTS,
    *(f"Http{status.value}" for status in HTTPStatus if status.is_client_error),
}


class RequestRefused(Exception):
    """Expo accepted no recipient of a request. `parts`: indexes to send in separate requests, if that can help."""

    def __init__(self, outcome: Outcome, parts: Sequence[Sequence[int]] = ()) -> None:
        super().__init__(outcome.error)
        self.outcome = outcome
        self.parts = parts


class ReceiptsUnavailable(Exception):
    """Expo returned no receipts. The text is the code of the reason."""

    def __init__(self, code: str, *, configuration_fault: bool = False) -> None:
        super().__init__(code)
        self.configuration_fault = configuration_fault


def classify_recipient(details: object) -> Outcome:
    """The outcome for one recipient from the `details` of an error ticket or receipt."""
    details = details if isinstance(details, dict) else {}
    error = as_code(details.get("error")) or "UnknownError"
    fcm = details.get("fcm")
    if isinstance(fcm, dict) and fcm.get("error") == "MismatchSenderId":
        # Expo may wrap it in a ProviderError: https://github.com/expo/expo-server-sdk-node/issues/55
        error = "MismatchSenderId"
    return Outcome(RECIPIENT_ERRORS.get(error, "failed"), error)


def error_code(response: Response) -> str:
    """The code of the response's first error; without one, Http and the HTTP status."""
    return as_code(response.error().get("code")) or f"Http{response.status_code}"


def classify_error_response(response: Response, chunk: Sequence[Notification]) -> list[Outcome]:
    """The outcomes of a request whose response has no usable tickets. Raises RequestRefused if Expo accepted none."""
    code = error_code(response)
    if response.status_code == 200 and not response.error():
        # Expo took the request, but its tickets cannot be assigned to recipients. Another request would send it twice.
        return [Outcome("accepted", "UnreadableResponse")] * len(chunk)
    status = request_status(response.status_code, code)
    if status == "maybe_sent":
        return [request_outcome(status, code)] * len(chunk)
    if status == "retry":
        raise RequestRefused(request_outcome(status, code, response.retry_after_seconds()))
    parts: Sequence[Sequence[int]] = ()
    if code == "PUSH_TOO_MANY_EXPERIENCE_IDS":
        parts = _indexes_by_project(response.error().get("details"), chunk)
    elif status == "failed" and len(chunk) > 1:
        # One bad message makes Expo refuse all hundred. Halving isolates it.
        middle = len(chunk) // 2
        parts = range(middle), range(middle, len(chunk))
    raise RequestRefused(request_outcome(status, code), parts)


def _indexes_by_project(details: object, chunk: Sequence[Notification]) -> Sequence[Sequence[int]]:
    """Indexes grouped by Expo project, from `details` = {"@owner/slug": [tokens]}.

    Empty for a single group: a project whose slug was renamed refuses every request, and splitting would not end.
    """
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
