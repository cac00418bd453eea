"""What each error of APNs means. To support another reason, add it here.

https://developer.apple.com/documentation/usernotifications/handling-notification-responses-from-apns
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from chat_push.outcome import Meaning, Outcome, as_code, as_ticket_id, parse_retry_after

if TYPE_CHECKING:  # An Expo-only stack counts codes, and must not import h2.
    from chat_push.http2 import Answer

_FAULT = Meaning("configuration_fault", of_provider=True)

ERRORS: Mapping[str, Meaning] = {
    # The token is dead, of another app or of the other environment. The database decides (push.is_dead_token).
    "Unregistered": Meaning("failed"),
    "ExpiredToken": Meaning("failed"),
    "BadDeviceToken": Meaning("failed"),
    "DeviceTokenNotForTopic": Meaning("failed"),
    # Our name for Unregistered and ExpiredToken before the device registered the token again: it stays active.
    "RegisteredAgain": Meaning("failed"),
    # The message can never be sent. The device stays active.
    "BadCollapseId": Meaning("failed"),
    "BadExpirationDate": Meaning("failed"),
    "BadMessageId": Meaning("failed"),
    "BadPriority": Meaning("failed"),
    "BadPath": Meaning("failed"),
    "DuplicateHeaders": Meaning("failed"),
    "InvalidPushType": Meaning("failed"),
    "MethodNotAllowed": Meaning("failed"),
    "MissingDeviceToken": Meaning("failed"),
    "PayloadEmpty": Meaning("failed"),
    "PayloadTooLarge": Meaning("failed"),
    # Not now.
    "TooManyRequests": Meaning("retry", wait_seconds=60),  # too many to this device
    "InternalServerError": Meaning("retry"),
    "ServiceUnavailable": Meaning("retry", of_provider=True),
    "IdleTimeout": Meaning("retry"),
    "Shutdown": Meaning("retry"),
    # An operator must fix it, see CONFIGURATION_FAULT.
    "BadTopic": _FAULT,
    "MissingTopic": _FAULT,
    "TopicDisallowed": _FAULT,
    "InvalidProviderToken": _FAULT,
    "MissingProviderToken": _FAULT,
    "ExpiredProviderToken": _FAULT,
    "BadEnvironmentKeyIdInToken": _FAULT,
    "BadEnvironmentKeyInToken": _FAULT,  # The name that servers send.
    "UnrelatedKeyIdInToken": _FAULT,
    "BadCertificate": _FAULT,
    "BadCertificateEnvironment": _FAULT,
    "Forbidden": _FAULT,
    # Another sender makes provider tokens with this key: ours changes every 40 minutes.
    "TooManyProviderTokenUpdates": Meaning("configuration_fault", of_provider=True, wait_seconds=1200),
}

# The request was not handled, and another connection may serve it.
RECONNECT = {"IdleTimeout", "Shutdown", "UnrelatedKeyIdInToken"}

CONFIGURATION_FAULT = (
    "APNs refuses the key or the topic. InvalidApnsKey, InvalidProviderToken: check apns_key, apns_key_id and "
    "apns_team_id of BackendSecret (./dev secrets put). TopicDisallowed, BadTopic: apns_topic must be the bundle id of "
    "the app. BadEnvironmentKeyInToken: the key is for the other environment (sandbox, production). "
    "ExpiredProviderToken: the clock is wrong. TooManyProviderTokenUpdates: another sender uses the key, and makes new "
    "provider tokens too often."
)

COUNTED_CODES = {reason for reason, meaning in ERRORS.items() if meaning.status == "failed"}


def reason_of(answer: "Answer") -> str:
    """The reason of an error response; without one, Http and its status."""
    return as_code(answer.json().get("reason")) or f"Http{answer.status}"


def classify(answer: "Answer", registered_at: datetime) -> Outcome:
    """The outcome of one notification from the response of APNs. registered_at: when the device registered last."""
    if answer.status == 200:
        return Outcome("handed_over", ticket_id=as_ticket_id(answer.headers.get("apns-id")))
    reason = reason_of(answer)
    if answer.status == 410 and _was_dead_before(answer, registered_at):
        reason = "RegisteredAgain"
    by_status = Meaning("failed" if 400 <= answer.status < 500 else "retry")
    meaning = ERRORS.get(reason, by_status)
    return meaning.outcome(reason, parse_retry_after(answer.headers.get("retry-after", "")))


def _was_dead_before(answer: "Answer", registered_at: datetime) -> bool:
    """Whether APNs knew that the token is dead before the device registered it last. `timestamp` is in milliseconds."""
    timestamp = answer.json().get("timestamp")
    if not isinstance(timestamp, int) or isinstance(timestamp, bool):
        return False
    return timestamp < (registered_at - datetime.fromtimestamp(0, UTC)).total_seconds() * 1000
