"""Who gets a push and who does not, end to end. docs/architecture.md has the decision table."""

from chat_push.expo_errors import CONFIGURATION_FAULT

from local.providers.expo.faults import TicketError
from tests.system.chat import TEXT, Chat, Log, arrived_and_visible, insert_messages
from tests.waiting import eventually


async def test_every_device_of_the_recipient_shows_the_message_once(chat: Chat) -> None:
    phones = [chat.phone, await chat.new_phone_of(chat.gus, "android"), await chat.new_phone_of(chat.gus, "ios")]
    message = await chat.send()
    job = await chat.until_done(message)
    assert [arrived_and_visible(phone, message) for phone in phones] == [(1, 1)] * 3
    assert [delivery["status"] for delivery in job["deliveries"]] == ["accepted"] * 3
    assert [(shown.message["title"], shown.message["body"]) for shown in chat.phone.shown] == [("Tina", TEXT)]


async def test_the_sender_gets_no_push(chat: Chat) -> None:
    tinas_phone = await chat.new_phone_of(chat.tina)
    message = await chat.send()
    await chat.until_done(message)
    assert (arrived_and_visible(chat.phone, message), arrived_and_visible(tinas_phone, message)) == ((1, 1), (0, 0))


async def test_a_message_that_was_read_before_the_claim_is_not_pushed(chat: Chat) -> None:
    message = await chat.send(webhook_lost=True)
    await chat.gus.read(chat.id)
    job = await chat.until_done(message, sweep=True)
    assert (job["outcome"], job["reason"], arrived_and_visible(chat.phone, message)) == ("skipped", "read", (0, 0))


async def test_a_message_that_was_deleted_before_the_claim_is_not_pushed(chat: Chat) -> None:
    message = await chat.send(webhook_lost=True)
    await chat.tina.delete(message)
    job = await chat.until_done(message, sweep=True)
    assert (job["outcome"], job["reason"], arrived_and_visible(chat.phone, message)) == ("skipped", "deleted", (0, 0))


async def test_a_phone_gets_no_push_of_its_former_account_after_another_account_logged_in(chat: Chat) -> None:
    before_login = await chat.send(webhook_lost=True)
    await chat.omar.log_in_on(chat.phone, device_id=chat.phone.token)
    after_login = await chat.send(webhook_lost=True)
    for message in (before_login, after_login):
        job = await chat.until_done(message, sweep=True)
        assert (job["outcome"], job["reason"], arrived_and_visible(chat.phone, message)) == (
            "skipped",
            "no_device",
            (0, 0),
        )
    to_omar = await chat.tina.send(await chat.tina.open_chat(chat.omar), TEXT)
    await chat.until_done(to_omar)
    assert arrived_and_visible(chat.phone, to_omar) == (1, 1)


async def test_a_late_logout_of_the_former_account_keeps_the_device_of_the_next_login(chat: Chat) -> None:
    await chat.omar.log_in_on(chat.phone, device_id=chat.phone.token)
    await chat.gus.log_out_of(chat.phone.token)
    message = await chat.tina.send(await chat.tina.open_chat(chat.omar), TEXT)
    await chat.until_done(message)
    assert arrived_and_visible(chat.phone, message) == (1, 1)


async def test_an_account_gets_no_push_after_logout(chat: Chat) -> None:
    message = await chat.send(webhook_lost=True)
    await chat.gus.log_out_of(chat.phone.token)
    assert (await chat.until_done(message, sweep=True))["reason"] == "no_device"
    assert arrived_and_visible(chat.phone, message) == (0, 0)


async def test_a_dead_token_stops_no_other_push_of_its_request_and_is_deactivated(chat: Chat) -> None:
    """Other devices and other messages arrive, nothing is sent again, and the next message leaves the token out."""
    dead, good = await chat.new_phone_of(chat.gus, "ios"), await chat.new_phone_of(chat.gus, "android")
    omars_phone = await chat.new_phone_of(chat.omar)
    chat.cloud.expo.uninstall(dead.token)
    chat.cloud.pg_net.lose(2)
    messages = await insert_messages(
        chat.cloud,
        (chat.id, chat.tina.id, TEXT),
        (await chat.tina.open_chat(chat.omar), chat.tina.id, TEXT),
    )
    jobs = [await chat.until_done(message, sweep=True) for message in messages]
    assert len(chat.cloud.expo.requests) == 1
    assert [arrived_and_visible(phone, messages[0]) for phone in (chat.phone, good)] == [(1, 1), (1, 1)]
    assert arrived_and_visible(omars_phone, messages[1]) == (1, 1)
    assert [job["outcome"] for job in jobs] == ["accepted", "accepted"]
    await chat.collect_receipts()
    assert not (await chat.gus.devices())[dead.token]["is_active"]

    next_message = await chat.send()
    await chat.until_done(next_message)
    assert sorted(chat.cloud.expo.requests[-1].tokens) == sorted([chat.phone.token, good.token])


async def test_a_credentials_error_of_expo_keeps_the_device_and_uses_up_no_attempt(chat: Chat, log: Log) -> None:
    chat.cloud.expo.script(TicketError(error="InvalidCredentials"))
    message = await chat.send()
    await log.until(CONFIGURATION_FAULT)
    job = await chat.cloud.until_push(message, lambda job: job["state"] == "pending")
    [delivery] = job["deliveries"]
    assert (job["attempts"], delivery["status"], delivery["error"]) == (0, "retry", "InvalidCredentials")
    await chat.make_due(message)
    job = await chat.until_done(message, sweep=True)
    assert (job["outcome"], job["attempts"], arrived_and_visible(chat.phone, message)) == ("accepted", 1, (1, 1))


async def test_a_duplicated_webhook_causes_one_push(chat: Chat) -> None:
    chat.cloud.pg_net.duplicate()
    requests = chat.cloud.pg_net.requests
    message = await chat.send()
    await chat.until_done(message)
    await eventually(lambda: chat.cloud.pg_net.requests == requests + 2)
    await chat.cloud.poller.until_idle()
    assert len(chat.cloud.expo.requests) == 1
    assert arrived_and_visible(chat.phone, message) == (1, 1)


async def test_the_sweep_sends_a_message_whose_webhook_was_lost(chat: Chat) -> None:
    lost = chat.cloud.pg_net.lost
    message = await chat.send(webhook_lost=True)
    await eventually(lambda: chat.cloud.pg_net.lost == lost + 1)
    assert (await chat.cloud.explain_push(message))["state"] == "pending"
    await chat.sweep()
    assert arrived_and_visible(chat.phone, message) == (1, 1)


async def test_a_rolled_back_insert_causes_no_push(chat: Chat) -> None:
    [rolled_back] = await insert_messages(chat.cloud, (chat.id, chat.tina.id, TEXT), commit=False)
    stored = await chat.send()
    await chat.until_done(stored)
    await chat.sweep()
    assert await chat.cloud.explain_push(rolled_back) is None
    assert [arrival.message_id for arrival in chat.phone.arrived] == [str(stored)]
    assert (arrived_and_visible(chat.phone, rolled_back), arrived_and_visible(chat.phone, stored)) == ((0, 0), (1, 1))
