"""The payload of a notification, and the cutting of its texts."""

import json
from typing import Any

import pytest
import regex
from chat_push.models import Push
from chat_push.notification import MAX_BYTES, Notification, json_bytes, payload, truncate
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


def of(**fields: Any) -> dict[str, Any]:
    return payload(Push.model_validate(push(1, [push_token(1)], **fields)))


class TestPayload:
    def test_the_payload_of_a_push_has_exactly_these_fields(self) -> None:
        assert of() == {
            "title": "Ana",
            "body": "Hello",
            "data": {
                "conversationId": uuid(7001),
                "messageId": uuid(1),
                "senderId": uuid(7002),
                "recipientId": uuid(7003),
                "type": "chat_message",
            },
            "sound": "default",
            "badge": 3,
            "channelId": "chat-messages",
            "priority": "high",
            "collapseId": uuid(1),
            "tag": uuid(1),
            "threadId": uuid(7001),
        }

    def test_the_payload_of_a_push_has_only_fields_that_expo_documents(self) -> None:
        assert of(image_url="https://example.com/a.jpg").keys() <= EXPO_FIELDS

    def test_a_resend_replaces_the_notification_of_its_message_and_of_no_other(self) -> None:
        first, again, other = of(attempt=1, body="Hello"), of(attempt=2, body="Hello!", badge=9), of(message_id=uuid(2))
        for field in ("collapseId", "tag"):
            assert first[field] == again[field] != other[field]

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
        assert len(fields["body"]) <= 200
        assert len(fields["title"]) <= 100


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
    assert repr(Notification(push_token(1), of())) == "Notification()"
