"""What became of accepted pushes: receipts, dead tokens, and the breaker that doubts too many of them."""

import asyncio
from typing import Any
from uuid import UUID, uuid4

import pytest

from tests.database.chat import (
    Chat,
    Connection,
    Database,
    Row,
    claim,
    claim_one,
    due_receipts,
    finish_run,
    receipt,
    record,
    record_receipts,
    refused,
    row,
    rows,
    start_chat,
    value,
    waits_for_lock,
    worker_report,
)

MINUTE = 60
HOUR = 60 * MINUTE


async def accepted(chat: Chat, devices: int = 1) -> UUID:
    """A message that Expo accepted for the guide's devices."""
    for _ in range(devices):
        await chat.device()
    message = await chat.message()
    claimed, job = await claim_one(chat.connection, message)
    await record(chat.connection, claimed, worker_report(job))
    return message


async def due(chat: Chat) -> list[Row]:
    """What is due once the receipts are."""
    await chat.pass_time(15 * MINUTE)
    return await due_receipts(chat.connection)


async def answer(chat: Chat, receipts: list[Row], run: UUID | None = None) -> tuple[Row, Row]:
    """One run records receipts; its counts, and how it ended."""
    run = run or uuid4()
    counts = await record_receipts(chat.connection, run, *receipts)
    return counts, await finish_run(chat.connection, run)


async def deliveries(chat: Chat, message: UUID) -> list[tuple[str, str | None]]:
    found = await rows(
        chat.connection,
        "select status, error from push.deliveries where %s = any(message_ids) order by status, created_at",
        message,
    )
    return [(delivery["status"], delivery["error"]) for delivery in found]


async def active(chat: Chat) -> int:
    number = await value(chat.connection, "select count(*) from public.user_devices where is_active")
    assert isinstance(number, int)
    return number


# Claims ----------------------------------------------------------------------------------------


async def test_a_receipt_is_due_15_minutes_after_the_send(chat: Chat) -> None:
    message = await accepted(chat)
    assert await due_receipts(chat.connection) == []
    await chat.pass_time(14 * MINUTE)
    assert await due_receipts(chat.connection) == []
    await chat.pass_time(1 * MINUTE)
    [claimed] = await due_receipts(chat.connection)
    assert claimed["message_id"] == str(message)
    assert claimed["ticket_id"].startswith("ticket of ")


async def test_a_receipt_without_a_report_is_due_again_after_its_lease(chat: Chat) -> None:
    """A worker that died, or Expo that did not answer."""
    await accepted(chat)
    first = await due(chat)
    assert await due_receipts(chat.connection) == []
    await chat.pass_time(2 * MINUTE)
    assert await due_receipts(chat.connection) == first


async def test_a_claim_of_receipts_has_at_most_1000_receipts(chat: Chat) -> None:
    message = await accepted(chat)
    await chat.connection.execute(
        "insert into push.deliveries (job_id, device_id, kind, digest, badge, push_token, status, ticket_id, sent_at)"
        " select (job).id, gen_random_uuid(), 'alert', '', 1, '', 'accepted', 't' || n, now()"
        " from push.decision_of(%s),"
        " generate_series(1, 1200) n",
        (message,),
    )
    await chat.pass_time(15 * MINUTE)
    assert [len(await due_receipts(chat.connection, limit=5000)) for _ in range(3)] == [1000, 201, 0]


async def test_parallel_workers_claim_every_receipt_exactly_once(database: Database) -> None:
    chat = await start_chat(await database.connect())
    message = await accepted(chat)
    await chat.connection.execute(
        "insert into push.deliveries (job_id, device_id, kind, digest, badge, push_token, status, ticket_id, sent_at)"
        " select (job).id, gen_random_uuid(), 'alert', '', 1, '', 'accepted', 't' || n, now() - interval '1 hour'"
        " from push.decision_of(%s),"
        " generate_series(1, 300) n",
        (message,),
    )

    async def work(connection: Connection) -> list[str]:
        mine: list[str] = []
        while claimed := await due_receipts(connection, limit=7):
            mine += [one["ticket_id"] for one in claimed]
        return mine

    claimed = await asyncio.gather(*[work(await database.connect()) for _ in range(4)])
    everything = [ticket for mine in claimed for ticket in mine]
    assert len(everything) == len(set(everything)) == 300
    assert sum(bool(mine) for mine in claimed) > 1, "the workers did not run in parallel"


