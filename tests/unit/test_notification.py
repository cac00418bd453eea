"""The payload of a notification, and the cutting of its texts."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import regex
from chat_push.content import json_bytes, truncate
from chat_push.expo_payload import MAX_BYTES
from chat_push.models import Push
from chat_push.notification import Notification, notifications
from hypothesis import example, given
from hypothesis import strategies as st

from tests.http_fakes import push, push_token, uuid

# Expo may refuse a whole request because of an unknown field. The documented fields:
# https://docs.expo.dev/push-notifications/sending-notifications/#message-request-format
EXPO_FIELDS = {
    *("title", "body", "data", "ttl", "expiration", "priority", "subtitle", "sound", "badge", "interruptionLevel"),
    *("channelId", "icon", "richContent", "categoryId", "collapseId", "tag", "threadId", "targetContentId"),
    *("relevanceScore", "filterCriteria", "mutableContent", "contentAvailable"),
}

FAMILY = "\u200d".join("👨👩👧👦")  # one grapheme of seven characters
FLAG = "🇵🇹"
ACCENTED = "e\u0301"
KEYCAP = "1\ufe0f\u20e3"
DEVANAGARI = "क्षि"
PREPENDED = "\u0600 "  # a character that forms one grapheme with the next character, even with a space

# Texts in which most positions are inside a grapheme.
graphemes = st.sampled_from([FAMILY, FLAG, ACCENTED, KEYCAP, DEVANAGARI, PREPENDED, "\r\n", " ", "a", "…"]) | st.text(
    max_size=3
)
long_texts = st.lists(graphemes, min_size=60, max_size=250).map("".join)


NOW = datetime(2026, 11, 22, 10, 0, 1, tzinfo=UTC)


def sent(*pushes: dict[str, Any]) -> list[Notification]:
    return notifications([Push.model_validate(fields) for fields in pushes], NOW)


def of(**fields: Any) -> dict[str, Any]:
    [notification] = sent(push(1, [push_token(1)], **fields))
    return dict(notification.payload)


class TestAlerts:
    def test_the_payload_of_an_alert_has_exactly_these_fields(self) -> None:
        assert of(expires_at=(NOW + timedelta(hours=24)).isoformat()) == {
            "title": "Ana",
            "body": "Hello",
            "data": {
                "type": "chat_message",
                "kind": "alert",
                "conversationId": uuid(7001),
                "messageId": uuid(1),
                "senderId": uuid(7002),
                "recipientId": uuid(7003),
                "unread": 1,
                "badge": 3,
            },
            "sound": "default",
            "badge": 3,
            "channelId": "chat-messages",
            "priority": "high",
            "ttl": 24 * 3600,
            "collapseId": uuid(7001),
            "tag": uuid(7001),
            "threadId": uuid(7001),
        }

    @pytest.mark.parametrize("kind", ["alert", "update"])
    def test_a_silent_push_is_passive_and_uses_the_quiet_channel(self, kind: str) -> None:
        fields = of(kind=kind, sound=False)
        assert "sound" not in fields
        assert (fields["interruptionLevel"], fields["channelId"]) == ("passive", "chat-messages-quiet")
        assert fields["data"]["kind"] == kind

    @pytest.mark.parametrize(
        "fields",
        [{}, {"kind": "update"}, {"kind": "dismiss"}, {"kind": "badge"}, {"kind": "badge", "platform": "android"}],
    )
    def test_each_payload_has_only_fields_that_expo_documents_and_a_time_to_live(self, fields: dict[str, Any]) -> None:
        payload = of(image_url="https://example.com/a.jpg", **fields)
        assert payload.keys() <= EXPO_FIELDS
        assert payload["ttl"] > 0

    def test_an_alert_lives_until_its_message_expires_and_at_least_a_second(self) -> None:
        for seconds, ttl in [(90.9, 90), (0.5, 1), (-5, 1)]:
            assert of(expires_at=(NOW + timedelta(seconds=seconds)).isoformat())["ttl"] == ttl

    def test_an_alert_lives_at_most_the_four_weeks_that_fcm_accepts(self) -> None:
        assert of(expires_at=(NOW + timedelta(days=60)).isoformat())["ttl"] == 2_419_200

    def test_a_push_replaces_the_notification_of_its_conversation_and_of_no_other(self) -> None:
        first, newer, other = of(), of(message_id=uuid(2), body="Hello!"), of(room_id=uuid(7009))
        for field in ("collapseId", "tag", "threadId"):
            assert first[field] == newer[field] != other[field]
            assert len(first[field]) <= 64

    @pytest.mark.parametrize(
        ("unread", "title"), [(0, "Ana"), (1, "Ana"), (2, "Ana (2)"), (99, "Ana (99)"), (100, "Ana (99+)")]
    )
    def test_the_title_of_several_unread_messages_has_their_number(self, unread: int, title: str) -> None:
        assert of(unread=unread)["title"] == title

    def test_a_long_title_is_cut_before_its_number(self) -> None:
        assert of(title="x" * 60, unread=12)["title"] == "x" * 34 + "… (12)"

    def test_each_line_is_cut_alone(self) -> None:
        assert of(body="x" * 300 + "\nshort")["body"] == "x" * 199 + "…\nshort"

    def test_the_oldest_lines_are_left_out_if_they_do_not_fit(self) -> None:
        lines = ["👩" * 200, "👨" * 200, "👧" * 200]  # four bytes each
        assert of(body="\n".join(lines))["body"] == "\n".join(lines)
        lines = ["\x01" * 200, "\x02" * 200, "\x03" * 200]  # six bytes each
        assert of(body="\n".join(lines))["body"] == "\n".join(lines[:2])

    def test_an_image_that_does_not_fit_is_left_out_before_a_line_is(self) -> None:
        lines = ["👩" * 200, "👨" * 200, "👧" * 200]
        assert of(body="\n".join(lines), image_url="x" * 900) == of(body="\n".join(lines))

    def test_an_update_of_a_deleted_message_has_a_neutral_title_and_no_message(self) -> None:
        fields = of(kind="update", sound=False, title=None, body="Message deleted", unread=0, message_id=None)
        assert (fields["title"], fields["body"]) == ("New message", "Message deleted")
        assert (fields["data"]["messageId"], fields["data"]["unread"]) == (None, 0)

    def test_a_sound_of_the_app_is_a_file_on_ios_and_a_channel_on_android(self) -> None:
        fields = of(sound_name="chime")
        assert (fields["sound"], fields["channelId"]) == ("chime.wav", "chat-messages-chime")
        assert of(sound_name="chime", sound=False)["channelId"] == "chat-messages-quiet"

    def test_a_preview_of_the_name_shows_neither_text_nor_image(self) -> None:
        fields = of(preview="name", unread=3, body="secret", image_url="https://example.com/secret.jpg")
        assert (fields["title"], fields["body"]) == ("Ana (3)", "Open the app to read it")
        assert "secret" not in json.dumps(fields)

    @pytest.mark.parametrize("more", [{}, {"unread": 3}, {"kind": "update", "unread": 0, "body": "Message deleted"}])
    def test_no_preview_has_neither_name_nor_text_nor_image_nor_sender_anywhere(self, more: dict[str, Any]) -> None:
        fields = of(**{"preview": "none", "body": "secret", "image_url": "https://example.com/secret.jpg", **more})
        assert fields["title"] == ("3 new messages" if fields["data"]["unread"] == 3 else "New message")
        for secret in ("Ana", "secret", uuid(7002)):
            assert secret not in json.dumps(fields)

    @pytest.mark.parametrize("more", [{}, {"kind": "update", "unread": 0, "body": "Message deleted"}])
    def test_a_message_request_has_neither_name_nor_text_nor_image_nor_number(self, more: dict[str, Any]) -> None:
        fields = of(**{"preview": "request", "unread": 5, "image_url": "https://example.com/secret.jpg", **more})
        assert fields["title"] == "New message request"
        for secret in ("Ana", "secret", "(5)", uuid(7002)):
            assert secret not in json.dumps(fields)

    @pytest.mark.parametrize("title", [None, ""])
    def test_a_sender_without_a_name_has_a_neutral_title(self, title: str | None) -> None:
        assert of(title=title)["title"] == "New message"

    @pytest.mark.parametrize("grapheme", ["x", ACCENTED, FLAG])
    def test_a_title_has_at_most_40_graphemes(self, grapheme: str) -> None:
        assert of(title=grapheme * 40)["title"] == grapheme * 40
        assert of(title=grapheme * 41)["title"] == grapheme * 39 + "…"

    def test_a_title_of_40_graphemes_has_at_most_100_characters(self) -> None:
        assert of(title=FAMILY * 40)["title"] == FAMILY * 14 + "…"

    def test_an_image_of_a_push_is_sent_as_rich_content(self) -> None:
        assert of(image_url="https://example.com/a.jpg")["richContent"] == {"image": "https://example.com/a.jpg"}

    def test_only_an_image_that_does_not_fit_is_left_out(self) -> None:
        room = MAX_BYTES - json_bytes(of(image_url="x")) + 1
        assert json_bytes(of(image_url="x" * room)) == MAX_BYTES
        assert of(image_url="x" * (room + 1)) == of()

    @given(body=long_texts | st.text(), title=st.none() | st.text(max_size=300), image_url=st.none() | st.text())
    @example(body="\0" * 3000, title="\0" * 300, image_url="\0" * 400)
    @example(body="👩" * 3000, title="👩" * 300, image_url="👩" * 600)
    def test_the_payload_never_exceeds_the_limit_of_apns_and_fcm(
        self, body: str, title: str | None, image_url: str | None
    ) -> None:
        fields = of(body=body, title=title, image_url=image_url)
        assert len(json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()) <= MAX_BYTES < 4096
        assert all(len(line) <= 200 for line in fields["body"].split("\n"))
        assert len(fields["title"]) <= 100


class TestDismissalsAndBadges:
    def test_a_dismissal_has_nothing_that_a_system_draws(self) -> None:
        assert of(kind="dismiss", sound=False, badge=2) == {
            "data": {
                "type": "chat_message",
                "kind": "dismiss",
                "conversationIds": [uuid(7001)],
                "recipientId": uuid(7003),
                "badge": 2,
                "sentAt": NOW.isoformat(),
            },
            "contentAvailable": True,
            "priority": "normal",
            "ttl": 3600,
        }

    def test_a_badge_is_set_by_ios_itself_and_by_the_app_on_android(self) -> None:
        ios, android = of(kind="badge"), of(kind="badge", platform="android")
        assert (ios["badge"], "contentAvailable" in ios) == (3, False)
        assert "badge" not in android
        assert (
            android["data"]
            == ios["data"]
            == {
                "type": "chat_message",
                "kind": "badge",
                "recipientId": uuid(7003),
                "badge": 3,
                "sentAt": NOW.isoformat(),
            }
        )

    @pytest.mark.parametrize("kind", ["dismiss", "badge"])
    def test_the_dismissals_of_a_device_are_one_notification_and_so_are_its_badges(self, kind: str) -> None:
        one, two = push_token(1), push_token(2)
        found = sent(
            push(1, [one, two], kind=kind, room_id=uuid(7001)),
            push(2, [one], kind=kind, room_id=uuid(7002)),
            push(3, [one], room_id=uuid(7003)),
        )
        assert [(notification.push_token, notification.deliveries) for notification in found] == [
            (one, (300,)),
            (one, (100, 200)),
            (two, (101,)),
        ]
        if kind == "dismiss":
            assert found[1].payload["data"]["conversationIds"] == [uuid(7001), uuid(7002)]

    def test_a_dismissal_names_at_most_50_conversations_and_fits(self) -> None:
        found = sent(*[push(number, [push_token(1)], kind="dismiss", room_id=uuid(number)) for number in range(120)])
        assert [len(notification.deliveries) for notification in found] == [50, 50, 20]
        assert json_bytes(found[0].payload) <= MAX_BYTES


class TestTruncate:
    @pytest.mark.parametrize("text", ["", "Hello", "x" * 200, "ã" * 200, "\n", " x "])
    def test_a_short_push_text_is_not_changed(self, text: str) -> None:
        assert truncate(text, 200) == text

    @pytest.mark.parametrize(
        ("grapheme", "kept"),
        [("x", 199), (ACCENTED, 99), (FLAG, 99), (KEYCAP, 66), (DEVANAGARI, 49), (FAMILY, 28), ("👍🏽", 99)],
    )
    def test_a_long_text_is_cut_between_graphemes(self, grapheme: str, kept: int) -> None:
        assert truncate(grapheme * 201, 200) == grapheme * kept + "…"

    @pytest.mark.parametrize("space", [" ", "\n", "\r\n", "\u00a0", "   "])
    def test_a_cut_text_has_no_space_before_the_ellipsis(self, space: str) -> None:
        assert truncate("x" * 190 + space + "y" * 50, 190 + len(space) + 1) == "x" * 190 + "…"

    def test_a_grapheme_longer_than_the_limit_is_cut_inside(self) -> None:
        assert truncate("e" + "\u0301" * 500, 200) == "e" + "\u0301" * 198 + "…"

    @given(long_texts)
    def test_a_cut_text_is_as_long_as_whole_graphemes_allow(self, text: str) -> None:
        short = truncate(text, 200)
        assert len(short) <= 200
        if len(text) <= 200:
            assert short == text
            return
        kept = short.removesuffix("…")
        assert short == kept + "…"
        assert text.startswith(kept)
        ends = {grapheme.end() for grapheme in regex.finditer(r"\X", text)}
        assert len(kept) in ends or min(ends) > 199
        # No further visible grapheme fits.
        assert not [end for end in ends if len(kept) < end <= 199 and text[len(kept) : end].strip()]

    @given(long_texts)
    def test_a_cut_text_has_as_many_graphemes_as_allowed(self, text: str) -> None:
        short = truncate(f"a{text}", 1000, 40)
        assert short.endswith("…")
        clusters = regex.findall(r"\X", f"a{text}")
        assert short.removesuffix("…").rstrip() == "".join(clusters[:39]).rstrip()


def test_the_repr_of_a_notification_contains_no_text_and_no_token() -> None:
    assert repr(Notification(push_token(1), of(), (1,))).startswith("Notification(deliveries=(1,), provider='expo'")
