"""The protocol of APNs: the requests that it accepts, and why it rejects others.

Sources: https://developer.apple.com/documentation/usernotifications/sending-notification-requests-to-apns and the pages
beside it. Where they are not clear, this fake takes the stricter reading, so that a sender that passes here also passes
there.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import uuid4

from pydantic import JsonValue

type Json = dict[str, JsonValue]
type Environment = Literal["production", "sandbox"]
type PushType = Literal["alert", "background"]
type Headers = Sequence[tuple[str, str]]

# https://developer.apple.com/documentation/usernotifications/handling-notification-responses-from-apns
STATUSES = {
    "BadCollapseId": 400,
    "BadDeviceToken": 400,
    "BadExpirationDate": 400,
    "BadMessageId": 400,
    "BadPriority": 400,
    "BadTopic": 400,
    "DeviceTokenNotForTopic": 400,
    "DuplicateHeaders": 400,
    "IdleTimeout": 400,
    "InvalidPushType": 400,
    "MissingDeviceToken": 400,
    "MissingTopic": 400,
    "PayloadEmpty": 400,
    "TopicDisallowed": 400,
    "BadCertificate": 403,
    "BadCertificateEnvironment": 403,
    "BadEnvironmentKeyIdInToken": 403,  # the documented name
    "BadEnvironmentKeyInToken": 403,  # the name in answers of the service
    "ExpiredProviderToken": 403,
    "Forbidden": 403,
    "InvalidProviderToken": 403,
    "MissingProviderToken": 403,
    "UnrelatedKeyIdInToken": 403,
    "BadPath": 404,
    "MethodNotAllowed": 405,
    "ExpiredToken": 410,
    "Unregistered": 410,
    "PayloadTooLarge": 413,
    "TooManyProviderTokenUpdates": 429,
    "TooManyRequests": 429,
    "InternalServerError": 500,
    "ServiceUnavailable": 503,
    "Shutdown": 503,
}
CLOSING = ("IdleTimeout", "Shutdown")  # APNs closes the connection after an answer with one of these reasons

MAX_PAYLOAD_BYTES = 4096
MAX_COLLAPSE_ID_BYTES = 64

# The host names of https://developer.apple.com/documentation/usernotifications/sending-notification-requests-to-apns,
# and an older one of the sandbox that clients still use.
HOSTS: Mapping[str, Environment] = {
    "api.push.apple.com": "production",
    "api.sandbox.push.apple.com": "sandbox",
    "api.development.push.apple.com": "sandbox",
}

DEVICE_TOKEN = r"^[0-9a-f]{64,200}$"  # Apple does not document the length, and says that it may change
_PUSH_TYPES: Mapping[str, PushType] = {"alert": "alert", "background": "background"}  # other types are not served
_PATH = re.compile(r"/3/device/([^/?]*)")
_TOPIC = re.compile(r"[A-Za-z0-9.-]+")
_NOTIFICATION_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")

# The field of a phone's message for each field of `aps`.
_APS_FIELDS = {
    "badge": "badge",
    "sound": "sound",
    "thread-id": "threadId",
    "category": "categoryId",
    "interruption-level": "interruptionLevel",
    "relevance-score": "relevanceScore",
    "target-content-id": "targetContentId",
}


class RejectedError(Exception):
    """APNs rejects the request: the reason, and the time that the answer carries with status 410."""

    def __init__(self, reason: str, timestamp: datetime | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.timestamp = timestamp


@dataclass(frozen=True)
class ApnsNotification:
    """A valid request: the values of its headers, and its payload."""

    token: str
    id: str  # `apns-id`
    topic: str
    push_type: PushType
    priority: int
    expiration: int | None  # Unix time in seconds; 0: APNs does not store the notification
    collapse_id: str | None
    payload: Json

    def phone_message(self) -> Json:
        """The notification as a phone of this package takes it: the field names of Expo.

        `data` is what expo-notifications gives the app as data, which is `body` beside `aps`:
        https://github.com/expo/expo/blob/main/packages/expo-notifications/ios/ExpoNotifications/Notifications/NotificationRecords.swift
        """
        aps = _object(self.payload["aps"])
        alert = aps.get("alert")
        texts = {"body": alert} if isinstance(alert, str) else _object(alert)
        message = {name: texts[name] for name in ("title", "subtitle", "body") if name in texts}
        message |= {ours: aps[name] for name, ours in _APS_FIELDS.items() if name in aps}
        if aps.get("content-available") == 1:
            message["contentAvailable"] = True
        if aps.get("mutable-content") == 1:
            message["mutableContent"] = True
        if data := _object(self.payload.get("body")):
            message["data"] = data
        if self.collapse_id is not None:
            message["collapseId"] = self.collapse_id
        if self.expiration is not None:
            message["expiration"] = self.expiration
        return message


def new_notification_id() -> str:
    """An `apns-id` of APNs itself. It has upper-case letters: https://github.com/jchambers/pushy/issues/184."""
    return str(uuid4()).upper()


