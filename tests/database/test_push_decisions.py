"""What a claim decides about a job: send it, defer it or end it, and why (push.decide)."""

from datetime import UTC, datetime
from itertools import product
from uuid import uuid4

import pytest

from tests.database.chat import Chat, Row, claim, claim_one, decision, insert, record, value, worker_report
from tests.database.test_block import block
from tests.database.test_mute import mute

# In this order: the first condition that applies decides.
DECISION_TABLE = {
    "deleted": "skipped: deleted",
    "read": "skipped: read",
    "expired": "skipped: expired",
    "blocked": "skipped: blocked",
    "muted": "skipped: muted",
    "viewing": "deferred",
    "provider_not_configured": "skipped: provider_not_configured",
    "no_device": "skipped: no_device",
}


@pytest.mark.parametrize(
    "conditions",
    [
        [name for name, applies in zip(DECISION_TABLE, combination, strict=True) if applies]
        for combination in product([True, False], repeat=len(DECISION_TABLE))
    ],
    ids=lambda conditions: "+".join(conditions) or "none",
)
async def test_the_first_condition_of_the_decision_table_that_applies_decides(
    chat: Chat, conditions: list[str]
) -> None:
    message = await chat.message()
    if "expired" in conditions:
        await chat.pass_time(24 * 3600)
    if "provider_not_configured" in conditions:
        await chat.device(push_provider="fcm", push_token="native-token")
    elif "no_device" not in conditions:
        await chat.device()
    if "muted" in conditions:
        await mute(chat)
    if "viewing" in conditions:
        await chat.look(chat.room)
    if "read" in conditions:
        await chat.read()
    if "deleted" in conditions:
        await chat.connection.execute("update chat_messages set deleted_at = now()")
    if "blocked" in conditions:  # Last, because a person who blocks marks nothing.
        await block(chat)

    expected = DECISION_TABLE[conditions[0]] if conditions else "send"
    assert decision(await claim(chat.connection, message)) == expected
    assert decision_of(await chat.job(message)) == expected


def decision_of(job: Row) -> str:
    match job["state"], job["reason"]:
        case "leased", None:
            return "send"
        case "pending", "viewing":
            return "deferred"
        case _:
            return f"{job['outcome']}: {job['reason']}"


async def test_a_receipt_alone_marks_a_message_as_read(chat: Chat) -> None:
    message = await chat.message()
    await chat.device()
    await chat.read()
    await chat.connection.execute("update chat_messages set is_read = false")
    assert decision(await claim(chat.connection, message)) == "skipped: read"


async def test_is_read_alone_marks_a_message_as_read(chat: Chat) -> None:
    message = await chat.message()
    await chat.device()
    await chat.connection.execute("update chat_messages set is_read = true")
    assert decision(await claim(chat.connection, message)) == "skipped: read"


async def test_a_receipt_of_the_sender_does_not_mark_a_message_as_read(chat: Chat) -> None:
    message = await chat.message()
    await chat.device()
    await insert(
        chat.connection,
        "public.message_receipts",
        message_id=message,
        user_id=chat.tourist,
        read_at=datetime.max,
    )
    assert decision(await claim(chat.connection, message)) == "send"


@pytest.mark.parametrize(
    ("age_seconds", "is_online", "elsewhere", "expected"),
    [
        pytest.param(None, True, False, "send", id="missing"),
        pytest.param(0, True, False, "deferred", id="fresh"),
        pytest.param(40, True, False, "deferred", id="40 s old"),
        pytest.param(46, True, False, "send", id="stale: hard_disconnect"),
        pytest.param(-60, True, False, "send", id="clock in the future"),
        pytest.param(0, False, False, "send", id="offline"),
        pytest.param(0, True, True, "send", id="looking at another conversation"),
    ],
)
async def test_only_a_fresh_heartbeat_in_this_conversation_defers_the_push(
    chat: Chat, age_seconds: float | None, is_online: bool, elsewhere: bool, expected: str
) -> None:
    await chat.device()
    if age_seconds is not None:
        await chat.look(uuid4() if elsewhere else chat.room, is_online=is_online)
        await chat.pass_time(age_seconds)
    assert decision(await claim(chat.connection, await chat.message())) == expected


async def test_a_deferred_message_that_is_read_meanwhile_ends_as_viewing(chat: Chat) -> None:
    await chat.device()
    await chat.look(chat.room)
    message = await chat.message()
    assert decision(await claim(chat.connection, message)) == "deferred"
    await chat.read()
    await chat.pass_time(46)
    assert decision(await claim(chat.connection)) == "skipped: viewing"


async def test_a_deferred_message_is_sent_when_the_heartbeat_is_stale(chat: Chat) -> None:
    """An app that was left open with the conversation on its screen does not prevent the push."""
    await chat.device()
    await chat.look(chat.room)
    message = await chat.message()
    await claim(chat.connection, message)
    await chat.pass_time(44)
    assert (await claim(chat.connection, message))["not_due"] == [str(message)]
    await chat.pass_time(2)
    assert decision(await claim(chat.connection)) == "send"
    assert (await chat.job(message))["attempts"] == 1


async def test_a_message_is_deferred_again_while_heartbeats_arrive(chat: Chat) -> None:
    await chat.device()
    await chat.look(chat.room)
    message = await chat.message()
    await claim(chat.connection, message)
    await chat.pass_time(30)
    await chat.look(chat.room)
    await chat.pass_time(20)
    assert decision(await claim(chat.connection)) == "deferred"


