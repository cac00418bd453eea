"""A part of the system is down, hangs or is killed. Afterwards the push arrives, and is visible once."""

import asyncio
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from local.providers.expo.faults import Fault, Hang, HttpError, OddAnswer, Reset, TicketCount
from tests.system.chat import TEXT, Chat, Log, arrived_and_visible, conversations, execute, insert_messages, receive

# --- Expo


@pytest.mark.parametrize("accepted", [False, True])
async def test_a_push_is_visible_once_after_expo_failed_four_attempts(chat: Chat, accepted: bool) -> None:
    """Expo answers 5xx. `accepted`: it delivered the push nevertheless."""
    for body in ("json", "html", "empty"):
        chat.cloud.expo.script(HttpError(status=503, body=body, accepted=accepted))
    chat.cloud.expo.script(HttpError(status=504, body="html", accepted=accepted))
    message = await chat.send()
    job = await chat.until_done(message, sweep=True)
    assert (job["outcome"], job["attempts"]) == ("accepted", 5)
    assert arrived_and_visible(chat.phone, message) == (5 if accepted else 1, 1)


async def test_a_push_answered_429_is_sent_again_and_not_before_retry_after(chat: Chat) -> None:
    chat.cloud.expo.script(HttpError(status=429, retry_after=1))
    message = await chat.send()
    await chat.until_done(message)
    rejected, accepted = chat.cloud.expo.requests
    assert (rejected.status, accepted.status) == (429, 200)
    assert accepted.at - rejected.at >= timedelta(seconds=1)
    assert arrived_and_visible(chat.phone, message) == (1, 1)


async def test_the_database_keeps_a_push_until_a_long_retry_after_is_over(chat: Chat) -> None:
    chat.cloud.expo.script(HttpError(status=429, retry_after=600))
    begun = datetime.now(UTC)
    message = await chat.send()
    job = await chat.cloud.until_push(message, lambda job: job["state"] == "pending" and job["attempts"] == 1)
    assert datetime.fromisoformat(job["next_attempt_at"]) >= begun + timedelta(seconds=600)
    await chat.sweep()
    assert len(chat.cloud.expo.requests) == 1
    await chat.make_due(message)
    await chat.sweep()
    assert arrived_and_visible(chat.phone, message) == (1, 1)


@pytest.mark.parametrize(
    ("fault", "error", "copies"),
    [
        (Reset(accepted=False), None, 1),
        (Reset(accepted=True), None, 2),
        # Expo accepted the request, but its tickets cannot be assigned. Sending again would be a second push.
        (OddAnswer(body="truncated"), "UnreadableResponse", 1),
        (OddAnswer(body="null"), "UnreadableResponse", 1),
        (TicketCount(tickets=0), "UnreadableResponse", 1),
        (TicketCount(tickets=3), "UnreadableResponse", 1),
    ],
    ids=["reset", "reset after accepting", "truncated", "null", "no ticket", "too many tickets"],
)
async def test_a_push_with_a_broken_answer_is_accepted_and_visible_once(
    chat: Chat, fault: Fault, error: str | None, copies: int
) -> None:
    chat.cloud.expo.script(fault)
    message = await chat.send()
    job = await chat.until_done(message, sweep=True)
    assert (job["outcome"], job["deliveries"][0]["error"]) == ("accepted", error)
    assert arrived_and_visible(chat.phone, message) == (copies, 1)


async def test_a_push_is_visible_once_after_expo_hung_longer_than_the_function_may_run(chat: Chat) -> None:
    chat.cloud.expo.script(Hang(seconds=600, accepted=True))
    message = await chat.send()
    job = await chat.until_done(message, sweep=True)
    assert (job["outcome"], job["attempts"]) == ("accepted", 2)
    assert arrived_and_visible(chat.phone, message) == (2, 1)


# --- database


async def test_webhooks_that_came_while_the_data_api_was_down_are_sent_afterwards(chat: Chat, log: Log) -> None:
    phones = await conversations(chat.cloud, chat.tina, 3)
    await chat.cloud.supabase.stop()
    try:
        messages = await insert_messages(chat.cloud, *[(room, chat.tina.id, TEXT) for room in phones])
        await log.until("push not sent, SQS delivers its record again")
        await chat.cloud.poller.until_idle()
        assert chat.cloud.expo.requests == []
    finally:
        await chat.cloud.supabase.start()
    async with asyncio.timeout(30):
        # One round is enough, unless a webhook was late and its record failed only now.
        sent = list(zip(phones.values(), messages, strict=True))
        while {arrived_and_visible(phone, message) for [phone, *_], message in sent} != {(1, 1)}:
            await chat.cloud.poller.return_failed()
            await chat.cloud.poller.until_idle()


async def test_a_crash_of_postgres_loses_the_webhook_and_the_sweep_sends_the_push(chat: Chat) -> None:
    chat.cloud.pg_net.pause()
    try:
        message = await chat.send()
        await chat.cloud.postgres.kill()
        await chat.cloud.postgres.start()
        async with await psycopg.AsyncConnection.connect(chat.cloud.database_url) as connection:
            queued = await connection.execute("select from net.http_request_queue")
            assert queued.rowcount == 0
    finally:
        chat.cloud.pg_net.resume()
    await chat.until_done(message, sweep=True)
    assert arrived_and_visible(chat.phone, message) == (1, 1)


FAIL_ONCE = (
    "create sequence push.failures",
    "grant usage on sequence push.failures to public",
    """create function push.fail_once() returns trigger language plpgsql as $$ begin
      if nextval('push.failures') = 1 then raise exception 'of a test' using errcode = tg_argv[0]; end if;
      return new;
    end $$""",
)


