"""`./dev chat`: two windows on the local cloud."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.widgets import Input, OptionList, Static

from chat_client import Timing
from local.cloud import LocalCloud
from local.console.project import Project, read_project
from local.console.run import open_window
from local.console.window import Window

TIMING = Timing(retry_base=0.1, retry_cap=0.5, marks_delay=0.02, typing_timeout=1, stable_connection=1)


class Person:
    """A person at a window."""

    def __init__(self, window: Window, pilot: Pilot[None]) -> None:
        self.window = window
        self.pilot = pilot

    async def type(self, text: str) -> None:
        """Types into the field that has the focus, and presses enter."""
        self.window.screen.query_one(Input).value = text
        await self.pilot.press("enter")

    def lines(self, of: str) -> list[str]:
        """The lines of a list on the screen."""
        return [str(option.prompt) for option in self.window.screen.query_one(of, OptionList).options]

    def text(self, of: str) -> str:
        return str(self.window.screen.query_one(of, Static).content)

    async def until(self, holds: Callable[[], object]) -> None:
        """Waits until the screen is as expected. Raises TimeoutError with what it shows."""
        try:
            async with asyncio.timeout(30):
                while not holds():
                    await self.pilot.pause(0.02)
        except TimeoutError:
            shown = {each.id: self.lines(f"#{each.id}") for each in self.window.screen.query(OptionList)}
            raise TimeoutError(f"{self.window.title} sees {shown}") from None

    async def until_line(self, part: str, of: str = "#messages") -> None:
        """Waits until a line of a list contains this."""
        await self.until(lambda: any(part in line for line in self.lines(of)))


type OpenWindow = Callable[[str], "asyncio.Future[Person]"]


@pytest.fixture
def env_file(cloud: LocalCloud, tmp_path: Path) -> Path:
    """What ./dev up writes."""
    file = tmp_path / "up.env"
    file.write_text("".join(f"{name}={value}\n" for name, value in cloud.environment().items()))
    return file


@pytest.fixture
async def windows(env_file: Path) -> AsyncIterator[tuple[Person, Person]]:
    """The windows of Tina and Gus."""
    project: Project = read_project(env_file)
    async with AsyncExitStack() as parts:
        people = []
        for name in ("Tina", "Gus"):
            window = await open_window(parts, project, name, TIMING)
            people.append(Person(window, await parts.enter_async_context(window.run_test(size=(120, 40)))))
        yield people[0], people[1]


async def test_two_windows_chat(windows: tuple[Person, Person]) -> None:
    tina, gus = windows
    await tina.pilot.press("ctrl+n")
    await tina.until(lambda: tina.window.screen.query("#name"))
    await tina.type("Gus")
    await tina.until(lambda: not tina.window.screen.query("#name"))
    await tina.type("Shall we meet at the fountain?")
    await tina.until_line("Shall we meet at the fountain?")
    await gus.until_line("Shall we meet at the fountain?", "#conversations")
