"""What a phone shows: the specification's payload, cut to fit."""

import json
from typing import Any

import pytest
import regex
from chat_push.models import Push
from chat_push.notification import MAX_BYTES, VISIBLE_CHARACTER, Notification, json_bytes, payload, truncate
from hypothesis import example, given
from hypothesis import strategies as st

from tests.http_fakes import INVISIBLE_NAMES, push, push_token, uuid

# Expo's documentation (reference, section 5): it may refuse a whole request for a field that it does not know.
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
PREPENDED = "\u0600 "  # a sign that joins what comes after it, even a space

# Texts in which nearly every border lies inside a grapheme.
graphemes = st.sampled_from([FAMILY, FLAG, ACCENTED, KEYCAP, DEVANAGARI, PREPENDED, "\r\n", " ", "a", "…"]) | st.text(
    max_size=3
)
long_texts = st.lists(graphemes, min_size=60, max_size=250).map("".join)


def of(**fields: Any) -> dict[str, Any]:
    return payload(Push.model_validate(push(1, [push_token(1)], **fields)))


class TestPayload:
    def test_is_the_specifications_and_what_makes_a_copy_replace_the_first(self) -> None:
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

    def test_only_known_expo_fields(self) -> None:
        assert of(image_url="https://example.com/a.jpg").keys() <= EXPO_FIELDS

    def test_a_resend_of_a_message_replaces_it_and_another_message_does_not(self) -> None:
        first, again, other = of(attempt=1, body="Hello"), of(attempt=2, body="Hello!", badge=9), of(message_id=uuid(2))
        for field in ("collapseId", "tag"):
            assert first[field] == again[field] != other[field]

    @pytest.mark.parametrize("title", [None, "", *INVISIBLE_NAMES], ids=ascii)
    def test_a_sender_without_a_name_gets_a_neutral_title(self, title: str | None) -> None:
        assert of(title=title)["title"] == "New message"

    @pytest.mark.parametrize("name", ["Ana", "안나", "Аня", "あんな", "🙂", "❤\ufe0f", "⠁", "1", "."])
    def test_a_name_with_anything_to_be_seen_is_the_title_without_the_space_around_it(self, name: str) -> None:
        assert of(title=f"\n\t\u00a0{name}\u3000")["title"] == name

    def test_what_cannot_be_seen_is_what_unicode_says_and_the_blank_of_braille(self) -> None:
        invisible = regex.compile(r"[\s\p{Cc}\p{Default_Ignorable_Code_Point}\u2800]")
        for character in map(chr, [*range(0xD800), *range(0xE000, 0x110000)]):
            assert bool(invisible.fullmatch(character)) == (VISIBLE_CHARACTER.search(character) is None), ascii(
                character
            )

    def test_an_image_is_rich_content(self) -> None:
        assert of(image_url="https://example.com/a.jpg")["richContent"] == {"image": "https://example.com/a.jpg"}

    def test_an_image_that_does_not_fit_is_left_out_and_nothing_else(self) -> None:
        room = MAX_BYTES - json_bytes(of(image_url="x")) + 1
        assert json_bytes(of(image_url="x" * room)) == MAX_BYTES
        assert of(image_url="x" * (room + 1)) == of()

    @given(body=long_texts | st.text(), title=st.none() | st.text(max_size=300), image_url=st.none() | st.text())
    @example(body="\0" * 3000, title="\0" * 300, image_url="\0" * 400)
    @example(body="👩" * 3000, title="👩" * 300, image_url="👩" * 600)
    def test_never_exceeds_what_apns_and_fcm_take(self, body: str, title: str | None, image_url: str | None) -> None:
        fields = of(body=body, title=title, image_url=image_url)
        assert len(json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()) <= MAX_BYTES < 4096
        assert len(fields["body"]) <= 200
        assert len(fields["title"]) <= 100


class TestCut:
    """multibyte_cut"""

    @pytest.mark.parametrize("text", ["", "Hello", "x" * 200, "ã" * 200, "\n", " x "])
    def test_what_is_short_enough_stays_as_it_is(self, text: str) -> None:
        assert truncate(text, 200) == text

    @pytest.mark.parametrize(
        ("grapheme", "kept"),
        [("x", 199), (ACCENTED, 99), (FLAG, 99), (KEYCAP, 66), (DEVANAGARI, 49), (FAMILY, 28), ("👍🏽", 99)],
    )
    def test_graphemes_are_kept_whole(self, grapheme: str, kept: int) -> None:
        assert truncate(grapheme * 201, 200) == grapheme * kept + "…"

    @pytest.mark.parametrize("space", [" ", "\n", "\r\n", "\u00a0", "   "])
    def test_there_is_no_space_before_the_ellipsis(self, space: str) -> None:
        assert truncate("x" * 190 + space + "y" * 50, 190 + len(space) + 1) == "x" * 190 + "…"

    def test_a_grapheme_longer_than_the_limit_is_cut_all_the_same(self) -> None:
        assert truncate("e" + "\u0301" * 500, 200) == "e" + "\u0301" * 198 + "…"

    @given(long_texts)
    def test_never_longer_and_never_inside_a_grapheme(self, text: str) -> None:
        short = truncate(text, 200)
        assert len(short) <= 200
        if len(text) <= 200:
            assert short == text
            return
        kept = short.removesuffix("…")
        assert short == kept + "…"
        assert text.startswith(kept)
        borders = {grapheme.end() for grapheme in regex.finditer(r"\X", text)}
        assert len(kept) in borders or min(borders) > 199
        # Nothing visible would still have fitted.
        assert not [border for border in borders if len(kept) < border <= 199 and text[len(kept) : border].strip()]


def test_neither_text_nor_token_is_in_a_repr() -> None:
    assert repr(Notification(push_token(1), of())) == "Notification()"
