"""explain_push: what happened to the push of a message, for support and operators."""

import re
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import pytest

from tests.database.chat import (
    LONG_AGO,
    Chat,
    Row,
    as_user,
    claim,
    claim_one,
    due_receipts,
    explain,
    finish_run,
    receipt,
    record,
    record_receipts,
    value,
    worker_report,
)

HOUR = 3600


async def explanation_of(chat: Chat, message: UUID) -> str:
    """The explanation of a message, its times left out."""
    explained = await explain(chat.connection, message)
    return without_times(explained["explanation"])


async def explanation_of_device(chat: Chat, message: UUID) -> tuple[str, str]:
    """Status and explanation of its only delivery, times left out."""
    [delivery] = (await explain(chat.connection, message))["deliveries"]
    return delivery["status"], without_times(delivery["explanation"])


def without_times(text: str) -> str:
    return re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", "T", text)


async def sent(chat: Chat, *answers: str, **more: Any) -> UUID:
    """Sends a message to the only device of the guide, for which Expo answered this."""
    message = await chat.message()
    claimed, job = await claim_one(chat.connection, message)
    report = worker_report(job, *answers, **more)
    for delivery in report["deliveries"]:
        if delivery["status"] in ("retry", "maybe_sent"):
            delivery["error"] = "Http503"
    await record(chat.connection, claimed, report)
    return message


async def receipt_of(chat: Chat, answer: str) -> None:
    """Records a run in which Expo gives these receipts."""
    await chat.pass_time(HOUR / 4)
    run = uuid4()
    due = await due_receipts(chat.connection)
    await record_receipts(chat.connection, run, *[receipt(one, answer) for one in due])
    await finish_run(chat.connection, run)


async def test_explain_push_returns_state_for_programs_and_sentences_for_people(chat: Chat) -> None:
    device = await chat.device(device_id="Gina's phone")
    message = await sent(chat, "retry", retry_after_seconds=60)
    explained = await explain(chat.connection, message)
    next_attempt = datetime.fromisoformat(explained.pop("next_attempt_at"))
    assert next_attempt == (await chat.job(message))["next_attempt_at"]
    at = f"{next_attempt:%Y-%m-%d %H:%M:%S} UTC"
    assert explained == {
        "message_id": str(message),
        "recipient_id": str(chat.guide),
        "state": "pending",
        "outcome": None,
        "reason": None,
        "attempts": 1,
        "delivered_at": None,
        "explanation": f"Waiting after 1 attempt(s): the next one is at {at}.",
        "deliveries": [
            {
                "device_id": device["device_id"],
                "platform": "ios",
                "kind": "alert",
                "sound": True,
                "status": "retry",
                "error": "Http503",
                "ticket_id": None,
                "attempts": 1,
                "explanation": f"Rejected for now (Http503); sent again at {at}.",
            }
        ],
    }


async def test_an_unknown_message_has_no_explanation(chat: Chat) -> None:
    assert await explain(chat.connection, uuid4()) is None


# A message -------------------------------------------------------------------------------------


async def test_a_message_that_no_worker_has_claimed_is_explained(chat: Chat) -> None:
    assert (
        await explanation_of(chat, await chat.message())
        == "Due since T: the webhook or the next sweep starts a worker that claims it."
    )


async def test_a_leased_message_is_explained(chat: Chat) -> None:
    await chat.device()
    message = await chat.message()
    await claim(chat.connection)
    assert await explanation_of(chat, message) == "Being sent: a worker has leased it until T."


async def test_a_message_that_came_while_a_worker_has_the_conversation_is_explained(chat: Chat) -> None:
    await chat.device()
    await claim_one(chat.connection, await chat.message())
    message = await chat.message()
    assert (await explain(chat.connection, message))["state"] == "pending"
    explanation = "Waiting: a worker sends what came before in the conversation; sent after its report, or after T."
    assert await explanation_of(chat, message) == explanation


async def test_a_message_whose_lease_expired_is_explained(chat: Chat) -> None:
    await chat.device()
    message = await chat.message()
    await claim(chat.connection)
    await chat.pass_time(31)
    expected = "The lease of its worker expired at T without a report: the next sweep claims it again."
    assert await explanation_of(chat, message) == expected


async def test_a_message_deferred_by_presence_is_explained(chat: Chat) -> None:
    await chat.device()
    await chat.look(chat.room)
    message = await chat.message()
    await claim(chat.connection)
    expected = "Waiting: the recipient is looking at the conversation; decided again at T."
    assert await explanation_of(chat, message) == expected


async def test_a_skipped_message_is_explained(chat: Chat) -> None:
    message = await chat.message()
    await claim(chat.connection)
    no_device = "the recipient has no active device with a push token"
    assert await explanation_of(chat, message) == f"Skipped: {no_device}."
    await chat.device(push_provider="fcm", push_token="native-token")
    message = await chat.message()
    await claim(chat.connection)
    assert await explanation_of(chat, message) == (
        "Skipped: all active devices of the recipient are registered for a push service that the workers"
        " have no credentials for (push_provider)."
    )
    message = await chat.message()
    await chat.read()
    await claim(chat.connection)
    assert (await explanation_of(chat, message)).startswith("Skipped: the recipient had read it.")


