"""The outbox of the Python client, against a fake server."""

import asyncio
from collections.abc import Callable
from uuid import UUID, uuid4

import httpx
import pytest

from chat_client.errors import DatabaseError, UnknownMessage
from chat_client.events import ConversationChanged, Event, MessageChanged, SessionEnded
from chat_client.models import Message
from chat_client.store import Store
from tests.client.conftest import Client
from tests.client.fake_server import ME, FakeServer, error, rate_limited
from tests.waiting import eventually

LOST = httpx.ReadTimeout("lost")
REFUSED = httpx.ConnectError("refused")


@pytest.fixture
def write(client: Client) -> Callable[[UUID, str], Message]:
    """Puts a message into the outbox."""
    return lambda room, text: client.store.enter_message(room, text, (), client.clock())


type Write = Callable[[UUID, str], Message]


async def test_a_message_is_pending_until_the_server_has_it(
    client: Client, server: FakeServer, room: UUID, write: Write, events: list[Event]
) -> None:
    pending = write(room, "hello")
    assert (pending.status, client.store.messages(room)) == ("pending", [pending])

    await client.send_due()

    [sent] = client.store.messages(room)
    assert (sent.status, sent.text, sent.client_msg_id) == ("sent", "hello", str(pending.id))
    assert client.store.entries() == []
    assert MessageChanged(sent, replaces=pending.id) in events


async def test_a_message_whose_answer_was_lost_is_stored_once_and_counts_as_sent(
    client: Client, server: FakeServer, room: UUID, write: Write
) -> None:
    write(room, "hello")
    server.after.append(LOST)

    await client.send_all()

    assert server.texts(room) == ["hello"]
    assert [message.status for message in client.store.messages(room)] == ["sent"]


async def test_without_the_server_messages_wait_longer_after_each_attempt_and_never_fail(
    client: Client, server: FakeServer, room: UUID, write: Write
) -> None:
    write(room, "hello")
    server.before.extend([REFUSED] * 30)
    waits = []
    for _ in range(30):
        seconds = await client.send_due()
        assert seconds is not None
        waits.append(seconds)
        client.clock.now += seconds

    assert waits[0] <= 0.01 < waits[-1] <= 0.02
    await client.send_all()
    assert server.texts(room) == ["hello"]


async def test_the_number_of_attempts_and_the_next_try_survive_a_restart(
    client: Client,
    server: FakeServer,
    room: UUID,
    write: Write,
    open_store: Callable[[], Store],
    open_client: Callable[[Store], Client],
) -> None:
    write(room, "hello")
    server.before.extend([REFUSED] * 2)
    client.clock.now += await client.send_due() or 0
    await client.send_due()

    restarted = open_client(open_store())
    [entry] = restarted.store.entries()
    assert (entry.attempts, entry.state) == (2, "pending")
    restarted.clock.now = entry.next_try - 0.001
    assert await restarted.send_due() is not None
    assert server.texts(room) == []
    restarted.clock.now = entry.next_try
    await restarted.send_due()
    assert server.texts(room) == ["hello"]


async def test_a_clock_that_was_put_back_makes_no_message_wait_longer_than_the_longest_wait(
    client: Client, server: FakeServer, room: UUID, write: Write
) -> None:
    write(room, "hello")
    server.before.append(REFUSED)
    await client.send_due()
    client.clock.now -= 86_400

    seconds = await client.send_due()

    assert seconds is not None
    assert seconds == pytest.approx(0.02)


async def test_messages_of_a_conversation_are_sent_in_their_order_also_after_failures(
    client: Client, server: FakeServer, room: UUID, write: Write
) -> None:
    for number in range(5):
        write(room, f"message {number}")
    server.before.extend([REFUSED, None, error(503, "503"), None])
    server.after.append(LOST)

    await client.send_all()

    assert server.texts(room) == [f"message {number}" for number in range(5)]


async def test_a_message_that_is_rejected_fails_and_the_next_one_of_its_conversation_goes(
    client: Client, server: FakeServer, room: UUID, write: Write
) -> None:
    poison = write(room, "too long")
    write(room, "hello")
    server.before.append(error(400, "22001", "message is too long"))

    await client.send_due()

    assert server.texts(room) == ["hello"]
    failed = client.store.message(poison.id)
    assert (failed.status, failed.error) == ("failed", "message is too long (22001)")


@pytest.mark.parametrize(
    "answer",
    [
        *(
            httpx.Response(status, html="<html>a proxy</html>")
            for status in (200, 302, 502, 511, 520, 522, 524, 530, 540)
        ),
        httpx.Response(200),
        httpx.Response(204),
        httpx.Response(200, json="ok"),
        httpx.Response(200, json=["ok"]),
        httpx.DecodingError("not compressed"),
        LookupError("a bug"),
    ],
    ids=str,
)
async def test_an_answer_of_a_proxy_or_an_unexpected_error_makes_no_message_fail(
    client: Client, server: FakeServer, room: UUID, write: Write, answer: httpx.Response | Exception
) -> None:
    write(room, "a secret")
    server.before.extend([answer] * 5)

    await client.send_all()

    assert (server.texts(room), len(client.failures)) == (["a secret"], 5)