@pytest.mark.parametrize("outcome", ["maybe_sent", "retry", "MessageTooBig", "no ticket"])
async def test_only_a_delivery_with_a_ticket_waits_for_a_receipt(chat: Chat, outcome: str) -> None:
    await chat.device()
    claimed, job = await claim_one(chat.connection, await chat.message())
    report = worker_report(job, "accepted" if outcome == "no ticket" else outcome)
    if outcome == "no ticket":
        report["deliveries"][0]["ticket_id"] = None
    await record(chat.connection, claimed, report)
    assert await due(chat) == []


# States ----------------------------------------------------------------------------------------


async def test_a_receipt_makes_an_accepted_delivery_handed_over(chat: Chat) -> None:
    message = await accepted(chat, devices=2)
    counts, finished = await answer(chat, [receipt(one) for one in await due(chat)])
    assert counts == {"handed_over": 2}
    assert finished == {"deactivated": 0, "held": 0}
    assert await deliveries(chat, message) == [("handed_over", None)] * 2
    await chat.pass_time(48 * HOUR)
    assert await due_receipts(chat.connection) == []


async def test_a_missing_receipt_is_requested_at_growing_intervals_and_lost_after_a_day(chat: Chat) -> None:
    """15 minutes after the send, 30, an hour, two, … and last when Expo clears it."""
    message = await accepted(chat)
    hours: list[float] = []
    counts: Row = {"missing": 1}
    while counts == {"missing": 1}:
        age, wait = (
            await row(
                chat.connection,
                "select extract(epoch from receipt_due_at - sent_at)::float as age,"
                " extract(epoch from receipt_due_at - clock_timestamp())::float as wait from push.deliveries",
            )
        ).values()
        hours.append(round(age / HOUR, 2))
        await chat.pass_time(max(wait, 0))
        counts, _ = await answer(chat, [receipt(one, "missing") for one in await due_receipts(chat.connection)])
    assert hours == [0.25, 0.5, 1, 2, 4, 8, 16, 24]
    assert counts == {"receipt_lost": 1}
    assert await deliveries(chat, message) == [("receipt_lost", None)]
    assert (await chat.job(message))["state"] == "done"


async def test_a_receipt_that_comes_late_is_recorded(chat: Chat) -> None:
    message = await accepted(chat)
    await answer(chat, [receipt(one, "missing") for one in await due(chat)])
    await chat.pass_time(HOUR)
    counts, _ = await answer(chat, [receipt(one) for one in await due_receipts(chat.connection)])
    assert counts == {"handed_over": 1}
    assert await deliveries(chat, message) == [("handed_over", None)]


@pytest.mark.parametrize("error", ["MessageTooBig", "DeveloperError", "UnknownError"])
async def test_a_receipt_with_a_permanent_error_fails_the_delivery_and_keeps_the_device(chat: Chat, error: str) -> None:
    message = await accepted(chat, devices=2)
    first, second = await due(chat)
    counts, finished = await answer(chat, [receipt(first, error), receipt(second)])
    assert counts == {"failed": 1, "handed_over": 1}
    assert finished == {"deactivated": 0, "held": 0}
    assert await deliveries(chat, message) == [("failed", error), ("handed_over", None)]
    assert await active(chat) == 2
    await chat.pass_time(MINUTE)
    assert (await claim(chat.connection))["jobs"] == []


async def test_a_repeated_receipt_is_recorded_once(chat: Chat) -> None:
    message = await accepted(chat)
    [one] = await due(chat)
    assert (await answer(chat, [receipt(one), receipt(one, "MessageTooBig")]))[0] == {"handed_over": 1}
    assert (await answer(chat, [receipt(one, "MessageRateExceeded")]))[0] == {}
    assert await deliveries(chat, message) == [("handed_over", None)]


@pytest.mark.parametrize("bad", [{"status": "unheard of"}, {"status": None}], ids=str)
async def test_a_receipt_that_cannot_be_recorded_does_not_prevent_others(chat: Chat, bad: Row) -> None:
    bad_message, good_message = await accepted(chat), await accepted(chat, devices=0)
    receipts = [receipt(one) | (bad if one["message_id"] == str(bad_message) else {}) for one in await due(chat)]
    counts, _ = await answer(chat, receipts)
    assert counts == {"handed_over": 1, "unrecorded": 1}
    assert await deliveries(chat, good_message) == [("handed_over", None)]
    await chat.pass_time(2 * MINUTE)
    assert [one["message_id"] for one in await due_receipts(chat.connection)] == [str(bad_message)], "asked for again"


