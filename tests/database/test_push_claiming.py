"""Which jobs a claim takes, and for how long it leases them."""

from uuid import UUID, uuid4

from tests.database.chat import Chat, claim, claim_one, decision, explain, insert, person, record, value, worker_report


async def test_a_claim_names_unknown_and_not_due_ids_and_claims_duplicates_once(chat: Chat) -> None:
    await chat.device()
    done, leased, new = [await chat.separate_message() for _ in range(3)]
    claimed, job = await claim_one(chat.connection, done)
    await record(chat.connection, claimed, worker_report(job))
    await claim(chat.connection, leased)
    unknown = uuid4()
    claimed = await claim(chat.connection, new, done, new, unknown, leased, unknown)
    assert [job["message_id"] for job in claimed["jobs"]] == [str(new)]
    assert set(claimed["not_due"]) == {str(done), str(leased)}
    assert claimed["unknown"] == [str(unknown)]


async def test_a_sweep_claims_the_longest_waiting_jobs_first(chat: Chat) -> None:
    await chat.device()
    messages = [await chat.separate_message() for _ in range(3)]
    claimed = [await claim(chat.connection, limit=2), await claim(chat.connection, limit=2)]
    assert [[UUID(job["message_id"]) for job in one["jobs"]] for one in claimed] == [
        messages[:2],
        messages[2:],
    ]


async def test_a_sweep_without_due_jobs_claims_nothing(chat: Chat) -> None:
    claimed = await claim(chat.connection)
    assert [claimed[key] for key in ("jobs", "finished", "deferred", "not_due", "unknown")] == [[]] * 5


async def test_a_claim_leases_messages_for_at_most_notifications_per_claim_devices(chat: Chat) -> None:
    await chat.connection.execute("update push.settings set notifications_per_claim = 5, recipient_share = 1")
    for _ in range(2):
        await chat.device()
    messages = [str(await chat.separate_message()) for _ in range(5)]
    claimed = await claim(chat.connection)
    assert [job["message_id"] for job in claimed["jobs"]] == messages[:2]
    assert sorted(claimed["left_due"]) == sorted(messages[2:])
    assert [job["message_id"] for job in (await claim(chat.connection))["jobs"]] == messages[2:4]


async def test_a_message_with_more_devices_than_a_claim_takes_is_claimed_alone(chat: Chat) -> None:
    await chat.connection.execute("update push.settings set notifications_per_claim = 1")
    for _ in range(2):
        await chat.device()
    await chat.message()
    [job] = (await claim(chat.connection))["jobs"]
    assert len(job["devices"]) == 2


async def test_first_attempts_go_before_retries_but_retries_keep_a_quarter(chat: Chat) -> None:
    await chat.device()
    retries = [str(await chat.separate_message()) for _ in range(8)]
    claimed = await claim(chat.connection)
    await record(chat.connection, claimed, *(worker_report(job, "retry") for job in claimed["jobs"]))
    await chat.pass_time(60)
    first_attempts = [str(await chat.separate_message()) for _ in range(8)]
    first = {job["message_id"] for job in (await claim(chat.connection, limit=8))["jobs"]}
    assert first - set(retries) == set(first_attempts[:6])
    second = {job["message_id"] for job in (await claim(chat.connection, limit=8))["jobs"]}
    assert first | second == {*retries, *first_attempts}


async def test_jobs_over_the_share_of_their_recipient_do_not_displace_others_in_a_claim(chat: Chat) -> None:
    await chat.connection.execute("update push.settings set notifications_per_claim = 10, recipient_share = 0.001")
    for _ in range(5):
        await chat.device()
    other = await person(chat.connection)
    room = await insert(chat.connection, "public.chat_rooms", user1_id=chat.guide, user2_id=other)
    await chat.device(user_id=other)
    for _ in range(10):
        await chat.separate_message()
    last = await chat.message(room_id=room["id"], sender_id=chat.guide)
    assert str(last) in [job["message_id"] for job in (await claim(chat.connection))["jobs"]]


