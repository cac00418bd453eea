"""The notification that a device shows, as fields of an Expo message.

https://docs.expo.dev/push-notifications/sending-notifications/#message-request-format
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from chat_push.models import Push, Target

MAX_LINE_CHARACTERS = 200
MAX_TITLE_CHARACTERS = 100
MAX_TITLE_GRAPHEMES = 40
MAX_DISMISSED = 50  # conversations of one dismissal; each has 39 bytes

# APNs and FCM accept 4096 bytes. 512 bytes are left for the fields that Expo adds, whose size is not documented.
MAX_BYTES = 4096 - 512

NEUTRAL_TITLE = "New message"
SOUND_CHANNEL, QUIET_CHANNEL = "chat-messages", "chat-messages-quiet"
# An older dismissal or badge would only repeat what the app reads from the database when it is opened.
SILENT_TTL_SECONDS = 3600
# FCM refuses more: https://firebase.google.com/docs/cloud-messaging/customize-messages/setting-message-lifespan
MAX_TTL_SECONDS = 28 * 24 * 3600


@dataclass(frozen=True)
class Notification:
    """One payload for one push token. `deliveries`: what the database calls it; several, if it stands for several."""

    push_token: str = field(repr=False)
    payload: Mapping[str, Any] = field(repr=False)
    deliveries: tuple[int, ...] = ()


def notifications(pushes: Sequence[Push], now: datetime) -> list[Notification]:
    """The notifications of all devices of these pushes. `now`: by the clock of the database.

    The dismissals of one device become one notification, and so do its badges: iOS limits how often it wakes an app.
    """
    found: list[Notification] = []
    silent: dict[tuple[str, str], list[tuple[Push, Target]]] = {}  # by kind and token
    for push in pushes:
        for device in push.devices:
            if device.kind in ("dismiss", "badge"):
                silent.setdefault((device.kind, device.push_token), []).append((push, device))
            else:
                fields = text_payload(push, device, now)
                found.append(Notification(device.push_token, fields, (device.delivery_id,)))
    for (kind, push_token), members in silent.items():
        for first in range(0, len(members), MAX_DISMISSED):
            merged = members[first : first + MAX_DISMISSED]
            payload = silent_payload(kind, [push for push, _ in merged], merged[0][1].platform, now)
            found.append(Notification(push_token, payload, tuple(device.delivery_id for _, device in merged)))
    return found


def text_payload(push: Push, device: Target, now: datetime) -> dict[str, Any]:
    """The fields of an alert or update without its recipient, at most MAX_BYTES long as JSON.

    Title and body are lines as private.one_line of the database returns them; they are only cut here. If they do not
    fit, the image is left out, then the oldest lines.

    Expo has no idempotency key. collapseId (iOS) and tag (Android) are those of the conversation, so that it has one
    notification, and a second copy replaces the first on the screen.
    """
    room_id = str(push.room_id)
    fields: dict[str, Any] = {
        "title": _title(push),
        "data": {
            "type": "chat_message",
            "kind": device.kind,
            "conversationId": room_id,
            "messageId": str(push.message_id) if push.message_id else None,
            "senderId": str(push.sender_id) if push.sender_id else None,
            # The app hides the notification if another account has signed in on the device since.
            "recipientId": str(push.recipient_id),
            "unread": push.unread,
            "badge": push.badge,
        },
        "badge": push.badge,
        # With the default priority, Android delays it until the device wakes up.
        "priority": "high",
        # Without it, Expo gives it no time on iOS and four weeks on Android.
        "ttl": min(max(1, int((push.expires_at - now).total_seconds())), MAX_TTL_SECONDS),
        "collapseId": room_id,
        "tag": room_id,
        "threadId": room_id,
    }
    if device.sound:
        fields |= {"sound": "default", "channelId": SOUND_CHANNEL}
    else:
        fields |= {"channelId": QUIET_CHANNEL, "interruptionLevel": "passive"}
    lines = [truncate(line, MAX_LINE_CHARACTERS) for line in push.body.split("\n")]
    if push.image_url:
        with_image = {**fields, "body": "\n".join(lines), "richContent": {"image": push.image_url}}
        if json_bytes(with_image) <= MAX_BYTES:
            return with_image
    while len(lines) > 1 and json_bytes({**fields, "body": "\n".join(lines)}) > MAX_BYTES:
        lines.pop()
    return {**fields, "body": "\n".join(lines)}


def silent_payload(kind: str, pushes: Sequence[Push], platform: str, now: datetime) -> dict[str, Any]:
    """The fields of a dismissal or badge of these conversations, without its recipient.

    The system draws nothing of it. A dismissal, and on Android a badge, wakes the app, whose background task does what
    `data` says. iOS sets a badge by itself.
    """
    data: dict[str, Any] = {
        "type": "chat_message",
        "kind": kind,
        "recipientId": str(pushes[0].recipient_id),
        "badge": pushes[0].badge,
        # The system may hold it back. Then the app keeps the notification of a newer message.
        "sentAt": now.isoformat(),
    }
    fields = {"data": data, "priority": "normal", "ttl": SILENT_TTL_SECONDS}
    if kind == "dismiss":
        data["conversationIds"] = [str(push.room_id) for push in pushes]
        return {**fields, "contentAvailable": True}
    return {**fields, "badge": pushes[0].badge} if platform == "ios" else fields


def _title(push: Push) -> str:
    """The name of the sender, and how many messages are unread if there are several."""
    count = "" if push.unread < 2 else f" ({'99+' if push.unread > 99 else push.unread})"
    room = MAX_TITLE_CHARACTERS - len(count), MAX_TITLE_GRAPHEMES - len(count)
    return truncate(push.title or NEUTRAL_TITLE, *room) + count


def json_bytes(fields: Mapping[str, Any]) -> int:
    """Bytes of the fields as JSON in UTF-8."""
    return len(json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode())


def truncate(text: str, characters: int, graphemes: int | None = None) -> str:
    """The text in at most that many characters and graphemes. A longer text is cut between graphemes and ends in "…".

    Only a first grapheme that is longer than `characters` is cut inside, such as a long sequence of joined emoji.
    """
    graphemes = graphemes or characters
    if len(text) <= min(characters, graphemes):
        return text
    import regex  # Here, because the import is slow and only long texts need it.

    found = list(regex.finditer(r"\X", text[: 2 * characters]))
    if len(text) <= characters and len(found) <= graphemes:
        return text
    # One character and one grapheme less, for the "…".
    fit = [each.end() for each in found[: graphemes - 1] if each.end() < characters and not each[0].isspace()]
    return text[: fit[-1] if fit else characters - 1] + "…"
