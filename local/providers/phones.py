"""Phones with the app installed: what reaches each, what it shows, when it sounds, and the badge of the app.

They behave as docs/client/push.ts makes an app behave: a background task handles dismissals and badges, and the app
removes what was read when it is opened.
"""

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue

type DeadTokenReport = Literal["ticket", "receipt"]

# Why a notification that reached the phone is not shown, or why its background task did not run.
type Hidden = Literal["unknown channel", "no text", "background budget", "swiped away", "another account"]

# iOS gives an app "two or three" background pushes an hour:
# https://developer.apple.com/documentation/usernotifications/pushing-background-updates-to-your-app
IOS_BACKGROUND_PUSHES_PER_HOUR = 3
# FCM stores messages of so many collapse keys for a device that is off, and so many others:
# https://firebase.google.com/docs/cloud-messaging/customize-messages/collapsible-message-types
FCM_COLLAPSE_KEYS, FCM_OTHERS = 4, 100
# What Expo takes for a missing ttl: https://docs.expo.dev/push-notifications/sending-notifications/#message-request-format
DEFAULT_TTL = {"ios": timedelta(0), "android": timedelta(weeks=4)}


class Arrival(BaseModel):
    """One notification that reached a phone, as sent (wire names, without `to`)."""

    model_config = ConfigDict(frozen=True)

    at: AwareDatetime
    ticket_id: str
    message: dict[str, JsonValue]
    hidden: Hidden | None = None
    sounded: bool = False

    @property
    def message_id(self) -> str | None:
        """The app's own id of the newest chat message that it shows, `data.messageId`."""
        return self._data("messageId")

    @property
    def conversation_id(self) -> str | None:
        """The conversation that it shows, `data.conversationId`."""
        return self._data("conversationId")

    @property
    def recipient_id(self) -> str | None:
        """The account that it is for, `data.recipientId`."""
        return self._data("recipientId")

    def _data(self, key: str) -> str | None:
        data = self.message.get("data")
        value = data.get(key) if isinstance(data, dict) else None
        return value if isinstance(value, str) else None


class Held(BaseModel):
    """A notification that APNs or FCM keeps for a phone that is off."""

    expires_at: AwareDatetime
    ticket_id: str
    message: dict[str, JsonValue]


class Installation(BaseModel):
    """The app of one Expo project on one phone. An Android app creates its notification channels itself."""

    model_config = ConfigDict(extra="forbid")

    token: str
    platform: Literal["ios", "android"]
    project: Annotated[str, Field(pattern=r"^@[^/\s]+/[^/\s]+$")] = "@chat-push/app"
    channels: frozenset[str] = frozenset({"chat-messages", "chat-messages-quiet"})


class Condition(BaseModel):
    """What a person does with a phone. Fields that are left out keep their value."""

    model_config = ConfigDict(extra="forbid")

    is_on: bool | None = None
    # swiped away: iOS starts no background task. force-stopped: Android delivers nothing until the app is opened.
    app: Literal["running", "swiped away", "force-stopped"] | None = None
    account: str | None = None  # who is signed in; without one, the app believes each push


