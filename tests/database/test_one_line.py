"""private.one_line: texts as a lock screen and a list of conversations show them."""

import unicodedata
from itertools import batched

import pytest
import regex
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.database.chat import Connection, rows, value

FAMILY = "\u200d".join("👨👩👧👦")
ENGLAND = "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"
BROKEN_CHAIN = "⛓\ufe0f\u200d💥"
EMOJI = [
    FAMILY,
    ENGLAND,
    BROKEN_CHAIN,
    "👩🏽\u200d🚀",
    "🏳\ufe0f\u200d🌈",
    "🇵🇹🇧🇷",
    "1\ufe0f\u20e3",
    "👍🏽",
    "❤\ufe0f",
    "☎\ufe0e",
]
WORDS = [
    "می\u200cخواهم",  # noqa: RUF001 - Persian: a ZWNJ separates the prefix
    "ه\u200d",  # noqa: RUF001 - Persian: a ZWJ at the end of an abbreviation
    "क्\u200dष",  # Hindi: a half form
    "क्\u200cष",  # Hindi: a visible virama
    "অর\u200d্য",  # Bengali: a ZWJ before the virama
    "അവന\u0d4d\u200d",  # Malayalam: a chillu in the spelling of before Unicode 5.1
    "ශ\u0dca\u200dරී",  # Sinhala
    "ᠠ\u180bᠨ\u180eᠠ",  # Mongolian: a variation selector and the vowel separator
    "葛\U000e0100城",  # Japanese: an ideographic variation
    "က္ကျွန်ုပ်မြွှေ့",  # Burmese: five marks on a letter
    "Việt Nam",
    "안녕 Привет",
]
INVISIBLE = [
    *(" ", "\n\t", "\u00a0", "\u3164", "\u2800", "\u0001\u007f\u0085", "\u115f\u1160\uffa0", "\u200b\u200d\ufeff"),
    *("\u2003\u2028\u3000", "\u00ad\u2060\u202e", "\ufe0f", "\U000e0041", " \u3164\n\u2800 ", "\u200b\u200b\u200b"),
    *("\n" * 200, "\u200c\u180e\u200d", ENGLAND[1:], "\u0001\ufffb"),
]
# Characters that one_line removes, or whose neighbours decide.
SPECIAL = [
    *"\u0001\t\n\u0085\u00a0\u00ad\u034f\u061c\u180b\u180e\u200b\u200c\u200d\u202e\u2066\u2069\u2800\u3164\ufe0e\ufe0f\ufeff",
    *"\U000e0041\U000e0067\U000e007f\U000e0100\u0300\u0334\u0344\u0651\u064b\u093c\u094d\u09be\u20e3\U0001d167",
    *"ab1 \u00d7ØÅ\u212bبي\u0958कर한\u1112\u1161🏴👨❤🏽🇵←\u219a\u2adc\u2329",
]
texts = st.lists(
    st.sampled_from([*SPECIAL, *EMOJI, *WORDS]) | st.characters(exclude_categories=["Cs"]), max_size=40
).map(lambda parts: "".join(parts).replace("\0", ""))

_SPACE = regex.compile(r"[\p{White_Space}\u2800]")
_ALWAYS_INVISIBLE = regex.compile(
    r"[\p{Cc}\p{Default_Ignorable_Code_Point}\ufff9-\ufffb--[\u180b-\u180f\u200c\u200d\ufe00-\ufe0f\U000e0020-\U000e007f"
    r"\U000e0100-\U000e01ef]]",
    regex.V1,
)
_NEEDS_A_NEIGHBOUR = regex.compile(
    r"[\u180b-\u180f\u200c\u200d\ufe00-\ufe0f\U000e0020-\U000e007f\U000e0100-\U000e01ef]"
)
_MARK = r"[\p{M}&&[\u0000-\uffff\p{Script=Inherited}]]"


async def one_line(connection: Connection, *texts: str, characters: int = 2000) -> list[str | None]:
    query = (
        "select private.one_line(text, %s) as line from unnest(%s::text[]) with ordinality as t (text, n) order by n"
    )
    return [found["line"] for found in await rows(connection, query, characters, list(texts))]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("Hello", "Hello"),
        ("  Hello\r\n\n\tthere  you ", "Hello there you"),
        ("a\u00a0\u2003\u3000\u2028b", "a b"),
        ("a \u200b\n\u0001 b", "a b"),
        ("a" + "\n" * 200 + "b", "a b"),
        ("\u202eevil\u202c ok", "evil ok"),
        ("\u2067evil\u2069 \u200eok\u200f", "evil ok"),
        ("pass\u00adword\u2060\ufeff\u0007", "password"),
        ("e\u0301", "é"),
        ("\u212b", "Å"),
        ("\u1112\u1161\u11ab", "한"),
        ("e\u200b\u0301", "é"),
        ("a\u200d\u0301", "á"),
        ("x" + "\u0301" * 500, "x" + "\u0301" * 8),
        ("e" + "\u0301\u200d\ufe0f\U000e0100" * 400 + "!", "é" + "\u0301" * 4 + "!"),
        ("ก" + "\u0e47" * 500, "ก" + "\u0e47" * 8),
        ("a\u200db\u200cc", "abc"),
        ("👨\u200d", "👨"),
        ("👨\u200d a", "👨 a"),
        ("\u200d👨\u200d\u200d👩", "👨👩"),
        ("می\u200c", "می"),
        ("a\ufe0f\ufe0f\ufe0f", "a\ufe0f"),
        ("🏴\U000e0067\U000e0062", "🏴"),
        ("a" + ENGLAND[1:], "a"),
        ("\u3164a", "a"),
        ("a\u2800b", "a b"),
    ],
    ids=lambda text: ascii(text[:20]),
)
async def test_a_text_becomes_one_line_without_controls_and_invisible_characters(
    shared_connection: Connection, text: str, line: str
) -> None:
    assert await one_line(shared_connection, text) == [line]


