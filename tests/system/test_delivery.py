"""Who gets a push and who does not (design, section 7), end to end."""

from chat_push.expo_errors import CONFIGURATION_FAULT

from local.providers.expo.faults import TicketError
from tests.system.chat import TEXT, Chat, Log, eventually, got, insert_messages


async def test_every_device_of_the_recipient_shows_it_once(chat: Chat) -> None:
    phones = [chat.phone, await chat.phone_of(chat.gus, "android"), await chat.phone_of(chat.gus, "ios")]
    message = await chat.send()
    job = await chat.ended(message)
    assert [got(phone, message) for phone in phones] == [(1, 1)] * 3
    assert [delivery["status"] for delivery in job["deliveries"]] == ["accepted"] * 3
    assert [(shown.message["title"], shown.message["body"]) for shown in chat.phone.shown] == [("Tina", TEXT)]


async def test_never_to_the_sender(chat: Chat) -> None:
    hers = await chat.phone_of(chat.tina)
    message = await chat.send()
    await chat.ended(message)
    assert (got(chat.phone, message), got(hers, message)) == ((1, 1), (0, 0))


async def test_never_for_a_message_that_was_read_before_the_worker_ran(chat: Chat) -> None:
    message = await chat.send(webhook_lost=True)
    await chat.gus.read(chat.id)
    job = await chat.ended(message, sweep=True)
    assert (job["outcome"], job["reason"], got(chat.phone, message)) == ("skipped", "read", (0, 0))


async def test_never_for_a_message_that_was_deleted_before_the_worker_ran(chat: Chat) -> None:
    message = await chat.send(webhook_lost=True)
    await chat.tina.delete(message)
    job = await chat.ended(message, sweep=True)
    assert (job["outcome"], job["reason"], got(chat.phone, message)) == ("skipped", "deleted", (0, 0))


async def test_a_token_moves_to_the_last_login_even_for_a_message_under_way(chat: Chat) -> None:
    under_way = await chat.send(webhook_lost=True)
    await chat.omar.log_in_on(chat.phone, device_id=chat.phone.token)
    later = await chat.send(webhook_lost=True)
    for message in (under_way, later):
        job = await chat.ended(message, sweep=True)
        assert (job["outcome"], job["reason"], got(chat.phone, message)) == ("skipped", "no_device", (0, 0))
    to_omar = await chat.tina.send(await chat.tina.open_chat(chat.omar), TEXT)
    await chat.ended(to_omar)
    assert got(chat.phone, to_omar) == (1, 1)


async def test_a_late_logout_keeps_the_token_of_the_next_login(chat: Chat) -> None:
    await chat.omar.log_in_on(chat.phone, device_id=chat.phone.token)
    await chat.gus.log_out_of(chat.phone.token)
    message = await chat.tina.send(await chat.tina.open_chat(chat.omar), TEXT)
    await chat.ended(message)
    assert got(chat.phone, message) == (1, 1)


async def test_nobody_is_pushed_after_logging_out(chat: Chat) -> None:
    message = await chat.send(webhook_lost=True)
    await chat.gus.log_out_of(chat.phone.token)
    assert (await chat.ended(message, sweep=True))["reason"] == "no_device"
    assert got(chat.phone, message) == (0, 0)


async def test_one_bad_token_stops_nothing_and_resends_nothing(chat: Chat) -> None:
    """Neither other devices nor other messages of the same request, and later messages leave the token out."""
    bad, good = await chat.phone_of(chat.gus, "ios"), await chat.phone_of(chat.gus, "android")
    omars = await chat.phone_of(chat.omar)
    chat.cloud.expo.uninstall(bad.token)
    chat.cloud.pg_net.lose(2)
    messages = await insert_messages(
        chat.cloud,
        (chat.id, chat.tina.id, TEXT),
        (await chat.tina.open_chat(chat.omar), chat.tina.id, TEXT),
    )
    jobs = [await chat.ended(message, sweep=True) for message in messages]
    assert len(chat.cloud.expo.requests) == 1
    assert [got(phone, messages[0]) for phone in (chat.phone, good)] == [(1, 1), (1, 1)]
    assert got(omars, messages[1]) == (1, 1)
    assert [job["outcome"] for job in jobs] == ["accepted", "accepted"]
    await chat.clean_up()
    assert not (await chat.gus.devices())[bad.token]["is_active"]

    next_message = await chat.send()
    await chat.ended(next_message)
    assert sorted(chat.cloud.expo.requests[-1].tokens) == sorted([chat.phone.token, good.token])


async def test_a_fault_of_credentials_keeps_the_device_and_uses_up_no_attempt(chat: Chat, log: Log) -> None:
    chat.cloud.expo.script(TicketError(error="InvalidCredentials"))
    message = await chat.send()
    await log.until(CONFIGURATION_FAULT)
    job = await chat.cloud.until_push(message, lambda job: job["state"] == "pending")
    [delivery] = job["deliveries"]
    assert (job["attempts"], delivery["status"], delivery["error"]) == (0, "retry", "InvalidCredentials")
    await chat.time_passes(message)
    job = await chat.ended(message, sweep=True)
    assert (job["outcome"], job["attempts"], got(chat.phone, message)) == ("accepted", 1, (1, 1))


async def test_a_doubled_webhook_is_one_push(chat: Chat, log: Log) -> None:
    chat.cloud.pg_net.duplicate()
    requests = chat.cloud.pg_net.requests
    message = await chat.send()
    await chat.ended(message)
    await eventually(lambda: chat.cloud.pg_net.requests == requests + 2)
    await chat.cloud.poller.until_idle()
    assert len(chat.cloud.expo.requests) == 1
    assert got(chat.phone, message) == (1, 1)


async def test_a_lost_webhook_is_made_up_for_by_the_sweep(chat: Chat) -> None:
    lost = chat.cloud.pg_net.lost
    message = await chat.send(webhook_lost=True)
    await eventually(lambda: chat.cloud.pg_net.lost == lost + 1)
    assert (await chat.cloud.explain_push(message))["state"] == "pending"
    await chat.sweep()
    assert got(chat.phone, message) == (1, 1)


async def test_a_rolled_back_insert_pushes_nothing(chat: Chat) -> None:
    [rolled_back] = await insert_messages(chat.cloud, (chat.id, chat.tina.id, TEXT), commit=False)
    stored = await chat.send()
    await chat.ended(stored)
    await chat.sweep()
    assert await chat.cloud.explain_push(rolled_back) is None
    assert (got(chat.phone, rolled_back), got(chat.phone, stored)) == ((0, 0), (1, 1))