async def test_a_receipt_of_an_erased_or_unknown_delivery_is_ignored(chat: Chat) -> None:
    erased, kept = await accepted(chat), await accepted(chat, devices=0)
    receipts = [receipt(one) for one in await due(chat)]
    await chat.connection.execute("delete from push.deliveries where %s = any(message_ids)", (erased,))
    unknown = {**receipts[0], "delivery_id": 0}
    assert (await answer(chat, [unknown, *receipts]))[0] == {"handed_over": 1}
    assert await deliveries(chat, kept) == [("handed_over", None)]


async def test_recording_a_receipt_waits_for_a_worker_that_reports_the_same_message(database: Database) -> None:
    """Both lock the job first, or they would wait for each other."""
    chat = await start_chat(await database.connect())
    await accepted(chat)
    [one] = await due(chat)
    worker, other = await database.connect(), await database.connect()
    async with other.transaction():
        await rows(other, "select from push.jobs for update")
        recording = asyncio.create_task(record_receipts(worker, uuid4(), receipt(one, "MessageRateExceeded")))
        await waits_for_lock(chat.connection, worker)
        assert len(await rows(other, "select from push.deliveries for update nowait")) == 1
    assert await recording == {"retry": 1}


# Sent again ------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", ["MessageRateExceeded", "ExpoError"])
async def test_a_receipt_with_a_temporary_error_sends_again_to_that_device_only(chat: Chat, error: str) -> None:
    message = await accepted(chat, devices=2)
    first, second = await due(chat)
    counts, _ = await answer(chat, [receipt(first, error), receipt(second)])
    assert counts == {"retry": 1, "handed_over": 1}
    assert (await chat.job(message))["state"] == "pending"
    assert (await claim(chat.connection, message))["not_due"] == [str(message)], "no backoff"
    await chat.pass_time(MINUTE)
    claimed, job = await claim_one(chat.connection, message)
    assert [device["delivery_id"] for device in job["devices"]] == [first["delivery_id"]]
    await record(chat.connection, claimed, worker_report(job))
    assert await deliveries(chat, message) == [("accepted", None), ("handed_over", None)]


async def test_receipts_with_temporary_errors_send_a_bounded_number_of_times(chat: Chat) -> None:
    await chat.connection.execute("update push.settings set max_attempts_per_device = 3")
    message = await accepted(chat)
    attempts = 1
    while (counts := (await answer(chat, [receipt(one, "ExpoError") for one in await due(chat)]))[0]) == {"retry": 1}:
        await chat.pass_time(MINUTE)
        claimed, job = await claim_one(chat.connection, message)
        await record(chat.connection, claimed, worker_report(job))
        attempts += 1
    assert (counts, attempts) == ({"failed": 1}, 3)
    assert await deliveries(chat, message) == [("failed", "ExpoError")]
    assert (await chat.job(message))["state"] == "done"


async def test_a_push_is_not_sent_again_after_the_time_to_live_of_its_message(chat: Chat) -> None:
    message = await accepted(chat)
    await answer(chat, [receipt(one, "ExpoError") for one in await due(chat)])
    await chat.pass_time(24 * HOUR)
    await claim(chat.connection)
    job = await chat.job(message)
    assert (job["state"], job["outcome"], job["reason"]) == ("done", "failed", "expired")


async def test_a_message_that_was_read_after_a_receipt_with_an_error_is_not_sent_again(chat: Chat) -> None:
    message = await accepted(chat)
    await answer(chat, [receipt(one, "ExpoError") for one in await due(chat)])
    await chat.read()
    await chat.pass_time(MINUTE)
    [job] = (await claim(chat.connection))["jobs"]
    assert [device["kind"] for device in job["devices"]] == ["badge"]
    assert (await chat.job(message))["reason"] == "read"


async def test_the_receipt_of_an_older_send_is_ignored(chat: Chat) -> None:
    message = await accepted(chat)
    [old] = await due(chat)
    await answer(chat, [receipt(old, "ExpoError")])
    await chat.pass_time(MINUTE)
    claimed, job = await claim_one(chat.connection, message)
    report = worker_report(job)
    report["deliveries"][0]["ticket_id"] = "the second ticket"
    await record(chat.connection, claimed, report)
    assert (await answer(chat, [receipt(old, "DeviceNotRegistered")])) == ({}, {"deactivated": 0, "held": 0})
    assert await deliveries(chat, message) == [("accepted", None)]
    [new] = await due(chat)
    assert new["ticket_id"] == "the second ticket"