async def test_an_unexpected_error_of_a_message_delays_no_other_conversation(
    client: Client, server: FakeServer, room: UUID, write: Write
) -> None:
    other = server.open_room()
    server.fault = lambda request: LookupError("a bug") if b"poison" in request.content else None
    write(room, "poison")
    await client.send_due()

    write(other, "hello")
    await client.send_due()

    assert server.texts(other) == ["hello"]


async def test_an_outbox_that_cannot_be_read_is_read_again(
    client: Client, server: FakeServer, room: UUID, write: Write
) -> None:
    write(room, "hello")
    client.store._connection.execute("alter table outbox rename to gone")
    assert await client.send_due() == 0.02
    [failure] = client.failures
    assert isinstance(failure, DatabaseError)

    client.store._connection.execute("alter table gone rename to outbox")
    await client.send_due()

    assert server.texts(room) == ["hello"]


async def test_a_message_at_which_the_server_fails_blocks_no_other_conversation_and_fails_in_the_end(
    client: Client, server: FakeServer, room: UUID, write: Write
) -> None:
    poison, other = write(room, "poison"), server.open_room()
    write(other, "hello")
    server.fault = lambda request: error(500, "57014", "timeout") if b"poison" in request.content else None

    await client.send_due()
    assert server.texts(other) == ["hello"]
    assert client.store.message(poison.id).status == "pending"
    await client.send_all()

    [entry] = client.store.entries()
    assert (entry.state, entry.attempts, entry.error) == ("failed", 3, "timeout (57014)")


