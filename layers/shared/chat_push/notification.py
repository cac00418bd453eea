"""The notification that a device shows, as fields of an Expo message.

https://docs.expo.dev/push-notifications/sending-notifications/#message-request-format
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from chat_push.models import Push

MAX_BODY_CHARACTERS = 200
MAX_TITLE_CHARACTERS = 100
MAX_TITLE_GRAPHEMES = 40

# APNs and FCM accept 4096 bytes. 512 bytes are left for the fields that Expo adds, whose size is not documented.
MAX_BYTES = 4096 - 512

NEUTRAL_TITLE = "New message"


@dataclass(frozen=True)
class Notification:
    """One payload for one push token."""

    push_token: str = field(repr=False)
    payload: Mapping[str, Any] = field(repr=False)


def payload(push: Push) -> dict[str, Any]:
    """The fields of the message without its recipient, at most MAX_BYTES long as JSON.

    Title and body are lines as private.one_line of the database returns them; they are only cut here.
    They always fit, because a character has at most six bytes. An image that does not fit is left out.

    Expo has no idempotency key. collapseId (iOS) and tag (Android) contain the message id, so that a second copy
    replaces the first on the screen.
    """
    message_id, room_id = str(push.message_id), str(push.room_id)
    fields: dict[str, Any] = {
        "title": truncate(push.title or NEUTRAL_TITLE, MAX_TITLE_CHARACTERS, MAX_TITLE_GRAPHEMES),
        "body": truncate(push.body, MAX_BODY_CHARACTERS),
        "data": {
            "conversationId": room_id,
            "messageId": message_id,
            "senderId": str(push.sender_id),
            # The app hides the notification if another account has signed in on the device since.
            "recipientId": str(push.recipient_id),
            "type": "chat_message",
        },
        "sound": "default",
        "badge": push.badge,
        "channelId": "chat-messages",
        # With the default priority, Android delays it until the device wakes up.
        "priority": "high",
        "collapseId": message_id,
        "tag": message_id,
        "threadId": room_id,
    }
    if push.image_url:
        with_image = {**fields, "richContent": {"image": push.image_url}}
        if json_bytes(with_image) <= MAX_BYTES:
            fields = with_image
    return fields


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