@pytest.mark.parametrize("text", [*EMOJI, *WORDS], ids=ascii)
async def test_emoji_and_words_that_need_an_invisible_character_keep_it(
    shared_connection: Connection, text: str
) -> None:
    text = unicodedata.normalize("NFC", text)
    assert await one_line(shared_connection, text, f"a {text} b", text * 3) == [text, f"a {text} b", text * 3]


@pytest.mark.parametrize("text", ["", *INVISIBLE], ids=ascii)
async def test_a_text_with_nothing_visible_is_null(shared_connection: Connection, text: str) -> None:
    assert await one_line(shared_connection, text) == [None]


async def test_null_is_null(shared_connection: Connection) -> None:
    assert await value(shared_connection, "select private.one_line(null)") is None


@pytest.mark.parametrize(
    ("last", "kept"),
    [
        ("xyz", "x"),
        (FAMILY, ""),
        ("❤\ufe0f!", ""),
        ("👍🏽", ""),
        ("🇵🇹", ""),
        (ENGLAND, ""),
        ("1\ufe0f\u20e3", ""),
        ("x\u0301", ""),
        ("  y", ""),
        ("", ""),
    ],
    ids=ascii,
)
async def test_a_line_is_not_cut_inside_a_grapheme(shared_connection: Connection, last: str, kept: str) -> None:
    text = "ã" * 199
    assert await one_line(shared_connection, text + last, characters=200) == [text + kept]


async def test_a_line_of_one_grapheme_that_is_too_long_is_cut_inside(shared_connection: Connection) -> None:
    text = "\u200d".join("👨" * 200)
    assert await one_line(shared_connection, text, characters=200) == [text[:200]]


async def test_each_character_is_kept_replaced_by_a_space_or_removed_by_its_unicode_properties(
    shared_connection: Connection,
) -> None:
    characters = [chr(code) for code in [*range(1, 0xD800), *range(0xE000, 0x110000)]]
    batches = [[c for c in some if not _NEEDS_A_NEIGHBOUR.match(c)] for some in batched(characters, 600)]
    lines = await one_line(shared_connection, *("".join(f"x{c}x" for c in some) for some in batches))
    for some, line in zip(batches, lines, strict=True):
        shown = (" " if _SPACE.match(c) else "" if _ALWAYS_INVISIBLE.match(c) else c for c in some)
        assert line == unicodedata.normalize("NFC", "".join(f"x{c}x" for c in shown)), ascii(some[0])


async def test_the_marks_that_are_capped_are_those_of_unicode(shared_connection: Connection) -> None:
    tested = regex.compile(r"(?V1)[^\p{Cn}\p{Co}\p{Cs}\p{Ideographic}\p{Script=Hangul}\p{White_Space}]")
    hidden = regex.compile(rf"{_ALWAYS_INVISIBLE.pattern}|{_NEEDS_A_NEIGHBOUR.pattern}", regex.V1)
    characters = [c for c in map(chr, range(1, 0x110000)) if tested.match(c) and not hidden.match(c)]
    lines = await one_line(shared_connection, *("x" + f"{character}\u20e3" * 9 for character in characters))
    for character, line in zip(characters, lines, strict=True):
        assert line is not None
        capped = line.count("\u20e3") < 9
        assert capped == bool(regex.match(_MARK, character, regex.V1)), ascii(character)


@settings(max_examples=100)
@given(some=st.lists(texts, min_size=1, max_size=20))
@example(some=["ب\u200d\u0334\u0651\u200dب", "ب\u0651\u0334\u200d\u200c👨", "\u2adc\u200d👨", "👨\u200d\u2329"])
async def test_every_line_is_clean_normalized_and_stays_as_it_is(
    shared_connection: Connection, some: list[str]
) -> None:
    lines = await one_line(shared_connection, *some)
    assert await one_line(shared_connection, *(line or "" for line in lines)) == lines
    for text, line in zip(some, lines, strict=True):
        if line is None:
            assert all(_SPACE.match(c) or _ALWAYS_INVISIBLE.match(c) or _NEEDS_A_NEIGHBOUR.match(c) for c in text)
            continue
        assert line == line.strip() != ""
        assert "  " not in line
        assert not _ALWAYS_INVISIBLE.search(line)
        assert unicodedata.is_normalized("NFC", line)
        assert not regex.search(rf"(?V1)({_MARK}){{9}}", line)
        # Visible characters stay, in their order. Normalization and the cap change marks only.
        assert _letters(line) == _letters(text)


@settings(max_examples=50)
@given(some=st.lists(texts, min_size=1, max_size=20), characters=st.integers(1, 40))
async def test_a_cut_line_is_short_and_never_empty(
    shared_connection: Connection, some: list[str], characters: int
) -> None:
    whole = await one_line(shared_connection, *some)
    for line, cut in zip(whole, await one_line(shared_connection, *some, characters=characters), strict=True):
        assert (cut is None) == (line is None)
        if line is not None and cut is not None:
            assert len(cut) <= characters
            assert line.startswith(cut)
            assert cut == cut.strip() != ""
            assert cut == line or len(line) > characters


def _letters(text: str) -> str:
    hidden = regex.compile(rf"(?V1)[\s\p{{M}}\u2800]|{_ALWAYS_INVISIBLE.pattern}|{_NEEDS_A_NEIGHBOUR.pattern}")
    return hidden.sub("", unicodedata.normalize("NFD", text))