async def test_a_push_never_goes_to_the_sender(chat: Chat) -> None:
    await chat.device(user_id=chat.tourist)
    mine = await chat.device()
    _, job = await claim_one(chat.connection, await chat.message())
    assert [device["device_id"] for device in job["devices"]] == [str(mine["id"])]


async def test_a_push_goes_to_each_device_of_the_recipient(chat: Chat) -> None:
    devices = [await chat.device(), await chat.device(platform="android")]
    _, job = await claim_one(chat.connection, await chat.message())
    assert {device["push_token"] for device in job["devices"]} == {device["push_token"] for device in devices}


@pytest.mark.parametrize(
    "columns",
    [
        {"is_active": False},
        {"push_token": None},
        {"push_token": None, "push_provider": "fcm"},
        {"is_active": False, "push_provider": "fcm", "push_token": "fcm-token"},
    ],
    ids=str,
)
async def test_a_device_that_cannot_be_sent_to_gets_no_push(chat: Chat, columns: Row) -> None:
    await chat.device(**columns)
    assert decision(await claim(chat.connection, await chat.message())) == "skipped: no_device"


@pytest.mark.parametrize("provider", ["fcm", "apns"])
async def test_a_job_whose_devices_all_have_a_provider_that_is_not_configured_ends_with_that_reason(
    chat: Chat, provider: str
) -> None:
    await chat.device(push_provider=provider, push_token="0a" * 32)
    await chat.device(is_active=False)
    assert decision(await claim(chat.connection, await chat.message())) == "skipped: provider_not_configured"


async def test_a_device_of_a_provider_that_is_not_configured_does_not_prevent_the_push_to_others(chat: Chat) -> None:
    await chat.device(push_provider="fcm", push_token="native-token")
    mine = await chat.device()
    _, job = await claim_one(chat.connection, await chat.message())
    assert [device["device_id"] for device in job["devices"]] == [str(mine["id"])]


async def test_a_push_goes_to_the_device_limit_devices_that_were_seen_last(chat: Chat) -> None:
    """The rows may be older than the limit, or written while triggers were disabled."""
    await chat.connection.execute("update push.settings set device_limit = 3")
    await chat.connection.execute("alter table public.user_devices disable trigger user")
    for day in range(6):
        await chat.device(
            push_token=f"ExponentPushToken[day{day}]", last_seen_at=datetime(2026, 11, 1 + day, tzinfo=UTC)
        )
    await chat.connection.execute("alter table public.user_devices enable trigger user")
    message = await chat.message()
    claimed, job = await claim_one(chat.connection, message)
    assert {device["push_token"] for device in job["devices"]} == {f"ExponentPushToken[day{day}]" for day in (3, 4, 5)}
    await record(chat.connection, claimed, worker_report(job))
    assert (await chat.job(message))["state"] == "done", "the devices over the limit are no reason to send again"


async def test_a_job_ends_when_its_message_was_deleted_while_triggers_were_disabled(chat: Chat) -> None:
    await chat.device()
    message = await chat.message()
    await chat.connection.execute("alter table public.chat_messages disable trigger user")
    await chat.connection.execute("delete from public.chat_messages")
    claimed = await claim(chat.connection, message)
    assert (claimed["jobs"], claimed["unknown"]) == ([], [str(message)])
    assert (await claim(chat.connection))["jobs"] == []
    assert await value(chat.connection, "select state from push.jobs") == "idle"


async def test_a_message_that_expires_while_retrying_has_failed(chat: Chat) -> None:
    await chat.device()
    message = await chat.message()
    claimed, job = await claim_one(chat.connection, message)
    await record(chat.connection, claimed, worker_report(job, "retry"))
    await chat.pass_time(24 * 3600)
    assert decision(await claim(chat.connection)) == "failed: expired"


async def test_a_message_that_is_read_while_retrying_is_not_sent_again(chat: Chat) -> None:
    await chat.device()
    message = await chat.message()
    claimed, job = await claim_one(chat.connection, message)
    await record(chat.connection, claimed, worker_report(job, "maybe_sent"))
    await chat.read()
    await chat.pass_time(60)
    claimed = await claim(chat.connection)
    assert claimed["finished"] == [{"message_id": str(message), "outcome": "maybe_sent", "reason": "read"}]
    # The phone may show it, so it is dismissed.
    assert [device["kind"] for job in claimed["jobs"] for device in job["devices"]] == ["dismiss"]


async def test_the_claim_reports_a_job_whose_attempts_are_exhausted(chat: Chat) -> None:
    await chat.device()
    await chat.connection.execute("update push.settings set max_attempts = 2")
    message = await chat.message()
    for _ in range(2):
        claimed, job = await claim_one(chat.connection, message)
        await record(chat.connection, claimed, worker_report(job, "retry"))
        await chat.pass_time(60)
    assert (await claim(chat.connection, message))["finished"] == [
        {"message_id": str(message), "outcome": "failed", "reason": "attempts_exhausted"}
    ]


async def test_a_job_whose_worker_never_reported_may_have_been_sent(chat: Chat) -> None:
    await chat.device()
    await chat.connection.execute("update push.settings set max_attempts = 1")
    message = await chat.message()
    await claim(chat.connection, message)
    await chat.pass_time(60)
    assert decision(await claim(chat.connection, message)) == "maybe_sent: attempts_exhausted"
