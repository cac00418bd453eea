"""What a report of a worker records, and how a job ends."""

from typing import Any

import pytest

from tests.database.chat import (
    ALL_RECORDED,
    Chat,
    claim,
    claim_one,
    delivery_ids,
    explain,
    record,
    value,
    worker_report,
)


@pytest.mark.parametrize("later", ["retry", "maybe_sent", "DeviceNotRegistered"])
async def test_an_accepted_delivery_is_never_replaced(chat: Chat, later: str) -> None:
    await chat.device()
    message = await chat.message()
    first, job = await claim_one(chat.connection, message)
    await chat.pass_time(31)
    second, _ = await claim_one(chat.connection, message)
    await record(chat.connection, first, worker_report(job))
    await record(chat.connection, second, worker_report(job, later))
    assert (await chat.job(message))["outcome"] == "accepted"
    [delivery] = (await explain(chat.connection, message))["deliveries"]
    assert (delivery["status"], delivery["error"], delivery["attempts"]) == ("accepted", None, 2)
    assert delivery["ticket_id"].startswith("ticket of ")


@pytest.mark.parametrize(
    ("answers", "outcome"),
    [
        (["accepted", "accepted"], "accepted"),
        (["accepted", "MessageTooBig"], "accepted"),
        (["MessageTooBig", "InvalidData"], "failed"),
    ],
)
async def test_the_outcome_of_a_job_is_the_best_of_its_devices(chat: Chat, answers: list[str], outcome: str) -> None:
    for _ in answers:
        await chat.device()
    message = await chat.message()
    claimed, job = await claim_one(chat.connection, message)
    await record(chat.connection, claimed, worker_report(job, *answers))
    job = await chat.job(message)
    assert (job["state"], job["outcome"], job["reason"]) == ("done", outcome, None)
    assert job["finished_at"] is not None


@pytest.mark.parametrize("unsure", ["retry", "maybe_sent"])
async def test_only_the_devices_without_a_ticket_are_sent_to_again(chat: Chat, unsure: str) -> None:
    for _ in range(3):
        await chat.device()
    message = await chat.message()
    claimed, job = await claim_one(chat.connection, message)
    await record(chat.connection, claimed, worker_report(job, "accepted", unsure, "MessageTooBig"))
    await chat.pass_time(35)
    claimed, again = await claim_one(chat.connection, message)
    assert (delivery_ids(again), again["attempt"]) == (delivery_ids(job)[1:2], 2)
    await record(chat.connection, claimed, worker_report(again))
    assert (await chat.job(message))["outcome"] == "accepted"


async def test_a_device_that_registers_after_the_claim_gets_the_message(chat: Chat) -> None:
    await chat.device()
    message = await chat.message()
    claimed, job = await claim_one(chat.connection, message)
    new = await chat.device()
    await record(chat.connection, claimed, worker_report(job))
    await chat.pass_time(6)
    _, job = await claim_one(chat.connection, message)
    assert [device["push_token"] for device in job["devices"]] == [new["push_token"]]


async def test_a_message_that_was_sent_to_no_device_never_ends_as_maybe_sent(chat: Chat) -> None:
    """The worker reports that it sent to no device: the attempt does not count."""
    await chat.device()
    message = await chat.message()
    claimed, job = await claim_one(chat.connection, message)
    await record(chat.connection, claimed, {"job_id": job["job_id"], "deliveries": []})
    assert (await chat.job(message))["state"] == "pending"


# Deleted meanwhile -------------------------------------------------------------------------------


async def test_the_report_of_a_message_that_was_deleted_meanwhile_makes_its_job_due_again(chat: Chat) -> None:
    await chat.device()
    deleted, kept = await chat.separate_message(), await chat.separate_message()
    claimed = await claim(chat.connection, deleted, kept)
    await chat.connection.execute("delete from chat_messages where id = %s", (deleted,))
    answer = await record(chat.connection, claimed, *map(worker_report, claimed["jobs"]))
    assert answer == {**ALL_RECORDED, "later": True}, "the phone shows it, so the job is due again"
    assert (await chat.job(kept))["outcome"] == "accepted"


