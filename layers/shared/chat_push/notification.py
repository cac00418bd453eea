"""The notifications of a claim: for each device its content, as its provider takes it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from chat_push import apns_payload, expo_payload, fcm_payload
from chat_push.content import Content, silent_of, text_of
from chat_push.models import Environment, Provider, Push, Target, Texts

MAX_DISMISSED = 50  # conversations of one dismissal; each has 39 bytes

WRITERS: Mapping[Provider, Callable[[Content], Mapping[str, Any]]] = {
    "expo": expo_payload.write,
    "fcm": fcm_payload.write,
    "apns": apns_payload.write,
}


_ENGLISH: Mapping[str, Texts] = {}
_LONG_AGO = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Notification:
    """One payload for one push token. `deliveries`: what the database calls it; several, if it stands for several.

    environment: the servers of APNs that issued the token. registered_at: when the device registered it last.
    """

    push_token: str = field(repr=False)
    payload: Mapping[str, Any] = field(repr=False)
    deliveries: tuple[int, ...] = ()
    provider: Provider = "expo"
    environment: Environment = "production"
    registered_at: datetime = _LONG_AGO


def notifications(
    pushes: Sequence[Push], now: datetime, languages: Mapping[str, Texts] = _ENGLISH
) -> list[Notification]:
    """The notifications of all devices of these pushes. `now`: by the clock of the database. `languages`: of the claim.

    The dismissals of one device become one notification, and so do its badges: iOS limits how often it wakes an app.
    """
    found: list[Notification] = []
    silent: dict[tuple[str, str], list[tuple[Push, Target]]] = {}  # by kind and token
    for push in pushes:
        for device in push.devices:
            if device.kind in ("dismiss", "badge"):
                silent.setdefault((device.kind, device.push_token), []).append((push, device))
            else:
                text = text_of(push, device, now, languages.get(device.language, {}))
                found.append(_notification(device, text, [device.delivery_id]))
    for members in silent.values():
        for first in range(0, len(members), MAX_DISMISSED):
            merged = members[first : first + MAX_DISMISSED]
            device = merged[0][1]
            content = silent_of(device.kind, [push for push, _ in merged], device.platform, now)
            found.append(_notification(device, content, [device.delivery_id for _, device in merged]))
    return found


def _notification(device: Target, content: Content, deliveries: Sequence[int]) -> Notification:
    payload = WRITERS[device.provider](content)
    return Notification(
        device.push_token, payload, tuple(deliveries), device.provider, device.environment, device.registered_at
    )
