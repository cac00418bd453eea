"""claim_push_jobs, record_push_results and explain_push, on one connection."""

import random
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any
from uuid import UUID, uuid4

import pytest
from psycopg.types.json import Json

from tests.database.chat import (
    Chat,
    Row,
    claim,
    claim_one,
    explain,
    finish_run,
    insert,
    person,
    record,
    refused,
    rows,
    value,
    worker_report,
)
from tests.http_fakes import INVISIBLE_NAMES


def decision(claimed: Row) -> str:
    """What a claim of one message decided, and why."""
    if claimed["jobs"]:
        return "send"
    if claimed["deferred"]:
        return "deferred"
    [finished] = claimed["finished"]
    return f"{finished['outcome']}: {finished['reason']}"


# Decisions -------------------------------------------------------------------------------------

# design.md section 2: in this order, the first that applies wins.
DECISION_TABLE = {
    "deleted": "skipped: deleted",
    "read": "skipped: read",
    "expired": "skipped: expired",
    "viewing": "deferred",
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
async def test_first_condition_of_the_decision_table_wins(chat: Chat, conditions: list[str]) -> None:
    message = await chat.message()
    if "expired" in conditions:
        await chat.pass_time(24 * 3600)
    if "no_device" not in conditions:
        await chat.device()
    if "viewing" in conditions:
        await chat.look(chat.room)
    if "read" in conditions:
        await chat.read()
    if "deleted" in conditions:
        await chat.connection.execute("update chat_messages set deleted_at = now()")

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


async def test_receipt_alone_counts_as_read(chat: Chat) -> None:
    message = await chat.message()
    await chat.device()
    await chat.read()
    await chat.connection.execute("update chat_messages set is_read = false")
    assert decision(await claim(chat.connection, message)) == "skipped: read"


async def test_is_read_alone_counts_as_read(chat: Chat) -> None:
    message = await chat.message()
    await chat.device()
    await chat.connection.execute("update chat_messages set is_read = true")
    assert decision(await claim(chat.connection, message)) == "skipped: read"


async def test_receipt_of_the_sender_is_not_a_read(chat: Chat) -> None:
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
async def test_only_fresh_presence_in_this_conversation_defers(
    chat: Chat, age_seconds: float | None, is_online: bool, elsewhere: bool, expected: str
) -> None:
    await chat.device()
    if age_seconds is not None:
        await chat.look(uuid4() if elsewhere else chat.room, is_online=is_online)
        await chat.pass_time(age_seconds)
    assert decision(await claim(chat.connection, await chat.message())) == expected


async def test_deferred_message_that_is_read_meanwhile_was_viewed(chat: Chat) -> None:
    await chat.device()
    await chat.look(chat.room)
    message = await chat.message()
    assert decision(await claim(chat.connection, message)) == "deferred"
    await chat.read()
    await chat.pass_time(46)
    assert decision(await claim(chat.connection)) == "skipped: viewing"


async def test_deferred_message_is_sent_once_the_presence_is_stale(chat: Chat) -> None:
    """idle_desktop: an app that shows the conversation to nobody does not eat the push."""
    await chat.device()
    await chat.look(chat.room)
    message = await chat.message()
    await claim(chat.connection, message)
    await chat.pass_time(44)
    assert (await claim(chat.connection, message))["not_due"] == [str(message)]
    await chat.pass_time(2)
    assert decision(await claim(chat.connection)) == "send"
    assert (await chat.job(message))["attempts"] == 1


async def test_deferred_again_while_the_heartbeat_goes_on(chat: Chat) -> None:
    await chat.device()
    await chat.look(chat.room)
    message = await chat.message()
    await claim(chat.connection, message)
    await chat.pass_time(30)
    await chat.look(chat.room)
    await chat.pass_time(20)
    assert decision(await claim(chat.connection)) == "deferred"


async def test_never_to_the_sender(chat: Chat) -> None:
    await chat.device(user_id=chat.tourist)
    mine = await chat.device()
    _, job = await claim_one(chat.connection, await chat.message())
    assert [device["device_id"] for device in job["devices"]] == [str(mine["id"])]


async def test_two_devices_both_get_it(chat: Chat) -> None:
    devices = [await chat.device(), await chat.device(platform="android")]
    _, job = await claim_one(chat.connection, await chat.message())
    assert {device["push_token"] for device in job["devices"]} == {device["push_token"] for device in devices}


@pytest.mark.parametrize(
    "columns",
    [
        {"is_active": False},
        {"push_token": None},
        {"push_provider": "fcm", "push_token": "fcm-token"},
        {"push_provider": "apns", "push_token": "apns-token"},
    ],
    ids=str,
)
async def test_no_token_no_request(chat: Chat, columns: Row) -> None:
    await chat.device(**columns)
    assert decision(await claim(chat.connection, await chat.message())) == "skipped: no_device"


# What is sent ----------------------------------------------------------------------------------


async def test_claim_carries_all_that_a_push_says(chat: Chat) -> None:
    await allow_images(chat, "https://example.com/")
    device = await chat.device()
    photo = {"type": "image", "url": "https://example.com/photo.jpg"}
    message = await insert(
        chat.connection,
        "public.chat_messages",
        room_id=chat.room,
        sender_id=chat.tourist,
        message="Hey, are you available tomorrow?",
        attachments=f"[{photo}]".replace("'", '"'),
    )
    claimed, job = await claim_one(chat.connection, message["id"])
    assert datetime.fromisoformat(job.pop("sent_at")) == message["server_timestamp"]
    assert job == {
        "message_id": str(message["id"]),
        "room_id": str(chat.room),
        "sender_id": str(chat.tourist),
        "recipient_id": str(chat.guide),
        "title": "Tom Tourist",
        "body": "Hey, are you available tomorrow?",
        "image_url": "https://example.com/photo.jpg",
        "badge": 1,
        "attempt": 1,
        "devices": [{"device_id": str(device["id"]), "push_token": device["push_token"]}],
    }
    assert {**claimed, "jobs": [], "lease_id": None, "claimed_at": None, "slot": None} == {
        "lease_id": None,
        "claimed_at": None,
        "jobs": [],
        "slot": None,
        "finished": [],
        "deferred": [],
        "left_due": [],
        "not_due": [],
        "unknown": [],
        "expired_leases": [],
    }


async def test_badge_is_the_total_over_all_conversations(chat: Chat) -> None:
    await chat.device()
    other = await person(chat.connection)
    # The guide is user1 here and user2 in the first conversation.
    room = await insert(chat.connection, "public.chat_rooms", user1_id=chat.guide, user2_id=other)
    await chat.message()
    await chat.message(room_id=room["id"], sender_id=other)
    await chat.message(room_id=room["id"], sender_id=chat.guide)
    _, job = await claim_one(chat.connection, await chat.message())
    assert job["badge"] == 3


@pytest.mark.parametrize(
    ("text", "message_type", "attachments", "body"),
    [
        ("  Hello\n", "text", "[]", "Hello\n"),
        ("Look!", "image", '[{"type": "image"}]', "Look!"),
        ("", "text", '[{"type": "image", "url": "https://example.com/1"}]', "📷 Photo"),
        (" ", "image", "[]", "📷 Photo"),
        ("", "text", '[{"type": "video"}]', "🎥 Video"),
        ("", "audio", "[]", "🎤 Voice message"),
        ("", "location", "[]", "📍 Location"),
        ("", "text", '[{"type": "file"}]', "📎 File"),
        ("", "text", "[]", "New message"),
        ("", "sticker", "[{}]", "New message"),
    ],
)
async def test_preview(chat: Chat, text: str, message_type: str, attachments: str, body: str) -> None:
    await chat.device()
    message = await chat.message(text, message_type=message_type, attachments=attachments)
    assert (await claim_one(chat.connection, message))[1]["body"] == body


async def allow_images(chat: Chat, *prefixes: str) -> None:
    await chat.connection.execute("update push.settings set image_url_prefixes = %s", (list(prefixes),))


@pytest.mark.parametrize(
    ("attachments", "image"),
    [
        ("[]", None),
        ('[{"type": "image", "url": "http://example.com/plain"}]', None),
        ('[{"type": "image"}, "odd", {"type": "file", "url": "https://example.com/file"}]', None),
        ('[{"type": "file"}, {"type": "photo", "url": "https://a.example/1"}, {"type": "image", "url": "https://example.com/2"}]',
         "https://a.example/1"),
    ],
)  # fmt: skip
async def test_image_is_the_first_that_expo_can_fetch(chat: Chat, attachments: str, image: str | None) -> None:
    await allow_images(chat, "https://a.example/", "https://example.com/")
    await chat.device()
    message = await chat.message(attachments=attachments)
    assert (await claim_one(chat.connection, message))[1]["image_url"] == image


async def image_of(chat: Chat, attachments: Any, project_url: str | None = None) -> Any:
    query = "select push.message_image(json_populate_record(null::chat_messages, %s), %s)"
    return await value(chat.connection, query, Json({"attachments": attachments}), project_url)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://project.supabase.co/storage/v1/object/public/a.jpg", True),
        ("https://other.supabase.co/storage/v1/object/public/a.jpg", False),
        ("https://project.supabase.co.evil.example/storage/v1/object/public/a.jpg", False),
        ("https://project.supabase.co/rest/v1/", False),
    ],
)
async def test_images_of_the_projects_own_storage_are_shown_without_a_setting(
    chat: Chat, url: str, shown: bool
) -> None:
    photo = [{"type": "image", "url": url}]
    assert await image_of(chat, photo, "https://project.supabase.co") == (url if shown else None)
    assert await image_of(chat, photo) is None