async def test_a_request_that_hangs_delays_no_other_conversation(
    client: Client, server: FakeServer, room: UUID, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    hang, hung = asyncio.Event(), asyncio.Event()
    answer = server.handle_async_request

    async def hanging(request: httpx.Request) -> httpx.Response:
        if b"slow" in request.content:
            hung.set()
            await hang.wait()
        return await answer(request)

    monkeypatch.setattr(server, "handle_async_request", hanging)
    other = server.open_room()
    write(room, "slow")
    sending = asyncio.create_task(client.send_due())
    await hung.wait()

    message = write(other, "fast")
    client.outbox.wake()
    await eventually(lambda: client.store.message(message.id).status == "sent")
    assert (server.texts(room), server.texts(other)) == ([], ["fast"])
    hang.set()
    await sending
    assert server.texts(room) == ["slow"]


async def test_a_failed_message_can_be_retried(client: Client, server: FakeServer, room: UUID, write: Write) -> None:
    poison = write(room, "hello")
    server.before.append(error(400, "22001"))
    await client.send_due()

    client.store.retry(poison.id)
    await client.send_due()

    assert server.texts(room) == ["hello"]


async def test_a_failed_message_can_be_discarded(client: Client, server: FakeServer, room: UUID, write: Write) -> None:
    poison = write(room, "hello")
    server.before.append(error(400, "22001"))
    await client.send_due()

    client.store.discard(poison.id)

    assert (client.store.entries(), client.store.messages(room)) == ([], [])


async def test_only_what_has_failed_can_be_retried_or_discarded(client: Client, room: UUID, write: Write) -> None:
    pending = write(room, "hello")
    for action in (client.store.retry, client.store.discard):
        with pytest.raises(UnknownMessage, match="nothing has failed"):
            action(pending.id)


async def test_over_the_rate_limit_all_messages_wait_as_long_as_the_server_says_and_no_attempt_counts(
    client: Client, server: FakeServer, room: UUID, write: Write
) -> None:
    write(room, "one")
    server.before.append(rate_limited(7))
    await client.send_due()
    write(server.open_room(), "two")

    client.clock.now += 6.9
    seconds = await client.send_due()
    assert seconds == pytest.approx(0.1)
    assert server.rows == {}
    assert [entry.attempts for entry in client.store.entries()] == [0, 0]
    await client.send_all()
    assert len(server.rows) == 2


async def test_a_token_that_has_expired_is_renewed_once_and_the_message_goes(
    client: Client, server: FakeServer, room: UUID, write: Write
) -> None:
    server.access_tokens = {"another"}
    write(room, "hello")

    await client.send_due()

    assert (server.texts(room), server.renewals) == (["hello"], 1)


async def test_a_session_that_has_ended_keeps_the_outbox_and_says_so(
    client: Client, server: FakeServer, room: UUID, write: Write, events: list[Event]
) -> None:
    server.access_tokens, server.refresh_token = {"another"}, "another"
    write(room, "hello")

    await client.send_due()

    assert events[-1] == SessionEnded()
    assert (client.server.signed_in, client.store.get("session")) == (False, None)
    [entry] = client.store.entries()
    assert (entry.state, entry.attempts) == ("pending", 0)


async def test_a_sign_out_just_before_an_attempt_sends_nothing_and_ends_no_loop(
    client: Client, server: FakeServer, room: UUID, write: Write
) -> None:
    write(room, "hello")
    sending = asyncio.create_task(client.send_due())
    await asyncio.sleep(0)  # The attempt is started, and begins when the loop is free.
    client.server.forget_session()
    client.store.wipe()

    await sending

    assert server.texts(room) == []


async def test_an_edit_of_a_pending_message_changes_what_is_sent(
    client: Client, server: FakeServer, room: UUID, write: Write
) -> None:
    pending = write(room, "helo")
    edited = client.store.enter_edit(pending.id, "hello", client.clock())
    assert (edited.text, edited.status) == ("hello", "pending")

    await client.send_due()

    assert (server.texts(room), client.store.entries()) == (["hello"], [])


async def test_an_edit_of_a_message_that_may_have_been_stored_reaches_the_server(
    client: Client, server: FakeServer, room: UUID, write: Write
) -> None:
    pending = write(room, "helo")
    server.after.append(LOST)
    await client.send_due()
    client.store.enter_edit(pending.id, "hello", client.clock())

    await client.send_all()

    assert server.texts(room) == ["hello"]
    [message] = client.store.messages(room)
    assert (message.text, message.status) == ("hello", "sent")


async def test_an_edit_while_a_message_is_being_sent_reaches_the_server(
    client: Client, server: FakeServer, room: UUID, write: Write
) -> None:
    pending = write(room, "helo")

    def edit_meanwhile(request: httpx.Request) -> None:
        server.fault = lambda request: None
        client.store.enter_edit(pending.id, "hello", client.clock())

    server.fault = edit_meanwhile
    await client.send_all()

    assert server.texts(room) == ["hello"]


async def test_a_second_edit_while_the_first_is_being_sent_reaches_the_server(
    client: Client, server: FakeServer, room: UUID
) -> None:
    row = server.write(room, "helo", ME)
    await client.sync.page(room, None, 30)
    client.store.enter_edit(UUID(row["id"]), "hello", client.clock())

    def edit_meanwhile(request: httpx.Request) -> None:
        server.fault = lambda request: None
        client.store.enter_edit(UUID(row["id"]), "hello!", client.clock())

    server.fault = edit_meanwhile
    await client.send_all()

    assert server.texts(room) == ["hello!"]
    assert client.store.entries() == []


async def test_the_deletion_of_a_message_that_was_never_tried_removes_it(
    client: Client, server: FakeServer, room: UUID, write: Write
) -> None:
    client.store.enter_delete(write(room, "hello").id, client.clock())
    assert (client.store.entries(), client.store.messages(room)) == ([], [])
    await client.send_due()
    assert server.requests == []


async def test_the_deletion_of_a_message_that_may_have_been_stored_deletes_it_there(
    client: Client, server: FakeServer, room: UUID, write: Write
) -> None:
    pending = write(room, "hello")
    server.after.append(LOST)
    await client.send_due()
    client.store.enter_delete(pending.id, client.clock())
    assert client.store.messages(room) == []

    await client.send_all()

    assert server.texts(room) == [""]
    assert [message.deleted_at is not None for message in client.store.messages(room)] == [True]


async def test_the_deletion_of_a_message_that_was_not_stored_waits_until_it_can_no_longer_arrive(
    client: Client, server: FakeServer, room: UUID, write: Write
) -> None:
    pending = write(room, "hello")
    server.before.append(LOST)
    await client.send_due()
    client.store.enter_delete(pending.id, client.clock())

    await client.send_due()
    assert [entry.kind for entry in client.store.entries()] == ["delete"]
    client.clock.now += 61
    await client.send_all()

    assert (client.store.entries(), server.rows) == ([], {})


async def test_a_message_does_not_wait_for_the_deletion_of_one_that_may_still_arrive(
    client: Client, server: FakeServer, room: UUID, write: Write
) -> None:
    server.fault = lambda request: LOST if request.method == "POST" else None
    for text in ("oops", "once more"):
        pending = write(room, text)
        await client.send_due()
        client.store.enter_delete(pending.id, client.clock())
    server.fault = lambda request: None
    write(room, "one")
    write(room, "two")

    await client.send_due()

    assert [entry.kind for entry in client.store.entries()] == ["delete", "delete"]
    assert server.texts(room) == ["one", "two"]


async def test_a_message_that_was_sent_after_all_is_deleted_although_others_wait_to_be_deleted(
    client: Client, server: FakeServer, room: UUID, write: Write
) -> None:
    def lose(request: httpx.Request) -> httpx.ReadTimeout | None:
        if b"arrives" in request.content:
            server._answer(request)
        return LOST if request.method == "POST" else None

    server.fault = lose
    for text in ("lost", "arrives"):
        pending = write(room, text)
        await client.send_due()
        client.store.enter_delete(pending.id, client.clock())
    server.fault = lambda request: None

    await client.send_due()

    assert server.texts(room) == [""]
    assert [entry.kind for entry in client.store.entries()] == ["delete"]


async def test_the_deletion_of_a_message_that_was_retried_deletes_it_on_the_server(
    client: Client, server: FakeServer, room: UUID, write: Write
) -> None:
    pending = write(room, "oops")
    server.after.append(LOST)
    await client.send_due()
    server.before.extend([error(500, "57014")] * 2)
    await client.send_all()
    assert client.store.message(pending.id).status == "failed"

    client.store.retry(pending.id)
    client.store.enter_delete(pending.id, client.clock())
    await client.send_all()

    assert server.texts(room) == [""]


async def test_edit_and_deletion_of_a_sent_message_show_at_once_and_reach_the_server(
    client: Client, server: FakeServer, room: UUID
) -> None:
    kept, deleted = server.write(room, "helo", ME), server.write(room, "oops", ME)
    await client.sync.page(room, None, 30)
    client.store.enter_edit(UUID(kept["id"]), "hello", client.clock())
    client.store.enter_delete(UUID(deleted["id"]), client.clock())
    assert [(m.text, m.status) for m in client.store.messages(room)] == [("", "pending"), ("hello", "pending")]

    await client.send_all()

    assert server.texts(room) == ["hello", ""]
    assert [(m.text, m.status) for m in client.store.messages(room)] == [("", "sent"), ("hello", "sent")]


async def test_an_edit_that_is_rejected_can_be_discarded_and_the_text_of_the_server_returns(
    client: Client, server: FakeServer, room: UUID
) -> None:
    message_id = UUID(server.write(room, "hello", ME)["id"])
    await client.sync.page(room, None, 30)
    client.store.enter_edit(message_id, "hello!", client.clock())
    server.before.append(error(403, "42501", "the message was deleted"))
    await client.send_due()
    assert client.store.message(message_id).status == "failed"

    client.store.discard(message_id)

    message = client.store.message(message_id)
    assert (message.text, message.status) == ("hello", "sent")


async def test_the_event_of_a_message_may_arrive_before_the_answer_to_its_request(
    client: Client, server: FakeServer, room: UUID, write: Write
) -> None:
    pending = write(room, "hello")
    server.after.append(LOST)
    await client.send_due()

    await client.sync.page(room, None, 30)

    assert client.store.entries() == []
    assert [message.client_msg_id for message in client.store.messages(room)] == [str(pending.id)]


async def test_the_last_archive_flag_of_a_conversation_reaches_the_server(
    client: Client, server: FakeServer, room: UUID
) -> None:
    client.store.enter_archive(room, True, client.clock())
    client.store.enter_archive(room, False, client.clock())
    client.store.enter_archive(room, True, client.clock())
    [conversation] = client.store.conversations()
    assert conversation.archived

    await client.send_due()

    assert server.rooms[str(room)]["archived_by_user1"] is True
    [conversation] = client.store.conversations()
    assert (conversation.archived, client.store.entries()) == (True, [])


async def test_an_archive_flag_that_is_rejected_can_be_discarded_and_that_of_the_server_returns(
    client: Client, events: list[Event], room: UUID
) -> None:
    client.store.enter_archive(room, True, client.clock())
    [entry] = client.store.next_entries()
    client.store.fail(entry, "rejected")
    events.clear()

    client.store.discard(room)

    [event] = events
    assert isinstance(event, ConversationChanged)
    assert not event.conversation.archived


async def test_a_message_that_is_deleted_cannot_be_edited_and_stays_deleted(
    client: Client, server: FakeServer, room: UUID
) -> None:
    message_id = UUID(server.write(room, "hello", ME)["id"])
    await client.sync.page(room, None, 30)
    client.store.enter_delete(message_id, client.clock())

    for _ in ("it waits to be deleted", "it is deleted"):
        with pytest.raises(UnknownMessage, match="is deleted"):
            client.store.enter_edit(message_id, "hello!", client.clock())
        await client.send_all()

    assert server.texts(room) == [""]


async def test_a_message_that_does_not_exist_can_be_neither_edited_nor_deleted(client: Client) -> None:
    with pytest.raises(UnknownMessage, match="no message"):
        client.store.enter_edit(uuid4(), "hello", 0)
    with pytest.raises(UnknownMessage, match="no message"):
        client.store.enter_delete(uuid4(), 0)