class Phone(Installation):
    """An installation and everything that reached it."""

    # Where the provider reports the removed app: in the ticket, or only in the receipt. None: installed.
    uninstalled: DeadTokenReport | None = None
    is_on: bool = True
    app: Literal["running", "swiped away", "force-stopped"] = "running"
    account: str | None = None
    background_budget: int = IOS_BACKGROUND_PUSHES_PER_HOUR  # of an iPhone, in an hour
    badge: int = 0
    arrived: list[Arrival] = []
    shown: list[Arrival] = []  # the notifications on the screen, oldest first
    held: list[Held] = []  # while it is off
    background_runs: list[AwareDatetime] = []

    @property
    def sounds(self) -> list[datetime]:
        """When the phone sounded."""
        return [arrival.at for arrival in self.arrived if arrival.sounded]

    def receive(self, message: dict[str, JsonValue], ticket_id: str, at: datetime) -> None:
        """APNs or FCM get the notification, and deliver it or keep it until the phone is on."""
        if self.is_on and self.app != "force-stopped":
            self._arrive(message, ticket_id, at)
            return
        match message.get("ttl"):
            case int(seconds) | float(seconds):
                lives = timedelta(seconds=seconds)
            case _:
                lives = DEFAULT_TTL[self.platform]
        held = Held(expires_at=at + lives, ticket_id=ticket_id, message=message)
        if held.expires_at > at:
            self.held = self._keep([*self.held, held])

    def change(self, condition: Condition, at: datetime) -> None:
        """The person switches the phone on or off, closes the app, or signs in. What was held arrives if it lives."""
        for name, value in condition.model_dump(exclude_unset=True).items():
            setattr(self, name, value)
        if self.is_on and self.app != "force-stopped":
            held, self.held = self.held, []
            for kept in held:
                if kept.expires_at > at:
                    self._arrive(kept.message, kept.ticket_id, at)

    def open(self, unread_conversations: Collection[str], badge: int, at: datetime) -> None:
        """The person opens the app: it removes the notifications of other conversations, and sets the badge."""
        self.change(Condition(is_on=True, app="running"), at)
        self.shown = [arrival for arrival in self.shown if arrival.conversation_id in unread_conversations]
        self.badge = badge

    def clear(self) -> None:
        """Forgets everything that reached the phone."""
        self.arrived, self.shown, self.held, self.background_runs, self.badge = [], [], [], [], 0

    def _keep(self, held: list[Held]) -> list[Held]:
        if self.platform == "ios":
            return held[-1:]  # APNs stores one notification for an app.
        newest = {key: kept for kept in held if (key := kept.message.get("collapseId"))}
        keys = list(dict.fromkeys(kept.message.get("collapseId") for kept in reversed(held)))
        kept_keys = [key for key in keys if key][:FCM_COLLAPSE_KEYS]
        others = [kept for kept in held if not kept.message.get("collapseId")][-FCM_OTHERS:]
        return [kept for kept in held if kept in others or any(kept is newest[key] for key in kept_keys)]

    def _arrive(self, message: dict[str, JsonValue], ticket_id: str, at: datetime) -> None:
        hidden = self._hidden(message, at)
        has_text = bool(message.get("title") or message.get("body"))
        arrival = Arrival(
            at=at,
            ticket_id=ticket_id,
            message=message,
            hidden=hidden,
            sounded=has_text and hidden is None and self._sounds(message),
        )
        self.arrived.append(arrival)
        # iOS sets the badge of each push; on Android, expo-notifications does when it draws one.
        badge = message.get("badge")
        if isinstance(badge, int) and (self.platform == "ios" or (has_text and hidden is None)):
            self.badge = badge
        if hidden is None and has_text:
            replace_key = "collapseId" if self.platform == "ios" else "tag"
            if key := message.get(replace_key):
                self.shown = [other for other in self.shown if other.message.get(replace_key) != key]
            self.shown.append(arrival)
        elif hidden is None:
            self._run_background_task(message, at)

    def _hidden(self, message: dict[str, JsonValue], at: datetime) -> Hidden | None:
        if message.get("title") or message.get("body"):
            # Without a channelId, Expo uses a channel that it creates. Android hides a push to a missing channel.
            channel = message.get("channelId")
            is_unknown = self.platform == "android" and channel is not None and channel not in self.channels
            return "unknown channel" if is_unknown else None
        if self.platform == "ios":
            if not (message.get("contentAvailable") or message.get("_contentAvailable")):
                return "no text"
            if self.app == "swiped away":
                return "swiped away"
            recent = [run for run in self.background_runs if run > at - timedelta(hours=1)]
            if len(recent) >= self.background_budget:
                return "background budget"
        match message.get("data"):
            case {"recipientId": str(recipient)} if self.account not in (None, recipient):
                return "another account"
        return None

    def _sounds(self, message: dict[str, JsonValue]) -> bool:
        """On iOS the push says whether it sounds, on Android its channel."""
        if self.platform == "ios":
            return bool(message.get("sound"))
        return message.get("channelId") != "chat-messages-quiet"

    def _run_background_task(self, message: dict[str, JsonValue], at: datetime) -> None:
        self.background_runs.append(at)
        data = message.get("data")
        if not isinstance(data, dict):
            return
        conversations = data.get("conversationIds")
        if data.get("kind") == "dismiss" and isinstance(conversations, list):
            self.shown = [arrival for arrival in self.shown if arrival.conversation_id not in conversations]
        if isinstance(badge := data.get("badge"), int):
            self.badge = badge
