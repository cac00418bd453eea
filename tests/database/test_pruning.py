"""Pruning of old rows: unseen devices, old jobs, presence of apps that were killed."""

from typing import Any
from uuid import UUID

import pytest

from tests.database.chat import (
    Chat,
    Database,
    Row,
    as_user,
    claim,
    claim_one,
    person,
    prune,
    record,
    row,
    rows,
    start_chat,
    value,
    worker_report,
)

DAY = 24 * 3600
NOTHING = {
    **dict.fromkeys(
        ("presence_offline", "devices_deactivated", "devices_deleted", "decisions_deleted", "jobs_deleted"), 0
    ),
    "more": False,
}


async def age_devices(chat: Chat, days: float) -> None:
    """Makes the devices, and nothing else, so many days older."""
    await chat.connection.execute(f"""
        alter table public.user_devices disable trigger user;
        update public.user_devices set last_seen_at = last_seen_at - interval '{days} days',
          updated_at = updated_at - interval '{days} days';
        alter table public.user_devices enable trigger user;
    """)


async def finished_job(chat: Chat) -> UUID:
    message = await chat.message()
    claimed, job = await claim_one(chat.connection, message)
    await record(chat.connection, claimed, worker_report(job))
    return message


async def test_pruning_without_old_rows_changes_nothing(chat: Chat) -> None:
    await chat.device()
    await finished_job(chat)
    await chat.look(chat.room)
    await chat.message()
    assert await prune(chat.connection) == NOTHING


# Devices ---------------------------------------------------------------------------------------


async def test_pruning_deactivates_a_device_that_was_not_seen_for_60_days(chat: Chat) -> None:
    await chat.device(device_id="old")
    await age_devices(chat, 59)
    assert await prune(chat.connection) == NOTHING
    await chat.device(device_id="younger")
    await age_devices(chat, 1.1)
    assert await prune(chat.connection) == NOTHING | {"devices_deactivated": 1}
    found = await rows(chat.connection, "select device_id from public.user_devices where is_active")
    assert found == [{"device_id": "younger"}]


async def test_pruning_deletes_a_device_that_was_deactivated_90_days_ago(chat: Chat) -> None:
    await chat.device()
    await age_devices(chat, 61)
    await prune(chat.connection)
    await age_devices(chat, 89)
    assert await prune(chat.connection) == NOTHING, "it was deactivated 89 days ago"
    await age_devices(chat, 1.1)
    assert await prune(chat.connection) == NOTHING | {"devices_deleted": 1}


async def test_pruning_keeps_a_device_that_registered_again(chat: Chat) -> None:
    device = await chat.device()
    await age_devices(chat, 200)
    await prune(chat.connection)
    async with as_user(chat.connection, chat.guide):
        await chat.connection.execute(
            "insert into public.user_devices (user_id, device_id, platform, push_token) values (%s, %s, 'ios', %s)"
            " on conflict (user_id, device_id) do update set push_token = excluded.push_token, is_active = true",
            (chat.guide, device["device_id"], device["push_token"]),
        )
    assert await prune(chat.connection) == NOTHING
    assert await value(chat.connection, "select is_active from public.user_devices")


# Jobs ------------------------------------------------------------------------------------------


async def test_pruning_deletes_decisions_and_deliveries_after_30_days_and_keeps_the_messages(chat: Chat) -> None:
    await chat.device()
    message = await finished_job(chat)
    await chat.pass_time(29 * DAY)
    young = await finished_job(chat)
    assert await prune(chat.connection) == NOTHING
    await chat.pass_time(1.1 * DAY)
    assert await prune(chat.connection) == NOTHING | {"decisions_deleted": 1}
    assert await rows(chat.connection, "select message_ids from push.deliveries") == [{"message_ids": [young]}]
    assert await value(chat.connection, "select count(*) from public.chat_messages where id = %s", message) == 1


async def test_pruning_deletes_an_idle_job_30_days_after_its_last_change(chat: Chat) -> None:
    await chat.message()
    await claim(chat.connection)
    await chat.pass_time(29 * DAY)
    assert await prune(chat.connection) == NOTHING
    await chat.pass_time(1.1 * DAY)
    assert await prune(chat.connection) == NOTHING | {"decisions_deleted": 1, "jobs_deleted": 1}


async def test_what_a_device_was_told_is_deleted_with_it(chat: Chat) -> None:
    await chat.device()
    await finished_job(chat)
    assert await value(chat.connection, "select count(*) from push.device_states") == 1
    await chat.connection.execute("delete from public.user_devices")
    assert await value(chat.connection, "select count(*) from push.device_states") == 0


async def test_pruning_keeps_a_job_that_has_not_ended(chat: Chat) -> None:
    """Its time to live ends the job before."""
    await chat.device()
    await chat.message()
    await chat.pass_time(40 * DAY)
    assert (await prune(chat.connection)) == NOTHING
    [finished] = (await claim(chat.connection))["finished"]
    assert finished["reason"] == "expired"


async def test_pruning_deletes_old_runs_except_those_that_wait_for_an_operator(chat: Chat) -> None:
    await chat.connection.execute(
        "insert into push.receipt_runs (id, state) select gen_random_uuid(), state"
        " from unnest(array['finished', 'confirmed', 'rejected', 'held']) state"
    )
    await chat.pass_time(31 * DAY)
    await prune(chat.connection)
    assert await rows(chat.connection, "select state from push.receipt_runs") == [{"state": "held"}]


# Presence --------------------------------------------------------------------------------------