async def test_a_claim_leases_nothing_without_a_send_slot_in_time(chat: Chat) -> None:
    await chat.device()
    message = await chat.message()
    await chat.connection.execute("update push.rate_limiter set free_at = clock_timestamp() + interval '9 seconds'")
    before = await chat.job(message)
    claimed = await claim(chat.connection, message, wait_seconds=5)
    assert (claimed["jobs"], claimed["slot"], claimed["left_due"]) == ([], None, [str(message)])
    # The message has its decision; nothing else happened to the job.
    after = await chat.job(message)
    assert after == before | {"decided_up_to": after["decided_up_to"]}
    assert await value(chat.connection, "select count(*) from push.rate_limit_reservations") == 0
    assert len((await claim(chat.connection, message, wait_seconds=10))["jobs"]) == 1


# Leases ------------------------------------------------------------------------------------------


async def test_the_lease_of_a_dead_worker_expires(chat: Chat) -> None:
    await chat.device()
    message = await chat.message()
    await claim(chat.connection, message)
    await chat.pass_time(29)
    assert (await claim(chat.connection, message))["not_due"] == [str(message)]
    await chat.pass_time(2)
    _, job = await claim_one(chat.connection, message)
    assert job["attempt"] == 2


async def test_a_claim_names_the_jobs_whose_leases_expired_without_a_report(chat: Chat) -> None:
    await chat.device()
    dead, reported, new = [await chat.separate_message() for _ in range(3)]
    await claim(chat.connection, dead)
    claimed, job = await claim_one(chat.connection, reported)
    await record(chat.connection, claimed, worker_report(job, "retry"))
    await chat.pass_time(31)
    job_ids = {message: (await chat.job(message))["id"] for message in (dead, reported, new)}
    assert (await claim(chat.connection, dead, reported, new))["expired_leases"] == [job_ids[dead]]
    await chat.pass_time(61)
    await chat.connection.execute("update public.chat_messages set is_read = true")
    await chat.pass_time(3)
    again = await claim(chat.connection)
    assert set(again["expired_leases"]) == set(job_ids.values()), "a lease is reported with any decision about its job"


async def test_a_report_after_the_lease_was_lost_records_deliveries_but_not_the_state(chat: Chat) -> None:
    await chat.device()
    await chat.device()
    message = await chat.message()
    late, job = await claim_one(chat.connection, message)
    await chat.pass_time(31)
    await claim(chat.connection, message)
    before = await chat.job(message)

    answer = await record(chat.connection, late, worker_report(job, "accepted", "retry"))
    assert answer["lost_leases"] == [job["job_id"]]
    assert await chat.job(message) == before
    statuses = [delivery["status"] for delivery in (await explain(chat.connection, message))["deliveries"]]
    assert sorted(statuses) == ["accepted", "retry"]


async def test_a_report_after_the_lease_expired_counts_if_no_other_worker_claimed_the_job(chat: Chat) -> None:
    await chat.device()
    message = await chat.message()
    claimed, job = await claim_one(chat.connection, message)
    await chat.pass_time(31)
    assert (await record(chat.connection, claimed, worker_report(job)))["lost_leases"] == []
    assert (await chat.job(message))["outcome"] == "accepted"


async def test_each_expired_lease_doubles_the_next_one_until_the_job_ends(chat: Chat) -> None:
    await chat.device()
    await chat.connection.execute("update push.settings set expired_lease_limit = 3")
    message = await chat.message()
    for times in range(3):
        await claim_one(chat.connection, message)
        await chat.pass_time(30 * 2**times - 1)
        assert (await claim(chat.connection, message))["not_due"] == [str(message)]
        await chat.pass_time(2)
    assert decision(await claim(chat.connection, message)) == "maybe_sent: leases_expired"
