"""Phones with the app installed: what reaches each, what it shows, when it sounds, and the badge of the app.

The app does what client/expo/src/notifications.ts does: a background task handles dismissals and badges, and the app
removes the notifications of what was read when it is opened. A web browser is a phone here, too. Its service worker is
the background task, and a killed app is a closed browser.
"""

from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, JsonValue

from local.providers.held import Held, expires_at, kept
from local.providers.pushes import QUIET_CHANNEL, Platform, has_text, sounds, starts_code

type Provider = Literal["expo", "fcm", "apns"]
type DeadTokenReport = Literal["ticket", "receipt"]

# killed: swiped away on iOS, force-stopped on Android. Swiping an app away on Android only moves it to the background.
type AppState = Literal["foreground", "background", "killed"]

# Why a notification that reached the phone is not shown, or why its background task did nothing.
type Hidden = Literal[
    "unknown channel", "no text", "background budget", "swiped away", "force-stopped", "another account"
]

# iOS gives an app "two or three" background pushes an hour:
# https://developer.apple.com/documentation/usernotifications/pushing-background-updates-to-your-app
IOS_BACKGROUND_PUSHES_PER_HOUR = 3


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
        return self._text_of_data("messageId")

    @property
    def conversation_id(self) -> str | None:
        """The conversation that it shows, `data.conversationId`."""
        return self._text_of_data("conversationId")

    @property
    def recipient_id(self) -> str | None:
        """The account that it is for, `data.recipientId`."""
        return self._text_of_data("recipientId")

    def _text_of_data(self, name: str) -> str | None:
        data = self.message.get("data")
        value = data.get(name) if isinstance(data, dict) else None
        return value if isinstance(value, str) else None


class Installation(BaseModel):
    """The app of one project on one phone or browser. An Android app creates its notification channels itself."""

    model_config = ConfigDict(extra="forbid")

    token: str
    platform: Platform
    project: str = "@chat-push/app"
    channels: frozenset[str] = frozenset({"chat-messages", QUIET_CHANNEL})


class Condition(BaseModel):
    """What a person does with a phone. Fields that are left out keep their value."""

    model_config = ConfigDict(extra="forbid")

    is_on: bool = True  # off: switched off or without a network. The screen stays as it is.
    app: Literal["background", "killed"] = "background"  # `Phone.open` brings it to the foreground
    account: str | None = None  # the user id that is signed in; None: the user signs out


