"""Expo: does it take the access token, and does a test push to one person's phones arrive?"""

import time
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

from chat_push.expo import ReceiptsUnavailable
from chat_push.notification import Notification
from pydantic import BaseModel, Field, TypeAdapter

from operate.doctor.results import Finding, Healthy, Result, Waiting, duration
from operate.doctor.system import ANSWER_SECONDS, System

# Expo has receipts after 15 minutes or sooner, under load after 30.
RECEIPT_WITHIN = timedelta(minutes=30)
ASK_EVERY_SECONDS = 15.0


def access_token(system: System) -> Iterator[Result]:
    """Does Expo take requests with the access token, or without one if there is none?"""
    has_token = bool(system.backend_secret.expo_access_token)
    try:
        system.expo.receipts([str(uuid4())], lambda: ANSWER_SECONDS)  # of a push that nobody sent
    except ReceiptsUnavailable as error:
        if error.configuration_fault:
            fault = "expo_access_token of the secret BackendSecret" if has_token else "requests without an access token"
            consequence = "No push is sent; jobs wait in the database and go out once it is mended, for 24 hours."
            yield Finding(f"Expo refuses {fault} ({error})", consequence, f"./dev secrets put {system.option}")
        else:
            consequence = "Pushes are late: they are tried again for 24 hours."
            yield Finding(f"Expo does not answer ({error})", consequence, "patience; https://status.expo.dev says more")
    else:
        yield Healthy(f"Expo: answers, and {'takes the access token' if has_token else 'asks for no access token'}")


class Device(BaseModel):
    """A row of user_devices."""

    device_id: str
    platform: str
    push_token: str | None = Field(repr=False)
    push_provider: str
    is_active: bool

    @property
    def name(self) -> str:
        """How the report calls it: by the id that explain_push and the API show as well."""
        return f"{self.platform} device {self.device_id}"


def send_test_push(
    system: System,
    user_id: UUID,
    pause: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Result]:
    """Sends one push to each active device of a person and follows it to its receipt.

    It goes to Expo directly: a message would be seen in a conversation. `pause` and `clock` are there for tests.
    """
    devices = _devices(system, user_id)
    if devices is None:
        yield Finding(
            f"nobody has the id {user_id}",
            "The test push was sent to nobody.",
            "an id of the table users, such as from: select id, display_name from public.users;",
        )
        return
    sendable = [
        (device, device.push_token)
        for device in devices
        if device.is_active and device.push_token and device.push_provider == "expo"
    ]
    if not sendable:
        yield Finding(
            f"the person has no active device with a token of Expo's, of {len(devices)} devices",
            "Every message to them is skipped: no_device.",
            "opening the app there while signed in: it registers its phone, POST /api/push/register",
        )
        return
    payload = _payload()
    outcomes = system.expo.send([Notification(token, payload) for _, token in sendable], lambda: ANSWER_SECONDS)
    waiting: dict[str, Device] = {}
    for (device, _), outcome in zip(sendable, outcomes, strict=True):
        if outcome.ticket_id:
            waiting[outcome.ticket_id] = device
            yield Waiting(f"test push to {device.name}: accepted by Expo")
        else:
            yield _refused(system, device, outcome.error or "UnreadableResponse")
    yield from _follow(system, waiting, pause, clock)


def _follow(
    system: System,
    waiting: dict[str, Device],
    pause: Callable[[float], None],
    clock: Callable[[], float],
) -> Iterator[Result]:
    """Asks for the receipts until all are there or the time is over."""
    began = clock()
    while waiting:
        try:
            ready = system.expo.receipts(list(waiting), lambda: ANSWER_SECONDS)
        except ReceiptsUnavailable as error:
            if error.configuration_fault:
                for device in waiting.values():
                    yield _refused(system, device, str(error))
                return
            ready = {}
            yield Waiting(f"Expo gives no receipts now ({error})")
        for ticket_id, receipt in ready.items():
            device = waiting.pop(ticket_id)
            if receipt.status == "handed_over":
                service = {"ios": "APNs", "android": "FCM"}.get(device.platform, "APNs or FCM")
                yield Healthy(f"test push to {device.name}: handed over to {service}")
            else:
                yield _refused(system, device, receipt.error or "UnknownError")
        passed = clock() - began
        if not waiting or passed >= RECEIPT_WITHIN.total_seconds():
            break
        yield Waiting(f"{len(waiting)} receipts, for {duration(passed)} now; Expo usually has them within 15 minutes")
        pause(ASK_EVERY_SECONDS)
    for device in waiting.values():
        yield Finding(
            f"test push to {device.name}: accepted, but Expo has no receipt after {duration(clock() - began)}",
            "Nobody knows whether it arrived. Receipts that late mean that something is wrong at Expo.",
            "patience; https://status.expo.dev says more",
        )


# What mends which error of one recipient, and what it means: Expo's documentation of push receipts.
_ERRORS: Mapping[str, tuple[str, str]] = {
    "DeviceNotRegistered": (
        "The token is dead: the app was removed there, or has another token. The next real push switches it off.",
        "opening the app there while signed in: it registers anew, POST /api/push/register",
    ),
    "InvalidCredentials": ("No phone of this platform gets a push: APNs or FCM refuse the app.", "eas credentials"),
    "MismatchSenderId": (
        "No Android phone gets a push: google-services.json and the FCM key are of different Firebase projects.",
        "eas credentials, with the FCM key of the project in google-services.json",
    ),
}


def _refused(system: System, device: Device, error: str) -> Finding:
    if error in ("UNAUTHORIZED", "invalid_token", "Http401", "Http403"):
        known = ("Expo takes no push at all.", f"./dev secrets put {system.option}")
    else:
        known = ("This device did not get it; others may.", f"trying again: ./dev doctor {system.option} --send <user>")
    consequence, remedy = _ERRORS.get(error, known)
    return Finding(f"test push to {device.name}: {error}", consequence, remedy)


def _payload() -> dict[str, Any]:
    """What the phone shows, in the way of a chat message; a tap opens the app and nothing in it."""
    id = str(uuid4())
    return {
        "title": "Chat Push",
        "body": "A test push. Whoever runs the app has sent it.",
        "data": {"type": "test"},
        "sound": "default",
        "channelId": "chat-messages",
        "priority": "high",
        "collapseId": id,
        "tag": id,
    }


def _devices(system: System, user_id: UUID) -> list[Device] | None:
    """All devices of a person, by the Data API; None: there is no such person."""
    if not _rows(system, "users", id=f"eq.{user_id}", select="id"):
        return None
    columns = "device_id,platform,push_token,push_provider,is_active"
    found = _rows(system, "user_devices", user_id=f"eq.{user_id}", select=columns)
    return TypeAdapter(list[Device]).validate_python(found)


def _rows(system: System, table: str, **query: str) -> list[dict[str, Any]]:
    answer = system.http.get(
        f"{system.supabase_url}/rest/v1/{table}",
        params=query,
        headers={"apikey": system.backend_secret.supabase_secret_key.get_secret_value()},
    )
    rows: list[dict[str, Any]] = answer.raise_for_status().json()
    return rows
