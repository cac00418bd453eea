"""The payloads of FCM and APNs."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from chat_push.content import json_bytes
from chat_push.models import Push
from chat_push.notification import Notification, notifications
from hypothesis import example, given
from hypothesis import strategies as st

from tests.http_fakes import push, uuid

NOW = datetime(2026, 11, 22, 10, 0, 1, tzinfo=UTC)
ROOM = uuid(7001)
EXPIRES_AT = (NOW + timedelta(hours=24)).isoformat()
MAX_BYTES = 4096


def sent(provider: str, platform: str, **fields: Any) -> Notification:
    given = push(1, ["token"], provider=provider, platform=platform, **{"expires_at": EXPIRES_AT, **fields})
    [notification] = notifications([Push.model_validate(given)], NOW)
    assert notification.provider == provider
    return notification


def of(provider: str, platform: str, **fields: Any) -> dict[str, Any]:
    """The payload. The data of FCM are parsed."""
    payload = dict(sent(provider, platform, **fields).payload)
    if provider == "fcm":
        message = payload["data"].get("message")
        assert message == payload.get("android", {}).get("notification", {}).get("body")
        payload["data"] = json.loads(payload["data"]["body"])
    return payload


DATA = {
    "type": "chat_message",
    "kind": "alert",
    "conversationId": ROOM,
    "messageId": uuid(1),
    "senderId": uuid(7002),
    "recipientId": uuid(7003),
    "unread": 1,
    "badge": 3,
}
SILENT_DATA = {"type": "chat_message", "recipientId": uuid(7003), "badge": 3, "sentAt": NOW.isoformat()}
DISMISSED = {**SILENT_DATA, "kind": "dismiss", "conversationIds": [ROOM]}


class TestAndroid:
    def test_the_payload_of_an_alert_has_exactly_these_fields(self) -> None:
        assert of("fcm", "android") == {
            "android": {
                "priority": "high",
                "ttl": "86400s",
                "notification": {
                    "title": "Ana",
                    "body": "Hello",
                    "tag": ROOM,
                    "channel_id": "chat-messages",
                    "notification_count": 3,
                    "sound": "default",
                },
            },
            "data": DATA,
        }

    def test_an_update_has_no_sound_and_uses_the_quiet_channel(self) -> None:
        notification = of("fcm", "android", kind="update", sound=False)["android"]["notification"]
        assert ("sound" in notification, notification["channel_id"]) == (False, "chat-messages-quiet")

    @pytest.mark.parametrize(("kind", "data"), [("dismiss", DISMISSED), ("badge", {**SILENT_DATA, "kind": "badge"})])
    def test_a_dismissal_or_badge_has_data_alone_so_that_it_starts_the_app(self, kind: str, data: Any) -> None:
        assert of("fcm", "android", kind=kind) == {"android": {"priority": "normal", "ttl": "3600s"}, "data": data}

    def test_all_data_are_texts(self) -> None:
        """FCM refuses other values: https://firebase.google.com/docs/reference/fcm/rest/v1/projects.messages"""
        for kind in ("alert", "update", "dismiss", "badge"):
            data = sent("fcm", "android", kind=kind).payload["data"]
            assert all(isinstance(value, str) for value in data.values())

    def test_an_image_is_sent(self) -> None:
        image = of("fcm", "android", image_url="https://example.com/a.jpg")["android"]["notification"]["image"]
        assert image == "https://example.com/a.jpg"


class TestWeb:
    def test_the_payload_of_an_alert_has_exactly_these_fields(self) -> None:
        assert of("fcm", "web") == {
            "webpush": {
                "headers": {"TTL": "86400", "Urgency": "high", "Topic": ROOM.replace("-", "")},
                "notification": {"title": "Ana", "body": "Hello", "tag": ROOM, "renotify": True},
            },
            "data": DATA,
        }

    def test_an_update_is_silent(self) -> None:
        notification = of("fcm", "web", kind="update", sound=False)["webpush"]["notification"]
        assert (notification["silent"], "renotify" in notification) == (True, False)

    def test_a_dismissal_has_data_alone(self) -> None:
        assert of("fcm", "web", kind="dismiss") == {
            "webpush": {"headers": {"TTL": "3600", "Urgency": "normal"}},
            "data": DISMISSED,
        }


class TestIphone:
    def test_an_alert_has_exactly_these_headers_and_fields(self) -> None:
        assert of("apns", "ios") == {
            "headers": {"apns-push-type": "alert", "apns-priority": "10", "apns-collapse-id": ROOM},
            "ttl": 86400,
            "body": {
                "aps": {
                    "alert": {"title": "Ana", "body": "Hello"},
                    "badge": 3,
                    "thread-id": ROOM,
                    "sound": "default",
                },
                "body": DATA,
            },
        }

    def test_an_update_is_passive(self) -> None:
        aps = of("apns", "ios", kind="update", sound=False)["body"]["aps"]
        assert ("sound" in aps, aps["interruption-level"]) == (False, "passive")

    def test_a_dismissal_is_a_background_push_of_priority_5(self) -> None:
        assert of("apns", "ios", kind="dismiss") == {
            "headers": {"apns-push-type": "background", "apns-priority": "5"},
            "ttl": 3600,
            "body": {"aps": {"content-available": 1}, "body": DISMISSED},
        }

    def test_a_badge_is_set_by_ios_itself(self) -> None:
        payload = of("apns", "ios", kind="badge")
        assert payload["body"]["aps"] == {"badge": 3}
        assert payload["headers"] == {"apns-push-type": "alert", "apns-priority": "5"}

    def test_an_image_wakes_the_extension_that_downloads_it(self) -> None:
        body = of("apns", "ios", image_url="https://example.com/a.jpg")["body"]
        assert body["aps"]["mutable-content"] == 1
        assert body["richContent"] == {"image": "https://example.com/a.jpg"}


@given(body=st.text(), title=st.none() | st.text(max_size=300), image_url=st.none() | st.text())
@example(body="\0" * 3000, title="\0" * 300, image_url="\0" * 400)
@example(body="\n".join(["👩" * 200] * 20), title="👩" * 300, image_url="👩" * 600)
@pytest.mark.parametrize(("provider", "platform"), [("fcm", "android"), ("fcm", "web"), ("apns", "ios")])
def test_a_payload_never_exceeds_the_limit_of_its_provider(
    provider: str, platform: str, body: str, title: str | None, image_url: str | None
) -> None:
    payload = sent(provider, platform, body=body, title=title, image_url=image_url).payload
    assert json_bytes(payload["body"] if provider == "apns" else payload) <= MAX_BYTES


@pytest.mark.parametrize(("provider", "platform"), [("fcm", "android"), ("fcm", "web"), ("apns", "ios")])
def test_a_dismissal_of_50_conversations_fits(provider: str, platform: str) -> None:
    pushes = [
        Push.model_validate(
            push(number, ["token"], kind="dismiss", room_id=uuid(number), provider=provider, platform=platform)
        )
        for number in range(50)
    ]
    [notification] = notifications(pushes, NOW)
    assert json_bytes(notification.payload) <= MAX_BYTES