async def test_a_message_that_ended_without_success_is_explained(chat: Chat) -> None:
    await chat.device()
    message = await sent(chat, "retry")
    await chat.pass_time(24 * HOUR)
    await claim(chat.connection)
    because = "not sent again because it is older than its time to live (24:00:00)."
    assert await explanation_of(chat, message) == f"Failed on every device; {because}"
    assert await explanation_of_device(chat, message) == ("retry", f"Rejected for now (Http503); {because}")


async def test_a_message_whose_workers_never_reported_is_explained(chat: Chat) -> None:
    await chat.device()
    await chat.connection.execute("update push.settings set max_attempts = 1")
    message = await chat.message()
    for _ in range(2):
        await claim(chat.connection)
        await chat.pass_time(31)
    assert await explanation_of(chat, message) == (
        "May have been sent: Expo or a worker got it and never answered;"
        " not sent again because all 1 attempts were used."
    )


# A device --------------------------------------------------------------------------------------


async def test_an_accepted_push_is_explained(chat: Chat) -> None:
    await chat.device()
    message = await sent(chat, "accepted")
    assert await explanation_of(chat, message) == "Accepted for at least one device."
    expected = ("accepted", "Accepted by Expo at T; the receipt is not there yet, Expo is asked at T.")
    assert await explanation_of_device(chat, message) == expected
    await receipt_of(chat, "missing")
    assert await explanation_of_device(chat, message) == expected


async def test_an_accepted_push_without_a_readable_ticket_is_explained(chat: Chat) -> None:
    await chat.device()
    message = await sent(chat, "accepted")
    await chat.connection.execute("update push.deliveries set status = 'accepted', ticket_id = null")
    expected = "Accepted by Expo at T; its answer had no readable ticket, so no receipt can be asked for."
    assert await explanation_of_device(chat, message) == ("accepted", expected)


@pytest.mark.parametrize(("platform", "service"), [("ios", "APNs"), ("android", "FCM")])
async def test_a_push_that_was_handed_over_is_explained(chat: Chat, platform: str, service: str) -> None:
    await chat.device(platform=platform)
    message = await sent(chat, "accepted")
    await receipt_of(chat, "handed_over")
    expected = f"Handed over to {service}, by the receipt that Expo gave at T."
    assert await explanation_of_device(chat, message) == ("handed_over", expected)


async def test_a_push_whose_receipt_was_lost_is_explained(chat: Chat) -> None:
    await chat.device()
    message = await sent(chat, "accepted")
    await chat.pass_time(24 * HOUR)
    await receipt_of(chat, "missing")
    expected = "Accepted by Expo at T; it never gave a receipt, so its delivery is unknown."
    assert await explanation_of_device(chat, message) == ("receipt_lost", expected)


async def test_a_push_that_may_have_been_sent_is_explained(chat: Chat) -> None:
    await chat.device()
    message = await sent(chat, "maybe_sent")
    expected = "Sent at T without a clear answer (Http503), so it may have arrived; sent again at T."
    assert await explanation_of_device(chat, message) == ("maybe_sent", expected)


async def test_a_permanently_rejected_push_is_explained(chat: Chat) -> None:
    await chat.device()
    for error, expected in {
        "MessageTooBig": "Rejected permanently: the notification is over 4096 bytes (MessageTooBig).",
        "DeveloperError": "Rejected permanently after 1 attempt(s): DeveloperError.",
    }.items():
        assert await explanation_of_device(chat, await sent(chat, error)) == ("failed", expected)


@pytest.mark.parametrize(
    ("meanwhile", "expected"),
    [
        ("", "device deactivated until it registers again."),
        ("delete from user_devices", "the device was deleted meanwhile."),
        ("update user_devices set push_token = 'ExponentPushToken[new]'", "the device has another token now."),
        (
            "update user_devices set last_seen_at = clock_timestamp()",
            "device stays active, it registered again after the send.",
        ),
        (
            "update push.settings set breaker_devices = 1",
            "device stays active, too many tokens died at once: decide with push.review_held_deactivations.",
        ),
    ],
)
async def test_a_push_to_a_dead_token_is_explained(chat: Chat, meanwhile: str, expected: str) -> None:
    await chat.device()
    message = await sent(chat, "accepted")
    await chat.pass_time(1)
    if meanwhile:
        await chat.connection.execute(meanwhile.encode())
    due = await due_later(chat)
    run = uuid4()
    await record_receipts(chat.connection, run, *[receipt(one, "DeviceNotRegistered") for one in due])
    await finish_run(chat.connection, run)
    assert await explanation_of_device(chat, message) == ("failed", f"Token dead (DeviceNotRegistered): {expected}")


async def due_later(chat: Chat) -> list[Row]:
    """Lets the receipts become due, and returns them. Devices do not become older."""
    await chat.connection.execute("update push.deliveries set receipt_due_at = clock_timestamp()")
    return await due_receipts(chat.connection)


# What the device itself reported ---------------------------------------------------------------


