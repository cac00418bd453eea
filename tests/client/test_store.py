"""The local database of the Python client."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest

from chat_client.errors import DatabaseFull, DatabaseInUse
from chat_client.events import DatabaseRecovered, Event, MessageChanged
from chat_client.models import message_of
from chat_client.store import Store
from tests.client.fake_server import ME, FakeServer


def fill(store: Store, room: UUID) -> None:
    """Messages that take several pages of the file, and three entries in the outbox."""
    for number in range(3):
        store.enter_message(room, f"waiting {number}", ({"type": "image", "url": "https://example.com"},), 1.0)
    store.put("session", "the session")
    server = FakeServer()
    server.rooms[str(room)] = server.rooms.pop(str(server.open_room()))
    store.apply_messages([message_of(server.write(room, "x" * 500)) for _ in range(200)])


def test_an_open_database_is_refused_to_another_client_and_free_when_it_is_closed(
    store: Store, path: Path, events: list[Event]
) -> None:
    with pytest.raises(DatabaseInUse, match="another client"):
        Store(path, events.append)
    store.close()
    Store(path, events.append).close()


def test_a_file_that_is_no_database_is_moved_aside(path: Path, events: list[Event]) -> None:
    path.write_bytes(b"not a database" * 1000)

    Store(path, events.append).close()

    [event] = events
    assert isinstance(event, DatabaseRecovered)
    assert (event.saved, event.moved_to.read_bytes()) == (0, b"not a database" * 1000)


def test_a_damaged_database_is_moved_aside_and_keeps_outbox_session_and_device(
    open_store: Callable[[], Store], path: Path, room: UUID, events: list[Event]
) -> None:
    store = open_store()
    device_id = store.device_id()
    fill(store, room)
    before = store.entries()
    store.close()
    content = bytearray(path.read_bytes())
    content[-40_000:] = b"\xff" * 40_000  # pages of messages
    path.write_bytes(content)

    store = open_store()

    assert store.entries() == before
    assert (store.get("session"), store.device_id(), store.get("cursor")) == ("the session", device_id, None)
    assert any(isinstance(event, DatabaseRecovered) and event.saved == 3 for event in events)
    assert path.with_name(f"{path.name}.damaged-1").exists()


def damage(path: Path, text: str) -> None:
    """Overwrites the page of the file that has this text."""
    content = bytearray(path.read_bytes())
    page = content.index(text.encode()) // 4096 * 4096
    content[page : page + 4096] = b"\xff" * 4096
    path.write_bytes(content)


def test_a_damaged_page_of_the_outbox_costs_only_the_entries_on_it(
    open_store: Callable[[], Store], path: Path, room: UUID
) -> None:
    store = open_store()
    for number in range(5):
        store.enter_message(room, f"entry {number};" + "x" * 3000, (), 1.0)
    before = store.entries()
    store.close()
    damage(path, "entry 2;")

    assert open_store().entries() == [*before[:2], *before[3:]]


@pytest.mark.parametrize("step", ["_salvage", "connect", "_move_aside", "finish_rescue"])
def test_a_rescue_that_is_killed_at_any_step_is_repeated_or_finished_by_the_next_start(
    open_store: Callable[[], Store], path: Path, room: UUID, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    class Killed(BaseException):
        pass

    def kill(*args: object) -> None:
        raise Killed

    store = open_store()
    fill(store, room)
    store.enter_message(room, "a last one;" + "x" * 3000, (), 1.0)
    before = store.entries()
    store.close()
    damage(path, "x" * 500)
    with monkeypatch.context() as patched:
        patched.setattr(f"chat_client.database.{step}", kill)
        with pytest.raises(Killed):
            open_store()

    assert open_store().entries() == before


def test_on_a_full_disk_a_write_says_so_and_what_was_stored_stays(store: Store, room: UUID) -> None:
    fill(store, room)
    [pages] = store._connection.execute("pragma page_count").fetchone()
    store._connection.execute(f"pragma max_page_count = {pages}")  # SQLite then behaves as on a full disk
    before = store.entries()

    with pytest.raises(DatabaseFull, match="disk is full"):
        store.enter_message(room, "x" * 500_000, (), 1.0)

    assert store.entries() == before
    store._connection.execute("pragma max_page_count = 100000")
    store.enter_message(room, "there is space again", (), 1.0)


def test_no_text_of_the_account_is_left_in_the_file_after_a_wipe_but_the_device_stays(
    store: Store, path: Path, room: UUID, server: FakeServer
) -> None:
    device_id = store.device_id()
    store.apply_messages([message_of(server.write(room, "a secret from Gus"))])
    store.enter_message(room, "a secret for Gus", (), 1.0)

    store.wipe()

    assert store.device_id() == device_id
    assert (store.me, store.entries(), store.conversations(), store.messages(room)) == (None, [], [], [])
    written = b"".join(each.read_bytes() for each in path.parent.iterdir())
    assert b"a secret" not in written


def test_an_older_version_of_a_message_never_replaces_a_newer_one(
    store: Store, room: UUID, server: FakeServer, events: list[Event]
) -> None:
    old = message_of(server.write(room, "helo"))
    new = message_of(server.change(str(old.id), message="hello", edited_at=server.tick()))
    store.apply_messages([new])
    events.clear()

    store.apply_messages([old, new])

    assert store.message(old.id).text == "hello"
    assert events == []


def test_a_mark_does_not_hide_an_edit_that_was_made_before_it_and_arrives_later(
    store: Store, room: UUID, server: FakeServer
) -> None:
    message = message_of(server.write(room, "helo", ME))
    store.apply_messages([message])
    server.change(str(message.id), message="hello")
    marked = message_of(server.change(str(message.id), is_read=True, read_at=server.tick()))
    assert marked.changed_at is not None

    store.apply_marks(room, [message.id], marked.read_at, marked.read_at, True, marked.changed_at)
    assert store.message(message.id).status == "read"
    store.apply_messages([marked])

    assert (store.message(message.id).text, store.message(message.id).status) == ("hello", "read")


def unread(store: Store, room: UUID) -> int:
    conversation = store.conversation(room)
    assert conversation is not None
    return conversation.unread


def test_the_unread_counter_follows_live_messages_marks_and_deletions(
    store: Store, room: UUID, server: FakeServer
) -> None:
    first, second = server.write(room, "one"), server.write(room, "two")
    store.apply_conversations(list(server.rooms.values()))
    assert unread(store, room) == 2  # by the server's count: the messages are not loaded
    store.apply_messages([message_of(first), message_of(second)])
    assert unread(store, room) == 2

    third = message_of(server.write(room, "three"))
    store.apply_messages([third])
    assert unread(store, room) == 3
    store.apply_messages([message_of(server.change(first["id"], is_read=True))])
    assert unread(store, room) == 2
    store.apply_messages([message_of(server.change(str(third.id), deleted_at=server.tick(), message=""))])
    assert unread(store, room) == 1
    server.write(room, "mine", ME)
    assert unread(store, room) == 1


def test_the_unread_counter_does_not_count_a_mark_twice_that_the_server_has_counted(
    store: Store, room: UUID, server: FakeServer
) -> None:
    rows = [server.write(room, text) for text in ("one", "two", "three")]
    store.apply_messages(message_of(row) for row in rows)
    marked = server.change(rows[0]["id"], is_read=True)
    server.rooms[str(room)] |= {"unread_count_user1": 2, "updated_at": server.tick()}

    store.apply_conversations(list(server.rooms.values()))
    store.apply_messages([message_of(marked)])

    assert unread(store, room) == 2


def test_a_list_that_was_read_before_a_mark_does_not_bring_the_unread_messages_back(
    store: Store, room: UUID, server: FakeServer
) -> None:
    rows = [server.write(room, text) for text in ("one", "two", "three")]
    store.apply_messages(message_of(row) for row in rows)
    late = [dict(each) for each in server.rooms.values()]
    at = datetime.fromisoformat(server.tick())

    store.apply_marks(room, [UUID(row["id"]) for row in rows[:2]], at, at, is_read=True, changed_at=at)
    store.apply_conversations(late)
    assert unread(store, room) == 1
    store.apply_conversations(late)
    assert unread(store, room) == 1


def test_what_this_person_has_read_counts_as_read_before_the_server_knows_it(
    store: Store, room: UUID, server: FakeServer
) -> None:
    rows = [server.write(room, text) for text in ("one", "two", "three")]
    store.apply_messages(message_of(row) for row in rows)
    store.apply_conversations(list(server.rooms.values()))

    assert store.mark_read(store.message(UUID(rows[1]["id"])))
    assert unread(store, room) == 1
    assert not store.mark_read(store.message(UUID(rows[0]["id"])))
    store.apply_conversations(list(server.rooms.values()))
    assert (unread(store, room), store.read_marks()) == (1, [(room, UUID(rows[1]["id"]))])
    store.mark_read(store.message(UUID(rows[2]["id"])))
    assert unread(store, room) == 0


def test_the_preview_follows_new_messages_edits_and_messages_without_text(
    store: Store, room: UUID, server: FakeServer
) -> None:
    def preview() -> str | None:
        conversation = store.conversation(room)
        assert conversation is not None
        return conversation.last_message

    assert preview() is None
    row = server.write(room, "helo\n  there")
    store.apply_messages([message_of(row)])
    assert preview() == "helo there"
    store.apply_messages([message_of(server.change(row["id"], message="hello"))])
    assert preview() == "hello"
    picture = server.write(room, "", attachments=[{"type": "image", "url": "https://example.com"}])
    store.apply_messages([message_of(picture)])
    assert preview() == "[image]"
    for attachment in ("https://example.com", None, {"type": None}):
        store.apply_messages([message_of(server.write(room, "", attachments=[attachment]))])
        assert preview() == "[attachment]"


def test_messages_of_others_wait_to_be_marked_as_delivered_and_own_messages_do_not(
    store: Store, room: UUID, server: FakeServer
) -> None:
    theirs = message_of(server.write(room, "hello"))
    delivered = message_of(server.write(room, "hello", delivered_at=server.tick()))
    store.apply_messages([theirs, delivered, message_of(server.write(room, "hello", ME))])

    assert store.delivered_marks(10) == [theirs.id]
    store.remove_delivered_marks([theirs.id])
    assert store.delivered_marks(10) == []


def test_a_conversation_that_the_server_no_longer_has_is_removed_with_its_messages(
    store: Store, room: UUID, server: FakeServer
) -> None:
    store.apply_messages([message_of(server.write(room, "hello"))])
    store.apply_conversations([], known=[room])
    assert (store.conversations(), store.messages(room)) == ([], [])


@pytest.mark.parametrize("column", ["id", "room_id", "message", "attachments", "server_timestamp"])
def test_a_row_with_a_wrong_column_is_no_message(server: FakeServer, column: str) -> None:
    row = server.write(server.open_room(), "a secret")
    nothing: dict[str, object] = {}
    for wrong in (None, 7, nothing):
        with pytest.raises(ValueError, match="malformed message") as raised:
            message_of({**row, column: wrong})
        assert "a secret" not in str(raised.value)


def test_neither_a_message_nor_a_conversation_shows_its_text_in_a_log(
    store: Store, room: UUID, server: FakeServer
) -> None:
    message = message_of(server.write(room, "a secret"))
    store.apply_messages([message])
    entry = store.enter_message(room, "a secret", (), 1.0)
    shown = f"{message} {entry} {store.entries()} {store.conversations()} {MessageChanged(message)}"
    assert "a secret" not in shown


def test_times_keep_their_microseconds_in_any_form_that_postgres_writes(server: FakeServer, store: Store) -> None:
    room = server.open_room()
    for written in ("2026-11-26T12:00:00.12+00:00", "2026-11-26T14:00:00.12+02:00", "2026-11-26T12:00:00.120000+00:00"):
        row = server.write(room, "hello", server_timestamp=written)
        store.apply_messages([message_of(json.loads(json.dumps(row)))])
        expected = datetime(2026, 11, 26, 12, 0, 0, 120_000, UTC)
        assert store.message(UUID(row["id"])).server_timestamp == expected
