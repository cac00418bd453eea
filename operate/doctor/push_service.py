"""Checks of Expo: the access token, and a test push to the phones of one user."""

import time
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

from chat_push.content import Text
from chat_push.credentials import CredentialInvalid, parse_apns_key, parse_service_account
from chat_push.delivery import CONFIGURATION_FAULT
from chat_push.expo_errors import ReceiptsUnavailable
from chat_push.models import Environment, Provider
from chat_push.notification import WRITERS, Notification
from pydantic import BaseModel, Field, TypeAdapter

from operate.doctor.results import NOTHING_SENT, Finding, Healthy, Result, Waiting, duration
from operate.doctor.system import ANSWER_SECONDS, System

# Expo has receipts within 15 minutes, under load within 30:
# https://docs.expo.dev/push-notifications/sending-notifications/#check-push-receipts-for-errors
RECEIPT_WITHIN = timedelta(minutes=30)
POLL_SECONDS = 15.0
TITLE, BODY = "Chat Push", "This is a test push from the operator of the app."
WAIT_FOR_EXPO = "wait until https://status.expo.dev reports no incident, then run the doctor again"


def access_token(system: System) -> Iterator[Result]:
    """Checks that Expo accepts requests with the access token, or without one if BackendSecret holds none."""
    has_token = bool(system.backend_secret.expo_access_token)
    try:
        system.expo.receipts([str(uuid4())], lambda: ANSWER_SECONDS)  # a ticket that does not exist
    except ReceiptsUnavailable as error:
        if error.configuration_fault:
            fault = "expo_access_token of the secret BackendSecret" if has_token else "requests without an access token"
            yield Finding(f"Expo refuses {fault} ({error})", NOTHING_SENT, f"./dev secrets put {system.option}")
        else:
            consequence = (
                "Pushes that Expo refuses (429, no connection) are sent again for up to 24 hours,"
                " pushes without an answer (timeout, 5xx) at most four times within an hour."
            )
            yield Finding(f"Expo gives no receipts ({error})", consequence, WAIT_FOR_EXPO)
    else:
        yield Healthy(f"Expo: answers, and {'accepts the access token' if has_token else 'requires no access token'}")


def direct_providers(system: System) -> Iterator[Result]:
    """Checks the credentials of FCM and APNs, if there are any, and that neither is paused."""
    secret, names = system.backend_secret, {"fcm": "FCM", "apns": "APNs"}
    faults: dict[str, str] = {}
    try:
        if secret.fcm_service_account:
            parse_service_account(secret.fcm_service_account.get_secret_value())
    except CredentialInvalid as error:
        faults["fcm"] = f"fcm_service_account: {error}"
    try:
        if secret.apns_key:
            key = secret.apns_key.get_secret_value()
            parse_apns_key(key, secret.apns_key_id, secret.apns_team_id, secret.apns_topic)
    except CredentialInvalid as error:
        faults["apns"] = f"apns_key: {error}"
    for paused in system.diagnosis.paused_providers:
        what = (
            f"it refused everything {paused.failures} times in a row, and is paused until {paused.paused_until:%H:%M}"
        )
        faults.setdefault(paused.provider, f"{what} UTC")
    for provider, fault in faults.items():
        yield Finding(
            f"{names[provider]}: {fault}",
            f"No device of {names[provider]} gets a push. Jobs wait in the database, for up to 24 hours.",
            f"./dev secrets put {system.option}  # {CONFIGURATION_FAULT[provider]}",
        )
    if not faults:
        found = [names[provider] for provider in system.direct]
        yield Healthy(f"FCM, APNs: {', '.join(found)} configured" if found else "FCM, APNs: not configured")


class Device(BaseModel):
    """A row of user_devices."""

    device_id: str
    platform: str
    push_token: str | None = Field(repr=False)
    push_provider: Provider
    push_environment: Environment
    is_active: bool

    @property
    def name(self) -> str:
        """The name in the report, with the device_id that explain_push and the API show."""
        return f"{self.platform} device {self.device_id}"


def send_test_push(
    system: System,
    user_id: UUID,
    pause: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Result]:
    """Sends one push to each active device of a user, by its provider, and waits for the receipts of Expo.

    The push goes to the providers directly, because a message would appear in a conversation. Tests set `pause` and
    `clock`.
    """
    devices = _devices(system, user_id)
    if devices is None:
        yield Finding(
            f"there is no user with the id {user_id}",
            "No test push was sent.",
            "select id, display_name from public.users;  -- then run the doctor with one of these ids",
        )
        return
    served = {"expo", *system.direct}
    active = [device for device in devices if device.is_active and device.push_token and device.push_provider in served]
    if not active:
        names = ", ".join(sorted(served))
        yield Finding(
            f"the user has {len(devices)} devices, and none of them is active with a token of {names}",
            "Each message to this user is skipped with the reason no_device or provider_not_configured.",
            "sign in to the app on the phone: it registers the device with POST /api/push/register",
        )
        return
    yield from _send_directly(system, [device for device in active if device.push_provider != "expo"])
    sendable = [(device, device.push_token or "") for device in active if device.push_provider == "expo"]
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