async def test_a_setting_allows_images_of_another_host(chat: Chat) -> None:
    photo = [{"type": "image", "url": "https://images.example/a.jpg"}]
    assert await image_of(chat, photo, "https://project.supabase.co") is None
    await allow_images(chat, "https://images.example/")
    assert await image_of(chat, photo, "https://project.supabase.co") == photo[0]["url"]


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/https://project.example/a.jpg",
        "https://project.example.evil.example/a.jpg",
        "https://project.example@evil.example/a.jpg",
        "https://project.example:443@evil.example/a.jpg",
        "https://project.example\\@evil.example/a.jpg",
        "https://project.example",
        "http://project.example/a.jpg",
        "//project.example/a.jpg",
        " https://project.example/a.jpg",
        "https://project.example/a\r\nb.jpg",
        "https://project.example/a\x7f.jpg",
        "https://project.example/\u202egpj.a",
        "https://project.example/a b.jpg",
        "https://project.example/storage/../auth/v1/authorize?redirect_to=https://evil.example",
        "https://project.example/%2E%2e/a.jpg",
        "https://project.example/..\\..\\a.jpg",
        "https://project.example/a%5cb.jpg",
        "https://project.example/" + "x" * 2048,
        "",
        None,
        7,
        ["https://project.example/a.jpg", "b"],
        {"https://project.example/": 1},
    ],
)
async def test_an_image_of_another_host_or_with_odd_characters_is_not_shown(chat: Chat, url: Any) -> None:
    await allow_images(chat, "https://project.example/")
    photo = {"type": "image", "url": "https://project.example/a.jpg"}
    assert await image_of(chat, [{"type": "image", "url": url}]) is None
    assert await image_of(chat, [{"type": "image", "url": url}, photo]) == photo["url"]


@pytest.mark.parametrize("odd", [None, 1, "image", True, {}, [], [[]], [None], [[[{"type": "image"}]]], {"type": [1]}])
async def test_attachments_of_any_shape_have_an_image_or_none(chat: Chat, odd: Any) -> None:
    await allow_images(chat, "https://project.example/")
    photo = {"type": "image", "url": "https://project.example/a.jpg"}
    assert await image_of(chat, odd) is None
    assert await image_of(chat, [odd, photo]) == photo["url"]


@pytest.mark.parametrize(
    "prefix",
    [
        "https://a.example",
        "http://a.example/",
        "a.example/",
        "https://",
        "https:///",
        "https://a@b/",
        "https://a.example/ x",
        "",
    ],
)
async def test_a_prefix_that_does_not_end_the_host_is_refused(chat: Chat, prefix: str) -> None:
    for prefixes in ([prefix], ["https://fine.example/", prefix], [prefix, "https://fine.example/"]):
        async with refused(chat.connection, "23514"):
            await allow_images(chat, *prefixes)


async def test_app_replaces_title_and_body_by_its_own(chat: Chat) -> None:
    await chat.device()
    await chat.connection.execute("""
        create or replace function push.display_name(p_user_id uuid) returns text
        language sql stable set search_path = '' as $$ select 'User ' || left(p_user_id::text, 8) $$;
        create or replace function push.message_preview(p_message public.chat_messages) returns text
        language sql immutable set search_path = '' as $$ select 'You have a new message' $$;
    """)
    _, job = await claim_one(chat.connection, await chat.message())
    assert (job["title"], job["body"]) == (f"User {str(chat.tourist)[:8]}", "You have a new message")


async def test_sender_without_a_name_has_no_title(chat: Chat) -> None:
    await chat.device()
    await chat.connection.execute("update public.users set display_name = E'\\n\\t'")
    assert (await claim_one(chat.connection, await chat.message()))[1]["title"] is None


