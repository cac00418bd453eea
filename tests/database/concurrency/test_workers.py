"""Workers that claim and report at the same time."""

import asyncio
from datetime import timedelta
from uuid import UUID, uuid4

from tests.database.chat import (
    Chat,
    Database,
    claim,
    finish_run,
    record,
    rows,
    value,
    waits_for_lock,
    worker_report,
)


async def test_parallel_workers_claim_every_job_exactly_once(chat: Chat, database: Database) -> None:
    await chat.device()
    await chat.connection.execute("update push.settings set recipient_share = 1")
    for _ in range(400):
        await chat.separate_message()

    async def work() -> list[UUID]:
        connection = await database.connect()
        mine: list[UUID] = []
        while jobs := (await claim(connection, limit=7))["jobs"]:
            mine += [UUID(job["message_id"]) for job in jobs]
        return mine

    claimed = await asyncio.gather(*(work() for _ in range(8)))
    everything = [message for mine in claimed for message in mine]
    assert len(everything) == len(set(everything)) == 400
    assert await value(chat.connection, "select max(attempts) from push.jobs") == 1
    assert sum(bool(mine) for mine in claimed) > 1, "the workers did not run in parallel"


async def test_webhook_and_sweep_send_a_message_once(chat: Chat, database: Database) -> None:
    """The worker with the lease sends. The other one skips the job and does not wait."""
    await chat.device()
    message = await chat.message()
    other = await database.connect()
    async with chat.connection.transaction():
        assert len((await claim(chat.connection, message))["jobs"]) == 1
        assert (await claim(other, message))["not_due"] == [str(message)]
        assert (await claim(other))["jobs"] == []


async def test_a_worker_does_not_wait_for_the_locked_row_of_a_dead_device(chat: Chat, database: Database) -> None:
    device = await chat.device()
    claimed = await claim(chat.connection, await chat.message())
    [job] = claimed["jobs"]
    worker = await database.connect()
    await worker.execute("set lock_timeout = '1s'")
    async with chat.connection.transaction():
        await chat.connection.execute("update public.user_devices set app_version = '2' where id = %s", (device["id"],))
        await record(worker, claimed, worker_report(job, "DeviceNotRegistered"))
        assert await finish_run(worker, uuid4()) == {"deactivated": 0, "held": 0}


async def test_workers_that_claim_at_once_reserve_one_slot_after_the_other(chat: Chat, database: Database) -> None:
    await chat.device()
    messages = [await chat.separate_message() for _ in range(3)]
    await chat.connection.execute("update push.settings set notifications_per_second = 25")
    await chat.connection.execute("update push.rate_limiter set free_at = clock_timestamp() + interval '1 hour'")
    before = await value(chat.connection, "select free_at from push.rate_limiter")
    workers = [await database.connect() for _ in messages]
    await asyncio.gather(*(claim(worker, message) for worker, message in zip(workers, messages, strict=True)))
    assert await value(chat.connection, "select free_at from push.rate_limiter") - before == timedelta(seconds=3 / 25)


async def test_the_report_of_a_worker_locks_its_jobs_in_one_order(chat: Chat, database: Database) -> None:
    """Otherwise two workers that report the same messages would wait for each other."""
    await chat.device()
    messages = [await chat.separate_message() for _ in range(2)]
    low, high = sorted([await chat.job(message) for message in messages], key=lambda job: job["room_id"])
    claimed = await claim(chat.connection, *messages)
    reports = [worker_report(job) for job in claimed["jobs"]]
    reports.sort(key=lambda report: report["job_id"] == low["id"])
    worker, other = await database.connect(), await database.connect()
    lock = "select from push.jobs where id = %s for update nowait"
    async with other.transaction():
        await rows(other, lock, low["id"])
        reporting = asyncio.create_task(record(worker, claimed, *reports))
        await waits_for_lock(chat.connection, worker)
        assert len(await rows(chat.connection, lock, high["id"])) == 1, "taken before the lower one"
    await reporting
    assert {(await chat.job(message))["outcome"] for message in messages} == {"accepted"}


async def test_a_claim_and_a_report_lock_the_states_of_devices_in_one_order(chat: Chat, database: Database) -> None:
    """Both write what the devices of the recipient were told, for different conversations."""
    low, high = sorted([await chat.device(), await chat.device()], key=lambda device: str(device["id"]))
    # The device that was seen last is planned first.
    await chat.connection.execute("update public.user_devices set last_seen_at = now() where id = %s", (high["id"],))
    await chat.connection.execute(
        "update public.user_devices set last_seen_at = now() - interval '1 minute' where id = %s", (low["id"],)
    )
    await chat.separate_message()
    claimed = await claim(chat.connection)
    new = await chat.separate_message()
    reporter, claimer, other = [await database.connect() for _ in range(3)]
    lock = "select from push.device_states where device_id = %s for update"
    async with other.transaction():
        assert len(await rows(other, lock, low["id"])) == 1
        reporting = asyncio.create_task(record(reporter, claimed, *map(worker_report, claimed["jobs"])))
        await waits_for_lock(chat.connection, reporter)
        claiming = asyncio.create_task(claim(claimer, new))
        await waits_for_lock(chat.connection, claimer)
    await reporting
    assert len((await claiming)["jobs"]) == 1


async def test_a_push_job_is_stored_with_its_message_or_not_at_all(chat: Chat, database: Database) -> None:
    other = await database.connect()
    async with chat.connection.transaction(force_rollback=True):
        message = await chat.message()
        assert (await chat.job(message))["recipient_id"] == chat.guide
        assert (await claim(other, message))["unknown"] == [str(message)]
    assert await rows(chat.connection, "select * from push.jobs") == []
