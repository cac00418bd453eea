"""What covers the window: a question, and the lock screen."""

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Footer, Input, OptionList, Static

from local.console.drawing import card
from local.providers.phones import Arrival


class AskName(ModalScreen[str]):
    """Asks whom to write to. Returns what was entered, or an empty text."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss('')", "Back")]

    def __init__(self, what: str) -> None:
        super().__init__()
        self._what = what

    def compose(self) -> ComposeResult:
        yield Input(placeholder=self._what, id="name")
        yield Footer()

    @on(Input.Submitted)
    def _entered(self, event: Input.Submitted) -> None:
        event.stop()
        self.dismiss(event.value.strip())


class LockScreen(ModalScreen[Arrival | None]):
    """What the phone shows while the app is in the background. Returns the notification that was tapped."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("ctrl+b", "dismiss(None)", "Open the app")]

    def __init__(self, what: str) -> None:
        super().__init__()
        self._what = what
        self.shown: list[Arrival] = []

    def compose(self) -> ComposeResult:
        yield Static(Content(self._what), id="lock")
        yield OptionList(id="notifications")
        yield Static("Enter taps the chosen notification.", id="hint")
        yield Footer()

    def show(self, shown: list[Arrival], badge: int) -> None:
        """Draws the notifications, newest first, and the badge of the app."""
        self.query_one("#lock", Static).update(Content(f"{self._what}\n💬 {badge or ''}".strip()))
        newest_first = shown[::-1]
        if newest_first != self.shown:
            self.shown = newest_first
            cards = [card(arrival) for arrival in newest_first]
            notifications = self.query_one("#notifications", OptionList).set_options(cards)
            notifications.highlighted = 0 if cards else None

    @on(OptionList.OptionSelected)
    def _tapped(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(self.shown[event.option_index])
