"""Snooze and quiet hours: when they apply, and what a new message makes then."""

from datetime import datetime, timedelta
from itertools import combinations
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from tests.database.chat import Chat, Row, as_user, claim, explain, refused, value
from tests.database.test_mute import in_an_hour, preferences, told_a_badge
from tests.database.test_notification_state import edit, kinds, sent

NIGHT = {"zone": "Europe/Berlin", "from": "22:00", "until": "07:00"}
ALWAYS = {"zone": "UTC", "from": "00:00", "until": "24:00"}


async def choose(chat: Chat, **fields: Any) -> None:
    """The guide changes preferences."""
    async with as_user(chat.connection, chat.guide):
        await chat.connection.execute("select public.set_notification_preferences(%s)", (Jsonb(fields),))


async def snooze(chat: Chat, **fields: Any) -> None:
    await choose(chat, snoozed_until=(await in_an_hour(chat)).isoformat(), **fields)


async def is_quiet(chat: Chat, at: str) -> bool:
    """Whether a time, with its offset, is in the quiet hours of the guide."""
    quiet = "select cardinality(push.in_quiet_hours(array[%s::uuid], %s::timestamptz)) = 1"
    answer = await value(chat.connection, quiet, chat.guide, at)
    assert isinstance(answer, bool)
    return answer


# When ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        pytest.param("2026-11-25 21:59:59+01", False, id="before"),
        pytest.param("2026-11-25 22:00:00+01", True, id="at the beginning"),
        pytest.param("2026-11-26 06:59:59+01", True, id="in the morning"),
        pytest.param("2026-11-26 07:00:00+01", False, id="at the end"),
        pytest.param("2026-03-28 21:59:59+01", False, id="spring, before"),
        pytest.param("2026-03-28 22:00:00+01", True, id="spring, at the beginning"),
        pytest.param("2026-03-29 06:59:59+02", True, id="spring, in the morning"),
        pytest.param("2026-03-29 07:00:00+02", False, id="spring, at the end"),
        pytest.param("2026-10-24 22:00:00+02", True, id="autumn, at the beginning"),
        pytest.param("2026-10-25 02:30:00+02", True, id="autumn, the hour that is twice"),
        pytest.param("2026-10-25 06:59:59+01", True, id="autumn, in the morning"),
        pytest.param("2026-10-25 07:00:00+01", False, id="autumn, at the end"),
    ],
)
async def test_quiet_hours_begin_and_end_by_the_local_clock_also_when_it_changes(
    chat: Chat, at: str, expected: bool
) -> None:
    await choose(chat, quiet_hours=NIGHT)
    assert await is_quiet(chat, at) is expected


async def test_an_end_in_the_hour_that_is_twice_ends_them_once(chat: Chat) -> None:
    await choose(chat, quiet_hours={**NIGHT, "until": "02:30"})
    inside = [f"2026-10-25 {clock}" for clock in ("01:59+02", "02:29+02", "02:31+02", "02:29+01")]
    assert [await is_quiet(chat, at) for at in [*inside, "2026-10-25 02:30+01"]] == [True] * 4 + [False]


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        pytest.param("2026-11-27 23:00+01", True, id="Friday evening"),
        pytest.param("2026-11-28 06:00+01", True, id="Saturday morning, of Friday"),
        pytest.param("2026-11-28 23:00+01", False, id="Saturday evening"),
        pytest.param("2026-11-29 06:00+01", False, id="Sunday morning, of Saturday"),
    ],
)
async def test_quiet_hours_over_midnight_belong_to_the_day_on_which_they_begin(
    chat: Chat, at: str, expected: bool
) -> None:
    await choose(chat, quiet_hours={**NIGHT, "days": [1, 2, 3, 4, 5]})
    assert await is_quiet(chat, at) is expected


async def test_quiet_hours_of_a_whole_day_have_no_gap(chat: Chat) -> None:
    await choose(chat, quiet_hours=ALWAYS)
    assert await is_quiet(chat, "2026-11-25 23:59:59.999999+00")
    assert await is_quiet(chat, "2026-11-26 00:00:00+00")