def _send_directly(system: System, devices: list[Device]) -> Iterator[Result]:
    """Sends to devices of FCM and APNs, which answer at once whether they take a push."""
    for device in devices:
        provider = device.push_provider
        text = Text("alert", device.platform, str(uuid4()), TITLE, (BODY,), None, 0, True, None, 3600, {"type": "test"})
        notification = Notification(
            device.push_token or "", WRITERS[provider](text), (), provider, device.push_environment
        )
        [outcome] = system.direct[provider].send([notification], lambda: ANSWER_SECONDS)
        if outcome.status == "handed_over":
            yield Healthy(f"test push to {device.name}: handed over to {'FCM' if provider == 'fcm' else 'APNs'}")
        elif outcome.status == "configuration_fault":
            what = f"test push to {device.name}: {outcome.error}"
            yield Finding(what, f"No device of {provider} gets a push.", CONFIGURATION_FAULT[provider])
        else:
            yield _refused(system, device, outcome.error or outcome.status)


def _follow(
    system: System,
    waiting: dict[str, Device],
    pause: Callable[[float], None],
    clock: Callable[[], float],
) -> Iterator[Result]:
    """Polls Expo until all receipts have come or RECEIPT_WITHIN has passed."""
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
            yield Waiting(f"Expo gives no receipts at the moment ({error})")
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
        yield Waiting(
            f"{len(waiting)} receipts missing after {duration(passed)}; Expo usually has them within 15 minutes"
        )
        pause(POLL_SECONDS)
    for device in waiting.values():
        yield Finding(
            f"test push to {device.name}: accepted, but Expo has no receipt after {duration(clock() - began)}",
            "It is unknown whether the push arrived; receipts that are this late point to a fault at Expo.",
            WAIT_FOR_EXPO,
        )


# The consequence and the remedy of each error of one device:
# https://docs.expo.dev/push-notifications/sending-notifications/#individual-errors
_DEAD = (
    "The token is dead because the app was removed or has another token; the next push deactivates the device.",
    "sign in to the app on the phone: it registers the device again with POST /api/push/register",
)
_OTHER_ENVIRONMENT = (
    "The token is of another app, or of the other environment of Apple (push_environment: production or sandbox).",
    "sign in to the app on the phone: it registers the device with the push_environment of its build",
)
_ERRORS: Mapping[str, tuple[str, str]] = {
    **dict.fromkeys(("DeviceNotRegistered", "UNREGISTERED", "InvalidToken", "Unregistered", "ExpiredToken"), _DEAD),
    **dict.fromkeys(("BadDeviceToken", "DeviceTokenNotForTopic"), _OTHER_ENVIRONMENT),
    "SENDER_ID_MISMATCH": (
        "The device registered with another Firebase project than that of fcm_service_account.",
        "./dev secrets put, with a service account of the project in google-services.json",
    ),
    "InvalidCredentials": (
        "No phone of this platform gets a push: APNs or FCM rejects the credentials of the app.",
        "eas credentials",
    ),
    "MismatchSenderId": (
        "No Android phone gets a push: google-services.json and the FCM key belong to different Firebase projects.",
        "eas credentials, with the FCM key of the project in google-services.json",
    ),
}


def _refused(system: System, device: Device, error: str) -> Finding:
    if error in ("UNAUTHORIZED", "invalid_token", "Http401", "Http403"):
        known = ("Expo refuses all pushes.", f"./dev secrets put {system.option}")
    else:
        known = ("The push did not reach this device.", f"./dev doctor {system.option} --send <user>  # try again")
    consequence, remedy = _ERRORS.get(error, known)
    return Finding(f"test push to {device.name}: {error}", consequence, remedy)


def _payload() -> dict[str, Any]:
    """A notification like that of a chat message. A tap opens the app, but no conversation."""
    id = str(uuid4())
    return {
        "title": TITLE,
        "body": BODY,
        "data": {"type": "test"},
        "sound": "default",
        "channelId": "chat-messages",
        "priority": "high",
        "collapseId": id,
        "tag": id,
    }


def _devices(system: System, user_id: UUID) -> list[Device] | None:
    """All devices of a user, from the Data API; None if there is no such user."""
    if not _rows(system, "users", id=f"eq.{user_id}", select="id"):
        return None
    columns = "device_id,platform,push_token,push_provider,push_environment,is_active"
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
