"""What APNs and FCM keep for a phone that is off."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from pydantic import AwareDatetime, BaseModel, JsonValue

from local.providers.pushes import Platform, Push

# FCM stores messages of so many collapse keys, and so many messages without a key:
# https://firebase.google.com/docs/cloud-messaging/customize-messages/collapsible-message-types
_COLLAPSE_KEYS, _WITHOUT_KEY = 4, 100
# Seconds that a push without `ttl` lives. Old documentation of Expo says 0 on iOS, newer documentation says four weeks.
_DEFAULT_TTL = {"ios": 0, "android": 2_419_200, "web": 2_419_200}
_MAX_TTL = 2_419_200  # four weeks, the limit of FCM; APNs keeps a notification for at most 30 days


class Held(BaseModel):
    """A notification that APNs or FCM keeps for a phone that is off."""

    expires_at: AwareDatetime
    ticket_id: str
    message: dict[str, JsonValue]


def expires_at(push: Push, platform: Platform, at: datetime) -> datetime:
    """When a push that Expo accepted at `at` is dropped. `ttl` wins over `expiration`."""
    match push:
        case {"ttl": int(ttl)}:
            seconds: float = ttl
        case {"expiration": int(timestamp)}:
            seconds = timestamp - at.timestamp()
        case _:
            seconds = _DEFAULT_TTL[platform]
    return at + timedelta(seconds=min(seconds, _MAX_TTL))


def kept(held: Sequence[Held], platform: Platform) -> list[Held]:
    """The notifications that stay stored, oldest first, when the last one of `held` is added to the others.

    APNs stores one notification for each app. FCM stores the newest message of each collapse key. With more than four
    keys, it is undefined which ones FCM keeps; this fake keeps the newest four. With more than 100 messages without a
    key, FCM discards all messages.

    `collapseId` is the collapse key. A notification without one has no key here, although FCM may take the package name
    of the app as its key.
    """
    if platform == "ios":
        return list(held[-1:])
    newest = {key: each for each in held if (key := each.message.get("collapseId"))}
    without_key = [each for each in held if not each.message.get("collapseId")]
    if len(without_key) > _WITHOUT_KEY:
        return []
    stays = {id(each) for each in [*list(newest.values())[-_COLLAPSE_KEYS:], *without_key]}
    return [each for each in held if id(each) in stays]
