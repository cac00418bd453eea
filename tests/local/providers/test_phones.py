"""What phones do with notifications, by the rules of iOS and Android and by those of chat-push-client."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from pydantic import JsonValue

from local.providers.phones import Condition, Phone
from local.providers.pushes import Platform

NOON = datetime(2026, 1, 6, 12, tzinfo=UTC)
OFF, ON, KILLED = Condition(is_on=False), Condition(is_on=True), Condition(app="killed")

both_platforms = pytest.mark.parametrize("platform", ["ios", "android"])


def phone(platform: Platform, *conditions: Condition) -> Phone:
    one = Phone(token="t", platform=platform)
    for condition in conditions:
        one.change(condition, NOON)
    return one


def alert(room: str, text: str = "Hello", **fields: Any) -> dict[str, JsonValue]:
    data: dict[str, JsonValue] = {"kind": "alert", "conversationId": room, "recipientId": "gus", "badge": 1}
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


def without(field: str, push: dict[str, JsonValue]) -> dict[str, JsonValue]:
    return {name: value for name, value in push.items() if name != field}


def dismiss(*rooms: str, badge: int = 0, **fields: JsonValue) -> dict[str, JsonValue]:
    data: dict[str, JsonValue] = {
        "type": "chat_message",
        "kind": "dismiss",
        "conversationIds": list(rooms),
        "recipientId": "gus",
        "badge": badge,
    }
    return {"data": data, "contentAvailable": True, "ttl": 3600, **fields}


def badge_push(badge: int, platform: Platform) -> dict[str, JsonValue]:
    data: dict[str, JsonValue] = {"type": "chat_message", "kind": "badge", "recipientId": "gus", "badge": badge}
    fields: dict[str, JsonValue] = {"data": data, "ttl": 3600}
    return {**fields, "badge": badge} if platform == "ios" else fields


def receive(one: Phone, *messages: dict[str, JsonValue], at: datetime = NOON) -> None:
    for message in messages:
        one.receive(message, "ticket", at)


def bodies(one: Phone) -> list[JsonValue]:
    return [arrival.message["body"] for arrival in one.shown]


def rooms(one: Phone) -> list[str | None]:
    return [arrival.conversation_id for arrival in one.shown]


class TestScreen:
    @both_platforms
    def test_a_notification_replaces_that_of_its_conversation(self, platform: Platform) -> None:
        one = phone(platform)
        receive(one, alert("r1", "a"), alert("r2", "b"), alert("r1", "c"))
        assert bodies(one) == ["b", "c"]

    @both_platforms
    def test_a_dismissal_removes_its_conversations_and_sets_the_badge(self, platform: Platform) -> None:
        one = phone(platform)
        receive(one, alert("r1", "a"), alert("r2", "b"), alert("r3", "c", badge=3), dismiss("r1", "r2", badge=1))
        assert (bodies(one), one.badge) == (["c"], 1)

    @both_platforms
    @pytest.mark.parametrize(
        "field", [{"title": "x"}, {"subtitle": "x"}, {"body": "x"}, {"icon": "x"}, {"channelId": "chat-messages"}]
    )
    def test_a_dismissal_that_the_system_draws_runs_no_code_of_an_app_in_the_background(
        self, platform: Platform, field: dict[str, JsonValue]
    ) -> None:
        one = phone(platform)
        receive(one, alert("r1", "a"), dismiss("r1", badge=7) | field)
        assert (rooms(one)[0], one.background_runs) == ("r1", [])
        assert one.badge != 7

    @pytest.mark.parametrize("field", [{"contentAvailable": False}, {"badge": 1}, {"sound": "default"}])
    def test_an_iphone_runs_no_code_for_a_push_that_is_not_only_a_background_push(
        self, field: dict[str, JsonValue]
    ) -> None:
        one = phone("ios")
        receive(one, alert("r1"), dismiss("r1") | field)
        assert (rooms(one), one.background_runs, one.arrived[-1].hidden) == (["r1"], [], "no text")

    @both_platforms
    @pytest.mark.parametrize("field", [{"type": "other"}, {"kind": "alert"}])
    def test_the_app_ignores_silent_pushes_of_other_kinds(
        self, platform: Platform, field: dict[str, JsonValue]
    ) -> None:
        one, push = phone(platform), dismiss("r1", badge=7)
        data = push["data"]
        assert isinstance(data, dict)
        receive(one, alert("r1"), push | {"data": data | field})
        assert (rooms(one), len(one.background_runs)) == (["r1"], 1)
        assert one.badge != 7

    def test_the_old_name_of_content_available_counts_unless_the_new_one_is_there(self) -> None:
        one = phone("ios")
        old = without("contentAvailable", dismiss("r1")) | {"_contentAvailable": True}
        receive(one, alert("r1"), old | {"contentAvailable": False})
        assert rooms(one) == ["r1"]
        receive(one, old)
        assert rooms(one) == []


class TestSounds:
    @both_platforms
    def test_a_silent_push_makes_no_sound(self, platform: Platform) -> None:
        one = phone(platform)
        receive(one, alert("r1"), without("sound", alert("r1", channelId="chat-messages-quiet")))
        assert one.sounds == [NOON]
        assert [arrival.sounded for arrival in one.shown] == [False]

    @pytest.mark.parametrize(
        ("platform", "push", "sounds"),
        [
            ("ios", alert("r1", interruptionLevel="passive"), False),
            ("ios", alert("r1", sound={"critical": True}), True),
            ("ios", alert("r1", sound=None), False),
            ("ios", alert("r1", channelId="chat-messages-quiet"), True),
            ("ios", dismiss("r1", sound="default"), True),
            ("android", without("sound", alert("r1")), True),
            ("android", alert("r1", channelId="chat-messages-quiet"), False),
            ("android", alert("r1", channelId="unknown"), False),
            ("android", dismiss("r1", sound="default"), False),
        ],
    )
    def test_ios_sounds_by_the_push_and_android_by_its_channel(
        self, platform: Platform, push: dict[str, JsonValue], sounds: bool
    ) -> None:
        one = phone(platform)
        receive(one, push)
        assert bool(one.sounds) == sounds


class TestBadge:
    @pytest.mark.parametrize(("platform", "badge"), [("ios", 4), ("android", 0)])
    @pytest.mark.parametrize("is_open", [False, True])
    def test_a_push_with_text_sets_the_badge_on_ios_and_not_on_android(
        self, platform: Platform, badge: int, is_open: bool
    ) -> None:
        one = phone(platform)
        if is_open:
            one.open([], badge=0, at=NOON)
        receive(one, alert("r1", badge=4, data={"badge": 4}))
        assert (one.badge, one.told_badge) == (badge, 4)

    @both_platforms
    def test_a_badge_push_sets_the_badge(self, platform: Platform) -> None:
        one = phone(platform)
        receive(one, alert("r1"), badge_push(4, platform))
        assert (one.badge, rooms(one)) == (4, ["r1"])

    def test_a_push_sets_the_badge_of_an_iphone_whose_app_is_killed(self) -> None:
        one = phone("ios", KILLED)
        receive(one, badge_push(4, "ios"))
        assert one.badge == 4

    def test_a_badge_that_falls_to_zero_removes_all_notifications_of_an_iphone(self) -> None:
        one = phone("ios", KILLED)
        receive(one, alert("r1"), alert("r2"), badge_push(0, "ios"))
        assert one.shown == []

    def test_a_notification_whose_badge_is_zero_stays_on_an_iphone(self) -> None:
        one = phone("ios")
        receive(one, alert("r1", "secret"), alert("r1", "Message deleted", badge=0))
        assert (bodies(one), one.badge) == (["Message deleted"], 0)


class TestApp:
    def test_ios_runs_three_background_pushes_an_hour(self) -> None:
        one = phone("ios")
        receive(one, *[alert(f"r{number}") for number in range(5)])
        receive(one, *[dismiss(f"r{number}", badge=9) for number in range(4)])
        assert (rooms(one), one.badge, one.arrived[-1].hidden) == (["r3", "r4"], 9, "background budget")
        receive(one, dismiss("r3"), at=NOON + timedelta(minutes=59))
        assert rooms(one) == ["r3", "r4"]
        receive(one, dismiss("r3"), at=NOON + timedelta(hours=1))
        assert rooms(one) == ["r4"]

    def test_badge_pushes_are_not_in_the_budget_of_background_pushes(self) -> None:
        one = phone("ios")
        receive(one, *[badge_push(number, "ios") for number in range(9)], alert("r1"), *[dismiss() for _ in range(4)])
        receive(one, badge_push(5, "ios"))
        assert (one.badge, len(one.background_runs)) == (5, 3)

    def test_an_app_in_the_foreground_has_no_budget(self) -> None:
        one = phone("ios")
        receive(one, *[dismiss() for _ in range(3)])
        one.open([], badge=0, at=NOON)
        receive(one, alert("r1"), dismiss("r1"))
        assert (rooms(one), len(one.background_runs)) == ([], 3)

    def test_android_has_no_budget_of_background_pushes(self) -> None:
        one = phone("android")
        receive(one, alert("r1"), *[dismiss() for _ in range(9)], dismiss("r1"))
        assert one.shown == []

    def test_an_app_that_was_swiped_away_on_ios_dismisses_nothing_but_shows_pushes_and_badges(self) -> None:
        one = phone("ios")
        receive(one, alert("r1"))
        one.change(KILLED, NOON)
        receive(one, alert("r2", badge=4), dismiss("r1", "r2"))
        assert (rooms(one), one.badge, one.arrived[-1].hidden) == (["r1", "r2"], 4, "swiped away")

    def test_a_force_stopped_app_on_android_shows_nothing_and_loses_its_pushes(self) -> None:
        """https://firebase.google.com/docs/reference/fcmdata/rest/v1beta1/projects.androidApps.deliveryData"""
        one = phone("android")
        receive(one, alert("r1"))
        one.change(KILLED, NOON)
        receive(one, alert("r2"), dismiss("r1"))
        assert (one.shown, [arrival.hidden for arrival in one.arrived[1:]]) == ([], ["force-stopped"] * 2)
        one.open(["r1", "r2"], badge=2, at=NOON)
        assert (one.shown, one.badge, one.told_badge) == ([], 2, 2)
        receive(one, alert("r2"))
        assert rooms(one) == ["r2"]

    def test_opening_the_app_removes_only_what_was_read(self) -> None:
        one, unread = phone("ios"), uuid4()
        no_conversation = without("collapseId", alert("r3", "c", data={}))
        receive(one, alert("r1", "a"), alert(str(unread), "b"), no_conversation)
        one.open([unread], badge=1, at=NOON)
        assert (bodies(one), one.badge) == (["b", "c"], 1)


