"""Phones with the app installed: what arrived on each, and what it shows."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue, computed_field

type DeadTokenReport = Literal["ticket", "receipt"]


class Arrival(BaseModel):
    """One notification that reached a phone, as sent (wire names, without `to`)."""

    model_config = ConfigDict(frozen=True)

    at: AwareDatetime
    ticket_id: str
    message: dict[str, JsonValue]
    hidden: Literal["unknown channel", "no text"] | None = None

    @property
    def message_id(self) -> str | None:
        """The app's own id of the chat message, `data.messageId`."""
        match self.message.get("data"):
            case {"messageId": str(message_id)}:
                return message_id
        return None


class Installation(BaseModel):
    """The app of one Expo project on one phone. An Android app creates its notification channels itself."""

    model_config = ConfigDict(extra="forbid")

    token: str
    platform: Literal["ios", "android"]
    project: Annotated[str, Field(pattern=r"^@[^/\s]+/[^/\s]+$")] = "@chat-push/app"
    channels: frozenset[str] = frozenset({"chat-messages"})


class Phone(Installation):
    """An installation and everything that reached it."""

    # Where the provider reports the removed app: in the ticket, or only in the receipt. None: installed.
    uninstalled: DeadTokenReport | None = None
    arrived: list[Arrival] = []

    @computed_field  # type: ignore[prop-decorator]  # mypy does not support decorated properties
    @property
    def shown(self) -> list[Arrival]:
        """The notifications on the screen, oldest first; a later one replaces that of the same key."""
        replace_key = "collapseId" if self.platform == "ios" else "tag"
        screen: list[Arrival] = []
        for arrival in self.arrived:
            if arrival.hidden:
                continue
            if key := arrival.message.get(replace_key):
                screen = [other for other in screen if other.message.get(replace_key) != key]
            screen.append(arrival)
        return screen

    def receive(self, message: dict[str, JsonValue], ticket_id: str, at: datetime) -> None:
        """The notification reaches the phone, which shows it unless something hides it."""
        self.arrived.append(Arrival(at=at, ticket_id=ticket_id, message=message, hidden=self._hidden(message)))

    def _hidden(self, message: dict[str, JsonValue]) -> Literal["unknown channel", "no text"] | None:
        if not (message.get("title") or message.get("body")):
            return "no text"
        # Without a channelId, Expo uses a channel that it creates. Android hides a push to a missing channel.
        channel = message.get("channelId")
        if self.platform == "android" and channel is not None and channel not in self.channels:
            return "unknown channel"
        return None
