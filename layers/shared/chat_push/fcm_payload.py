"""The payload of a notification as FCM takes it: a message of HTTP v1 without its token.

https://firebase.google.com/docs/reference/fcm/rest/v1/projects.messages. `data.body` holds the data as JSON, as Expo's
own service sends it, so that an app reads the same from all providers.
"""

import json
from typing import Any

from chat_push.content import Content, Silent, Text, fit

MAX_BYTES = 4096  # https://firebase.google.com/docs/cloud-messaging/customize-messages/set-message-type


def write(content: Content) -> dict[str, Any]:
    """The fields of a message, at most MAX_BYTES long as JSON."""
    if content.platform == "web":
        return _silent_web(content) if isinstance(content, Silent) else fit(content, _web, MAX_BYTES)
    return _silent_android(content) if isinstance(content, Silent) else fit(content, _android, MAX_BYTES)


def _data(content: Content) -> dict[str, str]:
    return {"body": json.dumps(content.data, ensure_ascii=False, separators=(",", ":"))}


def _android(text: Text) -> dict[str, Any]:
    # FCM has no key against duplicates: the tag lets a second copy replace the first. A collapse_key would do nothing,
    # because FCM ignores it for notifications.
    notification = {
        "title": text.title,
        "body": text.body,
        "tag": text.room_id,
        "channel_id": text.channel,
        "notification_count": text.badge,
        **({"sound": text.sound_name or "default"} if text.sound else {}),
        **({"image": text.image_url} if text.image_url else {}),
    }
    return {
        "android": {"priority": "high", "ttl": f"{text.ttl}s", "notification": notification},
        # With `message`, expo-notifications gives an app in the foreground the same data as of a push of Expo:
        # https://docs.expo.dev/push-notifications/sending-notifications-custom/
        "data": {"message": text.body, **_data(text)},
    }


def _silent_android(silent: Silent) -> dict[str, Any]:
    """Data alone starts the app, which removes notifications: FCM itself cannot."""
    return {"android": {"priority": "normal", "ttl": f"{silent.ttl}s"}, "data": _data(silent)}


def _web(text: Text) -> dict[str, Any]:
    notification = {
        "title": text.title,
        "body": text.body,
        "tag": text.room_id,
        # Without renotify, a replacement is silent.
        **({"renotify": True} if text.sound else {"silent": True}),
        **({"image": text.image_url} if text.image_url else {}),
    }
    headers = {"TTL": str(text.ttl), "Urgency": "high", "Topic": text.room_id.replace("-", "")}
    return {"webpush": {"headers": headers, "notification": notification}, "data": _data(text)}


def _silent_web(silent: Silent) -> dict[str, Any]:
    return {"webpush": {"headers": {"TTL": str(silent.ttl), "Urgency": "normal"}}, "data": _data(silent)}
