"""The notification that a device shows, as fields of an Expo message.

https://docs.expo.dev/push-notifications/sending-notifications/#message-request-format
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from chat_push.models import Push

MAX_BODY_CHARACTERS = 200
MAX_TITLE_CHARACTERS = 100

# APNs and FCM accept 4096 bytes. 512 bytes are left for the fields that Expo adds, whose size is not documented.
MAX_BYTES = 4096 - 512

NEUTRAL_TITLE = "New message"

# Any other character is invisible: spaces, controls, Unicode's Default_Ignorable_Code_Point, the blank of Braille.
VISIBLE_CHARACTER = re.compile(
    r"[^\s\x00-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    r"\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)


@dataclass(frozen=True)
class Notification:
    """One payload for one push token."""

    push_token: str = field(repr=False)
    payload: Mapping[str, Any] = field(repr=False)


def payload(push: Push) -> dict[str, Any]:
    """The fields of the message without its recipient, at most MAX_BYTES long as JSON.

    Title and body always fit, because a character has at most six bytes. An image that does not fit is left out.

    Expo has no idempotency key. collapseId (iOS) and tag (Android) contain the message id, so that a second copy
    replaces the first on the screen.
    """
    message_id, room_id = str(push.message_id), str(push.room_id)
    fields: dict[str, Any] = {
        "title": truncate(_visible_name(push.title) or NEUTRAL_TITLE, MAX_TITLE_CHARACTERS),
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


def _visible_name(title: str | None) -> str | None:
    """The name, None if no character of it is visible. An app's own push.display_name may return any text."""
    return title.strip() if title and VISIBLE_CHARACTER.search(title) else None


def json_bytes(fields: Mapping[str, Any]) -> int:
    """Bytes of the fields as JSON in UTF-8."""
    return len(json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode())


def truncate(text: str, limit: int) -> str:
    """The text in at most `limit` characters. A longer text is cut between two graphemes and ends in "…".

    Only a first grapheme that is longer than the limit is cut inside, such as a letter with hundreds of accents.
    """
    if len(text) <= limit:
        return text
    import regex  # Here, because the import is slow and only long texts need it.

    kept = 0
    for grapheme in regex.finditer(r"\X", text[: 2 * limit]):
        if grapheme.end() > limit - 1:
            break
        if not grapheme[0].isspace():
            kept = grapheme.end()
    return text[: kept or limit - 1] + "…"