@pytest.mark.parametrize("name", ["", *INVISIBLE_NAMES], ids=ascii)
async def test_a_name_of_which_nothing_can_be_seen_is_none(chat: Chat, name: str) -> None:
    await chat.connection.execute("update public.users set display_name = %s", (name,))
    assert await value(chat.connection, "select push.display_name(%s)", chat.tourist) is None


@pytest.mark.parametrize("name", ["Ana", "안나", "あんな", "🙂", "❤\ufe0f", "⠁", "\u3164a"], ids=ascii)
async def test_a_name_with_anything_to_be_seen_is_one(chat: Chat, name: str) -> None:
    await chat.connection.execute("update public.users set display_name = %s", (f" {name} ",))
    assert await value(chat.connection, "select push.display_name(%s)", chat.tourist) == name


# Which jobs a claim takes ----------------------------------------------------------------------


async def test_claim_tells_unknown_and_not_due_ids_and_takes_duplicates_once(chat: Chat) -> None:
    await chat.device()
    done, leased, new = [await chat.message() for _ in range(3)]
    claimed, job = await claim_one(chat.connection, done)
    await record(chat.connection, claimed, worker_report(job))
    await claim(chat.connection, leased)
    unknown = uuid4()
    claimed = await claim(chat.connection, new, done, new, unknown, leased, unknown)
    assert [job["message_id"] for job in claimed["jobs"]] == [str(new)]
    assert set(claimed["not_due"]) == {str(done), str(leased)}
    assert claimed["unknown"] == [str(unknown)]


async def test_sweep_takes_the_longest_waiting_first(chat: Chat) -> None:
    await chat.device()
    messages = [await chat.message() for _ in range(3)]
    claimed = [await claim(chat.connection, limit=2), await claim(chat.connection, limit=2)]
    assert [[UUID(job["message_id"]) for job in one["jobs"]] for one in claimed] == [
        messages[:2],
        messages[2:],
    ]


async def test_sweep_of_nothing(chat: Chat) -> None:
    claimed = await claim(chat.connection)
    assert [claimed[key] for key in ("jobs", "finished", "deferred", "not_due", "unknown")] == [[]] * 5


# Leases ----------------------------------------------------------------------------------------


async def test_claim_of_dead_worker_expires(chat: Chat) -> None:
    await chat.device()
    message = await chat.message()
    await claim(chat.connection, message)
    await chat.pass_time(29)
    assert (await claim(chat.connection, message))["not_due"] == [str(message)]
    await chat.pass_time(2)
    _, job = await claim_one(chat.connection, message)
    assert job["attempt"] == 2


async def test_claim_tells_which_leases_ran_out_unreported(chat: Chat) -> None:
    await chat.device()
    dead, reported, new = [await chat.message() for _ in range(3)]
    await claim(chat.connection, dead)
    claimed, job = await claim_one(chat.connection, reported)
    await record(chat.connection, claimed, worker_report(job, "retry"))
    await chat.pass_time(31)
    assert (await claim(chat.connection, dead, reported, new))["expired_leases"] == [str(dead)]
    await chat.pass_time(61)
    await chat.read()
    again = await claim(chat.connection)
    assert set(again["expired_leases"]) == {str(dead), str(reported), str(new)}, "whatever is decided of them now"


async def test_late_report_of_a_lost_lease_keeps_its_facts_but_not_the_state(chat: Chat) -> None:
    await chat.device()
    await chat.device()
    message = await chat.message()
    late, job = await claim_one(chat.connection, message)
    await chat.pass_time(31)
    await claim(chat.connection, message)
    before = await chat.job(message)

    answer = await record(chat.connection, late, worker_report(job, "accepted", "retry"))
    assert answer["lost_leases"] == [str(message)]
    assert await chat.job(message) == before
    statuses = [delivery["status"] for delivery in (await explain(chat.connection, message))["deliveries"]]
    assert sorted(statuses) == ["accepted", "retry"]


async def test_report_after_the_lease_expired_counts_while_nobody_else_has_it(chat: Chat) -> None:
    await chat.device()
    message = await chat.message()
    claimed, job = await claim_one(chat.connection, message)
    await chat.pass_time(31)
    assert (await record(chat.connection, claimed, worker_report(job)))["lost_leases"] == []
    assert (await chat.job(message))["outcome"] == "accepted"


@pytest.mark.parametrize("later", ["retry", "maybe_sent", "DeviceNotRegistered"])
async def test_accepted_is_never_downgraded(chat: Chat, later: str) -> None:
    await chat.device()
    message = await chat.message()
    first, job = await claim_one(chat.connection, message)
    await chat.pass_time(31)
    second, _ = await claim_one(chat.connection, message)
    await record(chat.connection, first, worker_report(job))
    await record(chat.connection, second, worker_report(job, later))
    assert (await chat.job(message))["outcome"] == "accepted"
    [delivery] = (await explain(chat.connection, message))["deliveries"]
    assert (delivery["status"], delivery["error"], delivery["attempts"]) == ("accepted", None, 1)
    assert delivery["ticket_id"].startswith("ticket of ")


# Outcomes and retries --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answers", "outcome"),
    [
        (["accepted", "accepted"], "accepted"),
        (["accepted", "MessageTooBig"], "accepted"),
        (["MessageTooBig", "InvalidData"], "failed"),
    ],
)
async def test_outcome_is_the_best_of_the_devices(chat: Chat, answers: list[str], outcome: str) -> None:
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
    """bad_token_does_not_stop_rest, bad_token_does_not_resend_batch, failed_chunk_does_not_resend_earlier."""
    for _ in range(3):
        await chat.device()
    message = await chat.message()
    claimed, job = await claim_one(chat.connection, message)
    await record(chat.connection, claimed, worker_report(job, "accepted", unsure, "MessageTooBig"))
    await chat.pass_time(35)
    claimed, again = await claim_one(chat.connection, message)
    assert (again["devices"], again["attempt"]) == (job["devices"][1:2], 2)
    await record(chat.connection, claimed, worker_report(again))
    assert (await chat.job(message))["outcome"] == "accepted"


async def test_device_that_is_new_since_the_claim_gets_the_message_too(chat: Chat) -> None:
    await chat.device()
    message = await chat.message()
    claimed, job = await claim_one(chat.connection, message)
    new = await chat.device()
    await record(chat.connection, claimed, worker_report(job))
    await chat.pass_time(6)
    _, job = await claim_one(chat.connection, message)
    assert [device["push_token"] for device in job["devices"]] == [new["push_token"]]


