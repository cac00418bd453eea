"""The state of the demo: its people, their phones, and each step with what it expected and what it observed."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from uuid import UUID

import psycopg

from chat_client import Attachment, ChatClient
from local.app import Person, until
from local.cloud import LocalCloud
from local.providers.phones import Phone
from local.types import Json


@dataclass(frozen=True)
class Screen:
    """How often a phone shows one message, and the title and text of its notification."""

    visible: int = 0
    title: str | None = None
    body: str | None = None

    def __str__(self) -> str:
        if not self.visible:
            return "shows nothing"
        return f"shows “{self.title}: {self.body}”" + (f" {self.visible} times" if self.visible > 1 else "")


NOTHING = Screen()


@dataclass
class Step:
    """One message of the scenario, the screen that each phone should show, and further checks by their sentence."""

    title: str
    expected: Mapping[str, Screen]
    message_id: UUID | None = None
    push: str = "not finished"
    begun: float = field(default_factory=time.monotonic)
    seconds: float = 0  # until the push was done
    observed: dict[str, Screen] = field(default_factory=dict)
    copies: dict[str, int] = field(default_factory=dict)
    checks: dict[str, bool] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether every phone showed the expected screen and every check passed."""
        return self.expected == self.observed and all(self.checks.values())

    def observe(self, phones: Mapping[str, Phone]) -> None:
        """Records what each phone shows of the message, and how many copies of it arrived."""
        for name, phone in phones.items():
            shown = [arrival.message for arrival in phone.shown if arrival.message_id == str(self.message_id)]
            newest: Json = shown[-1] if shown else {}
            self.observed[name] = Screen(len(shown), newest.get("title"), newest.get("body"))
            self.copies[name] = sum(arrival.message_id == str(self.message_id) for arrival in phone.arrived)

    def lines(self) -> list[str]:
        """The result as text: a line for each phone, one for each check, and one for the outcome of the push."""
        lines = []
        for name, screen in self.observed.items():
            copies = f" ({self.copies[name]} copies arrived)" if self.copies[name] > 1 else ""
            wrong = "" if screen == self.expected[name] else f"; expected: {self.expected[name]}"
            lines.append(f"{_mark(not wrong)} {name} {screen}{copies}{wrong}")
        lines += [f"{_mark(passed)} {check}" for check, passed in self.checks.items()]
        return [*lines, f"  push: {self.push}, after {self.seconds:.1f} s"]

    def data(self) -> Json:
        """The result as JSON."""
        return {
            "title": self.title,
            "message_id": str(self.message_id),
            "phones": {
                name: {
                    "expected": asdict(screen),
                    "observed": asdict(self.observed[name]),
                    "copies": self.copies[name],
                }
                for name, screen in self.expected.items()
            },
            "checks": self.checks,
            "push": self.push,
            "seconds": self.seconds,
            "ok": self.ok,
        }


def _mark(passed: bool) -> str:
    return "✓" if passed else "✗"


@dataclass
class Scenario:
    """The people, the phones by name, the conversation of Tina and Gus, and the steps so far.

    Tina and Gus chat with the Python client. It is no phone: those get pushes, and show what the services delivered.
    """

    cloud: LocalCloud
    tina: Person
    gus: Person
    omar: Person
    greta: Person
    tinas_app: ChatClient
    guss_app: ChatClient
    open_app: Callable[[Person], Awaitable[ChatClient]]
    phones: dict[str, Phone]
    chat: UUID
    steps: list[Step] = field(default_factory=list)

    async def send(self, text: str, attachments: Sequence[Attachment] = (), conversation: UUID | None = None) -> UUID:
        """Tina sends a message, to Gus by default. Returns its id when it is stored."""
        app = self.tinas_app
        pending = app.send(conversation or self.chat, text, attachments)
        await until(app, lambda: app.message(pending.id).status not in ("pending", "failed"))
        return app.message(pending.id).id

    async def read(self) -> None:
        """Gus reads what Tina wrote. Returns when her app shows that."""
        await self.guss_app.sync()
        received = [each for each in self.guss_app.messages(self.chat) if each.sender_id == self.tina.id]
        if received:
            self.guss_app.mark_read(received[0].id)
            await until(self.tinas_app, lambda: self.tinas_app.message(received[0].id).status == "read")

    async def look_at(self, conversation: UUID) -> None:
        """Gus opens a conversation in his app. Returns when the app has reported it."""
        self.guss_app.look_at(conversation)
        reported = "select from public.user_presence where user_id = %s and current_conversation_id = %s"
        async with (
            asyncio.timeout(30),
            await psycopg.AsyncConnection.connect(self.cloud.database_url, autocommit=True) as database,
        ):
            while not (await database.execute(reported, (self.gus.id, conversation))).rowcount:  # noqa: ASYNC110
                await asyncio.sleep(0.05)  # The client emits no event for it.

    @asynccontextmanager
    async def step(self, title: str, expected: Mapping[str, Screen]) -> AsyncIterator[Step]:
        """Runs one step. The body of the context sends a message and sets message_id; then the phones are observed.

        Gus has read everything before, so that his phones show this message only. A TimeoutError fails the step, and
        the scenario continues.
        """
        step = Step(title, expected)
        self.steps.append(step)
        print(f"\n{len(self.steps)}. {title}", flush=True)
        await self.read()
        try:
            yield step
        except TimeoutError as error:
            step.checks[f"the push finishes ({error})"] = False
        step.observe(self.phones)
        print("\n".join(f"   {line}" for line in step.lines()), flush=True)

    async def log_in(self, person: Person, phone: str) -> None:
        """The person logs in on one of the phones."""
        await person.log_in_on(self.phones[phone], device_id=phone)

    async def until_done(self, step: Step, sweep: bool = False) -> None:
        """Waits until the push job of the step is done, and records its outcome. `sweep`: runs the sweep meanwhile."""
        assert step.message_id
        try:
            job = await self.cloud.until_push(step.message_id, sweep=sweep)
        finally:
            step.seconds = round(time.monotonic() - step.begun, 2)
        step.push = ": ".join(filter(None, [job["outcome"], job["reason"]]))
        if job["attempts"] > 1:
            step.push += f" at attempt {job['attempts']}"
        step.push += "".join(f", {d['device_id']}: {d['error']}" for d in job["deliveries"] if d["error"])

    def arrivals(self) -> list[int]:
        """How many notifications with a text arrived on each phone so far."""
        return [sum(arrival.message_id is not None for arrival in phone.arrived) for phone in self.phones.values()]