class Phone(Installation):
    """An installation and everything that reached it.

    `badge` on iOS is the number on the app's icon. The system sets it by the `badge` of each push, even if the app is
    killed. A push that sets it to 0 also removes all notifications of the app:
    https://support.airship.com/hc/en-us/articles/213492563-Clearing-the-badge-icon-on-iOS

    `badge` on Android is the number that the app set last: when it is opened, and by a push without text. A push with
    text does not change it. In the background the system draws such a push, and no code of the app runs. In the
    foreground expo-notifications makes the push's `badge` the number of that notification, not of the app. Launchers
    show a number or a dot for the notifications on the screen as well.

    `told_badge` is the number that the last push (`data.badge`) or the opened app said. On Android it may differ from
    `badge`; so a test of the sender compares this number.

    `background_runs`: when a push started the background task.
    """

    provider: Provider = "expo"
    # Where the provider reports the removed app: in the ticket, or only in the receipt. None: installed.
    uninstalled: DeadTokenReport | None = None
    is_on: bool = True
    app: AppState = "background"
    account: str | None = None  # None: not known, so each push is for the account on the phone
    background_budget: int = IOS_BACKGROUND_PUSHES_PER_HOUR  # of an iPhone, in an hour
    badge: int = 0
    told_badge: int = 0
    arrived: list[Arrival] = []
    shown: list[Arrival] = []  # the notifications on the screen, oldest first
    held: list[Held] = []  # while it is off
    background_runs: list[AwareDatetime] = []

    @property
    def sounds(self) -> list[datetime]:
        """When the phone sounded."""
        return [arrival.at for arrival in self.arrived if arrival.sounded]

    @property
    def is_reachable(self) -> bool:
        """Whether pushes arrive now. A browser gets none while it is closed."""
        return self.is_on and not (self.platform == "web" and self.app == "killed")

    def receive(self, message: dict[str, JsonValue], ticket_id: str, at: datetime) -> None:
        """APNs or FCM get the notification. They deliver it, or keep it for a phone that is off."""
        if self.is_reachable:
            self._arrive(message, ticket_id, at)
            return
        held = Held(expires_at=expires_at(message, self.platform, at), ticket_id=ticket_id, message=message)
        if held.expires_at > at:
            self.held = kept([*self.held, held], self.platform)

    def change(self, condition: Condition, at: datetime) -> None:
        """The person switches the phone on or off, closes the app, or signs in or out.

        What was held for the phone arrives at `at` if it has not expired by then.
        """
        for name in condition.model_fields_set:
            setattr(self, name, getattr(condition, name))
        if self.app == "killed" and self.platform == "android":
            self.shown = []  # Android removes the notifications of a force-stopped app.
        if "account" in condition.model_fields_set:
            self._dismiss(lambda arrival: self.account is None or self._is_for_other_account(arrival))
            if self.account is None:
                self.badge = self.told_badge = 0
        if self.is_reachable:
            held, self.held = self.held, []
            for each in held:
                if each.expires_at > at:
                    self._arrive(each.message, each.ticket_id, at)

    def open(self, unread_conversations: Collection[str | UUID], badge: int, at: datetime) -> None:
        """The person switches the phone on and opens the app.

        The app removes the notifications of conversations without unread messages and those of other accounts, and sets
        the badge. It reads what is unread from the database.
        """
        self.app = "foreground"
        self.change(Condition(is_on=True), at)
        unread = {None, *map(str, unread_conversations)}
        self._dismiss(lambda arrival: arrival.conversation_id not in unread or self._is_for_other_account(arrival))
        self.badge = self.told_badge = badge

    def clear(self) -> None:
        """Forgets everything that reached the phone."""
        self.arrived, self.shown, self.held, self.background_runs = [], [], [], []
        self.badge = self.told_badge = 0

    def _arrive(self, message: dict[str, JsonValue], ticket_id: str, at: datetime) -> None:
        arrival = Arrival(at=at, ticket_id=ticket_id, message=message)
        hidden = self._hidden(arrival)
        sounded = (
            hidden in (None, "no text") and sounds(message, self.platform) and not self._replaces_silently(message)
        )
        arrival = arrival.model_copy(update={"hidden": hidden, "sounded": sounded})
        self.arrived.append(arrival)
        match message.get("data"):
            case {"badge": int(badge)} if hidden in (None, "no text"):
                self.told_badge = badge
        if self.platform == "ios" and hidden != "another account":
            self._set_badge_by_system(message.get("badge"))
        if hidden is None and has_text(message):
            self._show(arrival)
        elif hidden in (None, "another account") and self.app == "background":
            self.background_runs.append(at)
        if hidden is None and not has_text(message):
            self._handle_silent_push(message.get("data"))

    def _hidden(self, arrival: Arrival) -> Hidden | None:
        message = arrival.message
        if self.platform == "android" and self.app == "killed":
            return "force-stopped"
        if self.app == "foreground" and self._is_for_other_account(arrival):
            return "another account"
        if has_text(message):
            # Without a channelId, Expo uses a channel that it creates. Android hides a push to a missing channel.
            channel = message.get("channelId")
            is_unknown = self.platform == "android" and channel is not None and channel not in self.channels
            return "unknown channel" if is_unknown else None
        if not starts_code(message, self.platform):
            return "no text"
        if self.platform == "ios" and self.app == "killed":
            return "swiped away"
        if self.platform == "ios" and self.app == "background":
            recent = [run for run in self.background_runs if timedelta(0) <= arrival.at - run < timedelta(hours=1)]
            if len(recent) >= self.background_budget:
                return "background budget"
        return "another account" if self._is_for_other_account(arrival) else None

    def _replaces_silently(self, message: dict[str, JsonValue]) -> bool:
        """Whether a browser replaces a notification with the same tag, which makes no sound without `renotify`."""
        if self.platform != "web" or message.get("renotify"):
            return False
        return any(other.message.get("tag") == message.get("tag") is not None for other in self.shown)

    def _set_badge_by_system(self, badge: JsonValue) -> None:
        if isinstance(badge, int):
            if badge == 0 and self.badge != 0:
                self.shown = []
            self.badge = badge

    def _show(self, arrival: Arrival) -> None:
        """The notification replaces the one with the same key."""
        name = "collapseId" if self.platform == "ios" else "tag"
        if key := arrival.message.get(name):
            self._dismiss(lambda other: other.message.get(name) == key)
        self.shown.append(arrival)

    def _handle_silent_push(self, data: JsonValue) -> None:
        """Does what #handleSilent in client/expo/src/notifications.ts does."""
        match data:
            case {"type": "chat_message", "kind": "dismiss" | "badge", "badge": int(badge), **others}:
                conversations = others.get("conversationIds")
                if isinstance(conversations, list):
                    self._dismiss(lambda arrival: arrival.conversation_id in conversations)
                self.badge = badge

    def _dismiss(self, is_dismissed: Callable[[Arrival], bool]) -> None:
        self.shown = [arrival for arrival in self.shown if not is_dismissed(arrival)]

    def _is_for_other_account(self, arrival: Arrival) -> bool:
        return None not in (self.account, arrival.recipient_id) and self.account != arrival.recipient_id