async def wait_seconds(chat: Chat, message: UUID) -> float:
    """From now to the next attempt."""
    seconds = await value(
        chat.connection,
        "select extract(epoch from next_attempt_at - clock_timestamp())::float8 from push.jobs"
        " where message_id = %s and state = 'pending'",
        message,
    )
    assert isinstance(seconds, float)
    return seconds


async def test_retry_waits_twice_as_long_each_time_up_to_a_cap(chat: Chat) -> None:
    """retry_after_claim_still_sends, retry_waits, backoff_survives_restart: 5 s to 15 min, 15 % jitter at most."""
    await chat.device()
    message = await chat.message()
    for attempt in range(1, 12):
        claimed, job = await claim_one(chat.connection, message)
        await record(chat.connection, claimed, worker_report(job, "retry"))
        base = min(5 * 2 ** (attempt - 1), 900)
        wait = await wait_seconds(chat, message)
        assert base - 1 < wait <= base * 1.15
        await chat.pass_time(wait + 0.1)


async def test_backoff_has_jitter_and_never_overflows(chat: Chat) -> None:
    wait = "extract(epoch from push.backoff('5 seconds', '15 minutes', %s))::float8"
    waits = await value(chat.connection, f"select array_agg({wait}) from generate_series(1, 200)", 1)
    assert 5 <= min(waits) < 5.2 < 5.55 < max(waits) <= 5.75
    assert 900 <= await value(chat.connection, f"select {wait}", 2147483647) <= 1035


@pytest.mark.parametrize(("retry_after", "at_least", "at_most"), [(60, 59, 60), (2, 4, 5.75)])
async def test_retry_after_is_a_floor(chat: Chat, retry_after: float, at_least: float, at_most: float) -> None:
    await chat.device()
    message = await chat.message()
    claimed, job = await claim_one(chat.connection, message)
    await record(chat.connection, claimed, worker_report(job, "retry", retry_after_seconds=retry_after))
    assert at_least < await wait_seconds(chat, message) <= at_most


async def test_configuration_fault_takes_no_attempt_and_keeps_devices(chat: Chat) -> None:
    """credentials_fault_keeps_devices."""
    device = await chat.device()
    message = await chat.message()
    for _ in range(3):
        claimed, job = await claim_one(chat.connection, message)
        answer = await record(chat.connection, claimed, worker_report(job, "configuration_fault"))
        assert answer["deactivated"] == 0
        assert (await chat.job(message))["attempts"] == 0
        await chat.pass_time(300)
    assert await is_active(chat, device)


async def test_message_of_which_nothing_could_be_sent_is_no_maybe(chat: Chat) -> None:
    """A worker that reports that it sent to nobody goes back to the start."""
    await chat.device()
    message = await chat.message()
    claimed, job = await claim_one(chat.connection, message)
    await record(chat.connection, claimed, {"message_id": job["message_id"], "deliveries": []})
    assert (await chat.job(message))["state"] == "pending"


async def test_giving_up_is_reported(chat: Chat) -> None:
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


async def test_worker_that_never_reports_may_have_sent(chat: Chat) -> None:
    await chat.device()
    await chat.connection.execute("update push.settings set max_attempts = 1")
    message = await chat.message()
    await claim(chat.connection, message)
    await chat.pass_time(60)
    assert decision(await claim(chat.connection, message)) == "maybe_sent: attempts_exhausted"


async def test_expired_while_retrying_has_failed(chat: Chat) -> None:
    await chat.device()
    message = await chat.message()
    claimed, job = await claim_one(chat.connection, message)
    await record(chat.connection, claimed, worker_report(job, "retry"))
    await chat.pass_time(24 * 3600)
    assert decision(await claim(chat.connection)) == "failed: expired"


async def test_read_while_retrying_is_not_sent_again(chat: Chat) -> None:
    """read_before_worker_runs."""
    await chat.device()
    message = await chat.message()
    claimed, job = await claim_one(chat.connection, message)
    await record(chat.connection, claimed, worker_report(job, "maybe_sent"))
    await chat.read()
    await chat.pass_time(60)
    assert decision(await claim(chat.connection)) == "maybe_sent: read"


NOTHING_ODD = {"deactivated": 0, "held": 0, "lost_leases": [], "unrecorded": []}

# Dead tokens -----------------------------------------------------------------------------------


async def is_active(chat: Chat, device: Row) -> bool:
    active = await value(chat.connection, "select is_active from public.user_devices where id = %s", device["id"])
    assert isinstance(active, bool)
    return active


async def test_device_not_registered_is_deactivated(chat: Chat) -> None:
    dead, alive = await chat.device(), await chat.device()
    message = await chat.message()
    claimed, job = await claim_one(chat.connection, message)
    answers = {dead["push_token"]: "DeviceNotRegistered", alive["push_token"]: "accepted"}
    report = worker_report(job, *(answers[device["push_token"]] for device in job["devices"]))
    assert await record(chat.connection, claimed, report) == NOTHING_ODD
    assert (await finish_run(chat.connection, uuid4()))["deactivated"] == 1
    assert (await is_active(chat, dead), await is_active(chat, alive)) == (False, True)
    assert (await chat.job(message))["outcome"] == "accepted"


@pytest.mark.parametrize("error", ["MessageTooBig", "InvalidCredentials", "MismatchSenderId", "Odd"])
async def test_any_provider_error_keeps_token(chat: Chat, error: str) -> None:
    device = await chat.device()
    claimed, job = await claim_one(chat.connection, await chat.message())
    assert (await record(chat.connection, claimed, worker_report(job, error)))["deactivated"] == 0
    assert await is_active(chat, device)


async def test_dead_token_changed_meanwhile_survives_and_gets_the_message(chat: Chat) -> None:
    device = await chat.device()
    message = await chat.message()
    claimed, job = await claim_one(chat.connection, message)
    await chat.connection.execute("update public.user_devices set push_token = 'ExponentPushToken[new]'")
    answer = await record(chat.connection, claimed, worker_report(job, "DeviceNotRegistered"))
    assert answer["deactivated"] == 0
    assert await is_active(chat, device)
    await chat.pass_time(6)
    _, job = await claim_one(chat.connection, message)
    assert [device["push_token"] for device in job["devices"]] == ["ExponentPushToken[new]"]


async def test_dead_token_registered_again_since_survives(chat: Chat) -> None:
    device = await chat.device()
    claimed, job = await claim_one(chat.connection, await chat.message())
    await chat.connection.execute(
        "update public.user_devices set last_seen_at = clock_timestamp() where id = %s", (device["id"],)
    )
    answer = await record(chat.connection, claimed, worker_report(job, "DeviceNotRegistered"))
    assert answer["deactivated"] == 0
    assert await is_active(chat, device)


