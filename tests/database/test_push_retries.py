"""When a device is sent to again."""

from uuid import UUID, uuid4

import pytest

from tests.database.chat import (
    Chat,
    claim_one,
    delivery_ids,
    explain,
    finish_run,
    is_active,
    record,
    value,
    worker_report,
)


async def seconds_to_next_attempt(chat: Chat, message: UUID) -> float:
    """From now to the next attempt."""
    seconds = await value(
        chat.connection,
        "select extract(epoch from (job).next_attempt_at - clock_timestamp())::float8"
        " from push.decision_of(%s) where (job).state = 'pending'",
        message,
    )
    assert isinstance(seconds, float)
    return seconds


async def test_the_retry_delay_doubles_up_to_a_cap(chat: Chat) -> None:
    """From 1 s to 15 min, each up to 15 % shorter."""
    await chat.device()
    message = await chat.message()
    for attempt in range(1, 13):
        claimed, job = await claim_one(chat.connection, message)
        await record(chat.connection, claimed, worker_report(job, "retry"))
        base = min(2 ** (attempt - 1), 900)
        wait = await seconds_to_next_attempt(chat, message)
        assert base * 0.85 - 0.5 < wait <= base
        await chat.pass_time(wait + 0.1)


async def test_retry_delays_have_jitter_and_never_overflow(chat: Chat) -> None:
    delivery = (
        "jsonb_populate_record(null::push.deliveries, jsonb_build_object('status', 'retry', 'attempts', %s::int))"
    )
    wait = f"extract(epoch from push.retry_at({delivery}, false) - clock_timestamp())::float8"
    waits = await value(chat.connection, f"select array_agg({wait}) from generate_series(1, 200)", 1)
    assert 0.84 <= min(waits) < 0.89 < 0.96 < max(waits) <= 1
    assert 764.9 <= await value(chat.connection, f"select {wait}", 2147483647) <= 900


@pytest.mark.parametrize(("retry_after", "at_least", "at_most"), [(60, 59, 60), (0.5, 0.7, 1)])
async def test_retry_after_is_a_lower_bound_of_the_delay(
    chat: Chat, retry_after: float, at_least: float, at_most: float
) -> None:
    await chat.device()
    message = await chat.message()
    claimed, job = await claim_one(chat.connection, message)
    await record(chat.connection, claimed, worker_report(job, "retry", retry_after_seconds=retry_after))
    assert at_least < await seconds_to_next_attempt(chat, message) <= at_most


async def test_a_configuration_fault_counts_no_attempt_and_keeps_devices(chat: Chat) -> None:
    device = await chat.device()
    message = await chat.message()
    for _ in range(3):
        claimed, job = await claim_one(chat.connection, message)
        await record(chat.connection, claimed, worker_report(job, "configuration_fault"))
        assert (await chat.job(message))["attempts"] == 0
        await chat.pass_time(300)
    assert await finish_run(chat.connection, uuid4()) == {"deactivated": 0, "held": 0}
    assert await is_active(chat, device)


async def test_the_delay_after_a_configuration_fault_doubles_from_a_minute_to_an_hour(chat: Chat) -> None:
    await chat.device()
    message = await chat.message()
    for times in range(9):
        claimed, job = await claim_one(chat.connection, message)
        await record(chat.connection, claimed, worker_report(job, "configuration_fault"))
        base = min(60 * 2**times, 3600)
        wait = await seconds_to_next_attempt(chat, message)
        assert base * 0.85 - 1 < wait <= base
        await chat.pass_time(wait + 0.1)
    assert (await chat.job(message))["attempts"] == 0


async def test_each_device_has_the_delay_of_its_own_error(chat: Chat) -> None:
    """A device with wrong credentials waits longer than one with a temporary error."""
    await chat.device()
    await chat.device(platform="android")
    message = await chat.message()
    claimed, job = await claim_one(chat.connection, message)
    await record(chat.connection, claimed, worker_report(job, "configuration_fault", "retry"))
    await chat.pass_time(6)
    claimed, again = await claim_one(chat.connection, message)
    assert delivery_ids(again) == delivery_ids(job)[1:]
    await record(chat.connection, claimed, worker_report(again))
    assert 40 < await seconds_to_next_attempt(chat, message) <= 60


@pytest.mark.parametrize("answer", ["retry", "maybe_sent", "configuration_fault"])
async def test_devices_that_wait_for_the_same_reason_are_sent_to_in_one_claim(chat: Chat, answer: str) -> None:
    for _ in range(5):
        await chat.device()
    message = await chat.message()
    claimed, job = await claim_one(chat.connection, message)
    await record(chat.connection, claimed, worker_report(job, *[answer] * 5))
    await chat.pass_time(await seconds_to_next_attempt(chat, message) + 0.01)
    assert len((await claim_one(chat.connection, message))[1]["devices"]) == 5


async def test_an_unanswered_push_is_sent_four_times_within_an_hour_then_ends(chat: Chat) -> None:
    """Each time may have reached the phone: 1 s, 1 min, 50 min apart."""
    await chat.device()
    message = await chat.message()
    waits = []
    for _ in range(3):
        claimed, job = await claim_one(chat.connection, message)
        await record(chat.connection, claimed, worker_report(job, "maybe_sent"))
        waits.append(await seconds_to_next_attempt(chat, message))
        await chat.pass_time(waits[-1] + 0.1)
    for wait, longest in zip(waits, (1, 60, 3000), strict=True):
        assert longest * 0.85 - 0.5 < wait <= longest
    claimed, job = await claim_one(chat.connection, message)
    await record(chat.connection, claimed, worker_report(job, "maybe_sent"))
    job = await chat.job(message)
    assert (job["state"], job["outcome"], job["reason"]) == ("done", "maybe_sent", "unanswered")
    assert "sent 4 times without a readable answer" in (await explain(chat.connection, message))["explanation"]


async def test_another_token_resets_the_count_of_unanswered_pushes(chat: Chat) -> None:
    await chat.device()
    await chat.connection.execute("update push.settings set unanswered_retry_delays = '{1 minute}'")
    message = await chat.message()
    for token in ("first", "second"):
        await chat.connection.execute(f"update public.user_devices set push_token = 'ExponentPushToken[{token}]'")
        claimed, job = await claim_one(chat.connection, message)
        await record(chat.connection, claimed, worker_report(job, "maybe_sent"))
        await chat.pass_time(400)
    assert (await chat.job(message))["state"] == "pending"