@pytest.mark.parametrize(
    ("event", "code"),
    [
        *(("update of lease_id on push.jobs", code) for code in ("40001", "40P01", "57014")),
        # record_push_results handles each other error itself.
        ("insert on push.deliveries", "57014"),
    ],
    ids=["claims: 40001", "claims: 40P01", "claims: 57014", "records: 57014"],
)
async def test_a_push_is_visible_once_after_a_deadlock_or_timeout_while_it_was_claimed_or_recorded(
    chat: Chat, event: str, code: str
) -> None:
    """The worker gets the error from the Data API. It records again at once; SQS repeats its claim."""
    for statement in FAIL_ONCE:
        await execute(chat.cloud, statement)
    try:
        fail = f"for each row execute function push.fail_once('{code}')"
        await execute(chat.cloud, f"create trigger a_failure before {event} {fail}")
        message = await chat.send()
        async with asyncio.timeout(30):
            while arrived_and_visible(chat.phone, message) != (1, 1):
                await chat.cloud.poller.return_failed()
                await chat.cloud.poller.until_idle()
        job = await chat.until_done(message)
        assert (job["outcome"], job["attempts"]) == ("accepted", 1)
        await execute(chat.cloud, "do $$ begin assert nextval('push.failures') > 2, 'nothing failed'; end $$")
    finally:
        await execute(chat.cloud, "drop function push.fail_once cascade")
        await execute(chat.cloud, "drop sequence push.failures")
    assert arrived_and_visible(chat.phone, message) == (1, 1)


# --- the worker


@pytest.mark.parametrize("accepted", [False, True], ids=["before", "after"])
async def test_the_next_lease_sends_the_push_of_a_worker_killed_before_or_after_expo_accepted(
    chat: Chat, accepted: bool
) -> None:
    expo = chat.cloud.expo
    expo.script(Hang(seconds=600, accepted=accepted))
    message = await chat.send()
    await expo.until(lambda: [request for request in expo.requests if request.fault == "hang"], seconds=30)
    await chat.cloud.functions["SendChatPush"].kill()
    await chat.sweep()
    job = await chat.cloud.explain_push(message)
    assert (job["state"], job["attempts"], len(expo.requests)) == ("leased", 1, 1)

    await chat.make_due(message)
    job = await chat.until_done(message, sweep=True)
    assert (job["outcome"], job["attempts"]) == ("accepted", 2)
    assert arrived_and_visible(chat.phone, message) == (2 if accepted else 1, 1)


@pytest.mark.parametrize(
    "lock",
    ["lock table push.jobs in exclusive mode", "lock table push.deliveries in share mode"],
    ids=["claims", "records"],
)
async def test_the_push_of_a_worker_killed_while_it_claims_or_records_is_visible_once(chat: Chat, lock: str) -> None:
    message = await chat.send(webhook_lost=True)
    async with await psycopg.AsyncConnection.connect(chat.cloud.database_url) as other:
        await other.execute(lock.encode())
        sweep = asyncio.create_task(chat.sweep())
        await _until_blocked(other)
        await chat.cloud.functions["SendChatPush"].kill()
        await sweep
    await chat.make_due(message)
    await chat.until_done(message, sweep=True)
    copies, visible = arrived_and_visible(chat.phone, message)
    assert visible == 1
    assert copies <= 2


async def _until_blocked(connection: psycopg.AsyncConnection[tuple[object, ...]]) -> None:
    """Waits until another connection waits for a lock of this one."""
    async with asyncio.timeout(60):
        while True:
            waiting = await connection.execute(
                "select from pg_stat_activity where pg_backend_pid() = any(pg_blocking_pids(pid))"
            )
            if waiting.rowcount:
                return
            await asyncio.sleep(0.05)


# --- the queue


async def test_a_record_that_is_no_message_id_becomes_a_dead_letter_and_its_batch_is_sent(chat: Chat, log: Log) -> None:
    cloud = chat.cloud
    queue = cloud.template.queues["PushQueue"]
    assert queue.redrive
    cloud.pg_net.lose(2)
    phones = await conversations(cloud, chat.tina, 2)
    messages = await insert_messages(cloud, *[(room, chat.tina.id, TEXT) for room in phones])
    bodies = [str(messages[0]), "no message id", str(messages[1])]
    async with cloud.poller.paused():
        sent = await asyncio.to_thread(
            cloud.aws.sqs.send_message_batch,
            QueueUrl=queue.url,
            Entries=[{"Id": str(number), "MessageBody": body} for number, body in enumerate(bodies)],
        )
    bad = sent["Successful"][1]["MessageId"]

    [first] = await log.until("record is neither a message id nor a wake-up")
    await cloud.poller.until_idle()
    assert (first["level"], first["sqs_message_id"]) == ("ERROR", bad)
    sent_with_it = [
        line["correlation_id"]
        for line in log.records("push attempted")
        if line["function_request_id"] == first["function_request_id"]
    ]
    assert sorted(sent_with_it) == sorted(map(str, messages))
    sent_to = zip(phones.values(), messages, strict=True)
    assert [arrived_and_visible(phone, message) for [phone, *_], message in sent_to] == [(1, 1), (1, 1)]

    for _ in range(queue.redrive.max_receive_count):
        await cloud.poller.return_failed()
        await cloud.poller.until_idle()
    assert len(log.records("record is neither a message id nor a wake-up")) == queue.redrive.max_receive_count
    assert log.metric("MalformedRecord") == queue.redrive.max_receive_count
    assert await receive(cloud, cloud.template.queues[queue.redrive.queue].url) == ["no message id"]