async def test_dead_token_of_the_former_account_does_not_touch_the_new_one(chat: Chat) -> None:
    device = await chat.device()
    claimed, job = await claim_one(chat.connection, await chat.message())
    moved = await chat.device(user_id=chat.tourist, push_token=device["push_token"])
    await record(chat.connection, claimed, worker_report(job, "DeviceNotRegistered"))
    assert await is_active(chat, moved)


# What is erased meanwhile ----------------------------------------------------------------------


async def test_message_erased_between_claim_and_report_is_passed_over(chat: Chat) -> None:
    await chat.device()
    erased, kept = await chat.message(), await chat.message()
    claimed = await claim(chat.connection, erased, kept)
    await chat.connection.execute("delete from chat_messages where id = %s", (erased,))
    answer = await record(chat.connection, claimed, *map(worker_report, claimed["jobs"]))
    assert answer == NOTHING_ODD
    assert (await chat.job(kept))["outcome"] == "accepted"
    assert await explain(chat.connection, erased) is None


async def test_device_erased_between_claim_and_report_keeps_its_delivery(chat: Chat) -> None:
    await chat.device()
    message = await chat.message()
    claimed, job = await claim_one(chat.connection, message)
    await chat.connection.execute("delete from user_devices")
    await record(chat.connection, claimed, worker_report(job))
    [delivery] = (await explain(chat.connection, message))["deliveries"]
    assert (delivery["device_id"], delivery["status"]) == (job["devices"][0]["device_id"], "accepted")


@pytest.mark.parametrize(
    ("erase", "left"),
    [
        ("delete from public.chat_messages where id = %(message)s", 1),
        ("delete from public.chat_rooms where id = %(room)s", 0),
        ("delete from public.users where id = %(sender)s", 0),
        ("truncate public.chat_messages cascade", 0),
    ],
)
async def test_no_push_outlives_its_message(chat: Chat, erase: str, left: int) -> None:
    await chat.device()
    messages = [await chat.message(), await chat.message()]
    claimed = await claim(chat.connection, *messages)
    await record(chat.connection, claimed, *map(worker_report, claimed["jobs"]))
    names = {"message": messages[0], "room": chat.room, "sender": chat.tourist}
    await chat.connection.execute(erase, {name: named for name, named in names.items() if f"({name})" in erase})
    for table in ("jobs", "deliveries"):
        assert await value(chat.connection, f"select count(*) from push.{table}") == left


async def test_erasing_a_person_erases_devices_jobs_deliveries_and_presence(chat: Chat) -> None:
    await chat.device()
    await chat.look(None)
    claimed, job = await claim_one(chat.connection, await chat.message())
    await record(chat.connection, claimed, worker_report(job))
    await chat.connection.execute("delete from auth.users where id = %s", (chat.guide,))
    for table in ("public.user_devices", "push.jobs", "push.deliveries", "public.user_presence"):
        assert await value(chat.connection, f"select count(*) from {table}") == 0, table


# Settings ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        "push.settings set time_to_live = '0'",
        "push.settings set max_attempts = 0",
        "push.settings set retry_cap = '1 second'",
        "push.settings set receipt_after = '0'",
        "push.settings set receipt_lost_after = '15 minutes'",
        "push.settings set max_attempts_per_device = 0",
        "push.settings set breaker_share = 1.1",
        "push.settings set breaker_devices = 0",
        "push.settings set job_kept_for = '24 hours'",
        "push.settings set only_row = false",
        "private.chat_settings set message_limit = 0",
        "private.chat_settings set message_bytes_limit = 1023",
        "private.chat_settings set only_row = false",
    ],
)
async def test_settings_refuse_values_without_a_meaning(chat: Chat, change: str) -> None:
    async with refused(chat.connection, "23514"):
        await chat.connection.execute(f"update {change}".encode())


# The rate limiter ------------------------------------------------------------------------------------------


async def test_a_claim_reserves_as_long_a_slot_as_it_has_notifications(chat: Chat) -> None:
    """One for each device of each message."""
    await chat.connection.execute("update push.settings set notifications_per_second = 10, recipient_share = 1")
    await chat.connection.execute("update push.rate_limiter set free_at = clock_timestamp() + interval '1 hour'")
    for _ in range(3):
        await chat.device()
    before = await value(chat.connection, "select free_at from push.rate_limiter")
    await claim(chat.connection, await chat.message(), await chat.message())
    assert await value(chat.connection, "select free_at from push.rate_limiter") - before == timedelta(seconds=0.6)


async def test_a_claim_is_sent_when_those_before_it_are_through(chat: Chat) -> None:
    await chat.device()
    await chat.connection.execute("update push.rate_limiter set free_at = clock_timestamp() + interval '1 hour'")
    free_at = await value(chat.connection, "select free_at from push.rate_limiter")
    slot = (await claim(chat.connection, await chat.message()))["slot"]
    assert datetime.fromisoformat(slot["send_at"]) == free_at


async def test_what_expo_refused_is_sent_when_those_before_it_are_through(chat: Chat) -> None:
    await chat.connection.execute("update push.settings set notifications_per_second = 10")
    await chat.connection.execute("update push.rate_limiter set free_at = clock_timestamp() + interval '1 minute'")
    first = await value(chat.connection, "select public.reserve_send_slot(3)")
    second = await value(chat.connection, "select public.reserve_send_slot(1)")
    apart = datetime.fromisoformat(second["send_at"]) - datetime.fromisoformat(first["send_at"])
    assert apart == timedelta(seconds=0.3)


async def test_no_second_has_more_slots_than_expo_takes_whatever_their_sizes(chat: Chat) -> None:
    """600 notifications, and all of a slot are sent at its beginning; a request may be 40 ms late."""
    sizes = random.Random(1)
    slots = []
    for _ in range(200):
        size = sizes.randint(1, 150)
        slot = await value(chat.connection, "select public.reserve_send_slot(%s)", size)
        slots.append((datetime.fromisoformat(slot["send_at"]), size))
    for begins, _ in slots:
        within = [size for send_at, size in slots if begins <= send_at < begins + timedelta(seconds=1.04)]
        assert sum(within) <= 600


async def test_slots_are_forgotten_after_some_seconds(chat: Chat) -> None:
    await value(chat.connection, "select public.reserve_send_slot(1)")
    await chat.connection.execute("update push.rate_limit_reservations set send_at = send_at - interval '3 seconds'")
    await value(chat.connection, "select public.reserve_send_slot(1)")
    assert await value(chat.connection, "select count(*) from push.rate_limit_reservations") == 1


async def test_a_slot_comes_with_the_time_of_the_answer(chat: Chat) -> None:
    before = await value(chat.connection, "select clock_timestamp()")
    slot = await value(chat.connection, "select public.reserve_send_slot(1)")
    after = await value(chat.connection, "select clock_timestamp()")
    assert before <= datetime.fromisoformat(slot["answered_at"]) <= after


