"""The payload of a notification as APNs takes it: its headers and its body.

https://developer.apple.com/documentation/usernotifications/generating-a-remote-notification. `body` holds the data, as
Expo's own service sends it, so that an app reads the same from all providers.
"""

from typing import Any

from chat_push.content import Content, Silent, Text, fit

MAX_BYTES = 4096


def write(content: Content) -> dict[str, Any]:
    """{headers, ttl, body}; the body is at most MAX_BYTES long as JSON. ttl: in seconds, for apns-expiration."""
    if isinstance(content, Silent):
        return _silent(content)
    body = fit(content, _text, MAX_BYTES)
    headers = {"apns-push-type": "alert", "apns-priority": "10", "apns-collapse-id": content.room_id}
    return {"headers": headers, "ttl": content.ttl, "body": body}


def _text(text: Text) -> dict[str, Any]:
    aps: dict[str, Any] = {
        "alert": {"title": text.title, "body": text.body},
        "badge": text.badge,
        "thread-id": text.room_id,
        **({"sound": text.sound_file} if text.sound else {"interruption-level": "passive"}),
        # An extension of the app downloads the image.
        **({"mutable-content": 1} if text.image_url else {}),
    }
    image = {"richContent": {"image": text.image_url}} if text.image_url else {}
    return {"aps": aps, "body": text.data, **image}


def _silent(silent: Silent) -> dict[str, Any]:
    """A badge is set by iOS. A dismissal wakes the app, which APNs takes with a priority of 5 only."""
    push_type, aps = (
        ("background", {"content-available": 1}) if silent.wakes_app else ("alert", {"badge": silent.badge})
    )
    headers = {"apns-push-type": push_type, "apns-priority": "5"}
    return {"headers": headers, "ttl": silent.ttl, "body": {"aps": aps, "body": silent.data}}