async def test_a_zone_that_the_database_no_longer_knows_delivers_and_stops_nobody_else(chat: Chat) -> None:
    await choose(chat, quiet_hours=ALWAYS)
    await chat.device()
    other = await chat.conversation()
    await chat.connection.execute(
        "insert into private.notification_preferences (user_id, quiet_zone, quiet_from, quiet_until, quiet_days)"
        " values (%s, 'Europe/Atlantis', '00:00', '24:00', '{1,2,3,4,5,6,7}')",
        (other.tourist,),
    )
    await chat.device(user_id=other.tourist)
    quiet = await chat.message()
    delivered = await other.message(sender_id=chat.guide)
    pushes = {push["message_id"]: push["sound"] for push in await sent(chat)}
    assert pushes == {str(quiet): False, str(delivered): True}


# What ------------------------------------------------------------------------------------------


async def be_quiet(chat: Chat, rule: str, **fields: Any) -> None:
    if rule == "snoozed":
        await snooze(chat, **fields)
    else:
        await choose(chat, quiet_hours=ALWAYS, **fields)


quiet_rules = pytest.mark.parametrize("rule", ["snoozed", "quiet_hours"])


@quiet_rules
async def test_a_message_in_quiet_hours_arrives_without_a_sound(chat: Chat, rule: str) -> None:
    await chat.device()
    await be_quiet(chat, rule)
    message = await chat.message()
    [push] = await sent(chat)
    assert (push["kind"], push["sound"], push["badge"]) == ("alert", False, 1)
    [delivery] = (await explain(chat.connection, message))["deliveries"]
    assert "It makes no sound, because" in delivery["explanation"]


@quiet_rules
async def test_who_wants_none_gets_only_the_badge_in_quiet_hours(chat: Chat, rule: str) -> None:
    await chat.device()
    await told_a_badge(chat)
    await be_quiet(chat, rule, while_quiet="none")
    message = await chat.message()
    assert [(push["kind"], push["badge"]) for push in await sent(chat)] == [("badge", 1)]
    job = await chat.job(message)
    assert (job["outcome"], job["reason"]) == ("skipped", rule)
    assert await sent(chat) == []


async def test_what_a_phone_shows_is_kept_right_in_quiet_hours(chat: Chat) -> None:
    await chat.device(platform="android")
    message = await chat.message("first")
    await sent(chat)
    await choose(chat, quiet_hours=ALWAYS, while_quiet="none")
    await chat.message("held back")
    assert kinds(await sent(chat)) == ["badge"]
    await edit(chat, message, "edited")
    await chat.pass_time(1)
    [push] = await sent(chat)
    assert (push["kind"], push["body"], push["sound"]) == ("update", "edited", False)
    await chat.read()
    await chat.pass_time(3)
    assert kinds(await sent(chat)) == ["dismiss"]


async def test_the_end_of_a_snooze_brings_no_burst_and_the_next_message_sounds(chat: Chat) -> None:
    await chat.device()
    await snooze(chat, while_quiet="none")
    for _ in range(3):
        await chat.message()
    await sent(chat)
    await chat.pass_time(3601)
    assert await sent(chat) == []
    await chat.message("after")
    [push] = await sent(chat)
    assert (push["kind"], push["sound"], push["unread"]) == ("alert", True, 4)


async def test_the_other_person_is_not_quiet(chat: Chat) -> None:
    await chat.device(user_id=chat.tourist)
    await choose(chat, quiet_hours=ALWAYS, while_quiet="none")
    await chat.message(sender_id=chat.guide)
    assert [push["sound"] for push in await sent(chat)] == [True]


# One precedence --------------------------------------------------------------------------------


async def act(chat: Chat, rule: str) -> None:
    match rule:
        case "blocked":
            async with as_user(chat.connection, chat.guide):
                await chat.connection.execute("select public.block_user(%s)", (chat.tourist,))
        case "request":
            # The recipient has been told of it.
            await chat.connection.execute("update push.settings set message_requests = 'all'")
            await chat.message()
            await sent(chat)
        case "muted":
            async with as_user(chat.connection, chat.guide):
                await chat.connection.execute("select public.mute_conversation(%s)", (chat.room,))
        case "snoozed" | "quiet_hours":
            await be_quiet(chat, rule, while_quiet="none")
        case "viewing":
            await chat.look(chat.room)
        case "preview":
            await choose(chat, preview="none")
        case "sound":
            async with as_user(chat.connection, chat.guide):
                await chat.connection.execute("select public.set_conversation_sound(%s, 'none')", (chat.room,))


PRECEDENCE = ["blocked", "request", "muted", "snoozed", "quiet_hours", "viewing", "preview", "sound"]
PAIRS = list(combinations(PRECEDENCE, 2))