async def test_a_claim_waits_for_nobody_when_nothing_was_sent_lately(chat: Chat) -> None:
    await chat.device()
    await chat.connection.execute("update push.rate_limiter set free_at = clock_timestamp() - interval '1 hour'")
    slot = (await claim(chat.connection, await chat.message()))["slot"]
    assert slot["send_at"] <= slot["answered_at"]


async def test_a_claim_of_nothing_reserves_no_slot(chat: Chat) -> None:
    await chat.connection.execute("update push.rate_limiter set free_at = clock_timestamp() + interval '1 hour'")
    before = await value(chat.connection, "select free_at from push.rate_limiter")
    slot = (await claim(chat.connection, await chat.message()))["slot"]
    assert slot["send_at"] <= slot["answered_at"]
    assert await value(chat.connection, "select free_at from push.rate_limiter") == before


# Fairness -------------------------------------------------------------------------------------


async def test_a_message_goes_to_at_most_device_limit_devices_the_last_seen_ones(chat: Chat) -> None:
    """Rows from before the limit, or written with triggers off, count as well."""
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


async def test_a_claim_leases_messages_for_at_most_notifications_per_claim_devices(chat: Chat) -> None:
    await chat.connection.execute("update push.settings set notifications_per_claim = 5, recipient_share = 1")
    for _ in range(2):
        await chat.device()
    messages = [str(await chat.message()) for _ in range(5)]
    claimed = await claim(chat.connection)
    assert [job["message_id"] for job in claimed["jobs"]] == messages[:2]
    assert claimed["left_due"] == messages[2:]
    assert [job["message_id"] for job in (await claim(chat.connection))["jobs"]] == messages[2:4]


async def test_a_message_with_more_devices_than_a_claim_takes_is_claimed_alone(chat: Chat) -> None:
    await chat.connection.execute("update push.settings set notifications_per_claim = 1")
    for _ in range(2):
        await chat.device()
    await chat.message()
    [job] = (await claim(chat.connection))["jobs"]
    assert len(job["devices"]) == 2


async def test_one_recipient_takes_no_more_than_its_share_and_the_others_go_on(chat: Chat) -> None:
    """10 % of 576 a second, averaged over two seconds; what is over it waits, spread over time."""
    for _ in range(5):
        await chat.device()
    other = await person(chat.connection)
    room = await insert(chat.connection, "public.chat_rooms", user1_id=chat.guide, user2_id=other)
    await chat.device(user_id=other)
    for _ in range(60):
        await chat.message()
    last = await chat.message(room_id=room["id"], sender_id=chat.guide)

    claimed = await claim(chat.connection)
    sent = [len(job["devices"]) for job in claimed["jobs"]]
    assert sum(sent) - 1 <= 2 * 57.6 + 5
    assert claimed["jobs"][-1]["message_id"] == str(last)
    assert len(claimed["deferred"]) == 61 - len(claimed["jobs"])
    job = await chat.job(UUID(claimed["deferred"][0]))
    assert (job["state"], job["reason"], job["attempts"]) == ("pending", "recipient_rate_limited", 0)
    assert (await claim(chat.connection))["jobs"] == []
    await chat.pass_time(1)
    assert 0 < sum(len(job["devices"]) for job in (await claim(chat.connection))["jobs"]) <= 57.6 + 5


async def test_what_waits_for_the_share_of_its_recipient_comes_due_at_that_rate(chat: Chat) -> None:
    """Due all at once, a flood would be looked at again and again, and everything behind it would wait."""
    await chat.device()
    for _ in range(300):
        await chat.message()
    sent = sum([len((await claim(chat.connection))["jobs"]) for _ in range(3)])
    [waits] = await rows(
        chat.connection,
        "select count(*) as jobs, extract(epoch from max(next_attempt_at) - min(next_attempt_at))::float8 as seconds"
        " from push.jobs where reason = 'recipient_rate_limited'",
    )
    assert waits["jobs"] == 300 - sent > 150
    assert waits["seconds"] == pytest.approx(waits["jobs"] / 57.6, rel=0.1)


async def test_jobs_that_wait_for_a_share_take_no_place_of_others_in_a_claim(chat: Chat) -> None:
    await chat.connection.execute("update push.settings set notifications_per_claim = 10, recipient_share = 0.001")
    for _ in range(5):
        await chat.device()
    other = await person(chat.connection)
    room = await insert(chat.connection, "public.chat_rooms", user1_id=chat.guide, user2_id=other)
    await chat.device(user_id=other)
    for _ in range(10):
        await chat.message()
    last = await chat.message(room_id=room["id"], sender_id=chat.guide)
    assert str(last) in [job["message_id"] for job in (await claim(chat.connection))["jobs"]]


async def test_what_waits_for_the_share_of_its_recipient_is_explained(chat: Chat) -> None:
    await chat.connection.execute("update push.settings set notifications_per_second = 1")
    await chat.device()
    first, second = await chat.message(), await chat.message()
    assert (await claim(chat.connection, first, second))["deferred"] == [str(second)]
    assert "gets so many notifications" in (await explain(chat.connection, second))["explanation"]


async def test_first_attempts_go_before_retries_but_retries_keep_a_quarter(chat: Chat) -> None:
    await chat.device()
    retries = [str(await chat.message()) for _ in range(8)]
    claimed = await claim(chat.connection)
    await record(chat.connection, claimed, *(worker_report(job, "retry") for job in claimed["jobs"]))
    await chat.pass_time(60)
    first_attempts = [str(await chat.message()) for _ in range(8)]
    first = {job["message_id"] for job in (await claim(chat.connection, limit=8))["jobs"]}
    assert first - set(retries) == set(first_attempts[:6])
    second = {job["message_id"] for job in (await claim(chat.connection, limit=8))["jobs"]}
    assert first | second == {*retries, *first_attempts}


async def test_a_claim_leases_nothing_for_which_there_is_no_slot_in_time(chat: Chat) -> None:
    await chat.device()
    message = await chat.message()
    await chat.connection.execute("update push.rate_limiter set free_at = clock_timestamp() + interval '9 seconds'")
    before = await chat.job(message)
    claimed = await claim(chat.connection, message, wait_seconds=5)
    assert (claimed["jobs"], claimed["slot"], claimed["left_due"]) == ([], None, [str(message)])
    assert await chat.job(message) == before
    assert await value(chat.connection, "select count(*) from push.rate_limit_reservations") == 0
    assert len((await claim(chat.connection, message, wait_seconds=10))["jobs"]) == 1