class TestAccounts:
    def test_a_dismissal_for_another_account_changes_nothing_but_uses_the_budget(self) -> None:
        one = phone("ios", Condition(account="tina"))
        receive(one, alert("r1"), *[dismiss("r1") for _ in range(4)])
        assert (rooms(one), one.arrived[-2].hidden, one.arrived[-1].hidden) == (
            ["r1"],
            "another account",
            "background budget",
        )

    @both_platforms
    def test_only_an_app_in_the_foreground_hides_a_push_for_another_account(self, platform: Platform) -> None:
        one = phone(platform, Condition(account="tina"))
        receive(one, alert("r1"))
        assert rooms(one) == ["r1"]
        one.open(["r1", "r2"], badge=5, at=NOON)
        receive(one, alert("r2"), badge_push(7, platform))
        assert (one.shown, one.badge, one.told_badge, len(one.sounds)) == ([], 5, 5, 1)

    def test_signing_in_removes_the_notifications_of_the_former_account(self) -> None:
        one = phone("ios", Condition(account="gus"))
        receive(one, alert("r1"), alert("r2", data={"conversationId": "r2", "recipientId": "tina"}))
        one.change(Condition(account="tina"), NOON)
        assert rooms(one) == ["r2"]

    def test_signing_out_clears_the_screen_and_the_badge(self) -> None:
        one = phone("ios", Condition(account="gus"))
        receive(one, alert("r1"))
        one.change(Condition(account=None), NOON)
        assert (one.shown, one.badge, one.told_badge) == ([], 0, 0)


