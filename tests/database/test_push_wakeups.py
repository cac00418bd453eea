"""When workers wake sweeps for jobs that become due."""

from uuid import UUID

from tests.database.chat import Chat, claim, value

WITHIN, SPACING = 20, 2


async def due_in(chat: Chat, *seconds: float, is_retry: bool = True) -> list[UUID]:
    """Stores jobs that are due in so many seconds. Returns their message ids."""
    messages = []
    for wait in seconds:
        message = await chat.separate_message()
        messages.append(message)
        await chat.connection.execute(
            "update push.jobs set is_retry = %s, next_attempt_at = clock_timestamp() + %s * interval '1 second'"
            " where id = (select (job).id from push.decision_of(%s))",
            (is_retry, wait, message),
        )
    return messages


async def plan(chat: Chat, spacing: float = SPACING) -> list[int]:
    """The delays of the wake-ups that a worker has to send now."""
    delays = await value(chat.connection, "select public.plan_wakeups(%s, %s)", WITHIN, spacing)
    assert isinstance(delays, list)
    return delays


async def test_a_sweep_is_planned_within_a_second_after_a_job_is_due(chat: Chat) -> None:
    await due_in(chat, 0.9, 6.5)
    await due_in(chat, 12.2, is_retry=False)
    assert await plan(chat) == [1, 7, 13]


async def test_a_sweep_is_planned_for_the_end_of_a_lease(chat: Chat) -> None:
    await chat.device()
    await chat.connection.execute("update push.settings set lease_for = '9.5 seconds'")
    await claim(chat.connection, await chat.message())
    assert await plan(chat) == [10]


async def test_no_sweep_is_planned_for_what_the_schedule_finds_in_time(chat: Chat) -> None:
    await due_in(chat, 21, 3600)
    assert await plan(chat) == []


async def test_a_job_that_became_due_while_its_worker_worked_is_swept_after_a_second(chat: Chat) -> None:
    await due_in(chat, -2)
    assert await plan(chat) == [1]


async def test_workers_plan_one_sweep_for_jobs_that_are_due_together(chat: Chat) -> None:
    await due_in(chat, 3.3, 3.4, 3.5)
    assert await plan(chat) == [4]
    await due_in(chat, 3.6)
    assert await plan(chat) == []


async def test_a_storm_of_deferred_jobs_plans_few_sweeps(chat: Chat) -> None:
    """Two in SPACING seconds, however many workers leave however many jobs."""
    await due_in(chat, *(number / 10 for number in range(1, 200)))
    delays = [delay for _ in range(5) for delay in await plan(chat)]
    assert len(delays) <= WITHIN + 1
    assert all(delays.count(delay) == 1 for delay in delays)


async def test_fewer_sweeps_are_planned_with_a_longer_spacing(chat: Chat) -> None:
    await due_in(chat, *(number / 10 for number in range(1, 200)))
    assert len(await plan(chat, spacing=8)) <= 2 * (WITHIN / 8 + 1)


async def test_one_retry_is_on_time_beside_another_sweep_while_sends_fail(chat: Chat) -> None:
    await due_in(chat, 0.5)
    assert await plan(chat, spacing=4) == [1]
    await due_in(chat, 1.9)
    assert await plan(chat, spacing=4) == [2]


async def test_planning_reads_few_jobs_however_many_are_due(chat: Chat) -> None:
    await due_in(chat, 3)
    await chat.connection.execute(
        "insert into push.jobs (room_id, recipient_id, decided_up_to, is_retry, next_attempt_at)"
        " select gen_random_uuid(), recipient_id, now(), true, next_attempt_at + n * interval '1 microsecond'"
        " from push.jobs, generate_series(1, 20000) n"
    )
    read = "select (seq_tup_read + idx_tup_fetch)::integer from pg_stat_xact_user_tables where relname = 'jobs'"
    async with chat.connection.transaction(force_rollback=True):
        before = await value(chat.connection, read)
        assert await plan(chat) == [3]
        assert await value(chat.connection, read) - before <= 10
