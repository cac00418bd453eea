"""The window: conversations, messages, and in the background the lock screen of the fake phone."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from typing import Any, ClassVar
from uuid import UUID

import httpx
from textual import on, work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.css.query import NoMatches
from textual.screen import Screen
from textual.widgets import Footer, Input, OptionList, Static
from textual.widgets.option_list import Option

from chat_client import ChatClient, Message
from chat_client.errors import ChatError
from chat_client.events import (
    ConnectionChanged,
    DatabaseFailed,
    DatabaseRecovered,
    Event,
    PresenceChanged,
    SessionEnded,
    TypingChanged,
)
from local.console.drawing import line_of, name_of, printable, replace, row_of, title_and_body
from local.console.project import FakePhone, NotUsable, Project, local_account
from local.console.screens import AskName, LockScreen

PAGE = 30
PHONE_SECONDS = 0.5  # The control API of the phones sends no events.


class Messages(OptionList):
    """The messages of the conversation on the screen, oldest first."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("e", "app.edit", "Edit"),
        Binding("d", "app.delete", "Delete"),
        Binding("r", "app.retry", "Retry"),
        Binding("o", "app.older", "Older"),
    ]


class Window(App[None]):
    """The chat of one person. `events`: of the client, from its start. `phone`: whose app it is; None on a project."""

    CSS = """
    #conversations { width: 32; border: round $primary; }
    #messages { border: round $primary; height: 1fr; }
    #status, #typing { height: 1; color: $text-muted; padding: 0 1; }
    AskName { align: center middle; }
    #name { width: 60; }
    #lock, #hint { text-align: center; padding: 2; text-style: bold; }
    LockScreen { background: $primary-background; }
    #notifications { height: 1fr; margin: 0 8; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+n", "write_to", "Write to"),
        Binding("ctrl+b", "leave", "Background"),
        Binding("escape", "cancel", "Cancel edit", show=False),
        Binding("ctrl+q", "quit", "Quit", priority=True),
    ]
    ENABLE_COMMAND_PALETTE = False

    def __init__(
        self,
        name: str,
        client: ChatClient,
        events: AsyncIterator[Event],
        project: Project,
        http: httpx.AsyncClient,
        phone: FakePhone | None = None,
    ) -> None:
        super().__init__()
        self.title = name
        self.client = client
        self._events = events
        self._project, self._http, self._phone = project, http, phone
        self.on_screen: UUID | None = None
        self._limit = PAGE
        self._editing: UUID | None = None
        self._lock: LockScreen | None = None
        self._connection = "offline"
        self._fault = ""
        self._typing: set[UUID] = set()  # conversations whose partner writes
        self._present: dict[UUID, frozenset[UUID]] = {}

    def compose(self) -> ComposeResult:
        yield Static(id="status")
        with Horizontal():
            yield OptionList(id="conversations")
            with Vertical():
                yield Messages(id="messages")
                yield Static(id="typing")
                yield Input(id="text")
        yield Footer()

    def on_mount(self) -> None:
        """Draws what is stored, and follows what changes."""
        self._home = self.screen
        self.query_one("#text").focus()
        self._follow_events()
        if self._phone:
            self._follow_phone(self._phone)
        if conversations := self.client.conversations():
            self.open_conversation(conversations[0].id)
        self._draw()

    # What happens -------------------------------------------------------------------------------

    @work
    async def _follow_events(self) -> None:
        async for event in self._events:
            self._apply(event)
            self._draw()

    def _apply(self, event: Event) -> None:
        match event:
            case ConnectionChanged(state):
                self._connection = state
                self._present.clear()
            case TypingChanged(conversation, _, True):
                self._typing.add(conversation)
            case TypingChanged(conversation, _, False):
                self._typing.discard(conversation)
            case PresenceChanged(conversation, people):
                self._present[conversation] = people
            case DatabaseFailed(error):
                self._say(str(error))
            case DatabaseRecovered(moved_to, saved):
                self._say(
                    f"The local database was damaged and is now {moved_to}. {saved} entries of its outbox were saved."
                )
            case SessionEnded():
                self.exit(return_code=1, message="The session has ended. Start again to sign in.")
            case _:  # The messages and conversations are read again in any case.
                pass

    @work
    async def _follow_phone(self, phone: FakePhone) -> None:
        await self._open_app()
        announced: set[str] | None = None  # ticket ids; what arrived before the window was opened is not announced
        while True:
            try:
                state = await phone.state()
                self._fault = ""
            except httpx.HTTPError as error:
                self._fault = f"the fake phone does not answer: {type(error).__name__}"
            else:
                for arrival in state.shown:
                    if self._lock is None and announced is not None and arrival.ticket_id not in announced:
                        title, body = title_and_body(arrival)
                        self.notify(body, title=title, markup=False)
                announced = {arrival.ticket_id for arrival in state.arrived}
                if self._lock and self._lock.is_mounted:
                    self._lock.show(state.shown, state.badge)
            self._draw()
            await asyncio.sleep(PHONE_SECONDS)

    def _say(self, fault: str) -> None:
        self.notify(printable(fault), severity="error", markup=False)

    @contextmanager
    def _faults_shown(self) -> Iterator[None]:
        try:
            yield
        except httpx.HTTPError as error:
            self._say(f"The local cloud does not answer: {type(error).__name__}")
        except (ChatError, NotUsable, ValueError) as error:
            self._say(str(error))

    # What the person does -----------------------------------------------------------------------

    def open_conversation(self, conversation: UUID) -> None:
        """Shows a conversation."""
        self.on_screen, self._limit = conversation, PAGE
        self.client.look_at(conversation)
        self._load()
        self._draw()

    @work(exclusive=True, group="load")
    async def _load(self, before: Message | None = None) -> None:
        if self.on_screen:
            with self._faults_shown():
                await self.client.load_messages(self.on_screen, before, PAGE)
            self._draw()

    @on(OptionList.OptionSelected, "#conversations")
    def _chosen(self, event: OptionList.OptionSelected) -> None:
        self.open_conversation(UUID(event.option_id))
        self.query_one("#text").focus()

    @on(Input.Changed, "#text")
    async def _typed(self, event: Input.Changed) -> None:
        if event.value and not self._editing:
            await self.client.typing()

    @on(Input.Submitted, "#text")
    def _entered(self, event: Input.Submitted) -> None:
        text, editing = event.value.strip(), self._editing
        if not text or self.on_screen is None:
            return
        with self._faults_shown():
            if editing:
                self.client.edit(editing, text)
            else:
                self.client.send(self.on_screen, text)
            self.action_cancel()
        self._draw()

    def action_cancel(self) -> None:
        """Empties the field, and ends an edit."""
        self._editing = None
        field = self.query_one("#text", Input)
        field.clear()
        field.focus()

    @work
    async def action_write_to(self) -> None:
        """Opens the conversation with a person who is asked for."""
        local = self._project.control_url is not None
        name = await self.push_screen_wait(AskName("Name" if local else "Id of the person in users"))
        if not name:
            return
        with self._faults_shown():
            other = (await local_account(self._project, self._http, name)).id if local else UUID(name)
            self.open_conversation(await self.client.open_chat(other))

    def action_edit(self) -> None:
        """Puts the chosen message into the field."""
        if (message := self._chosen_message()) and message.sender_id == self.client.user_id and not message.deleted_at:
            field = self.query_one("#text", Input)
            field.value = message.text
            field.focus()
            self._editing = message.id

    def action_delete(self) -> None:
        """Deletes the chosen message, or discards what has failed."""
        if (message := self._chosen_message()) and message.sender_id == self.client.user_id:
            with self._faults_shown():
                (self.client.discard if message.status == "failed" else self.client.delete)(message.id)
            self._draw()

    def action_retry(self) -> None:
        """Sends the chosen message again if it has failed."""
        if (message := self._chosen_message()) and message.status == "failed":
            self.client.retry(message.id)

    def action_older(self) -> None:
        """Reads an older page."""
        if shown := self._messages():
            self._limit += PAGE
            self._load(shown[0])

    def _chosen_message(self) -> Message | None:
        chosen = self.query_one(Messages).highlighted_option
        return self.client.message(UUID(chosen.id)) if chosen and chosen.id else None

    @work
    async def action_leave(self) -> None:
        """Sends the app to the background, until a notification is tapped or the app is opened."""
        if self._lock:
            return
        self._lock = LockScreen(f"The locked phone of {self.title}" if self._phone else "The app is in the background")
        self.client.background()
        if self._phone:
            with self._faults_shown():
                await self._phone.leave_app()
        tapped = await self.push_screen_wait(self._lock)
        self._lock = None
        self.client.foreground()
        data = tapped.message.get("data") if tapped else None
        if isinstance(data, dict) and (tap := self.client.open_push(data)):
            self.open_conversation(tap.conversation_id)
        await self._open_app()

    async def _open_app(self) -> None:
        if self._phone:
            unread = [each for each in self.client.conversations() if each.unread]
            with self._faults_shown():
                await self._phone.open_app([each.id for each in unread], sum(each.unread for each in unread))

    # What is drawn ------------------------------------------------------------------------------

    def _messages(self) -> list[Message]:
        return self.client.messages(self.on_screen, limit=self._limit)[::-1] if self.on_screen else []

    def _draw(self) -> None:
        """Draws all anew from the local database, and marks as read what is on the screen."""
        # At the end the screen is emptied before this stops.
        with suppress(NoMatches):
            if not self._lock:
                self._draw_on(self._home)  # also while a dialog is above it

    def _draw_on(self, home: Screen[Any]) -> None:
        conversation = self.client.conversation(self.on_screen) if self.on_screen else None
        partner = name_of(conversation) if conversation else ""
        here = conversation and conversation.partner.id in self._present.get(conversation.id, ())
        home.query_one("#status", Static).update(Content(f"{self.title} · {self._connection} {self._fault}".strip()))
        home.query_one("#text", Input).placeholder = "Message" if self.on_screen else "Ctrl+N opens a conversation"
        typing = "writes …" if self.on_screen in self._typing else "looks at this conversation" if here else ""
        home.query_one("#typing", Static).update(Content(f"{partner} {typing}" if typing else ""))
        replace(
            home.query_one("#conversations", OptionList),
            [Option(row_of(each), id=str(each.id)) for each in self.client.conversations()],
        )
        messages = self._messages()
        replace(
            home.query_one(Messages),
            [Option(line_of(each, self.client.user_id, partner), id=str(each.id)) for each in messages],
            to_end=True,
        )
        received = [each for each in messages if each.sender_id != self.client.user_id and not each.is_read]
        if received:
            self.client.mark_read(received[-1].id)
