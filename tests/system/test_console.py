"""`./dev chat`: two windows on the local cloud."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from textual.pilot import Pilot
from textual.widgets import Input, OptionList, Static

from chat_client import Timing
from chat_client.errors import DatabaseInUse
from local.cloud import LocalCloud
from local.console.project import LOCAL_PASSWORD, local_account, read_project
from local.console.run import open_window
from local.console.window import Window
from local.packages import PROJECT
from local.processes import free_port

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
        """A line on the screen."""
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


@pytest.fixture
def env_file(cloud: LocalCloud, tmp_path: Path) -> Path:
    """What ./dev up writes."""
    file = tmp_path / "up.env"
    file.write_text("".join(f"{name}={value}\n" for name, value in cloud.environment().items()))
    return file


@pytest.fixture
async def windows(env_file: Path) -> AsyncIterator[tuple[Person, Person]]:
    """The windows of Tina and Gus."""
    project = read_project(env_file)
    async with AsyncExitStack() as parts:
        people = []
        for name in ("Tina", "Gus"):
            window = await open_window(parts, project, name, TIMING)
            people.append(Person(window, await parts.enter_async_context(window.run_test(size=(120, 40)))))
        yield people[0], people[1]


async def write_to(person: Person, name: str) -> None:
    """Opens the conversation with somebody by name."""
    await person.pilot.press("ctrl+n")
    await person.until(lambda: person.window.screen.query("#name"))
    await person.type(name)
    await person.until(lambda: not person.window.screen.query("#name") and partner_of(person) == name.casefold())


def partner_of(person: Person) -> str:
    """With whom the conversation on the screen is."""
    on_screen = person.window.on_screen
    conversation = person.window.client.conversation(on_screen) if on_screen else None
    return (conversation.partner.display_name or "").casefold() if conversation else ""


async def test_two_windows_show_messages_their_states_edits_deletions_presence_and_typing(
    windows: tuple[Person, Person],
) -> None:
    tina, gus = windows
    await write_to(tina, "Gus")
    await tina.type("Shall we meet at the fountan?")
    await gus.until_line("Shall we meet at the fountan?", "#conversations")
    await gus.until_line("Tina (1)", "#conversations")
    await tina.until_line("I: Shall we meet at the fountan?  delivered")

    await write_to(gus, "tina")
    await gus.until_line("Tina: Shall we meet at the fountan?")
    await tina.until_line("I: Shall we meet at the fountan?  read")
    await gus.until(lambda: gus.lines("#conversations")[0].startswith("Tina\n"))
    await tina.until(lambda: tina.text("#typing") == "Gus looks at this conversation")
    gus.window.screen.query_one(Input).value = "Y"
    await tina.until(lambda: tina.text("#typing") == "Gus writes …")

    await tina.pilot.press("shift+tab", "end", "e")
    await tina.type("Shall we meet at the fountain?")
    await gus.until_line("Tina: Shall we meet at the fountain?  edited")
    await tina.pilot.press("shift+tab", "end", "d")
    await gus.until_line("Tina: (deleted)")


async def test_in_the_background_a_push_appears_on_the_lock_screen_and_a_tap_opens_its_conversation(
    windows: tuple[Person, Person],
) -> None:
    tina, gus = windows
    await write_to(gus, "Omar")
    await gus.pilot.press("ctrl+b")
    await gus.until(lambda: gus.window.screen.query("#notifications"))

    await write_to(tina, "Gus")
    await tina.type("The gate is open")
    await gus.until_line("Tina\nThe gate is open", "#notifications")
    assert "💬 1" in gus.text("#lock")
    assert tina.lines("#messages")[-1].endswith("The gate is open  sent")
    await gus.pilot.press("enter")

    await gus.until_line("Tina: The gate is open")
    await tina.until_line("I: The gate is open  read")


async def test_a_push_for_another_conversation_is_announced_in_the_foreground(windows: tuple[Person, Person]) -> None:
    tina, gus = windows
    await write_to(gus, "Omar")
    await write_to(tina, "Gus")
    await tina.type("Here I am")
    await gus.until(
        lambda: [(each.title, each.message) for each in gus.window._notifications] == [("Tina", "Here I am")]
    )


async def test_a_message_cannot_write_to_the_terminal(windows: tuple[Person, Person]) -> None:
    tina, gus = windows
    await write_to(gus, "Tina")
    await write_to(tina, "Gus")
    tina.window.client.send(tina.window.client.conversations()[0].id, "\x1b]0;owned\x07[bold]hi\x1b[2J")
    await gus.until_line("Tina: \ufffd]0;owned\ufffd[bold]hi\ufffd[2J")


async def test_the_second_window_of_a_person_is_refused(windows: tuple[Person, Person], env_file: Path) -> None:
    async with AsyncExitStack() as parts:
        with pytest.raises(DatabaseInUse):
            await open_window(parts, read_project(env_file), "gus", TIMING)


async def test_in_a_terminal_the_command_connects_and_ends_with_ctrl_q(env_file: Path) -> None:
    ours, theirs = os.openpty()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "local", "chat", "--as", "Greta", "--env", env_file),
        cwd=PROJECT,
        env={**os.environ, "TERM": "xterm-256color"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    terminal, screen = os.fdopen(ours, "r+b", buffering=0), asyncio.StreamReader(limit=10_000_000)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(screen), terminal)
    try:
        async with asyncio.timeout(60):
            await screen.readuntil(b"online")
            terminal.write(b"\x11")
            with suppress(OSError):  # Linux reports the end of a terminal as an error.
                await screen.read()
            assert await process.wait() == 0
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def dev_chat(*options: str) -> tuple[int, str]:
    """Runs the command without a terminal. Returns its exit code and what it says."""
    command = [sys.executable, "-m", "local", "chat", *options]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT, check=False)
    return ended.returncode, ended.stderr.strip()


def test_without_a_cloud_the_command_says_how_to_start_one(tmp_path: Path) -> None:
    file = tmp_path / "up.env"
    start = f"Start one in another terminal: ./dev up --env {file}"
    missing = f"./dev chat: There is no file {file}, so no local cloud runs. {start}"
    assert dev_chat("--as", "Tina", "--env", str(file)) == (1, missing)
    names = ("SUPABASE_URL", "EXPO_CONTROL_URL")
    lines = [f"{name}=http://127.0.0.1:{free_port()}" for name in names]
    file.write_text("\n".join([*lines, "SUPABASE_PUBLISHABLE_KEY=x", f"FOLDER={tmp_path / 'ended'}"]))
    ended = f"./dev chat: The local cloud of {file} does not run any more. {start}"
    assert dev_chat("--as", "Tina", "--env", str(file)) == (1, ended)
    assert not (tmp_path / "ended").exists()


def test_a_file_without_a_key_is_refused_with_the_name_of_the_missing_line(tmp_path: Path) -> None:
    file = tmp_path / "project.env"
    file.write_text("# of the project\nSUPABASE_URL='https://x.supabase.co'\n")
    code, said = dev_chat("--as", "Tina", "--env", str(file))
    assert (code, "has no line SUPABASE_PUBLISHABLE_KEY=" in said) == (1, True)


async def test_on_a_project_it_asks_for_e_mail_and_password_once(
    cloud: LocalCloud, env_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The local cloud stands in for the project: without the control API, nothing says that it is one."""
    async with httpx.AsyncClient() as http:
        tina = await local_account(read_project(env_file), http, "Tina")
    file = tmp_path / "project.env"
    names = ("SUPABASE_URL", "SUPABASE_PUBLISHABLE_KEY", "API_URL")
    file.write_text("".join(f"{name}={cloud.environment()[name]}\n" for name in names))
    project = replace(read_project(file), folder=tmp_path / "data")
    monkeypatch.setattr("builtins.input", lambda prompt: tina.email)
    monkeypatch.setattr("getpass.getpass", lambda prompt: LOCAL_PASSWORD)
    async with AsyncExitStack() as parts:
        await open_window(parts, project, "me", TIMING)
    monkeypatch.delattr("getpass.getpass")
    async with AsyncExitStack() as parts:
        window = await open_window(parts, project, "me", TIMING)
        assert window.client.user_id == tina.id
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700
