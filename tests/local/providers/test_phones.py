"""What phones do with notifications, by the rules of iOS and Android and by those of docs/client/push.ts."""

from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import pytest
from pydantic import JsonValue

from local.providers.phones import Condition, Phone

NOON = datetime(2026, 1, 6, 12, tzinfo=UTC)
OFF, ON = Condition(is_on=False), Condition(is_on=True)

type Platform = Literal["ios", "android"]


def phone(platform: Platform) -> Phone:
    return Phone(token="t", platform=platform)


def alert(room: str, text: str = "Hello", **fields: Any) -> dict[str, JsonValue]:
    data: dict[str, JsonValue] = {"kind": "alert", "conversationId": room, "messageId": f"{room}-{text}"}
    return {
        "title": "Ana",
        "body": text,
        "data": data,
        "collapseId": room,
        "tag": room,
        "channelId": "chat-messages",
        "sound": "default",
        "badge": 1,
        "ttl": 86400,
        **fields,
    }


def dismiss(*rooms: str, badge: int = 0, recipient: str = "gus") -> dict[str, JsonValue]:
    data: dict[str, JsonValue] = {
        "kind": "dismiss",
        "conversationIds": list(rooms),
        "recipientId": recipient,
        "badge": badge,
    }
    return {"data": data, "contentAvailable": True, "ttl": 3600}


def receive(one: Phone, *messages: dict[str, JsonValue], at: datetime = NOON) -> None:
    for message in messages:
        one.receive(message, "ticket", at)


def bodies(one: Phone) -> list[JsonValue]:
    return [arrival.message["body"] for arrival in one.shown]


@pytest.mark.parametrize("platform", ["ios", "android"])
def test_a_notification_replaces_that_of_its_conversation(platform: Platform) -> None:
    one = phone(platform)
    receive(one, alert("r1", "a"), alert("r2", "b"), alert("r1", "c"))
    assert bodies(one) == ["b", "c"]


@pytest.mark.parametrize("platform", ["ios", "android"])
def test_a_silent_push_makes_no_sound(platform: Platform) -> None:
    one = phone(platform)
    quiet = {key: value for key, value in alert("r1").items() if key != "sound"} | {"channelId": "chat-messages-quiet"}
    receive(one, alert("r1"), quiet)
    assert one.sounds == [NOON]


@pytest.mark.parametrize("platform", ["ios", "android"])
def test_a_dismissal_removes_its_conversations_and_sets_the_badge(platform: Platform) -> None:
    one = phone(platform)
    receive(one, alert("r1", "a"), alert("r2", "b"), alert("r3", "c", badge=3), dismiss("r1", "r2", badge=1))
    assert (bodies(one), one.badge) == (["c"], 1)


def test_a_dismissal_for_another_account_changes_nothing() -> None:
    one = phone("android")
    one.change(Condition(account="tina"), NOON)
    receive(one, alert("r1"), dismiss("r1"))
    assert (len(one.shown), one.arrived[-1].hidden) == (1, "another account")


def test_ios_runs_three_background_pushes_an_hour_but_sets_each_badge() -> None:
    one = phone("ios")
    receive(one, *[alert(f"r{number}") for number in range(5)])
    receive(one, *[dismiss(f"r{number}", badge=9) for number in range(4)], {"badge": 7, "data": {"kind": "badge"}})
    assert ([arrival.conversation_id for arrival in one.shown], one.badge) == (["r3", "r4"], 7)
    receive(one, dismiss("r3"), at=NOON + timedelta(hours=1))
    assert [arrival.conversation_id for arrival in one.shown] == ["r4"]


def test_an_app_that_was_swiped_away_on_ios_dismisses_nothing_but_shows_pushes_and_badges() -> None:
    one = phone("ios")
    one.change(Condition(app="swiped away"), NOON)
    receive(one, alert("r1", badge=4), dismiss("r1"))
    assert (len(one.shown), one.badge, one.arrived[-1].hidden) == (1, 4, "swiped away")


def test_a_force_stopped_app_on_android_gets_its_pushes_when_it_is_opened() -> None:
    one = phone("android")
    one.change(Condition(app="force-stopped"), NOON)
    receive(one, alert("r1"))
    assert one.shown == []
    one.open(["r1"], badge=1, at=NOON)
    assert len(one.shown) == 1


def test_apns_stores_one_notification_for_a_phone_that_is_off() -> None:
    one = phone("ios")
    one.change(OFF, NOON)
    receive(one, *[alert(f"r{number}", str(number)) for number in range(3)])
    assert one.arrived == []
    one.change(ON, NOON)
    assert bodies(one) == ["2"]


def test_fcm_stores_the_newest_of_four_collapse_keys_for_a_phone_that_is_off() -> None:
    one = phone("android")
    one.change(OFF, NOON)
    receive(one, *[alert(f"r{number % 5}", str(number)) for number in range(10)])
    one.change(ON, NOON)
    assert bodies(one) == ["6", "7", "8", "9"]


@pytest.mark.parametrize("platform", ["ios", "android"])
def test_a_phone_that_was_off_for_longer_than_the_ttl_gets_nothing(platform: Platform) -> None:
    one = phone(platform)
    one.change(OFF, NOON)
    receive(one, alert("r1", ttl=86400))
    one.change(ON, NOON + timedelta(hours=26))
    assert one.arrived == []


@pytest.mark.parametrize(("platform", "kept"), [("ios", 0), ("android", 1)])
def test_a_push_without_a_ttl_is_lost_on_an_iphone_that_is_off_and_kept_for_android(
    platform: Platform, kept: int
) -> None:
    one = phone(platform)
    one.change(OFF, NOON)
    receive(one, {key: value for key, value in alert("r1").items() if key != "ttl"})
    one.change(ON, NOON + timedelta(days=2))
    assert len(one.arrived) == kept


def test_opening_the_app_removes_only_what_was_read() -> None:
    one = phone("ios")
    receive(one, alert("r1", "a"), alert("r2", "b"))
    one.open(["r2"], badge=1, at=NOON)
    assert (bodies(one), one.badge) == (["b"], 1)
