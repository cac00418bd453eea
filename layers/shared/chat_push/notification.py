"""The notification that a phone shows, as Expo's message fields (specification, section E)."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from chat_push.models import Push

MAX_BODY_CHARACTERS = 200
MAX_TITLE_CHARACTERS = 100

# APNs and FCM take 4096 bytes in total; what Expo adds by itself is not documented, so some room is left for it.
MAX_BYTES = 4096 - 512

NEUTRAL_TITLE = "New message"

# What a phone draws nothing for: spaces, control characters, Unicode's Default_Ignorable_Code_Point, Braille's blank.
VISIBLE_CHARACTER = re.compile(
    r"[^\s\x00-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    r"\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)


@dataclass(frozen=True)
class Notification:
    """One payload to one push token: Expo's Python SDK cannot send a list of recipients."""

    push_token: str = field(repr=False)
    payload: Mapping[str, Any] = field(repr=False)


def payload(push: Push) -> dict[str, Any]:
    """The message fields without its recipient, at most MAX_BYTES long as JSON.

    A character takes six bytes at the most, so title and body always fit; an image is left out when it does not.

    collapseId (iOS) and tag (Android) carry the message id: a second copy replaces the first on the screen, which makes
    a resend invisible, since Expo has no idempotency key.
    """
    message_id, room_id = str(push.message_id), str(push.room_id)
    fields: dict[str, Any] = {
        "title": truncate(_visible_name(push.title) or NEUTRAL_TITLE, MAX_TITLE_CHARACTERS),
        "body": truncate(push.body, MAX_BODY_CHARACTERS),
        "data": {
            "conversationId": room_id,
            "messageId": message_id,
            "senderId": str(push.sender_id),
            # So that a phone which is on another account by now can hide it.
            "recipientId": str(push.recipient_id),
            "type": "chat_message",
        },
        "sound": "default",
        "badge": push.badge,
        "channelId": "chat-messages",
        # Android's default priority waits for the phone to wake up.
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
    """The sender's name, None if nothing of it can be seen. An app's own push.display_name may answer anything."""
    return title.strip() if title and VISIBLE_CHARACTER.search(title) else None


def json_bytes(fields: Mapping[str, Any]) -> int:
    """Bytes of the fields as JSON in UTF-8."""
    return len(json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode())


def truncate(text: str, limit: int) -> str:
    """The text in at most `limit` characters, ending in "…" if it was longer, never inside a grapheme.

    Unless the first grapheme alone is longer: a letter under hundreds of accents is no letter to be kept whole.
    """
    if len(text) <= limit:
        return text
    import regex  # Only long texts pay for the import.

    kept = 0
    for grapheme in regex.finditer(r"\X", text[: 2 * limit]):
        if grapheme.end() > limit - 1:
            break
        if not grapheme[0].isspace():
            kept = grapheme.end()
    return text[: kept or limit - 1] + "…"
