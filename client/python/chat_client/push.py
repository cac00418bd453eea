"""What a push opens when it is tapped. docs/client.md of the project describes the data of a push."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID


@dataclass(frozen=True)
class Tap:
    """The conversation that a push opens. `message_id`: its newest message when the push was sent, if it has one."""

    conversation_id: UUID
    message_id: UUID | None
    recipient_id: UUID | None


def tap_of(data: Mapping[str, Any]) -> Tap | None:
    """What the data of a push open. None: it is no push of the chat, or one without a text, or it is malformed.

    `data` is what Expo delivers, or what FCM or APNs deliver: with the same data as JSON or an object in `body`.
    """
    body = data.get("body", data)
    try:
        fields = json.loads(body) if isinstance(body, str) else body
        if fields["type"] != "chat_message" or fields.get("kind") in ("dismiss", "badge"):
            return None
        message_id, recipient_id = fields.get("messageId"), fields.get("recipientId")
        return Tap(
            UUID(fields["conversationId"]),
            UUID(message_id) if message_id else None,
            UUID(recipient_id) if recipient_id else None,
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
