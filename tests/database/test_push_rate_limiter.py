"""The rate of all workers together, and the share that one recipient gets of it."""

import random
from datetime import datetime, timedelta
from itertools import pairwise
from uuid import UUID

from tests.database.chat import Chat, claim, claim_one, explain, insert, person, record, rows, value, worker_report


async def test_a_claim_reserves_a_slot_for_each_device_of_each_message(chat: Chat) -> None:
    await chat.connection.execute("update push.settings set notifications_per_second = 10, recipient_share = 1")
    await chat.connection.execute("update push.rate_limiter set free_at = clock_timestamp() + interval '1 hour'")
    for _ in range(3):
        await chat.device()
    before = await value(chat.connection, "select free_at from push.rate_limiter")
    await claim(chat.connection, await chat.separate_message(), await chat.separate_message())
    assert await value(chat.connection, "select free_at from push.rate_limiter") - before == timedelta(seconds=0.6)


async def test_a_claim_gets_the_slot_after_all_reserved_ones(chat: Chat) -> None:
    await chat.device()
    await chat.connection.execute("update push.rate_limiter set free_at = clock_timestamp() + interval '1 hour'")
    free_at = await value(chat.connection, "select free_at from push.rate_limiter")
    slot = (await claim(chat.connection, await chat.message()))["slot"]
    assert datetime.fromisoformat(slot["send_at"]) == free_at


async def test_notifications_that_expo_rejected_get_a_slot_after_all_reserved_ones(chat: Chat) -> None:
    await chat.connection.execute("update push.settings set notifications_per_second = 10")
    await chat.connection.execute("update push.rate_limiter set free_at = clock_timestamp() + interval '1 minute'")
    first = await value(chat.connection, "select public.reserve_send_slot(3)")
    second = await value(chat.connection, "select public.reserve_send_slot(1)")
    apart = datetime.fromisoformat(second["send_at"]) - datetime.fromisoformat(first["send_at"])
    assert apart == timedelta(seconds=0.3)


async def test_slots_keep_to_the_rate_and_use_it_fully(chat: Chat) -> None:
    """Expo takes 600 notifications a second. A slot is sent at its beginning, and a request may be 40 ms late."""
    limit, span = 600, timedelta(seconds=1 / 0.96)
    sizes = random.Random(1)
    slots = []
    await chat.connection.execute("update push.rate_limiter set free_at = clock_timestamp() + interval '1 minute'")
    for _ in range(200):
        size = sizes.randint(1, 150)
        slot = await value(chat.connection, "select public.reserve_send_slot(%s)", size)
        slots.append((datetime.fromisoformat(slot["send_at"]), size))
    for begin, _ in slots:
        assert sum(size for send_at, size in slots if begin <= send_at < begin + timedelta(seconds=1.04)) <= limit
    for (before, size_before), (send_at, size) in pairwise(slots):
        # A slot begins when the one before is through. If it begins later, an earlier begin would exceed the limit.
        is_next = send_at - before < timedelta(seconds=size_before / 576, milliseconds=1)
        earlier = send_at - timedelta(milliseconds=1)
        recent = sum(other for at, other in slots if earlier - span < at < send_at)
        assert is_next or recent + size > limit


async def test_slots_are_deleted_after_some_seconds(chat: Chat) -> None:
    await value(chat.connection, "select public.reserve_send_slot(1)")
    await chat.connection.execute("update push.rate_limit_reservations set send_at = send_at - interval '3 seconds'")
    await value(chat.connection, "select public.reserve_send_slot(1)")
    assert await value(chat.connection, "select count(*) from push.rate_limit_reservations") == 1


async def test_a_slot_comes_with_the_time_of_the_answer(chat: Chat) -> None:
    before = await value(chat.connection, "select clock_timestamp()")
    slot = await value(chat.connection, "select public.reserve_send_slot(1)")
    after = await value(chat.connection, "select clock_timestamp()")
    assert before <= datetime.fromisoformat(slot["answered_at"]) <= after


async def test_a_claim_is_sent_at_once_if_nothing_was_sent_lately(chat: Chat) -> None:
    await chat.device()
    await chat.connection.execute("update push.rate_limiter set free_at = clock_timestamp() - interval '1 hour'")
    asked_at = await value(chat.connection, "select clock_timestamp()")
    slot = (await claim(chat.connection, await chat.message()))["slot"]
    send_at, answered_at = (datetime.fromisoformat(slot[name]) for name in ("send_at", "answered_at"))
    assert asked_at < send_at <= answered_at