@pytest.mark.parametrize(("first", "second"), [pair for pair in PAIRS if pair != ("preview", "sound")])
async def test_of_two_rules_the_one_with_precedence_decides(chat: Chat, first: str, second: str) -> None:
    await chat.device()
    # A request is there before the recipient chooses.
    for rule in sorted((second, first), key="request".__ne__):
        await act(chat, rule)
    message = await chat.message()
    claimed = await claim(chat.connection, message)
    job = await chat.job(message)
    # A message whose conversation is on the screen waits until it is read, or the heartbeat is stale.
    outcome = None if first == "viewing" else "skipped"
    assert (job["outcome"], job["reason"]) == (outcome, first)
    assert "alert" not in [device["kind"] for job in claimed["jobs"] for device in job["devices"]]


async def test_a_preview_and_a_sound_hold_together(chat: Chat) -> None:
    await chat.device()
    for rule in ("preview", "sound"):
        await act(chat, rule)
    await chat.message()
    assert [(push["kind"], push["preview"], push["sound"]) for push in await sent(chat)] == [("alert", "none", False)]


# The function ----------------------------------------------------------------------------------


async def test_a_field_that_is_left_out_stays_as_it_is(chat: Chat) -> None:
    defaults: Row = {"snoozed_until": None, "quiet_hours": None, "while_quiet": "silent", "preview": "full"}
    defaults |= {"muted": [], "device_previews": {}, "sounds": {}}
    assert await preferences(chat, chat.guide) == defaults
    await choose(chat, quiet_hours=NIGHT)
    await choose(chat, while_quiet="none")
    await snooze(chat)
    chosen: Row = await preferences(chat, chat.guide)
    assert (chosen["quiet_hours"], chosen["while_quiet"]) == ({**NIGHT, "days": [1, 2, 3, 4, 5, 6, 7]}, "none")
    until = datetime.fromisoformat(chosen["snoozed_until"])
    assert until > await chat.server_time() + timedelta(minutes=59)
    await choose(chat, quiet_hours=None, snoozed_until=None, while_quiet="silent")
    assert await preferences(chat, chat.guide) == defaults
    assert await preferences(chat, chat.tourist) == defaults


async def test_a_weekday_may_be_written_with_a_fraction_of_zero(chat: Chat) -> None:
    await choose(chat, quiet_hours={**NIGHT, "days": [1.0, 7]})
    assert (await preferences(chat, chat.guide))["quiet_hours"]["days"] == [1, 7]


WRONG: dict[str, Row] = {
    "no field colour": {"colour": "red"},
    "while_quiet must": {"while_quiet": "loud"},
    "preview must": {"preview": "some"},
    "snoozed_until must": {"snoozed_until": "2099-01-01 08:00"},
    "snoozed_until is not a time": {"snoozed_until": "2099-13-01T08:00:00Z"},
    "snoozed_until has passed": {"snoozed_until": "2020-01-01T08:00:00Z"},
    "quiet_hours must be an object": {"quiet_hours": "22-7"},
    "quiet_hours has no field to": {"quiet_hours": {**NIGHT, "to": "07:00"}},
    "quiet_hours.from": {"quiet_hours": {**NIGHT, "from": "25:00"}},
    "quiet_hours.until must be": {"quiet_hours": {**NIGHT, "until": None}},
    "quiet_hours.until must differ": {"quiet_hours": {**NIGHT, "until": "22:00"}},
    "quiet_hours.days": {"quiet_hours": {**NIGHT, "days": [0]}},
    "quiet_hours.zone": {"quiet_hours": {**NIGHT, "zone": "Europe/Atlantis"}},
}


@pytest.mark.parametrize("reason", WRONG)
async def test_a_wrong_field_is_named_and_changes_nothing(chat: Chat, reason: str) -> None:
    before = await preferences(chat, chat.guide)
    async with refused(chat.connection, "22023", reason):
        await choose(chat, **WRONG[reason])
    assert await preferences(chat, chat.guide) == before


@pytest.mark.parametrize("zone", ["+02:00", "CEST", "posix/Europe/Berlin", "UTC+2", ""])
async def test_an_offset_is_no_time_zone(chat: Chat, zone: str) -> None:
    async with refused(chat.connection, "22023", "quiet_hours.zone"):
        await choose(chat, quiet_hours={**NIGHT, "zone": zone})
