"""What phones should show, by the rows of the chat."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from local.chaos.lock_screens import StoredMessage, lock_screens
from local.chaos.records import Card, LockScreen

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
ROOM, TINA, GUS = (UUID(int=number) for number in range(3))
NOTHING = LockScreen({}, {}, 0)


def message(number: int, text: str = "") -> StoredMessage:
    at = NOON + timedelta(seconds=number)
    return StoredMessage(
        id=UUID(int=100 + number),
        room_id=ROOM,
        sender_id=TINA,
        client_msg_id=f"c{number}",
        text=text or f"text {number}",
        server_timestamp=at,
        is_read=False,
        is_deleted=False,
        is_counted=True,
    )


def of(*messages: StoredMessage) -> LockScreen:
    """The lock screen of Gus. Tina's shows nothing."""
    found = lock_screens(messages, {ROOM: (TINA, GUS)}, {TINA: "Tina"}, {f"c{number}" for number in range(9)})
    assert found[TINA] == NOTHING
    return found[GUS]


def test_one_unread_message_is_shown_with_the_name_of_its_sender() -> None:
    assert of(message(1)) == LockScreen({ROOM: Card(ROOM, "Tina", "text 1")}, {ROOM: UUID(int=101)}, 1)


def test_of_several_messages_the_newest_three_are_shown_with_their_number() -> None:
    screen = of(*(message(number) for number in (2, 4, 1, 3)))
    assert screen.cards[ROOM] == Card(ROOM, "Tina (4)", "text 4\ntext 3\ntext 2")
    assert (screen.newest[ROOM], screen.badge) == (UUID(int=104), 4)


def test_read_and_deleted_messages_are_not_shown() -> None:
    assert of(replace(message(1), is_read=True), replace(message(2), is_deleted=True)) == NOTHING


def test_what_is_shown_of_a_message_outside_the_traffic_is_not_predicted_but_it_counts() -> None:
    screen = of(message(1), replace(message(2), client_msg_id=None))
    assert (screen.unknown, screen.badge) == (frozenset({ROOM}), 2)


def test_a_row_of_an_older_database_makes_the_badge_unknown() -> None:
    screen = of(message(1), replace(message(2), client_msg_id=None, is_counted=False))
    assert (screen.unknown, screen.badge) == (frozenset({ROOM}), None)


def test_a_muted_conversation_is_neither_shown_nor_counted() -> None:
    found = lock_screens([message(1)], {ROOM: (TINA, GUS)}, {TINA: "Tina"}, {"c1"}, {(GUS, ROOM)})
    assert found[GUS] == LockScreen({}, {}, 0)


def test_a_preview_hides_the_text_or_also_the_name() -> None:
    for preview, titles in (("name", ["Tina", "Tina (2)"]), ("none", ["New message", "2 new messages"])):
        for number, title in enumerate(titles, 1):
            messages = [message(each) for each in range(number)]
            written = {f"c{each}" for each in range(number)}
            found = lock_screens(messages, {ROOM: (TINA, GUS)}, {TINA: "Tina"}, written, set(), {GUS: preview})
            assert found[GUS].cards[ROOM] == Card(ROOM, title, "Open the app to read it")
