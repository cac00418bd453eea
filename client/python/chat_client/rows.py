"""How the rows of the local database are read. Times in it are microseconds since 1970 by the server's clock."""

import json
import sqlite3
from datetime import UTC, datetime, timedelta
from uuid import UUID

from chat_client.models import Conversation, Entry, Json, Message, Person, Status, status_of

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def message_of(row: sqlite3.Row) -> Message:
    delivered_at = _time(row["delivered_at"])
    text, attachments, deleted_at = row["text"], row["attachments"], _time(row["deleted_at"])
    status: Status = status_of(bool(row["is_read"]), delivered_at)
    if row["kind"] is not None:
        status = row["state"]
    if row["kind"] == "edit":
        text = row["new_text"]
    elif row["kind"] == "delete":
        # Until the server has set it, the time is the phone's.
        text, attachments, deleted_at = "", "[]", deleted_at or datetime.fromtimestamp(row["entered_at"], UTC)
    return Message(
        id=UUID(row["id"]),
        conversation_id=UUID(row["conversation_id"]),
        sender_id=UUID(row["sender_id"]),
        text=text,
        attachments=tuple(json.loads(attachments)),
        message_type=row["message_type"],
        client_msg_id=row["client_msg_id"],
        server_timestamp=_time(row["server_timestamp"]),
        changed_at=_time(row["changed_at"]),
        edited_at=_time(row["edited_at"]),
        deleted_at=deleted_at,
        delivered_at=delivered_at,
        read_at=_time(row["read_at"]),
        is_read=bool(row["is_read"]),
        status=status,
        error=row["error"],
    )


def conversation_of(row: sqlite3.Row) -> Conversation:
    last_message, last_at = row["last_message"], row["last_message_at"]
    if row["newest"] is not None:
        text, attachments, message_type, last_at = json.loads(row["newest"])
        last_message = " ".join(text.split())[:200] or _kind_line(json.loads(attachments), message_type)
    return Conversation(
        id=UUID(row["id"]),
        partner=Person(
            id=UUID(row["partner_id"]),
            display_name=row["display_name"],
            avatar_url=row["avatar_url"],
            role=row["role"],
        ),
        last_message=last_message,
        last_message_at=_time(last_at or None),
        unread=row["unread_now"],
        is_request=bool(row["is_request"]),
        archived=bool(row["archived"]) if row["kind"] is None else row["kind"] == "archive",
    )


def _kind_line(attachments: list[Json], message_type: str) -> str:
    """What the list shows for a message without text: its kind."""
    kind = message_type
    if attachments:  # Without a setting of the server, an attachment may be anything.
        kind = attachments[0].get("type", "") if isinstance(attachments[0], dict) else ""
    return f"[{kind or 'attachment'}]"


def entry_of(row: sqlite3.Row) -> Entry:
    return Entry(
        id=UUID(row["id"]),
        conversation_id=UUID(row["conversation_id"]),
        kind=row["kind"],
        text=row["text"],
        attachments=tuple(json.loads(row["attachments"])),
        created_at=row["created_at"],
        attempts=row["attempts"],
        tried_at=row["tried_at"],
        next_try=row["next_try"],
        state=row["state"],
        error=row["error"],
    )


def micros(time: datetime) -> int:
    return (time - EPOCH) // timedelta(microseconds=1)


def optional_micros(time: datetime | None) -> int | None:
    return None if time is None else micros(time)


def _time(micros: int | None) -> datetime | None:
    return None if micros is None else EPOCH + timedelta(microseconds=micros)
