"""The payload of a notification as Expo takes it.

https://docs.expo.dev/push-notifications/sending-notifications/#message-request-format
"""

from typing import Any

from chat_push.content import Content, Silent, Text, fit

# APNs and FCM accept 4096 bytes. 512 bytes are left for the fields that Expo adds, whose size is not documented.
MAX_BYTES = 4096 - 512


def write(content: Content) -> dict[str, Any]:
    """The fields of a message without its recipient, at most MAX_BYTES long as JSON."""
    return _silent(content) if isinstance(content, Silent) else fit(content, _text, MAX_BYTES)


def _text(text: Text) -> dict[str, Any]:
    """Expo has no idempotency key. collapseId (iOS) and tag (Android) let a second copy replace the first."""
    sound = {"sound": text.sound_file} if text.sound else {"interruptionLevel": "passive"}
    return {
        "title": text.title,
        "body": text.body,
        "data": text.data,
        "badge": text.badge,
        # With the default priority, Android delays it until the device wakes up.
        "priority": "high",
        # Without it, Expo gives it no time on iOS and four weeks on Android.
        "ttl": text.ttl,
        "collapseId": text.room_id,
        "tag": text.room_id,
        "threadId": text.room_id,
        "channelId": text.channel,
        **sound,
        **({"richContent": {"image": text.image_url}} if text.image_url else {}),
    }


def _silent(silent: Silent) -> dict[str, Any]:
    fields = {"data": silent.data, "priority": "normal", "ttl": silent.ttl}
    if silent.kind == "dismiss":
        return {**fields, "contentAvailable": True}
    return fields if silent.wakes_app else {**fields, "badge": silent.badge}