async def test_a_claim_without_a_slot_takes_nothing_of_the_recipients_share(chat: Chat) -> None:
    await chat.connection.execute("update push.settings set notifications_per_second = 1")
    await chat.device()
    message = await chat.message()
    await chat.connection.execute("update push.rate_limiter set free_at = clock_timestamp() + interval '9 seconds'")
    for _ in range(3):
        assert (await claim(chat.connection, message, wait_seconds=5))["slot"] is None
    assert len((await claim(chat.connection, message, wait_seconds=10))["jobs"]) == 1


async def test_the_unused_part_of_a_slot_is_given_back_once(chat: Chat) -> None:
    await chat.connection.execute("update push.settings set notifications_per_second = 10, recipient_share = 1")
    await chat.connection.execute("update push.rate_limiter set free_at = clock_timestamp() + interval '1 minute'")
    for _ in range(3):
        await chat.device()
    before = await value(chat.connection, "select free_at from push.rate_limiter")
    claimed, job = await claim_one(chat.connection, await chat.message())
    for _ in range(2):
        await record(chat.connection, claimed, worker_report(job, "accepted", "retry", "retry"), unused=2)
        assert await value(chat.connection, "select free_at from push.rate_limiter") - before == timedelta(seconds=0.1)
        assert await value(chat.connection, "select sum(notifications) from push.rate_limit_reservations") == 1


# Isolation ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "attachments", ["{}", "5", '"text"', "null", "[[]]", "[null]", '[{"type": []}]', '[{"url": 5}]']
)
async def test_attachments_of_any_shape_stop_no_message(chat: Chat, attachments: str) -> None:
    """An older database may hold anything."""
    await chat.device()
    odd, good = await chat.message(), await chat.message()
    await chat.connection.execute("alter table public.chat_messages disable trigger user")
    constraints = await rows(
        chat.connection,
        "select conname from pg_constraint where conrelid = 'public.chat_messages'::regclass and contype = 'c'",
    )
    for constraint in constraints:
        await chat.connection.execute(f'alter table public.chat_messages drop constraint "{constraint["conname"]}"')
    await chat.connection.execute("update chat_messages set attachments = %s where id = %s", (attachments, odd))
    assert [job["message_id"] for job in (await claim(chat.connection))["jobs"]] == [str(odd), str(good)]


@pytest.mark.parametrize(
    "function", ["message_preview(p_message public.chat_messages)", "display_name(p_user_id uuid)"]
)
async def test_a_message_that_cannot_be_composed_ends_alone_with_a_reason(chat: Chat, function: str) -> None:
    """An app's own function fails for one of its messages."""
    await chat.device()
    poison = await chat.message("poison")
    other = await person(chat.connection)
    room = await insert(chat.connection, "public.chat_rooms", user1_id=chat.guide, user2_id=other)
    good = await chat.message(room_id=room["id"], sender_id=other)
    condition = "p_message.message = 'poison'" if "preview" in function else f"p_user_id = '{chat.tourist}'"
    await chat.connection.execute(f"""
        create or replace function push.{function} returns text language sql volatile set search_path = ''
        as $$ select case when {condition} then (1 / (random() * 0)::integer)::text else 'Fine' end $$;
    """)
    claimed = await claim(chat.connection)
    assert [job["message_id"] for job in claimed["jobs"]] == [str(good)]
    assert claimed["finished"] == [{"message_id": str(poison), "outcome": "failed", "reason": "unreadable"}]
    assert "cannot be composed" in (await explain(chat.connection, poison))["explanation"]


async def test_a_claim_that_composes_slowly_sends_what_it_has_and_leaves_the_rest_due(chat: Chat) -> None:
    """An app's own function takes its time: an answer after the worker's patience would be none."""
    await chat.device()
    messages = [str(await chat.message()) for _ in range(4)]
    await chat.connection.execute("""
        create or replace function push.message_preview(p_message public.chat_messages) returns text
        language sql volatile set search_path = '' as $$ select 'Slow' || pg_sleep(1.1) $$;
    """)
    claimed = await claim(chat.connection)
    sent = [job["message_id"] for job in claimed["jobs"]]
    assert 1 <= len(sent) <= 2
    assert set(claimed["left_due"]) == set(messages) - set(sent)
    assert len((await claim(chat.connection))["jobs"]) >= 1


@pytest.mark.parametrize("stored", ["{}", "5", "[" + ",".join(f'"{number:032}"' for number in range(20_000)) + "]"])
async def test_an_apps_own_preview_gets_a_list_of_attachments_of_bounded_size(chat: Chat, stored: str) -> None:
    await chat.device()
    message = await chat.message()
    await chat.connection.execute("alter table public.chat_messages disable trigger user")
    await chat.connection.execute("alter table public.chat_messages drop constraint chat_messages_attachments_check")
    await chat.connection.execute("update chat_messages set attachments = %s", (stored,))
    await chat.connection.execute("""
        create or replace function push.message_preview(p_message public.chat_messages) returns text
        language sql stable set search_path = '' as $$ select jsonb_array_length(p_message.attachments)::text $$;
    """)
    assert (await claim_one(chat.connection, message))[1]["body"] == "0"


async def test_a_failed_assertion_of_an_apps_function_ends_its_message_alone(chat: Chat) -> None:
    await chat.device()
    message = await chat.message()
    await chat.connection.execute("""
        create or replace function push.message_preview(p_message public.chat_messages) returns text
        language plpgsql set search_path = '' as $$ begin assert false; return ''; end $$;
    """)
    assert decision(await claim(chat.connection, message)) == "failed: unreadable"


async def test_a_job_whose_message_was_deleted_around_the_triggers_ends(chat: Chat) -> None:
    await chat.device()
    message = await chat.message()
    await chat.connection.execute("alter table public.chat_messages disable trigger user")
    await chat.connection.execute("delete from public.chat_messages")
    assert decision(await claim(chat.connection)) == "skipped: deleted"
    assert (await chat.job(message))["state"] == "done"


@pytest.mark.parametrize(
    "deliveries",
    [{}, 5, [5], [None], [{"device_id": "zz"}], [{"status": "failed", "error": "DeviceNotRegistered"}]],
    ids=str,
)
async def test_an_odd_result_takes_no_other_along(chat: Chat, deliveries: Any) -> None:
    await chat.device()
    bad, good = await chat.message(), await chat.message()
    claimed = await claim(chat.connection, bad, good)
    [result] = [worker_report(job) for job in claimed["jobs"] if job["message_id"] == str(good)]
    answer = await record(chat.connection, claimed, {"message_id": str(bad), "deliveries": deliveries}, result)
    assert answer["unrecorded"] == [str(bad)]
    assert (await chat.job(good))["outcome"] == "accepted"


