"""What an iPhone shows of a notification that APNs accepted."""

from typing import Any

import pytest

from local.providers.apns.state import ApnsService
from local.providers.phones import Condition
from tests.local.providers.apns.sending import ALERT, BACKGROUND, IPHONE, OTHER_IPHONE, Clock, Connection

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])

OFF, ON = Condition(is_on=False), Condition(is_on=True)


def chat(room: str, **aps: Any) -> dict[str, Any]:
    data = {"messageId": f"m-{room}", "conversationId": room, "recipientId": "gus", "kind": "alert", "badge": 1}
    return {"aps": {"alert": {"title": "Ana", "body": "Hello"}, "sound": "default", **aps}, "body": data}


def dismissal(*rooms: str) -> dict[str, Any]:
    data = {"type": "chat_message", "kind": "dismiss", "conversationIds": list(rooms), "badge": 0}
    return {"aps": {"content-available": 1}, "body": data}


async def test_the_phone_has_the_fields_of_the_payload_and_of_the_headers(
    apns: ApnsService, connection: Connection
) -> None:
    aps = {
        "alert": {"title": "Ana", "subtitle": "Team", "body": "Hello"},
        "badge": 3,
        "sound": "chime.caf",
        "thread-id": "room",
        "category": "chat",
        "interruption-level": "time-sensitive",
        "relevance-score": 0.5,
        "target-content-id": "window",
        "mutable-content": 1,
    }
    payload = {"aps": aps, "body": {"messageId": "m1"}, "other": "ignored by the app"}
    await connection.send(IPHONE, payload, apns_collapse_id="room", apns_expiration="1767800000")
    [arrival] = apns.phones[IPHONE].shown
    assert arrival.message == {
        "title": "Ana",
        "subtitle": "Team",
        "body": "Hello",
        "badge": 3,
        "sound": "chime.caf",
        "threadId": "room",
        "categoryId": "chat",
        "interruptionLevel": "time-sensitive",
        "relevanceScore": 0.5,
        "targetContentId": "window",
        "mutableContent": True,
        "data": {"messageId": "m1"},
        "collapseId": "room",
        "expiration": 1767800000,
    }
    assert (apns.phones[IPHONE].badge, arrival.sounded) == (3, True)


async def test_an_alert_that_is_a_string_is_the_body(apns: ApnsService, connection: Connection) -> None:
    await connection.send(IPHONE, {"aps": {"alert": "Hello"}})
    assert apns.phones[IPHONE].shown[0].message == {"body": "Hello"}


@pytest.mark.parametrize(
    ("aps", "sounded"), [({}, True), ({"sound": None}, False), ({"interruption-level": "passive"}, False)]
)
async def test_a_notification_without_sound_and_a_passive_one_are_silent(
    apns: ApnsService, connection: Connection, aps: dict[str, Any], sounded: bool
) -> None:
    await connection.send(IPHONE, chat("room", **aps))
    assert apns.phones[IPHONE].shown[0].sounded == sounded


async def test_a_notification_replaces_the_one_with_the_same_collapse_id(
    apns: ApnsService, connection: Connection
) -> None:
    for room in ("one", "two", "one"):
        await connection.send(IPHONE, chat(room), apns_collapse_id=room)
    assert [arrival.conversation_id for arrival in apns.phones[IPHONE].shown] == ["two", "one"]


async def test_badge_0_removes_all_notifications_of_the_app(apns: ApnsService, connection: Connection) -> None:
    await connection.send(IPHONE, chat("room", badge=2))
    await connection.send(IPHONE, {"aps": {"badge": 0}})
    assert (apns.phones[IPHONE].badge, apns.phones[IPHONE].shown) == (0, [])


async def test_a_background_push_starts_the_app_three_times_an_hour(
    apns: ApnsService, connection: Connection, clock: Clock
) -> None:
    rooms = ["1", "2", "3", "4"]
    for room in rooms:
        await connection.send(IPHONE, chat(room), apns_collapse_id=room)
    for room in rooms:
        assert (await connection.send(IPHONE, dismissal(room), **BACKGROUND)).status == 200
    phone = apns.phones[IPHONE]
    assert [arrival.conversation_id for arrival in phone.shown] == ["4"]
    assert phone.arrived[-1].hidden == "background budget"
    clock.advance(minutes=59, seconds=59)
    await connection.send(IPHONE, dismissal("4"), **BACKGROUND)
    assert len(phone.shown) == 1
    clock.advance(seconds=1)
    connection.renew_provider_token()
    await connection.send(IPHONE, dismissal("4"), **BACKGROUND)
    assert phone.shown == []


async def test_apns_stores_the_latest_notification_for_a_phone_that_is_off(
    apns: ApnsService, connection: Connection, clock: Clock
) -> None:
    later = str(int(clock.now.timestamp()) + 3600)
    apns.change_phone(IPHONE, OFF)
    for room in ("one", "two"):
        assert (await connection.send(IPHONE, chat(room), apns_expiration=later)).status == 200
    assert apns.phones[IPHONE].shown == []
    apns.change_phone(IPHONE, ON)
    assert [arrival.conversation_id for arrival in apns.phones[IPHONE].shown] == ["two"]


@pytest.mark.parametrize(("seconds", "shown"), [(3599, 1), (3600, 0)])
async def test_a_stored_notification_expires_at_its_expiration(
    apns: ApnsService, connection: Connection, clock: Clock, seconds: int, shown: int
) -> None:
    apns.change_phone(IPHONE, OFF)
    await connection.send(apns_expiration=str(int(clock.now.timestamp()) + 3600))
    apns.pass_time(seconds)
    apns.change_phone(IPHONE, ON)
    assert len(apns.phones[IPHONE].shown) == shown


@pytest.mark.parametrize("expiration", ["0", None])
async def test_apns_stores_nothing_that_has_expiration_0_or_none(
    apns: ApnsService, connection: Connection, expiration: str | None
) -> None:
    apns.change_phone(IPHONE, OFF)
    await connection.send(apns_expiration=expiration)
    apns.change_phone(IPHONE, ON)
    assert apns.phones[IPHONE].arrived == []
    await connection.send(OTHER_IPHONE, apns_expiration=expiration)
    assert len(apns.phones[OTHER_IPHONE].shown) == 1


async def test_waiting_for_an_arrival_ends_when_the_message_is_on_the_phone(
    apns: ApnsService, connection: Connection
) -> None:
    await connection.send(IPHONE, ALERT)
    assert (await apns.arrival(IPHONE, "m1")).message["title"] == "Ana"