async def test_pruning_sets_stale_presence_offline_and_keeps_the_time_of_the_last_heartbeat(chat: Chat) -> None:
    await chat.look(chat.room)
    await chat.pass_time(44)
    assert await prune(chat.connection) == NOTHING
    await chat.pass_time(2)
    before = await row(chat.connection, "table public.user_presence")
    assert await prune(chat.connection) == NOTHING | {"presence_offline": 1}
    after = await row(chat.connection, "table public.user_presence")
    assert after == before | {
        "is_online": False,
        "last_seen_at": before["updated_at"],
        "current_conversation_id": None,
    }


async def test_setting_presence_offline_counts_as_a_heartbeat_of_a_running_app(chat: Chat) -> None:
    await chat.look(chat.room)
    await chat.pass_time(44)
    before = await row(chat.connection, "table public.user_presence")
    await chat.look(None, is_online=False)
    assert (await row(chat.connection, "table public.user_presence"))["last_seen_at"] > before["updated_at"]


# How -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "done"),
    [
        ({"presence_fresh_for": "1 hour"}, "presence_offline"),
        ({"device_unseen_for": "1 year"}, "devices_deactivated"),
        ({"job_kept_for": "1 year"}, "decisions_deleted"),
    ],
    ids=str,
)
async def test_each_age_of_pruning_is_a_setting(chat: Chat, setting: dict[str, Any], done: str) -> None:
    await chat.device()
    await finished_job(chat)
    await chat.pass_time(61 * DAY)
    await chat.look(chat.room)
    await chat.pass_time(60)
    [(name, age)] = setting.items()
    everything = {"presence_offline": 1, "devices_deactivated": 1, "decisions_deleted": 1}
    await chat.connection.execute(f"update push.settings set {name} = %s".encode(), (age,))
    assert await prune(chat.connection) == NOTHING | everything | {done: 0}


async def test_the_time_that_a_deactivated_device_is_kept_is_a_setting(chat: Chat) -> None:
    await chat.device(is_active=False)
    await chat.connection.execute("update push.settings set device_kept_for = '1 day'")
    await age_devices(chat, 2)
    assert await prune(chat.connection) == NOTHING | {"devices_deleted": 1}


async def test_pruning_stops_at_its_limit_and_reports_that_more_rows_wait(chat: Chat) -> None:
    for _ in range(3):
        await chat.device()
    await age_devices(chat, 61)
    pruned: list[Row] = [await prune(chat.connection, limit=2) for _ in range(2)]
    assert pruned == [
        NOTHING | {"devices_deactivated": 2, "more": True},
        NOTHING | {"devices_deactivated": 1},
    ]


async def test_pruning_leaves_locked_rows_for_a_later_call(database: Database) -> None:
    """No app waits for the pruning, and the pruning waits for no app."""
    chat = await start_chat(await database.connect())
    await chat.device()
    await finished_job(chat)
    await chat.pass_time(61 * DAY)
    await chat.look(chat.room)
    await chat.pass_time(60)
    await chat.connection.execute("update private.device_presence set updated_at = updated_at - interval '2 days'")
    other = await database.connect()
    async with other.transaction():
        await rows(other, "select from public.user_devices for update")
        await rows(other, "select from public.user_presence for update")
        await rows(other, "select from push.decisions for update")
        # A claim and a heartbeat lock more rows later: who waits here for the one would meet a deadlock.
        await rows(other, "select from push.recipient_rates for update")
        await rows(other, "select from private.device_presence for update")
        assert await prune(chat.connection) == NOTHING
    assert (await prune(chat.connection)) == NOTHING | {
        "presence_offline": 1,
        "devices_deactivated": 1,
        "decisions_deleted": 1,
    }


async def test_deleting_a_person_deletes_only_the_rows_of_that_person(chat: Chat) -> None:
    """These are devices, jobs, deliveries and presence."""
    stranger = await person(chat.connection)
    await chat.device()
    await chat.device(user_id=stranger)
    await chat.look(None)
    await finished_job(chat)
    await chat.connection.execute("delete from auth.users where id = %s", (chat.guide,))
    assert await value(chat.connection, "select user_id from public.user_devices") == stranger
    for table in ("push.jobs", "push.decisions", "push.deliveries", "public.user_presence"):
        assert await value(chat.connection, f"select count(*) from {table}") == 0, table


@pytest.mark.parametrize("platform", ["ios", "android"])
async def test_deleting_a_sender_dismisses_the_notification_and_then_deletes_the_job(chat: Chat, platform: str) -> None:
    await chat.device(platform=platform)
    await finished_job(chat)
    await chat.connection.execute("delete from auth.users where id = %s", (chat.tourist,))
    kinds = []
    await chat.pass_time(1)
    while (claimed := await claim(chat.connection))["jobs"]:
        [job] = claimed["jobs"]
        kinds += [device["kind"] for device in job["devices"]]
        await record(chat.connection, claimed, worker_report(job))
    assert kinds == ["update", "dismiss"]
    for table in ("push.jobs", "push.decisions", "push.deliveries"):
        assert await value(chat.connection, f"select count(*) from {table}") == 0, table


async def test_deleting_a_sender_whose_message_no_phone_shows_leaves_no_work(chat: Chat) -> None:
    await chat.message()
    await claim(chat.connection)
    await chat.connection.execute("delete from auth.users where id = %s", (chat.tourist,))
    await chat.pass_time(60)
    assert (await claim(chat.connection))["examined"] == 0