async def report_delivered(chat: Chat, message: UUID, device_id: str | None) -> None:
    """The app of the guide reports the delivery of the message."""
    async with as_user(chat.connection, chat.guide):
        marked = "select public.mark_messages_delivered(%s, array[%s]::uuid[], %s)"
        assert await value(chat.connection, marked, chat.guide, message, device_id) == 1


async def test_a_push_that_the_device_reported_is_explained_as_delivered(chat: Chat) -> None:
    await chat.device(device_id="reports")
    await chat.device(device_id="does not")
    message = await sent(chat, "accepted", "accepted")
    await report_delivered(chat, message, "reports")
    explained = await explain(chat.connection, message)
    by_device = {delivery["device_id"]: delivery for delivery in explained["deliveries"]}
    assert by_device["reports"]["status"] == "delivered"
    assert without_times(by_device["reports"]["explanation"]) == "Delivered: the device itself reported it at T."
    assert by_device["does not"]["status"] == "accepted"
    assert explained["delivered_at"]


async def test_a_delivery_report_without_a_device_counts_for_the_message(chat: Chat) -> None:
    await chat.device()
    message = await sent(chat, "accepted")
    await report_delivered(chat, message, None)
    expected = "Accepted for at least one device. The recipient's app reported it at T."
    assert await explanation_of(chat, message) == expected
    assert (await explanation_of_device(chat, message))[0] == "accepted"


# What followed the alert -----------------------------------------------------------------------


async def send(chat: Chat, answer: str = "accepted") -> None:
    """Claims what is due, for which Expo answers this."""
    claimed = await claim(chat.connection)
    await record(chat.connection, claimed, *(worker_report(job, answer) for job in claimed["jobs"]))


async def explanations(chat: Chat, message: UUID) -> list[str]:
    """The explanations of all deliveries of a message, in their order, times left out."""
    explained = await explain(chat.connection, message)
    return [without_times(delivery["explanation"]) for delivery in explained["deliveries"]]


async def test_the_pushes_that_followed_the_alert_are_explained(chat: Chat) -> None:
    await chat.device()
    message = await sent(chat, "accepted")
    await chat.connection.execute("update public.chat_messages set message = 'edited'")
    await chat.pass_time(3)
    await send(chat)
    await chat.read()
    await chat.pass_time(3)
    await send(chat)
    await send(chat)
    accepted = "Accepted by Expo at T; the receipt is not there yet, Expo is asked at T."
    assert await explanations(chat, message) == [
        accepted,
        f"Update of the text that is shown: {accepted}",
        f"Badge 0: {accepted}",
        f"Removal of the notification: {accepted}",
    ]


async def test_a_dismissal_that_is_sent_again_is_explained_although_its_message_is_decided(chat: Chat) -> None:
    await chat.device(platform="android")
    message = await sent(chat, "accepted")
    await chat.read()
    await chat.pass_time(3)
    await send(chat, "retry")
    assert (await explain(chat.connection, message))["outcome"] == "accepted"
    [_, dismissal] = await explanations(chat, message)
    assert dismissal.endswith("; sent again at T.")


async def test_a_push_that_a_later_one_replaced_is_explained(chat: Chat) -> None:
    await chat.device()
    message = await sent(chat, "retry")
    await chat.message("newer")
    await send(chat)
    assert (await explanations(chat, message))[0] == (
        "Rejected for now (Http503); not sent again because a later push replaced it."
    )


@pytest.mark.parametrize("shows", [False, True], ids=["idle job", "job that waits until what is shown expires"])
async def test_a_message_that_makes_nothing_due_is_explained_although_its_conversation_has_a_job(
    chat: Chat, shows: bool
) -> None:
    if shows:
        await chat.device()
    await chat.message()
    await send(chat)
    read = await chat.message(is_read=True)
    assert await explanation_of(chat, read) == "Skipped: the recipient had read it."
    history = await chat.message(created_at=LONG_AGO)
    assert await explanation_of(chat, history) == "Skipped: it is older than its time to live (24:00:00)."
    assert (await explain(chat.connection, history))["state"] == "done"


async def test_a_message_that_no_worker_saw_while_it_was_new_is_explained(chat: Chat) -> None:
    message = await chat.message()
    await chat.connection.execute("delete from push.jobs")
    assert await explanation_of(chat, message) == (
        "Skipped: no worker saw it while it was new:"
        " it was stored as read, deleted or old, or with a thousand newer ones."
    )


async def test_a_message_to_nobody_is_explained_although_somebody_has_left_the_conversation(chat: Chat) -> None:
    """Their job is still there, to remove what their phones show."""
    await chat.message("This one creates the job.")
    await chat.connection.execute("alter table chat_rooms alter user2_id drop not null")
    await chat.connection.execute("update chat_rooms set user2_id = null")
    message = await chat.message()
    for _ in range(2):
        explained = await explain(chat.connection, message)
        assert explained["recipient_id"] is None
        reason = "its sender or its recipient is not in the conversation any more"
        assert explained["explanation"] == f"Skipped: {reason}."
        await claim(chat.connection)
