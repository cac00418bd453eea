"""What a phone gets of an FCM message, in the field names of pushes.py.

The rules for `data` and for messages without `notification` are those of the app's library:
https://github.com/expo/expo/tree/main/packages/expo-notifications/android/src/main/java/expo/modules/notifications/notifications
(NotificationSerializer.java, RemoteMessageSerializer.java, model/RemoteNotificationContent.kt).
"""

import json
from collections.abc import Collection

from pydantic import JsonValue

from local.providers.fcm.protocol import (
    MAX_TTL_SECONDS,
    AndroidConfig,
    AndroidNotification,
    ApnsConfig,
    Json,
    Message,
    WebpushConfig,
)
from local.providers.pushes import Platform


def push_of(message: Message, platform: Platform, channels: Collection[str]) -> Json:
    """The fields that reach a phone. Those that are not set are left out."""
    match platform:
        case "android":
            fields = _for_android(message, channels)
        case "web":
            fields = _for_web(message)
        case "ios":
            fields = _for_ios(message)
    return {name: value for name, value in fields.items() if value not in (None, "", {})}


def _for_android(message: Message, channels: Collection[str]) -> Json:
    config = message.android or AndroidConfig()
    data = message.data if config.data is None else config.data
    fields: Json = {
        "data": {**data},
        "priority": config.priority.lower(),
        "ttl": int(float(config.ttl[:-1])),
        "collapseId": config.collapse_key,
    }
    content = _object(data.get("body"))
    if message.notification is None and config.notification is None:
        # The background task of the app gets `data.body`, and the library shows `data.title` and `data.message`.
        channel = data.get("channelId")
        return fields | {
            "title": data.get("title"),
            "body": data.get("message"),
            "tag": data.get("tag"),
            "channelId": channel if channel in channels else None,
            "data": content or {**data},
        }
    set_fields: Json = {}
    for block in (message.notification, config.notification):
        set_fields |= block.model_dump(exclude_unset=True) if block else {}
    shown = AndroidNotification.model_validate(set_fields)
    # In the foreground the library takes `data.body` for the data only if the message looks like one of Expo.
    is_like_expo = content is not None and shown.body == data.get("message")
    return fields | {
        "title": shown.title or data.get("title"),
        "body": shown.body or data.get("message"),
        "tag": shown.tag,
        # The SDK of Firebase takes a default channel for one that is missing.
        "channelId": shown.channel_id if shown.channel_id in channels else None,
        "sound": "default" if shown.default_sound else shown.sound,
        "badge": shown.notification_count or None,
        "richContent": {"image": shown.image} if shown.image else None,
        "data": content if is_like_expo else {**data},
    }


def _for_web(message: Message) -> Json:
    config = message.webpush or WebpushConfig()
    headers = {name.lower(): value for name, value in config.headers.items()}
    data = message.data if config.data is None else config.data
    shown: Json = message.notification.model_dump(exclude_unset=True) if message.notification else {}
    shown |= config.notification or {}
    return {
        **{name: shown.get(name) for name in ("title", "body", "tag", "silent", "renotify")},
        "data": _object(data.get("body")) or {**data},
        "priority": headers.get("urgency", "normal"),
        "ttl": int(headers["ttl"]) if "ttl" in headers else None,
        "collapseId": headers.get("topic"),
    }


def _for_ios(message: Message) -> Json:
    config = message.apns or ApnsConfig()
    headers = {name.lower(): value for name, value in config.headers.items()}
    aps = config.payload.get("aps")
    aps = aps if isinstance(aps, dict) else {}
    alert = aps.get("alert")
    shown: Json = message.notification.model_dump(exclude_unset=True) if message.notification else {}
    shown |= alert if isinstance(alert, dict) else {} if alert is None else {"body": alert}
    data: Json = {**message.data, **{name: value for name, value in config.payload.items() if name != "aps"}}
    content = data.get("body")
    expiration = headers.get("apns-expiration", "")
    return {
        **{name: shown.get(name) for name in ("title", "subtitle", "body")},
        "sound": aps.get("sound"),
        "badge": aps.get("badge"),
        "contentAvailable": bool(aps.get("content-available")) or message.is_data_only or None,
        "mutableContent": bool(aps.get("mutable-content")) or None,
        "interruptionLevel": aps.get("interruption-level"),
        "threadId": aps.get("thread-id"),
        "collapseId": headers.get("apns-collapse-id"),
        **({"expiration": int(expiration)} if expiration.isdecimal() else {"ttl": MAX_TTL_SECONDS}),
        "data": content if isinstance(content, dict) else data,
    }


def _object(text: str | None) -> Json | None:
    """The JSON object in a text. Returns None: there is none."""
    try:
        value: JsonValue = json.loads(text or "")
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
