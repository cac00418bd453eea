"""What a tapped push opens."""

import json
from typing import Any
from uuid import UUID

import pytest

from chat_client import Tap, tap_of

DATA = {
    "type": "chat_message",
    "kind": "message",
    "conversationId": str(UUID(int=1)),
    "messageId": str(UUID(int=2)),
    "senderId": str(UUID(int=3)),
    "recipientId": str(UUID(int=4)),
}
TAP = Tap(UUID(int=1), UUID(int=2), UUID(int=4))


@pytest.mark.parametrize(
    "data", [DATA, {"aps": {"alert": "…"}, "body": DATA}, {"body": json.dumps(DATA)}], ids=["expo", "apns", "fcm"]
)
def test_a_push_of_each_provider_opens_its_conversation(data: dict[str, Any]) -> None:
    assert tap_of(data) == TAP


def test_a_push_of_the_specification_without_recipient_opens_its_conversation() -> None:
    data = {name: value for name, value in DATA.items() if name not in ("recipientId", "kind", "messageId")}
    assert tap_of(data) == Tap(UUID(int=1), None, None)


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"type": "newsletter"},
        {**DATA, "kind": "badge"},
        {**DATA, "kind": "dismiss"},
        {**DATA, "conversationId": "no id"},
        {**DATA, "conversationId": None},
        {"body": "no JSON"},
        {"body": "[]"},
        {"body": None},
    ],
)
def test_any_other_push_opens_nothing(data: dict[str, Any]) -> None:
    assert tap_of(data) is None