async def test_the_delivery_to_a_device_that_was_deleted_meanwhile_is_recorded(chat: Chat) -> None:
    await chat.device()
    message = await chat.message()
    claimed, job = await claim_one(chat.connection, message)
    await chat.connection.execute("delete from user_devices")
    await record(chat.connection, claimed, worker_report(job))
    [delivery] = (await explain(chat.connection, message))["deliveries"]
    assert (delivery["device_id"], delivery["status"]) == (job["devices"][0]["device_id"], "accepted")


@pytest.mark.parametrize(
    "erase",
    [
        "delete from public.chat_messages",
        "delete from public.chat_rooms where id = %(room)s",
        "delete from public.users where id = %(sender)s",
        "truncate public.chat_messages cascade",
    ],
)
async def test_what_a_phone_shows_of_a_deleted_conversation_is_dismissed(chat: Chat, erase: str) -> None:
    device = await chat.device(platform="android")
    claimed = await claim(chat.connection, await chat.message())
    await record(chat.connection, claimed, *map(worker_report, claimed["jobs"]))
    names = {"room": chat.room, "sender": chat.tourist}
    await chat.connection.execute(erase, {name: named for name, named in names.items() if f"({name})" in erase})
    await chat.pass_time(2)
    pushes = []
    for _ in range(3):
        claimed = await claim(chat.connection)
        await record(chat.connection, claimed, *map(worker_report, claimed["jobs"]))
        pushes += [(push["kind"], push["device_id"]) for job in claimed["jobs"] for push in job["devices"]]
    assert pushes == [("update", str(device["id"])), ("dismiss", str(device["id"]))]
    left = 0 if "rooms" in erase or "users" in erase else 1
    assert await value(chat.connection, "select count(*) from push.jobs") == left, "no row of a deleted conversation"


async def test_deleting_a_person_deletes_devices_jobs_deliveries_and_presence(chat: Chat) -> None:
    await chat.device()
    await chat.look(None)
    claimed, job = await claim_one(chat.connection, await chat.message())
    await record(chat.connection, claimed, worker_report(job))
    await chat.connection.execute("delete from auth.users where id = %s", (chat.guide,))
    for table in ("public.user_devices", "push.jobs", "push.deliveries", "public.user_presence"):
        assert await value(chat.connection, f"select count(*) from {table}") == 0, table


# Results that cannot be recorded -----------------------------------------------------------------


@pytest.mark.parametrize(
    "deliveries",
    [{}, 5, [5], [None], [{"delivery_id": "zz"}]],
    ids=str,
)
async def test_a_malformed_result_does_not_prevent_others(chat: Chat, deliveries: Any) -> None:
    await chat.device()
    bad, good = await chat.separate_message(), await chat.separate_message()
    claimed = await claim(chat.connection, bad, good)
    [result] = [worker_report(job) for job in claimed["jobs"] if job["message_id"] == str(good)]
    [job_id] = [job["job_id"] for job in claimed["jobs"] if job["message_id"] == str(bad)]
    answer = await record(chat.connection, claimed, {"job_id": job_id, "deliveries": deliveries}, result)
    assert answer["unrecorded"] == [job_id]
    assert (await chat.job(good))["outcome"] == "accepted"


async def test_a_result_that_cannot_be_stored_does_not_prevent_others(chat: Chat) -> None:
    await chat.device()
    bad, good = await chat.separate_message(), await chat.separate_message()
    claimed = await claim(chat.connection, bad, good)
    results = [worker_report(job) for job in claimed["jobs"]]
    results[0]["deliveries"][0]["status"] = "unheard of"
    answer = await record(chat.connection, claimed, *results)
    assert answer == {**ALL_RECORDED, "unrecorded": [results[0]["job_id"]]}
    assert ((await chat.job(bad))["state"], (await chat.job(good))["state"]) == ("leased", "done")
