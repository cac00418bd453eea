"""What phones show is kept right when sends fail, workers die, receipts reject pushes, or a text cannot be composed."""

from tests.database.chat import (
    Chat,
    claim,
    claim_one,
    record,
    worker_report,
)
from tests.database.test_notification_state import delete, edit, kinds, sent


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


async def test_what_a_phone_shows_is_dismissed_at_its_expiry_after_another_device_exhausted_the_attempts(
    chat: Chat,
) -> None:
    await chat.connection.execute("update push.settings set max_attempts = 1")
    await chat.device(platform="android")
    await chat.device(platform="android")
    await chat.message()
    await sent(chat, "accepted", "retry")
    await chat.pass_time(2)
    assert (await claim(chat.connection))["finished"][0]["reason"] == "attempts_exhausted"
    await chat.pass_time(24 * 3600)
    assert kinds(await sent(chat)) == ["dismiss"]


async def test_a_deleted_text_is_replaced_and_other_jobs_are_sent_if_the_name_of_the_sender_cannot_be_read(
    chat: Chat,
) -> None:
    await chat.device(platform="android")
    message = await chat.message("secret")
    await sent(chat)
    await chat.connection.execute(f"""
        create or replace function push.display_name(p_user_id uuid) returns text language plpgsql set search_path = ''
        as $$ begin if p_user_id = '{chat.tourist}' then raise 'no name'; end if; return 'Fine'; end $$;
    """)
    await delete(chat, message)
    await (await chat.conversation()).message()
    await chat.pass_time(1)
    claimed = await claim(chat.connection)
    assert {job["body"] for job in claimed["jobs"]} == {"Message deleted", "Hello"}


async def test_what_a_phone_shows_is_dismissed_at_its_expiry_if_it_cannot_be_composed_any_more(chat: Chat) -> None:
    await chat.device(platform="android")
    message = await chat.message("first")
    await sent(chat)
    await chat.connection.execute("""
        create or replace function push.display_name(p_user_id uuid) returns text language plpgsql set search_path = ''
        as $$ begin if p_user_id is not null then raise 'no name'; end if; return 'Fine'; end $$;
    """)
    await edit(chat, message, "second")
    await chat.pass_time(2)
    assert await sent(chat) == []
    await chat.pass_time(24 * 3600)
    assert kinds(await sent(chat)) == ["dismiss"]
