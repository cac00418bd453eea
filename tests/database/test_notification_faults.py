"""What phones show is kept right when sends fail, workers die, receipts reject pushes, or a text cannot be composed."""

from tests.database.chat import (
    Chat,
    claim,
    claim_one,
    record,
    worker_report,
)


async def test_a_message_is_sent_after_expired_leases_ended_an_earlier_one(chat: Chat) -> None:
    await chat.device()
    await chat.connection.execute("update push.settings set expired_lease_limit = 1")
    await claim_one(chat.connection, await chat.message())
    await chat.pass_time(31)
    claimed = await claim(chat.connection)
    assert claimed["finished"][0]["reason"] == "leases_expired"
    await claim_one(chat.connection, await chat.message())


async def test_an_expired_lease_counts_once_however_many_claims_have_no_send_slot(chat: Chat) -> None:
    await chat.device()
    message = await chat.message()
    await claim_one(chat.connection, message)
    await chat.pass_time(31)
    await chat.connection.execute("update push.rate_limiter set free_at = clock_timestamp() + interval '9 seconds'")
    for _ in range(20):
        assert (await claim(chat.connection, message, wait_seconds=5))["jobs"] == []
    assert (await chat.job(message))["expired_leases"] == 1


async def test_a_new_message_does_not_wait_for_the_doubled_delay_of_expired_leases(chat: Chat) -> None:
    await chat.device()
    for wait in (31, 61, 121):
        await chat.message()
        await claim(chat.connection)
        await chat.pass_time(wait)
    await claim(chat.connection)
    message = await chat.message()
    await chat.pass_time(31)
    await claim_one(chat.connection, message)


async def test_a_configuration_fault_takes_no_attempt_from_a_message_that_arrived_meanwhile(chat: Chat) -> None:
    await chat.device()
    claimed, job = await claim_one(chat.connection, await chat.message())
    message = await chat.message()
    await record(chat.connection, claimed, worker_report(job, "configuration_fault"))
    assert (await chat.job(message))["attempts"] == 0
