"""A push that is due later is sent then by a wake-up of its own. No schedule and no sweep runs in these tests."""

from datetime import timedelta

import pytest

from local.providers.expo.faults import Fault, HttpError, Reset
from tests.system.chat import TEXT, Chat, Log, arrived_and_visible, delayed, execute, insert_messages


@pytest.mark.parametrize("fault", [HttpError(status=503), Reset()], ids=["503", "reset"])
async def test_a_push_that_expo_did_not_answer_is_sent_again_by_its_own_wake_up(chat: Chat, fault: Fault) -> None:
    await execute(chat.cloud, "update push.settings set unanswered_retry_delays = default")
    chat.cloud.expo.script(fault)
    message = await chat.send()
    job = await chat.until_done(message)
    assert (job["outcome"], job["attempts"], arrived_and_visible(chat.phone, message)) == ("accepted", 2, (1, 1))


async def test_a_push_that_was_deferred_for_presence_wakes_itself_when_the_heartbeat_is_stale(chat: Chat) -> None:
    await execute(chat.cloud, "update push.settings set presence_fresh_for = '5 seconds'")
    await chat.gus.look_at(chat.id)
    message = await chat.send()
    job = await chat.cloud.until_push(message, lambda job: job["reason"] == "viewing" or job["state"] == "done")
    assert job["state"] == "pending"
    assert (await chat.until_done(message))["outcome"] == "accepted"
    assert arrived_and_visible(chat.phone, message) == (1, 1)


async def test_a_sweep_wakes_the_next_one_for_a_push_that_no_worker_looked_ahead_to(chat: Chat) -> None:
    message = await chat.send(webhook_lost=True)
    # As after a claim that deferred it.
    await execute(
        chat.cloud,
        "insert into push.decisions (message_id, job_id) select %s, (job).id from push.decision_of(%s)",
        message,
        message,
    )
    await execute(
        chat.cloud,
        "update push.jobs set next_attempt_at = clock_timestamp() + %s"
        " where id = (select (job).id from push.decision_of(%s))",
        timedelta(seconds=5),
        message,
    )
    await chat.sweep()
    assert (await chat.cloud.explain_push(message))["state"] == "pending"
    assert (await chat.until_done(message))["outcome"] == "accepted"


async def test_a_storm_of_deferred_messages_makes_few_wake_ups(chat: Chat, log: Log) -> None:
    """200 messages to a recipient who looks at the conversation: 20 invocations and more defer them."""
    await execute(chat.cloud, "update push.settings set presence_fresh_for = '15 seconds'")
    await chat.gus.look_at(chat.id)
    messages = await insert_messages(chat.cloud, *[(chat.id, chat.tina.id, TEXT)] * 200)
    for message in messages:
        await chat.cloud.until_push(message, lambda job: job["reason"] == "viewing" or job["state"] == "done")
    assert len(log.records("push deferred: explain_push gives the reason")) >= 200
    assert await delayed(chat.cloud) <= 3
    await chat.gus.read(chat.id)