def device_token(path: str) -> str:
    """The device token in the path, or "". Raises RejectedError: BadPath."""
    if (found := _PATH.fullmatch(path)) is None:
        raise RejectedError("BadPath")
    return found[1].lower()


def check_request_line(headers: Mapping[str, str]) -> None:
    """Raises RejectedError: the request is not a POST with a device token in the path."""
    token = device_token(headers[":path"])
    if headers[":method"] != "POST":
        raise RejectedError("MethodNotAllowed")
    if not token:
        raise RejectedError("MissingDeviceToken")


def read_notification(pairs: Headers, body: bytes, notification_id: str) -> ApnsNotification:
    """The notification of a request whose path and provider token are valid. Raises RejectedError.

    `notification_id` is for a request without the header `apns-id`.
    """
    headers = dict(pairs)
    if len(headers) < len(pairs):
        raise RejectedError("DuplicateHeaders")
    if (given_id := headers.get("apns-id")) is not None and not _NOTIFICATION_ID.fullmatch(given_id):
        raise RejectedError("BadMessageId")
    if not (topic := headers.get("apns-topic")):
        raise RejectedError("MissingTopic")
    if not _TOPIC.fullmatch(topic):
        raise RejectedError("BadTopic")
    collapse_id = headers.get("apns-collapse-id")
    if collapse_id is not None and not 0 < len(collapse_id.encode()) <= MAX_COLLAPSE_ID_BYTES:
        raise RejectedError("BadCollapseId")
    push_type = _PUSH_TYPES.get(headers.get("apns-push-type", ""))
    if push_type is None:  # without the header, APNs "may return an error"
        raise RejectedError("InvalidPushType")
    payload = _payload(body)
    _check_push_type(push_type, _object(payload["aps"]))
    return ApnsNotification(
        token=device_token(headers[":path"]),
        id=given_id or notification_id,
        topic=topic,
        push_type=push_type,
        priority=_priority(headers.get("apns-priority", "10"), push_type),
        expiration=_expiration(headers.get("apns-expiration")),
        collapse_id=collapse_id,
        payload=payload,
    )


def _payload(body: bytes) -> Json:
    if len(body) > MAX_PAYLOAD_BYTES:
        raise RejectedError("PayloadTooLarge")
    try:
        payload = json.loads(body)
    except ValueError as error:
        raise RejectedError("PayloadEmpty") from error  # how APNs calls a payload that is not JSON is not documented
    if not isinstance(payload, dict) or not isinstance(payload.get("aps"), dict):
        raise RejectedError("PayloadEmpty")
    return payload


def _check_push_type(push_type: PushType, aps: Json) -> None:
    """Raises RejectedError: the type differs from the payload. Then APNs "may return an error"."""
    is_for_user = any(name in aps for name in ("alert", "badge", "sound"))
    is_background = aps.get("content-available") == 1 and not is_for_user
    if not (is_for_user if push_type == "alert" else is_background):
        raise RejectedError("InvalidPushType")


def _priority(value: str, push_type: PushType) -> int:
    """Raises RejectedError: no priority, or one that a background push cannot have.

    https://developer.apple.com/documentation/usernotifications/pushing-background-updates-to-your-app
    """
    if value not in (("1", "5", "10") if push_type == "alert" else ("5",)):
        raise RejectedError("BadPriority")
    return int(value)


def _expiration(value: str | None) -> int | None:
    if value is None:
        return None
    if not re.fullmatch("[0-9]{1,12}", value):
        raise RejectedError("BadExpirationDate")
    return int(value)


def _object(value: JsonValue) -> Json:
    return value if isinstance(value, dict) else {}
