"""Whatever is down, hangs or dies: the push arrives when things are back, and is visible once."""

import asyncio
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from local.providers.expo.faults import Fault, Hang, HttpError, OddAnswer, Reset, TicketCount
from tests.system.chat import TEXT, Chat, Log, got, insert_messages

# --- Expo


@pytest.mark.parametrize("accepted", [False, True])
async def test_a_push_outlives_several_failed_attempts(chat: Chat, accepted: bool) -> None:
    """Expo is down, or seems so: behind a 5xx it may have delivered."""
    for body in ("json", "html", "empty"):
        chat.cloud.expo.script(HttpError(status=503, body=body, accepted=accepted))
    chat.cloud.expo.script(HttpError(status=504, body="html", accepted=accepted))
    message = await chat.send()
    job = await chat.ended(message, sweep=True)
    assert (job["outcome"], job["attempts"]) == ("accepted", 5)
    assert got(chat.phone, message) == (5 if accepted else 1, 1)


async def test_a_429_is_tried_again_but_not_before_retry_after(chat: Chat) -> None:
    chat.cloud.expo.script(HttpError(status=429, retry_after=1))
    message = await chat.send()
    await chat.ended(message)
    refused, accepted = chat.cloud.expo.requests
    assert (refused.status, accepted.status) == (429, 200)
    assert accepted.at - refused.at >= timedelta(seconds=1)
    assert got(chat.phone, message) == (1, 1)


async def test_a_long_retry_after_is_waited_for_in_the_database(chat: Chat) -> None:
    chat.cloud.expo.script(HttpError(status=429, retry_after=600))
    begun = datetime.now(UTC)
    message = await chat.send()
    job = await chat.cloud.until_push(message, lambda job: job["state"] == "pending" and job["attempts"] == 1)
    assert datetime.fromisoformat(job["next_attempt_at"]) >= begun + timedelta(seconds=600)
    await chat.sweep()
    assert len(chat.cloud.expo.requests) == 1
    await chat.time_passes(message)
    await chat.sweep()
    assert got(chat.phone, message) == (1, 1)


@pytest.mark.parametrize(
    ("fault", "outcome", "copies"),
    [
        (Reset(accepted=False), None, 1),
        (Reset(accepted=True), None, 2),
        # Expo took the request, but its tickets cannot be told apart: sent again, it would be a second push.
        (OddAnswer(body="truncated"), "UnreadableResponse", 1),
        (OddAnswer(body="null"), "UnreadableResponse", 1),
        (TicketCount(tickets=0), "UnreadableResponse", 1),
        (TicketCount(tickets=3), "UnreadableResponse", 1),
    ],
    ids=["reset", "reset after accepting", "truncated", "null", "no ticket", "too many tickets"],
)
async def test_a_broken_answer_costs_no_push_and_shows_none_twice(
    chat: Chat, fault: Fault, outcome: str | None, copies: int
) -> None:
    chat.cloud.expo.script(fault)
    message = await chat.send()
    job = await chat.ended(message, sweep=True)
    assert (job["outcome"], job["deliveries"][0]["error"]) == ("accepted", outcome)
    assert got(chat.phone, message) == (copies, 1)


async def test_expo_hangs_longer_than_the_function_has_time(chat: Chat) -> None:
    chat.cloud.expo.script(Hang(seconds=600, accepted=True))
    message = await chat.send()
    job = await chat.ended(message, sweep=True)
    assert (job["outcome"], job["attempts"]) == ("accepted", 2)
    assert got(chat.phone, message) == (2, 1)


# --- database


