"""The sync of the Python client, against a fake server."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import httpx
import pytest

from chat_client.errors import NotSignedIn, ServerUnreachable
from chat_client.events import Event, MessageChanged, MessageRemoved, Synced
from chat_client.marks import Marks
from chat_client.models import message_of
from chat_client.store import Store
from tests.client.conftest import TIMING, Client
from tests.client.fake_server import ME, PARTNER, FakeServer, Json


async def test_a_conversation_that_begins_while_a_sync_reads_the_list_stays_with_its_messages(
    client: Client, server: FakeServer
) -> None:
    listed = list(server.rooms.values())

    def begin(request: httpx.Request) -> httpx.Response | None:
        if request.url.path != "/rest/v1/chat_rooms":
            return None
        server.fault = lambda request: None
        client.store.apply_conversations([server.rooms[str(room := server.open_room())]])
        client.store.enter_message(room, "hello", (), client.clock())
        return httpx.Response(200, json=listed)

    server.fault = begin
    await client.sync.once()

    assert [each.partner.id for each in client.store.conversations()] == [PARTNER]
    assert [entry.text for entry in client.store.entries()] == ["hello"]


async def test_a_new_phone_loads_the_list_of_conversations_and_no_messages(
    client: Client, server: FakeServer, events: list[Event]
) -> None:
    room = server.open_room()
    for number in range(50):
        server.write(room, f"message {number}")

    await client.sync.once()

    [conversation] = client.store.conversations()
    assert (conversation.last_message, conversation.unread, conversation.partner.id) == ("message 49", 50, PARTNER)
    assert conversation.partner.display_name == "Gus"
    assert client.store.messages(room) == []
    assert len([each for each in server.requests if "chat_rooms" not in each]) == 2  # the cursor and the profile
    assert events[-1] == Synced()


async def test_a_sync_brings_new_messages_edits_deletions_and_marks_since_the_last_one(
    client: Client, server: FakeServer, room: UUID
) -> None:
    edited, deleted, marked = (server.write(room, text, ME) for text in ("helo", "oops", "read me"))
    await client.sync.once()
    await client.sync.page(room, None, 30)
    server.now += timedelta(hours=1)
    await client.sync.once()

    server.change(edited["id"], message="hello")
    server.change(deleted["id"], message="", deleted_at=server.tick())
    server.change(marked["id"], is_read=True, delivered_at=server.tick())
    server.write(room, "new")
    await client.sync.once()

    listed = [(m.text, m.status, m.deleted_at is not None) for m in client.store.messages(room)]
    assert listed == [("new", "sent", False), ("read me", "read", False), ("", "sent", True), ("hello", "sent", False)]


async def test_a_sync_of_many_pages_misses_nothing_and_repeats_no_event(
    client: Client, server: FakeServer, room: UUID, events: list[Event]
) -> None:
    await client.sync.once()
    written = {UUID(server.write(room, "hello")["id"]) for _ in range(1200)}

    await client.sync.once()
    await client.sync.once()

    changed = [event.message.id for event in events if isinstance(event, MessageChanged)]
    assert (len(changed), set(changed)) == (1200, written)


async def test_a_sync_that_ends_in_the_middle_goes_on_there(
    client: Client,
    server: FakeServer,
    room: UUID,
    events: list[Event],
    open_store: Callable[[], Store],
    open_client: Callable[[Store], Client],
) -> None:
    await client.sync.once()
    for _ in range(1200):
        server.write(room, "hello")
    server.before.extend([None, httpx.ReadTimeout("lost")])
    with pytest.raises(ServerUnreachable):
        await client.sync.once()
    server.requests.clear()

    restarted = open_client(open_store())
    await restarted.sync.once()

    assert len(restarted.store.known(room)) == 1200
    assert server.requests.count("POST /rest/v1/rpc/get_changed_messages") == 3  # of four: one page was kept


async def test_a_message_that_commits_after_one_with_a_later_time_is_not_missed(
    client: Client, server: FakeServer, room: UUID
) -> None:
    await client.sync.once()
    late = server.write(room, "late")
    server.rows.pop(late["id"])
    server.write(room, "early")
    await client.sync.once()

    server.rows[late["id"]] = late
    await client.sync.once()

    assert {message.text for message in client.store.messages(room)} == {"late", "early"}


async def test_a_malformed_row_is_skipped_and_logged_and_the_others_arrive(
    client: Client, server: FakeServer, room: UUID, caplog: pytest.LogCaptureFixture
) -> None:
    await client.sync.once()
    server.write(room, "one")
    server.write(room, "a secret", attachments="none")
    server.write(room, "two")

    await client.sync.once()

    assert [message.text for message in client.store.messages(room)] == ["two", "one"]
    assert "malformed message" in caplog.text
    assert "a secret" not in caplog.text


@pytest.mark.parametrize("function", ["sync_cursor", "get_changed_messages", "chat_rooms"])
@pytest.mark.parametrize(
    "answer", ["", "<html>Log in to the Wi-Fi</html>", '"<html>"', '["<html>"]', '{"status": "ok"}']
)
async def test_an_answer_of_a_proxy_is_not_stored_and_removes_nothing_and_the_next_sync_brings_all(
    client: Client, server: FakeServer, room: UUID, function: str, answer: str
) -> None:
    headers = {"Content-Type": "text/html" if answer.startswith("<") else "application/json"} if answer else {}
    if function != "sync_cursor":
        await client.sync.once()
    server.write(room, "hello")
    client.store.enter_message(room, "waits", (), client.clock())
    page = httpx.Response(200, text=answer, headers=headers)
    server.fault = lambda request: page if request.url.path.endswith(function) else None

    with pytest.raises(ServerUnreachable):
        await client.sync.once()

    server.fault = lambda request: None
    await client.sync.once()
    assert client.store.conversations()[0].last_message == "hello"
    assert [entry.text for entry in client.store.entries()] == ["waits"]


async def test_a_row_without_a_time_stops_a_sync_and_none_after_it(
    client: Client, server: FakeServer, room: UUID
) -> None:
    await client.sync.once()
    row = server.write(room, "hello")
    server.before.append(httpx.Response(200, json=[{**row, "changed_at": None}]))
    with pytest.raises(ServerUnreachable):
        await client.sync.once()

    await client.sync.once()

    assert [message.text for message in client.store.messages(room)] == ["hello"]


async def test_pages_reach_back_to_the_first_message(client: Client, server: FakeServer, room: UUID) -> None:
    for number in range(75):
        server.write(room, f"{number}")

    page = await client.sync.page(room, None, 30)
    read = list(page)
    while page:
        page = await client.sync.page(room, page[-1], 30)
        read += page

    assert [message.text for message in read] == [f"{number}" for number in reversed(range(75))]


async def test_a_page_that_is_larger_than_the_server_allows_removes_no_older_message(
    client: Client, server: FakeServer, room: UUID
) -> None:
    client.store.apply_messages(message_of(server.write(room, "hello")) for _ in range(300))

    page = await client.sync.page(room, None, 250)

    assert (len(page), len(client.store.known(room))) == (200, 300)


async def test_a_message_that_a_backend_deleted_for_good_is_removed_when_its_page_is_loaded(
    client: Client, server: FakeServer, room: UUID, events: list[Event]
) -> None:
    rows = [server.write(room, text) for text in ("one", "two", "three")]
    await client.sync.page(room, None, 30)
    server.rows.pop(rows[1]["id"])

    page = await client.sync.page(room, None, 30)

    assert [message.text for message in page] == ["three", "one"]
    assert MessageRemoved(room, UUID(rows[1]["id"])) in events


async def test_a_message_that_arrives_while_a_page_is_loaded_is_not_removed(
    client: Client, server: FakeServer, room: UUID
) -> None:
    server.write(room, "one")
    arrived: list[Json] = []

    def arrive(request: httpx.Request) -> httpx.Response:
        server.fault = lambda request: None
        answer = httpx.Response(200, json=list(server.rows.values()))
        arrived.append(server.write(room, "two"))
        client.store.apply_messages([message_of(arrived[0])])
        return answer

    server.fault = arrive
    page = await client.sync.page(room, None, 30)

    assert [message.text for message in page] == ["two", "one"]


@pytest.mark.parametrize("call", ["get_changed_messages", "get_messages_paginated"])
async def test_a_message_that_is_deleted_for_good_while_an_older_answer_is_on_its_way_does_not_come_back(
    client: Client, server: FakeServer, room: UUID, call: str
) -> None:
    await client.sync.once()
    gone = server.write(room, "gone")

    def delete(request: httpx.Request) -> httpx.Response | None:
        if not request.url.path.endswith(call):
            return None
        server.fault = lambda request: None
        client.store.remove_message(room, UUID(gone["id"]))
        return httpx.Response(200, json=[gone])

    server.fault = delete
    if call == "get_changed_messages":
        await client.sync.once()
    else:
        await client.sync.page(room, None, 30)
    del server.rows[gone["id"]]

    assert client.store.messages(room) == []


async def test_an_answer_that_comes_after_the_sign_out_is_not_stored(
    client: Client, server: FakeServer, room: UUID
) -> None:
    server.write(room, "private")

    def sign_out(request: httpx.Request) -> None:
        client.server.forget_session()
        client.store.wipe()

    server.fault = sign_out
    with pytest.raises(NotSignedIn):
        await client.sync.page(room, None, 30)

    assert client.store.messages(room) == []


async def test_a_read_mark_is_sent_before_or_after_a_sync_but_not_while_it_counts(
    client: Client, server: FakeServer, room: UUID
) -> None:
    message = message_of(server.write(room, "hello"))
    client.store.apply_messages([message])
    client.store.mark_read(message)
    marks = Marks(client.store, client.server, replace(TIMING, marks_delay=0), lambda what, error: None)

    async def turns() -> None:
        """The fake server answers within a few turns of the loop."""
        for _ in range(100):
            await asyncio.sleep(0)

    async with client.store.counting:
        running = asyncio.create_task(marks.run())
        marks.wake()
        await turns()
        assert not any("mark_messages_read" in request for request in server.requests)
    await turns()
    assert sum("mark_messages_read" in request for request in server.requests) == 1
    running.cancel()
