"""What happens to a push that Expo accepted, end to end: its receipt, dead tokens, dead letters."""

import asyncio

import pytest

from local.providers.expo.faults import Fault, Hang, HttpError, OddAnswer, ReceiptError, Reset
from operate.redrive import move_dead_letters
from tests.system.chat import Chat, Log, arrived_and_visible, send_to_queue


@pytest.fixture
def cleanup_log(chat: Chat) -> Log:
    """What CleanupReceipts logs during the test."""
    return Log(chat.cloud.functions["CleanupReceipts"])


async def test_a_receipt_turns_an_accepted_push_into_handed_over(chat: Chat, cleanup_log: Log) -> None:
    message = await chat.send()
    await chat.until_done(message)
    assert await chat.statuses(message) == {chat.phone.token: "accepted"}
    await chat.collect_receipts()
    [delivery] = (await chat.cloud.explain_push(message))["deliveries"]
    assert delivery["status"] == "handed_over"
    assert delivery["explanation"].startswith("Handed over to APNs, by the receipt that Expo gave at ")
    assert cleanup_log.metric("ReceiptHandedOver") == 1


async def test_a_push_is_delivered_once_the_device_reports_the_message(chat: Chat) -> None:
    message = await chat.send()
    await chat.until_done(message)
    await chat.gus.client.rpc(
        "mark_messages_delivered",
        {"p_user_id": str(chat.gus.id), "p_message_ids": [str(message)], "p_device_id": chat.phone.token},
    ).execute()
    assert await chat.statuses(message) == {chat.phone.token: "delivered"}


async def test_a_receipt_with_a_dead_token_deactivates_the_device_and_stops_its_pushes(
    chat: Chat, cleanup_log: Log
) -> None:
    removed = await chat.new_phone_of(chat.gus)
    chat.cloud.expo.uninstall(removed.token, report="receipt")
    message = await chat.send()
    await chat.until_done(message)
    assert await chat.statuses(message) == {chat.phone.token: "accepted", removed.token: "accepted"}
    await chat.collect_receipts()
    assert await chat.statuses(message) == {chat.phone.token: "handed_over", removed.token: "failed"}
    assert not (await chat.gus.devices())[removed.token]["is_active"]
    assert cleanup_log.metric("DeviceDeactivated") == 1

    next_message = await chat.send()
    await chat.until_done(next_message)
    assert chat.cloud.expo.requests[-1].tokens == [chat.phone.token]
    assert arrived_and_visible(chat.phone, next_message) == (1, 1)


async def test_a_deactivated_device_that_registers_again_gets_pushes_again(chat: Chat) -> None:
    chat.cloud.expo.uninstall(chat.phone.token, report="receipt")
    await chat.until_done(await chat.send())
    await chat.collect_receipts()
    assert not (await chat.gus.devices())[chat.phone.token]["is_active"]
    phone = chat.cloud.expo.install(chat.phone.token, "ios")
    await chat.gus.log_in_on(phone, device_id=phone.token)
    message = await chat.send()
    await chat.until_done(message)
    assert arrived_and_visible(phone, message) == (1, 1)


@pytest.mark.parametrize(
    "fault",
    [
        HttpError(status=503, body="html"),
        HttpError(status=429),
        Reset(accepted=False),
        OddAnswer(body="truncated"),
        OddAnswer(body="null"),
        Hang(accepted=False, seconds=10),
    ],
    ids=lambda fault: fault.kind,
)
async def test_a_receipt_is_requested_again_after_expo_failed_to_answer(
    chat: Chat, cleanup_log: Log, fault: Fault
) -> None:
    message = await chat.send()
    await chat.until_done(message)
    chat.cloud.expo.script(fault, on="receipts")
    await chat.collect_receipts()
    assert await chat.statuses(message) == {chat.phone.token: "accepted"}
    assert cleanup_log.metric("ReceiptsUnavailable") == 1
    await chat.collect_receipts()
    assert await chat.statuses(message) == {chat.phone.token: "handed_over"}


async def test_a_receipt_that_is_not_ready_is_requested_again_later(chat: Chat) -> None:
    chat.cloud.expo.configure({"receipt_delay_seconds": 1800})
    message = await chat.send()
    await chat.until_done(message)
    await chat.collect_receipts()
    assert await chat.statuses(message) == {chat.phone.token: "accepted"}
    chat.cloud.expo.configure({"receipt_delay_seconds": 0})
    await chat.collect_receipts()
    assert await chat.statuses(message) == {chat.phone.token: "handed_over"}


async def test_a_message_rate_exceeded_receipt_sends_again_to_that_device_only(chat: Chat) -> None:
    other = await chat.new_phone_of(chat.gus)
    chat.cloud.expo.script(ReceiptError(error="MessageRateExceeded"), token=other.token)
    message = await chat.send()
    await chat.until_done(message)
    await chat.collect_receipts()
    job = await chat.until_done(message, sweep=True)
    assert job["outcome"] == "accepted"
    assert [arrived_and_visible(phone, message) for phone in (chat.phone, other)] == [(1, 1), (1, 1)]
    await chat.collect_receipts()
    assert await chat.statuses(message) == {chat.phone.token: "handed_over", other.token: "handed_over"}


async def test_a_redriven_dead_letter_sends_its_push(chat: Chat) -> None:
    queues = chat.cloud.template.queues
    dead_letters, queue = queues["PushDeadLetters"].url, queues["PushQueue"].url
    message = await chat.send(webhook_lost=True)
    await send_to_queue(chat.cloud, dead_letters, str(message))
    assert await asyncio.to_thread(move_dead_letters, chat.cloud.aws.sqs, dead_letters, queue) >= 1
    await chat.until_done(message)
    assert arrived_and_visible(chat.phone, message) == (1, 1)
