"""What phones show is kept right when sends fail, workers die, receipts reject pushes, or a text cannot be composed."""

from uuid import uuid4

import pytest

from tests.database.chat import (
    Chat,
    claim,
    claim_one,
    due_receipts,
    receipt,
    record,
    record_receipts,
    value,
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


async def test_what_a_phone_shows_expires_after_another_device_exhausted_the_attempts(
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


async def test_a_dismissal_that_is_refused_for_a_day_is_given_up(chat: Chat) -> None:
    await chat.device(platform="android")
    await chat.message()
    await sent(chat)
    await chat.read()
    await chat.pass_time(3)
    for _ in range(3):
        assert kinds(await sent(chat, "configuration_fault")) == ["dismiss"]
        await chat.pass_time(3600)
    await chat.pass_time(24 * 3600)
    assert kinds(await sent(chat)) == ["badge"]
    assert await value(chat.connection, "select count(*) from push.jobs where state <> 'idle'") == 0


async def test_a_deleted_text_is_replaced_if_the_name_of_the_sender_cannot_be_read(
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


@pytest.mark.parametrize("answer", ["maybe_sent", "Odd"])
async def test_an_iphone_gets_the_dismissal_if_its_badge_cannot_be_sent(chat: Chat, answer: str) -> None:
    await chat.connection.execute("update push.settings set unanswered_retry_delays = '{}'")
    await chat.device()
    await chat.message()
    await sent(chat)
    await chat.read()
    await chat.pass_time(3)
    assert kinds(await sent(chat, answer)) == ["badge"]
    await chat.pass_time(3)
    assert kinds(await sent(chat)) == ["dismiss"]


@pytest.mark.parametrize("answer", ["maybe_sent", "Odd"])
async def test_a_phone_gets_the_dismissal_if_the_neutral_text_cannot_be_sent(chat: Chat, answer: str) -> None:
    await chat.connection.execute("update push.settings set unanswered_retry_delays = '{}'")
    await chat.device(platform="android")
    message = await chat.message()
    await sent(chat)
    await delete(chat, message)
    await chat.pass_time(1)
    assert kinds(await sent(chat, answer)) == ["update"]
    await chat.pass_time(3)
    assert kinds(await sent(chat)) == ["dismiss"]


async def test_the_device_that_read_gets_no_push_after_a_receipt(chat: Chat) -> None:
    device = await chat.device(platform="android")
    await chat.message()
    await sent(chat)
    await chat.pass_time(300)
    await chat.read(device_id=device["device_id"])
    due = await due_receipts(chat.connection)
    await chat.connection.execute("update push.deliveries set receipt_due_at = now()")
    due = await due_receipts(chat.connection)
    await record_receipts(chat.connection, uuid4(), *map(receipt, due))
    await chat.pass_time(3)
    assert kinds(await sent(chat)) == []


async def test_a_device_that_is_activated_again_while_a_push_is_under_way_gets_it_too(chat: Chat) -> None:
    await chat.device()
    device = await chat.device()
    await chat.message()
    await sent(chat)
    await chat.connection.execute("update user_devices set is_active = false where id = %s", (device["id"],))
    message = await chat.message()
    claimed, job = await claim_one(chat.connection, message)
    assert len(job["devices"]) == 1
    await chat.connection.execute("update user_devices set is_active = true where id = %s", (device["id"],))
    await record(chat.connection, claimed, worker_report(job))
    await chat.pass_time(2)
    assert [(p["kind"], p["device_id"]) for p in await sent(chat)] == [("alert", str(device["id"]))]
    assert await sent(chat) == []


async def test_each_message_of_a_long_backlog_is_accepted(chat: Chat) -> None:
    await chat.device()
    messages = [await chat.message() for _ in range(150)]
    await sent(chat)
    assert {(await chat.job(message))["outcome"] for message in messages} == {"accepted"}


async def test_a_badge_that_a_receipt_rejects_is_sent_again(chat: Chat) -> None:
    reader = await chat.device(platform="android")
    await chat.device()
    await chat.message()
    await sent(chat)
    await chat.read(device_id=reader["device_id"])
    await chat.pass_time(3)
    assert kinds(await sent(chat)) == ["badge"]
    assert kinds(await sent(chat)) == ["dismiss"]
    await chat.connection.execute("update push.deliveries set receipt_due_at = now() where kind = 'badge'")
    due = await due_receipts(chat.connection)
    assert len(due) == 1
    await record_receipts(chat.connection, uuid4(), *(receipt(one, "ProviderError") for one in due))
    await chat.pass_time(2)
    assert kinds(await sent(chat)) == ["badge"]
    await chat.pass_time(2)
    assert kinds(await sent(chat)) == []


async def test_a_message_is_accepted_if_its_update_is_accepted_after_an_alert_without_an_answer(chat: Chat) -> None:
    await chat.device()
    message = await chat.message()
    await sent(chat, "maybe_sent")
    await edit(chat, message, "other")
    await chat.pass_time(2)
    assert kinds(await sent(chat)) == ["update"]
    assert (await chat.job(message))["outcome"] == "accepted"


@pytest.mark.parametrize("answer", ["maybe_sent", "retry"])
async def test_an_alert_is_not_repeated_to_a_viewer(chat: Chat, answer: str) -> None:
    await chat.device()
    await chat.message()
    await sent(chat, answer)
    await chat.look(chat.room)
    await chat.pass_time(2)
    assert await sent(chat) == []
    await chat.pass_time(46)
    assert kinds(await sent(chat)) == ["alert"]


async def test_an_alert_of_a_dead_worker_is_not_repeated_to_a_viewer(
    chat: Chat,
) -> None:
    await chat.device()
    await chat.message()
    await claim(chat.connection)
    await chat.pass_time(31)
    await chat.look(chat.room)
    assert await sent(chat) == []


async def test_messages_that_are_truncated_while_their_push_is_under_way_leave_the_lock_screen(chat: Chat) -> None:
    await chat.device(platform="android")
    claimed, job = await claim_one(chat.connection, await chat.message())
    await chat.connection.execute("truncate public.chat_messages cascade")
    await record(chat.connection, claimed, worker_report(job))
    await chat.pass_time(2)
    assert kinds(await sent(chat)) == ["update"]


@pytest.mark.parametrize("answer", ["retry", "maybe_sent"])
async def test_a_phone_sounds_once_for_all_conversations_after_an_outage_of_the_push_service(
    chat: Chat, answer: str
) -> None:
    await chat.device()
    for _ in range(3):
        await chat.separate_message()
        await sent(chat, answer)
        await chat.pass_time(40)
    for _ in range(10):
        assert {p["kind"] for p in await sent(chat, answer)} <= {"alert"}
        await chat.pass_time(40)
    sounds = []
    for _ in range(100):
        sounds += [p["sound"] for p in await sent(chat)]
        await chat.pass_time(30)
    assert sorted(sounds) == [False, False, True]


async def test_a_new_message_sounds_after_an_alert_without_an_answer(chat: Chat) -> None:
    await chat.device()
    sounds = []
    for answer in ("maybe_sent", "maybe_sent", "accepted", "accepted"):
        await chat.message()
        sounds += [p["sound"] for p in await sent(chat, answer)]
    assert sounds == [True, True, True, False]


async def test_an_alert_that_was_rejected_for_now_sounds_when_it_is_sent_again(chat: Chat) -> None:
    await chat.device()
    await chat.message()
    await sent(chat, "retry")
    await chat.pass_time(2)
    assert [p["sound"] for p in await sent(chat)] == [True]


async def test_a_message_that_is_deleted_while_its_push_is_under_way_is_replaced_and_dismissed(chat: Chat) -> None:
    await chat.device(platform="android")
    message = await chat.message()
    claimed, job = await claim_one(chat.connection, message)
    await delete(chat, message)
    await record(chat.connection, claimed, worker_report(job))
    await chat.pass_time(2)
    assert kinds(await sent(chat)) == ["update"]
    assert kinds(await sent(chat)) == ["dismiss"]


async def test_a_new_message_is_one_alert_for_a_device_that_waits_for_a_retry_and_one_that_does_not(chat: Chat) -> None:
    await chat.device()
    await chat.device()
    first = await chat.message("one")
    await sent(chat, "accepted", "retry")
    second = await chat.message("two")
    pushes = await sent(chat)
    assert [(p["kind"], p["body"]) for p in pushes] == [("alert", "two\none")] * 2
    assert (await chat.job(first))["outcome"] == (await chat.job(second))["outcome"] == "accepted"
    await chat.pass_time(100)
    assert await sent(chat) == []


async def test_an_edit_during_a_retry_sends_the_new_text_as_an_alert(chat: Chat) -> None:
    await chat.device()
    message = await chat.message("one")
    await sent(chat, "retry")
    await edit(chat, message, "two")
    await chat.pass_time(2)
    assert [(p["kind"], p["body"], p["sound"]) for p in await sent(chat)] == [("alert", "two", True)]
    await chat.pass_time(100)
    assert await sent(chat) == []
    assert (await chat.job(message))["outcome"] == "accepted"


async def test_a_deletion_during_a_retry_ends_the_job_without_a_push(chat: Chat) -> None:
    await chat.device()
    message = await chat.message("one")
    await sent(chat, "retry")
    await delete(chat, message)
    await chat.pass_time(2)
    assert await sent(chat) == []
    assert (await chat.job(message))["outcome"] == "failed"
    assert await value(chat.connection, "select state from push.jobs") == "idle"


@pytest.mark.parametrize("answer", ["MessageTooBig", "ProviderError", "DeviceNotRegistered"])
async def test_a_receipt_that_rejects_a_replaced_push_sends_nothing(chat: Chat, answer: str) -> None:
    await chat.device()
    first = await chat.message("one")
    await sent(chat)
    await chat.message("two")
    await sent(chat)
    await chat.connection.execute("update push.deliveries set receipt_due_at = now()")
    due = sorted(await due_receipts(chat.connection), key=lambda one: one["delivery_id"])
    await record_receipts(chat.connection, uuid4(), receipt(due[0], answer))
    await chat.pass_time(60)
    assert await sent(chat) == []
    assert (await chat.job(first))["outcome"] == "accepted"


async def test_a_receipt_that_rejects_the_last_push_sends_it_again(chat: Chat) -> None:
    await chat.device()
    first = await chat.message("one")
    await sent(chat)
    second = await chat.message("two")
    await sent(chat)
    await chat.connection.execute("update push.deliveries set receipt_due_at = now()")
    due = sorted(await due_receipts(chat.connection), key=lambda one: one["delivery_id"])
    await record_receipts(chat.connection, uuid4(), receipt(due[1], "ProviderError"))
    await chat.pass_time(60)
    assert [(p["kind"], p["body"]) for p in await sent(chat)] == [("alert", "two\none")]
    assert (await chat.job(first))["outcome"] == (await chat.job(second))["outcome"] == "accepted"
    await chat.pass_time(60)
    assert await sent(chat) == []


async def test_a_push_that_a_receipt_rejects_is_not_sent_again_after_a_read(chat: Chat) -> None:
    await chat.device(platform="android")
    await chat.message("one")
    await sent(chat)
    await chat.connection.execute("update push.deliveries set receipt_due_at = now()")
    due = await due_receipts(chat.connection)
    await record_receipts(chat.connection, uuid4(), receipt(due[0], "ProviderError"))
    await chat.read()
    await chat.pass_time(60)
    assert kinds(await sent(chat)) == ["badge"]
    await chat.pass_time(60)
    assert await sent(chat) == []


async def test_a_text_that_is_shown_is_kept_right_while_the_recipient_looks_at_the_conversation(chat: Chat) -> None:
    await chat.device()
    first = await chat.message("one")
    await sent(chat)
    await chat.look(chat.room)
    second = await chat.message("two")
    assert await sent(chat) == []
    await edit(chat, first, "changed")
    await chat.pass_time(2)
    assert [(p["kind"], p["body"]) for p in await sent(chat)] == [("update", "changed")]
    await chat.pass_time(46)
    assert [(p["kind"], p["body"]) for p in await sent(chat)] == [("alert", "two\nchanged")]
    assert (await chat.job(second))["outcome"] == "accepted"


async def test_a_read_by_a_viewer_dismisses_the_notification_on_the_other_device(
    chat: Chat,
) -> None:
    reader = await chat.device(platform="android")
    await chat.device(platform="android")
    await chat.message("one")
    await sent(chat)
    await chat.look(chat.room)
    second = await chat.message("two")
    assert await sent(chat) == []
    await chat.read(device_id=reader["device_id"])
    await chat.pass_time(3)
    assert kinds(await sent(chat)) == ["dismiss"]
    assert (await chat.job(second))["reason"] == "viewing"


async def test_a_new_message_is_sent_after_the_sends_of_an_earlier_one_had_no_answer(chat: Chat) -> None:
    await chat.connection.execute("update push.settings set unanswered_retry_delays = '{1 second}'")
    await chat.device()
    first = await chat.message("one")
    for _ in range(2):
        assert kinds(await sent(chat, "maybe_sent")) == ["alert"]
        await chat.pass_time(70)
    assert await sent(chat) == []
    assert ((await chat.job(first))["outcome"], (await chat.job(first))["reason"]) == ("maybe_sent", "unanswered")
    await chat.message("two")
    assert [p["body"] for p in await sent(chat)] == ["two\none"]
    await chat.pass_time(70)
    assert await sent(chat) == []


async def test_a_retry_goes_to_the_new_token_of_a_device(chat: Chat) -> None:
    await chat.device()
    message = await chat.message("one")
    await sent(chat, "retry")
    await chat.connection.execute("update user_devices set push_token = 'ExponentPushToken[new]'")
    await chat.pass_time(2)
    assert [p["push_token"] for p in await sent(chat)] == ["ExponentPushToken[new]"]
    assert (await chat.job(message))["outcome"] == "accepted"


async def test_a_device_that_displaces_one_that_waits_for_a_retry_gets_the_message(chat: Chat) -> None:
    await chat.connection.execute("update push.settings set device_limit = 1")
    await chat.device()
    message = await chat.message("one")
    await sent(chat, "retry")
    new = await chat.device()
    await chat.pass_time(2)
    assert [p["device_id"] for p in await sent(chat)] == [str(new["id"])]
    assert (await chat.job(message))["outcome"] == "accepted"
    assert await value(chat.connection, "select state from push.jobs") == "pending"


async def test_a_new_message_replaces_a_dismissal_that_waits_for_a_retry(chat: Chat) -> None:
    await chat.device(platform="android")
    await chat.message("one")
    await sent(chat)
    await chat.read()
    await chat.pass_time(3)
    assert kinds(await sent(chat, "retry")) == ["dismiss"]
    await chat.message("two")
    assert [(p["kind"], p["body"]) for p in await sent(chat)] == [("alert", "two")]
    await chat.pass_time(60)
    assert await sent(chat) == []


async def test_an_edit_that_restores_the_shown_text_ends_the_retry_of_an_update(chat: Chat) -> None:
    await chat.device()
    message = await chat.message("one")
    await sent(chat)
    await edit(chat, message, "two")
    await chat.pass_time(2)
    assert kinds(await sent(chat, "retry")) == ["update"]
    await edit(chat, message, "one")
    await chat.pass_time(2)
    assert await sent(chat) == []
