"""What iOS, Android and web browsers make of a push: whether it is drawn, sounds, or starts code of the app.

A push has the field names of Expo. Those of other push services are translated when they arrive there. Two more fields
are for browsers: `silent` and `renotify`, see https://developer.mozilla.org/en-US/docs/Web/API/Notification.
"""

from collections.abc import Mapping
from typing import Literal

from pydantic import JsonValue

type Platform = Literal["ios", "android", "web"]
type Push = Mapping[str, JsonValue]  # wire names, without `to`

QUIET_CHANNEL = "chat-messages-quiet"

# With one of these fields the system handles the push, and no code of an app in the background runs:
# https://docs.expo.dev/push-notifications/what-you-need-to-know/
_DRAWN = ("title", "subtitle", "body", "icon", "channelId")


def has_text(push: Push) -> bool:
    """Whether there is something to draw."""
    return bool(push.get("title") or push.get("body"))


def starts_code(push: Push, platform: Platform) -> bool:
    """Whether the push starts the code of an app in the background.

    On iOS such a push has no sound and no badge:
    https://developer.apple.com/documentation/usernotifications/pushing-background-updates-to-your-app
    """
    if any(push.get(field) for field in _DRAWN):
        return False
    if platform != "ios":
        return bool(push.get("data"))
    is_background = push.get("contentAvailable", push.get("_contentAvailable"))
    return bool(is_background) and not push.get("sound") and "badge" not in push


def sounds(push: Push, platform: Platform) -> bool:
    """Whether the phone sounds if it does not hide the push. iOS decides by the push, Android by its channel.

    A browser sounds unless the push is silent.

    On iOS a push sounds even without text. Each replacement sounds again: on Android by default, on iOS because newer
    versions are not known to keep silent.
    """
    if platform == "ios":
        return bool(push.get("sound")) and push.get("interruptionLevel") != "passive"
    if platform == "web":
        return has_text(push) and not push.get("silent")
    return has_text(push) and push.get("channelId") != QUIET_CHANNEL