@pytest.mark.parametrize("error", ["InvalidCredentials", "MismatchSenderId"])
async def test_a_receipt_with_a_configuration_fault_keeps_the_device_and_uses_up_no_attempt(
    chat: Chat, error: str
) -> None:
    await chat.connection.execute("update push.settings set max_attempts_per_device = 1, max_attempts = 1")
    message = await accepted(chat, devices=2)
    for _ in range(3):
        counts, finished = await answer(chat, [receipt(one, error) for one in await due(chat)])
        assert counts == {"configuration_fault": 2}
        assert finished == {"deactivated": 0, "held": 0}
        job = await chat.job(message)
        attempts = await rows(chat.connection, "select attempts from push.deliveries")
        assert (job["state"], job["attempts"], attempts) == ("pending", 0, [{"attempts": 0}] * 2)
        await chat.pass_time(HOUR)
        claimed, notification = await claim_one(chat.connection, message)
        await record(chat.connection, claimed, worker_report(notification))
    assert await active(chat) == 2
    counts, _ = await answer(chat, [receipt(one) for one in await due(chat)])
    assert counts == {"handed_over": 2}


# Dead tokens -----------------------------------------------------------------------------------


async def test_a_receipt_with_a_dead_token_deactivates_its_device_and_no_later_push_goes_there(chat: Chat) -> None:
    message = await accepted(chat, devices=2)
    dead, alive = await due(chat)
    counts, finished = await answer(chat, [receipt(dead, "DeviceNotRegistered"), receipt(alive)])
    assert counts == {"failed": 1, "handed_over": 1}
    assert finished == {"deactivated": 1, "held": 0}
    assert await deliveries(chat, message) == [("failed", "DeviceNotRegistered"), ("handed_over", None)]
    _, job = await claim_one(chat.connection, await chat.message())
    alive_id = await value(
        chat.connection, "select device_id::text from push.deliveries where id = %s", alive["delivery_id"]
    )
    assert [device["device_id"] for device in job["devices"]] == [alive_id]


async def test_a_receipt_for_an_old_token_keeps_the_device_active(chat: Chat) -> None:
    await accepted(chat)
    dead = await due(chat)
    await chat.connection.execute("update public.user_devices set push_token = 'ExponentPushToken[new]'")
    _, finished = await answer(chat, [receipt(one, "DeviceNotRegistered") for one in dead])
    assert (finished["deactivated"], await active(chat)) == (0, 1)


async def test_a_receipt_keeps_a_device_active_that_registered_again_after_the_send(chat: Chat) -> None:
    """Even if it did so before Expo's answer was recorded."""
    await chat.device()
    claimed, job = await claim_one(chat.connection, await chat.message())
    await chat.connection.execute("update public.user_devices set last_seen_at = clock_timestamp()")
    await record(chat.connection, claimed, worker_report(job))
    _, finished = await answer(chat, [receipt(one, "DeviceNotRegistered") for one in await due(chat)])
    assert (finished["deactivated"], await active(chat)) == (0, 1)


async def test_a_receipt_of_the_former_account_keeps_the_device_of_the_new_account_active(chat: Chat) -> None:
    await accepted(chat)
    token = await value(chat.connection, "select push_token from public.user_devices")
    await chat.device(user_id=chat.tourist, push_token=token)
    _, finished = await answer(chat, [receipt(one, "DeviceNotRegistered") for one in await due(chat)])
    assert (finished["deactivated"], await active(chat)) == (0, 1)


# The breaker -----------------------------------------------------------------------------------


async def run_with(chat: Chat, dead: int, alive: int, messages: int = 1) -> tuple[UUID, Row]:
    """A run whose receipts, of so many messages, call so many devices dead; its id, and how it ended."""
    await chat.connection.execute("update push.settings set device_limit = 1000, recipient_share = 1")
    for number in range(dead):
        await chat.device(device_id=f"dead {number}")
    for number in range(alive):
        await chat.device(device_id=f"alive {number}")
    for _ in range(messages):
        await accepted(chat, devices=0)
    names = await rows(
        chat.connection,
        "select delivery.id, device.device_id from push.deliveries delivery"
        " join public.user_devices device on device.id = delivery.device_id",
    )
    name_of = {delivery["id"]: delivery["device_id"] for delivery in names}
    run = uuid4()
    receipts = [
        receipt(one, "DeviceNotRegistered" if name_of[one["delivery_id"]].startswith("dead") else "handed_over")
        for one in await due(chat)
    ]
    return run, (await answer(chat, receipts, run))[1]