async def test_webhooks_ring_while_the_data_api_is_down(chat: Chat, log: Log) -> None:
    await chat.cloud.supabase.stop()
    try:
        messages = await insert_messages(chat.cloud, *[(chat.id, chat.tina.id, TEXT)] * 3)
        await log.until("push not done, its record comes back")
        await chat.cloud.poller.until_idle()
        assert chat.cloud.expo.requests == []
    finally:
        await chat.cloud.supabase.start()
    async with asyncio.timeout(30):
        # Once is enough, unless a webhook was so late that its record came back only just now.
        while {got(chat.phone, message) for message in messages} != {(1, 1)}:
            await chat.cloud.poller.return_failed()
            await chat.cloud.poller.until_idle()


async def test_a_crash_of_postgres_loses_the_webhook_but_not_the_push(chat: Chat) -> None:
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
    await chat.ended(message, sweep=True)
    assert got(chat.phone, message) == (1, 1)


# --- the worker


@pytest.mark.parametrize("accepted", [False, True], ids=["before", "after"])
async def test_a_worker_killed_before_or_after_expo_accepted_loses_only_its_lease(chat: Chat, accepted: bool) -> None:
    expo = chat.cloud.expo
    expo.script(Hang(seconds=600, accepted=accepted))
    message = await chat.send()
    await expo.until(lambda: [request for request in expo.requests if request.fault == "hang"], seconds=30)
    await chat.cloud.functions["SendChatPush"].kill()
    await chat.sweep()
    job = await chat.cloud.explain_push(message)
    assert (job["state"], job["attempts"], len(expo.requests)) == ("leased", 1, 1)

    await chat.time_passes(message)
    job = await chat.ended(message, sweep=True)
    assert (job["outcome"], job["attempts"]) == ("accepted", 2)
    assert got(chat.phone, message) == (2 if accepted else 1, 1)


@pytest.mark.parametrize(
    "lock",
    ["lock table push.jobs in exclusive mode", "lock table push.deliveries in share mode"],
    ids=["claims", "records"],
)
async def test_a_worker_killed_while_it_claims_or_records_loses_only_its_lease(chat: Chat, lock: str) -> None:
    message = await chat.send(webhook_lost=True)
    async with await psycopg.AsyncConnection.connect(chat.cloud.database_url) as other:
        await other.execute(lock.encode())
        sweep = asyncio.create_task(chat.sweep())
        await _until_blocked(other)
        await chat.cloud.functions["SendChatPush"].kill()
        await sweep
    await chat.time_passes(message)
    await chat.ended(message, sweep=True)
    copies, visible = got(chat.phone, message)
    assert visible == 1
    assert copies <= 2


async def _until_blocked(connection: psycopg.AsyncConnection[tuple[object, ...]]) -> None:
    """Wait until somebody waits for a lock of this connection."""
    async with asyncio.timeout(60):
        while True:
            waiting = await connection.execute(
                "select from pg_stat_activity where pg_backend_pid() = any(pg_blocking_pids(pid))"
            )
            if waiting.rowcount:
                return
            await asyncio.sleep(0.05)


# --- the queue


async def test_a_record_that_is_no_message_id_becomes_a_dead_letter_and_harms_no_other(chat: Chat, log: Log) -> None:
    cloud = chat.cloud
    queue = cloud.template.queues["PushQueue"]
    assert queue.redrive
    messages = [await chat.send(webhook_lost=True), await chat.send(webhook_lost=True)]
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
        for line in log.records("push tried")
        if line["function_request_id"] == first["function_request_id"]
    ]
    assert sorted(sent_with_it) == sorted(map(str, messages))
    assert [got(chat.phone, message) for message in messages] == [(1, 1), (1, 1)]

    for _ in range(queue.redrive.max_receive_count):
        await cloud.poller.return_failed()
        await cloud.poller.until_idle()
    assert len(log.records("record is neither a message id nor a wake-up")) == queue.redrive.max_receive_count
    assert log.metric("MalformedRecord") == queue.redrive.max_receive_count
    dead = await asyncio.to_thread(
        cloud.aws.sqs.receive_message, QueueUrl=cloud.template.queues[queue.redrive.queue].url
    )
    assert [letter["Body"] for letter in dead["Messages"]] == ["no message id"]