async def test_a_claim_without_jobs_reserves_no_slot(chat: Chat) -> None:
    await chat.connection.execute("update push.rate_limiter set free_at = clock_timestamp() + interval '1 hour'")
    before = await value(chat.connection, "select free_at from push.rate_limiter")
    asked_at = await value(chat.connection, "select clock_timestamp()")
    slot = (await claim(chat.connection, await chat.message()))["slot"]
    send_at, answered_at = (datetime.fromisoformat(slot[name]) for name in ("send_at", "answered_at"))
    assert asked_at < send_at <= answered_at
    assert await value(chat.connection, "select free_at from push.rate_limiter") == before


async def test_the_unused_part_of_a_slot_is_released_once(chat: Chat) -> None:
    await chat.connection.execute("update push.settings set notifications_per_second = 10, recipient_share = 1")
    await chat.connection.execute("update push.rate_limiter set free_at = clock_timestamp() + interval '1 minute'")
    for _ in range(3):
        await chat.device()
    before = await value(chat.connection, "select free_at from push.rate_limiter")
    claimed, job = await claim_one(chat.connection, await chat.message())
    for _ in range(2):
        await record(chat.connection, claimed, worker_report(job, "accepted", "retry", "retry"), unused=2)
        assert await value(chat.connection, "select free_at from push.rate_limiter") - before == timedelta(seconds=0.1)
        assert await value(chat.connection, "select sum(notifications) from push.rate_limit_reservations") == 1


# The share of one recipient ----------------------------------------------------------------------


async def test_one_recipient_gets_its_share_of_the_rate_and_others_are_not_delayed(chat: Chat) -> None:
    """10 % of 50 notifications a second, averaged over two seconds. A message has five notifications."""
    await chat.connection.execute("update push.settings set notifications_per_second = 50")
    for _ in range(5):
        await chat.device()
    other = await person(chat.connection)
    room = await insert(chat.connection, "public.chat_rooms", user1_id=chat.guide, user2_id=other)
    await chat.device(user_id=other)
    for _ in range(20):
        await chat.separate_message()
    last = await chat.message(room_id=room["id"], sender_id=chat.guide)
    began = await value(chat.connection, "select clock_timestamp()")

    async def at_most(seconds: float) -> float:
        """The recipient's share of these seconds and of the time that this test takes, and one message."""
        took = await value(chat.connection, "select clock_timestamp() - %s", began)
        return float(5 * (seconds + took.total_seconds()) + 5)

    claimed = await claim(chat.connection)
    sent = sum(len(job["devices"]) for job in claimed["jobs"]) - 1
    assert 5 * 2 <= sent <= await at_most(2)
    assert claimed["jobs"][-1]["message_id"] == str(last)
    assert len(claimed["deferred"]) == 21 - len(claimed["jobs"])
    job = await chat.job(UUID(claimed["deferred"][0]))
    assert (job["state"], job["reason"], job["attempts"]) == ("pending", "recipient_rate_limited", 0)
    await chat.pass_time(2)
    sent += sum(len(job["devices"]) for job in (await claim(chat.connection))["jobs"])
    assert 5 * 4 <= sent <= await at_most(4)


async def test_jobs_over_the_share_of_their_recipient_become_due_at_that_rate(chat: Chat) -> None:
    """If all were due at once, each claim would decide the whole flood again, and other jobs would wait."""
    # One notification in 10 seconds.
    await chat.connection.execute("update push.settings set notifications_per_second = 1, recipient_share = 0.1")
    await chat.device()
    messages = [await chat.separate_message() for _ in range(9)]
    sent = sum([len((await claim(chat.connection, *messages[i : i + 3]))["jobs"]) for i in (0, 3, 6)])
    waiting = await rows(
        chat.connection,
        "select next_attempt_at from push.jobs where reason = 'recipient_rate_limited' order by next_attempt_at",
    )
    assert (sent, len(waiting)) == (1, 8)
    assert {later["next_attempt_at"] - job["next_attempt_at"] for job, later in pairwise(waiting)} == {
        timedelta(seconds=10)
    }


async def test_a_job_over_the_share_of_its_recipient_is_explained(chat: Chat) -> None:
    await chat.connection.execute("update push.settings set notifications_per_second = 1")
    await chat.device()
    first, second = await chat.separate_message(), await chat.separate_message()
    assert (await claim(chat.connection, first, second))["deferred"] == [str(second)]
    assert "more notifications than one recipient may take" in (await explain(chat.connection, second))["explanation"]


async def test_a_claim_without_a_slot_uses_nothing_of_the_recipients_share(chat: Chat) -> None:
    await chat.connection.execute("update push.settings set notifications_per_second = 1")
    await chat.device()
    message = await chat.message()
    await chat.connection.execute("update push.rate_limiter set free_at = clock_timestamp() + interval '9 seconds'")
    for _ in range(3):
        assert (await claim(chat.connection, message, wait_seconds=5))["slot"] is None
    assert len((await claim(chat.connection, message, wait_seconds=10))["jobs"]) == 1