class TestOff:
    def test_apns_stores_one_notification_for_a_phone_that_is_off(self) -> None:
        one = phone("ios", OFF)
        receive(one, *[alert(f"r{number}", str(number)) for number in range(3)])
        assert one.arrived == []
        one.change(ON, NOON)
        assert bodies(one) == ["2"]

    def test_a_badge_push_replaces_the_alert_that_apns_has_stored(self) -> None:
        one = phone("ios", OFF)
        receive(one, alert("r1"), badge_push(4, "ios"))
        one.change(ON, NOON)
        assert (one.shown, one.badge) == ([], 4)

    def test_fcm_stores_the_newest_of_four_collapse_keys_for_a_phone_that_is_off(self) -> None:
        one = phone("android", OFF)
        receive(one, *[alert(f"r{number % 5}", str(number)) for number in range(10)])
        one.change(ON, NOON)
        assert bodies(one) == ["6", "7", "8", "9"]

    def test_a_further_message_of_a_collapse_key_makes_it_the_newest(self) -> None:
        one = phone("android", OFF)
        receive(one, *[alert(room, room) for room in ("r0", "r1", "r2", "r3", "r0", "r4")])
        one.change(ON, NOON)
        assert bodies(one) == ["r2", "r3", "r0", "r4"]

    def test_fcm_stores_data_pushes_beside_the_collapse_keys_in_their_order(self) -> None:
        one = phone("android", OFF)
        receive(one, alert("r1"), dismiss("r1", "r2"), alert("r2"), badge_push(3, "android"))
        one.change(ON, NOON)
        assert (rooms(one), one.badge) == (["r2"], 3)

    @pytest.mark.parametrize(("pushes", "arrived"), [(100, 101), (101, 0)])
    def test_fcm_discards_all_messages_with_more_than_a_hundred_without_a_collapse_key(
        self, pushes: int, arrived: int
    ) -> None:
        one = phone("android", OFF)
        receive(one, alert("r1"), *[badge_push(number, "android") for number in range(pushes)])
        one.change(ON, NOON)
        assert len(one.arrived) == arrived

    @both_platforms
    @pytest.mark.parametrize(("seconds", "arrived"), [(86399, 1), (86400, 0), (26 * 3600, 0)])
    def test_a_phone_that_comes_on_gets_what_has_not_expired(
        self, platform: Platform, seconds: int, arrived: int
    ) -> None:
        one, comes_on = phone(platform, OFF), NOON + timedelta(seconds=seconds)
        receive(one, alert("r1", ttl=86400))
        one.change(ON, comes_on)
        assert [arrival.at for arrival in one.arrived] == [comes_on] * arrived
        assert (one.sounds, one.held) == ([comes_on] * arrived, [])

    @pytest.mark.parametrize(
        ("fields", "platform", "lives"),
        [
            ({}, "ios", timedelta(0)),
            ({}, "android", timedelta(weeks=4)),
            ({"ttl": 10**15}, "ios", timedelta(weeks=4)),
            ({"expiration": int(NOON.timestamp()) + 60}, "ios", timedelta(minutes=1)),
            ({"expiration": int(NOON.timestamp()) + 60, "ttl": 5}, "android", timedelta(seconds=5)),
        ],
    )
    def test_a_push_expires_by_ttl_then_expiration_then_the_default_of_the_platform(
        self, fields: dict[str, JsonValue], platform: Platform, lives: timedelta
    ) -> None:
        for after, arrived in ((lives - timedelta(seconds=1), bool(lives)), (lives, False)):
            one = phone(platform, OFF)
            receive(one, without("ttl", alert("r1")) | fields)
            one.change(ON, NOON + after)
            assert bool(one.arrived) == arrived

    def test_a_push_that_apns_does_not_store_leaves_the_stored_one(self) -> None:
        one = phone("ios", OFF)
        receive(one, alert("r1", "a"), alert("r2", "b", ttl=0))
        one.change(ON, NOON)
        assert bodies(one) == ["a"]

    def test_a_phone_that_is_off_keeps_its_screen(self) -> None:
        one = phone("ios")
        receive(one, alert("r1"))
        one.change(OFF, NOON)
        receive(one, dismiss("r1"))
        assert rooms(one) == ["r1"]
