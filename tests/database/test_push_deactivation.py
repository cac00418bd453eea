"""Which answers of Expo deactivate a device (tickets; test_receipts.py has the receipts)."""

from uuid import uuid4

import pytest

from tests.database.chat import ALL_RECORDED, Chat, Row, claim_one, finish_run, is_active, record, value, worker_report


async def decide_and_keep(chat: Chat, device: Row) -> None:
    """Decides about the dead tokens of all recorded tickets. None of them may deactivate this device."""
    assert await finish_run(chat.connection, uuid4()) == {"deactivated": 0, "held": 0}
    assert await is_active(chat, device)


async def test_a_device_that_expo_calls_not_registered_is_deactivated(chat: Chat) -> None:
    dead, alive = await chat.device(), await chat.device()
    message = await chat.message()
    claimed, job = await claim_one(chat.connection, message)
    answers = {dead["push_token"]: "DeviceNotRegistered", alive["push_token"]: "accepted"}
    report = worker_report(job, *(answers[device["push_token"]] for device in job["devices"]))
    assert await record(chat.connection, claimed, report) == ALL_RECORDED
    assert (await finish_run(chat.connection, uuid4()))["deactivated"] == 1
    assert (await is_active(chat, dead), await is_active(chat, alive)) == (False, True)
    assert (await chat.job(message))["outcome"] == "accepted"


@pytest.mark.parametrize("error", ["MessageTooBig", "InvalidCredentials", "MismatchSenderId", "Odd"])
async def test_each_other_error_keeps_the_device_active(chat: Chat, error: str) -> None:
    device = await chat.device()
    claimed, job = await claim_one(chat.connection, await chat.message())
    await record(chat.connection, claimed, worker_report(job, error))
    await decide_and_keep(chat, device)


async def test_a_device_whose_dead_token_changed_meanwhile_stays_active_and_gets_the_message(chat: Chat) -> None:
    device = await chat.device()
    message = await chat.message()
    claimed, job = await claim_one(chat.connection, message)
    await chat.connection.execute("update public.user_devices set push_token = 'ExponentPushToken[new]'")
    await record(chat.connection, claimed, worker_report(job, "DeviceNotRegistered"))
    await decide_and_keep(chat, device)
    await chat.pass_time(6)
    _, job = await claim_one(chat.connection, message)
    assert [device["push_token"] for device in job["devices"]] == ["ExponentPushToken[new]"]


async def test_a_device_that_registered_again_after_the_send_stays_active(chat: Chat) -> None:
    device = await chat.device()
    claimed, job = await claim_one(chat.connection, await chat.message())
    await chat.connection.execute(
        "update public.user_devices set last_seen_at = clock_timestamp() where id = %s", (device["id"],)
    )
    await record(chat.connection, claimed, worker_report(job, "DeviceNotRegistered"))
    await decide_and_keep(chat, device)


async def test_a_dead_token_of_the_former_account_keeps_the_device_of_the_new_account_active(chat: Chat) -> None:
    device = await chat.device()
    claimed, job = await claim_one(chat.connection, await chat.message())
    moved = await chat.device(user_id=chat.tourist, push_token=device["push_token"])
    await record(chat.connection, claimed, worker_report(job, "DeviceNotRegistered"))
    await decide_and_keep(chat, moved)


# The circuit breaker, for tickets ----------------------------------------------------------------


async def dead_tickets(chat: Chat, dead: int, alive: int) -> Row:
    """Sends to so many devices, and so many tickets report a dead token. Returns the answer to the record."""
    await chat.connection.execute("update push.settings set device_limit = 1000, recipient_share = 1")
    for number in range(dead + alive):
        await chat.device(push_token=f"ExponentPushToken[{'dead' if number < dead else 'alive'}{number}]")
    claimed, job = await claim_one(chat.connection, await chat.message())
    answers = ["DeviceNotRegistered" if "dead" in device["push_token"] else "accepted" for device in job["devices"]]
    return await record(chat.connection, claimed, worker_report(job, *answers))


async def active_devices(chat: Chat) -> int:
    number = await value(chat.connection, "select count(*) from public.user_devices where is_active")
    assert isinstance(number, int)
    return number


@pytest.mark.parametrize(
    ("dead", "alive", "held"),
    [(20, 79, 20), (20, 80, 0), (19, 0, 0), (300, 0, 300)],
    ids=["a fifth and more", "a fifth", "too few devices", "all of 300"],
)
async def test_many_dead_tickets_are_held_for_an_operator(chat: Chat, dead: int, alive: int, held: int) -> None:
    assert (await dead_tickets(chat, dead, alive))["deactivated"] == 0
    assert await finish_run(chat.connection, uuid4()) == {"deactivated": dead - held, "held": held}
    assert await active_devices(chat) == alive + held


async def test_the_first_report_after_a_minute_decides_about_dead_tickets(chat: Chat) -> None:
    await dead_tickets(chat, 2, 1)
    await chat.pass_time(61)
    claimed, job = await claim_one(chat.connection, await chat.message())
    answers = ["DeviceNotRegistered" if "dead" in device["push_token"] else "accepted" for device in job["devices"]]
    assert (await record(chat.connection, claimed, worker_report(job, *answers)))["deactivated"] == 2
    assert await active_devices(chat) == 1


async def test_a_held_device_is_counted_as_held_once(chat: Chat) -> None:
    await dead_tickets(chat, 20, 0)
    await finish_run(chat.connection, uuid4())
    claimed, job = await claim_one(chat.connection, await chat.message())
    await record(chat.connection, claimed, worker_report(job, *["DeviceNotRegistered"] * 20))
    assert await value(chat.connection, "select count(*) from push.receipt_runs") == 1
    assert await finish_run(chat.connection, uuid4()) == {"deactivated": 0, "held": 0}
