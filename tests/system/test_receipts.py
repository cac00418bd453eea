"""What becomes of a push that Expo accepted, end to end: its receipt, dead devices, dead letters."""

import asyncio

import pytest

from local.providers.expo.faults import Fault, Hang, HttpError, OddAnswer, ReceiptError, Reset
from operate.redrive import move_dead_letters
from tests.system.chat import Chat, Log, got


@pytest.fixture
def cleanup_log(chat: Chat) -> Log:
    """What CleanupReceipts logs during the test."""
    return Log(chat.cloud.functions["CleanupReceipts"])


async def test_an_accepted_push_is_handed_over_by_its_receipt(chat: Chat, cleanup_log: Log) -> None:
    message = await chat.send()
    await chat.ended(message)
    assert await chat.statuses(message) == {chat.phone.token: "accepted"}
    await chat.clean_up()
    [delivery] = (await chat.cloud.explain_push(message))["deliveries"]
    assert delivery["status"] == "handed_over"
    assert delivery["explanation"].startswith("Handed over to APNs, by the receipt that Expo gave at ")
    assert cleanup_log.metric("ReceiptHandedOver") == 1


async def test_what_the_device_itself_reported_is_delivered(chat: Chat) -> None:
    message = await chat.send()
    await chat.ended(message)
    await chat.gus.client.rpc(
        "mark_messages_delivered",
        {"p_user_id": str(chat.gus.id), "p_message_ids": [str(message)], "p_device_id": chat.phone.token},
    ).execute()
    assert await chat.statuses(message) == {chat.phone.token: "delivered"}


async def test_a_phone_that_is_dead_by_its_receipt_is_deactivated_and_sent_nothing_more(
    chat: Chat, cleanup_log: Log
) -> None:
    removed = await chat.phone_of(chat.gus)
    chat.cloud.expo.uninstall(removed.token, report="receipt")
    message = await chat.send()
    await chat.ended(message)
    assert await chat.statuses(message) == {chat.phone.token: "accepted", removed.token: "accepted"}
    await chat.clean_up()
    assert await chat.statuses(message) == {chat.phone.token: "handed_over", removed.token: "failed"}
    assert not (await chat.gus.devices())[removed.token]["is_active"]
    assert cleanup_log.metric("DeviceDeactivated") == 1

    next_message = await chat.send()
    await chat.ended(next_message)
    assert chat.cloud.expo.requests[-1].tokens == [chat.phone.token]
    assert got(chat.phone, next_message) == (1, 1)


async def test_a_phone_that_registers_again_is_on_again(chat: Chat) -> None:
    chat.cloud.expo.uninstall(chat.phone.token, report="receipt")
    await chat.ended(await chat.send())
    await chat.clean_up()
    await chat.gus.log_out_of(chat.phone.token)
    phone = chat.cloud.expo.install(chat.phone.token, "ios")
    await chat.gus.log_in_on(phone, device_id=phone.token)
    message = await chat.send()
    await chat.ended(message)
    assert got(phone, message) == (1, 1)


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
async def test_receipts_are_asked_for_again_when_expo_gave_none(chat: Chat, cleanup_log: Log, fault: Fault) -> None:
    message = await chat.send()
    await chat.ended(message)
    chat.cloud.expo.script(fault, on="receipts")
    await chat.clean_up()
    assert await chat.statuses(message) == {chat.phone.token: "accepted"}
    assert cleanup_log.metric("ReceiptsUnavailable") == 1
    await chat.clean_up()
    assert await chat.statuses(message) == {chat.phone.token: "handed_over"}


async def test_a_receipt_that_is_not_ready_is_asked_for_later(chat: Chat) -> None:
    chat.cloud.expo.configure({"receipt_delay_seconds": 1800})
    message = await chat.send()
    await chat.ended(message)
    await chat.clean_up()
    assert await chat.statuses(message) == {chat.phone.token: "accepted"}
    chat.cloud.expo.configure({"receipt_delay_seconds": 0})
    await chat.clean_up()
    assert await chat.statuses(message) == {chat.phone.token: "handed_over"}


async def test_a_receipt_that_says_later_sends_again_to_that_phone_only(chat: Chat) -> None:
    other = await chat.phone_of(chat.gus)
    chat.cloud.expo.script(ReceiptError(error="MessageRateExceeded"), token=other.token)
    message = await chat.send()
    await chat.ended(message)
    await chat.clean_up()
    job = await chat.ended(message, sweep=True)
    assert job["outcome"] == "accepted"
    assert [got(phone, message) for phone in (chat.phone, other)] == [(1, 1), (1, 1)]
    await chat.clean_up()
    assert await chat.statuses(message) == {chat.phone.token: "handed_over", other.token: "handed_over"}


async def test_a_dead_letter_that_is_redriven_is_pushed(chat: Chat) -> None:
    queues = chat.cloud.template.queues
    message = await chat.send(webhook_lost=True)
    dead_letters, queue = queues["PushDeadLetters"].url, queues["PushQueue"].url
    sqs = chat.cloud.aws.sqs
    await asyncio.to_thread(sqs.send_message, QueueUrl=dead_letters, MessageBody=str(message))
    assert await asyncio.to_thread(move_dead_letters, sqs, dead_letters, queue) >= 1
    await chat.ended(message)
    assert got(chat.phone, message) == (1, 1)