@pytest.mark.parametrize(
    ("dead", "alive", "held"),
    [(20, 79, 20), (20, 80, 0), (19, 0, 0), (20, 0, 20)],
    ids=["a fifth and more", "a fifth", "too few devices", "all"],
)
async def test_the_breaker_holds_a_suspicious_share_of_at_least_20_devices(
    chat: Chat, dead: int, alive: int, held: int
) -> None:
    _, finished = await run_with(chat, dead, alive)
    assert finished == {"deactivated": dead - held, "held": held}
    assert await active(chat) == alive + held


async def test_the_breaker_compares_receipts_with_receipts(chat: Chat) -> None:
    """Three messages to each device are three receipts; the share of the dead is the same."""
    _, finished = await run_with(chat, dead=20, alive=60, messages=3)
    assert finished == {"deactivated": 0, "held": 20}


async def test_the_limits_of_the_breaker_are_settings(chat: Chat) -> None:
    await chat.connection.execute("update push.settings set breaker_devices = 2, breaker_share = 0.5")
    assert (await run_with(chat, dead=2, alive=1))[1] == {"deactivated": 0, "held": 2}


async def test_the_breaker_counts_a_run_of_several_claims_as_one(chat: Chat) -> None:
    for _ in range(20):
        await chat.device()
    await accepted(chat, devices=0)
    dead, run = await due(chat), uuid4()
    for one in dead:
        await record_receipts(chat.connection, run, receipt(one, "DeviceNotRegistered"))
    assert await finish_run(chat.connection, run) == {"deactivated": 0, "held": 20}
    assert await finish_run(chat.connection, run) == {"deactivated": 0, "held": 0}, "it is held but once"


@pytest.mark.parametrize(("switch_off", "left", "state"), [(True, 0, "confirmed"), (False, 20, "rejected")])
async def test_an_operator_confirms_or_rejects_what_the_breaker_held(
    chat: Chat, switch_off: bool, left: int, state: str
) -> None:
    run, _ = await run_with(chat, dead=20, alive=0)
    decided = await value(chat.connection, "select push.review_held_deactivations(%s, %s)", run, switch_off)
    assert (decided, await active(chat)) == (20 - left, left)
    assert await value(chat.connection, "select state from push.receipt_runs where id = %s", run) == state
    async with refused(chat.connection, "P0002"):
        await value(chat.connection, "select push.review_held_deactivations(%s, %s)", run, switch_off)


async def test_a_confirmed_deactivation_spares_a_device_that_registered_meanwhile(chat: Chat) -> None:
    run, _ = await run_with(chat, dead=20, alive=0)
    await chat.connection.execute(
        "update public.user_devices set last_seen_at = clock_timestamp() where device_id = 'dead 7'"
    )
    assert await value(chat.connection, "select push.review_held_deactivations(%s, true)", run) == 19
    assert (await row(chat.connection, "select device_id from public.user_devices where is_active")) == {
        "device_id": "dead 7"
    }


async def test_a_later_run_finishes_the_run_of_a_worker_that_died(chat: Chat) -> None:
    await accepted(chat)
    run = uuid4()
    await record_receipts(chat.connection, run, *[receipt(one, "DeviceNotRegistered") for one in await due(chat)])
    assert await finish_run(chat.connection, uuid4()) == {"deactivated": 0, "held": 0}, "it may still be at work"
    await chat.pass_time(HOUR)
    assert await finish_run(chat.connection, uuid4()) == {"deactivated": 1, "held": 0}


async def test_a_thousand_receipts_are_recorded_in_one_call(chat: Chat) -> None:
    message = await accepted(chat)
    await chat.connection.execute(
        "insert into push.deliveries (job_id, device_id, kind, digest, badge, push_token, status, ticket_id, sent_at)"
        " select (job).id, gen_random_uuid(), 'alert', '', 1, '', 'accepted', 't' || n, now()"
        " from push.decision_of(%s),"
        " generate_series(1, 999) n",
        (message,),
    )
    claimed = await due(chat)
    errors: list[Any] = ["handed_over", "missing", "DeviceNotRegistered", "MessageTooBig"]
    receipts = [receipt(one, errors[number % 4]) for number, one in enumerate(claimed)]
    counts = await record_receipts(chat.connection, uuid4(), *receipts)
    assert counts == {"handed_over": 250, "missing": 250, "failed": 500}