async def test_what_a_claim_answers_is_bounded_whatever_a_message_holds(chat: Chat) -> None:
    await chat.device()
    message = await chat.message()
    await chat.connection.execute("alter table public.chat_messages disable trigger user")
    await chat.connection.execute("alter table public.users disable trigger user")
    await chat.connection.execute("update public.users set display_name = repeat('long ', 1000000)")
    await chat.connection.execute("update chat_messages set message = repeat('long ', 1000000)")
    _, job = await claim_one(chat.connection, message)
    assert len(str(job)) < 5000


async def test_a_result_that_cannot_be_stored_takes_no_other_along(chat: Chat) -> None:
    await chat.device()
    bad, good = await chat.message(), await chat.message()
    claimed = await claim(chat.connection, bad, good)
    results = [worker_report(job) for job in claimed["jobs"]]
    results[0]["deliveries"][0]["status"] = "unheard of"
    answer = await record(chat.connection, claimed, *results)
    assert answer == {**NOTHING_ODD, "unrecorded": [str(bad)]}
    assert ((await chat.job(bad))["state"], (await chat.job(good))["state"]) == ("leased", "done")


# Backoff by cause -----------------------------------------------------------------------------


async def test_a_fault_of_the_configuration_backs_off_from_a_minute_to_an_hour(chat: Chat) -> None:
    await chat.device()
    message = await chat.message()
    for times in range(9):
        claimed, job = await claim_one(chat.connection, message)
        await record(chat.connection, claimed, worker_report(job, "configuration_fault"))
        base = min(60 * 2**times, 3600)
        wait = await wait_seconds(chat, message)
        assert base - 1 < wait <= base * 1.15
        await chat.pass_time(wait + 0.1)
    assert (await chat.job(message))["attempts"] == 0


async def test_each_device_waits_for_its_own_cause(chat: Chat) -> None:
    """A phone whose credentials are wrong is not tried at the pace of one that is only throttled."""
    await chat.device()
    await chat.device(platform="android")
    message = await chat.message()
    claimed, job = await claim_one(chat.connection, message)
    await record(chat.connection, claimed, worker_report(job, "configuration_fault", "retry"))
    await chat.pass_time(6)
    claimed, again = await claim_one(chat.connection, message)
    assert again["devices"] == job["devices"][1:]
    await record(chat.connection, claimed, worker_report(again))
    assert 50 < await wait_seconds(chat, message) <= 69


@pytest.mark.parametrize("answer", ["retry", "maybe_sent", "configuration_fault"])
async def test_devices_that_wait_for_the_same_reason_go_together_again(chat: Chat, answer: str) -> None:
    for _ in range(5):
        await chat.device()
    message = await chat.message()
    claimed, job = await claim_one(chat.connection, message)
    await record(chat.connection, claimed, worker_report(job, *[answer] * 5))
    await chat.pass_time(await wait_seconds(chat, message) + 0.01)
    assert len((await claim_one(chat.connection, message))[1]["devices"]) == 5


async def test_an_unanswered_push_is_sent_four_times_within_an_hour_then_ends(chat: Chat) -> None:
    """Each time may have reached the phone: 5 s, 2 min, 50 min apart."""
    await chat.device()
    message = await chat.message()
    waits = []
    for _ in range(3):
        claimed, job = await claim_one(chat.connection, message)
        await record(chat.connection, claimed, worker_report(job, "maybe_sent"))
        waits.append(await wait_seconds(chat, message))
        await chat.pass_time(waits[-1] + 0.1)
    for wait, least in zip(waits, (5, 120, 3000), strict=True):
        assert least - 1 < wait <= least * 1.15
    claimed, job = await claim_one(chat.connection, message)
    await record(chat.connection, claimed, worker_report(job, "maybe_sent"))
    job = await chat.job(message)
    assert (job["state"], job["outcome"], job["reason"]) == ("done", "maybe_sent", "unanswered")
    assert "sent 4 times without an answer" in (await explain(chat.connection, message))["explanation"]


async def test_another_token_starts_anew_with_unanswered_pushes(chat: Chat) -> None:
    await chat.device()
    await chat.connection.execute("update push.settings set unanswered_retry_delays = '{1 minute}'")
    message = await chat.message()
    for token in ("first", "second"):
        await chat.connection.execute(f"update public.user_devices set push_token = 'ExponentPushToken[{token}]'")
        claimed, job = await claim_one(chat.connection, message)
        await record(chat.connection, claimed, worker_report(job, "maybe_sent"))
        await chat.pass_time(400)
    assert (await chat.job(message))["state"] == "pending"


async def test_a_job_whose_workers_die_is_leased_ever_longer_and_ends(chat: Chat) -> None:
    await chat.device()
    await chat.connection.execute("update push.settings set expired_lease_limit = 3")
    message = await chat.message()
    for times in range(3):
        await claim_one(chat.connection, message)
        await chat.pass_time(30 * 2**times - 1)
        assert (await claim(chat.connection, message))["not_due"] == [str(message)]
        await chat.pass_time(2)
    assert decision(await claim(chat.connection, message)) == "maybe_sent: leases_expired"


# Dead tokens by their tickets -----------------------------------------------------------------


async def dead_tickets(chat: Chat, dead: int, alive: int) -> Row:
    """Messages to so many people's devices, of which so many tickets call the token dead; what the record answers."""
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
async def test_the_breaker_holds_tickets_as_it_holds_receipts(chat: Chat, dead: int, alive: int, held: int) -> None:
    assert (await dead_tickets(chat, dead, alive))["deactivated"] == 0
    assert await finish_run(chat.connection, uuid4()) == {"deactivated": dead - held, "held": held}
    assert await active_devices(chat) == alive + held


async def test_dead_tickets_are_decided_by_the_first_record_after_a_minute(chat: Chat) -> None:
    await dead_tickets(chat, 2, 1)
    await chat.pass_time(61)
    claimed, job = await claim_one(chat.connection, await chat.message())
    answers = ["DeviceNotRegistered" if "dead" in device["push_token"] else "accepted" for device in job["devices"]]
    assert (await record(chat.connection, claimed, worker_report(job, *answers)))["deactivated"] == 2
    assert await active_devices(chat) == 1


async def test_a_held_device_is_not_reported_again_and_again(chat: Chat) -> None:
    await dead_tickets(chat, 20, 0)
    await finish_run(chat.connection, uuid4())
    claimed, job = await claim_one(chat.connection, await chat.message())
    await record(chat.connection, claimed, worker_report(job, *["DeviceNotRegistered"] * 20))
    assert await value(chat.connection, "select count(*) from push.receipt_runs") == 1
    assert await finish_run(chat.connection, uuid4()) == {"deactivated": 0, "held": 0}
