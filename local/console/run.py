"""Opens the window of one person."""

import getpass
import logging
import signal
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import httpx

from chat_client import ChatClient, Timing
from chat_client.errors import ChatError
from local.console.project import LOCAL_PASSWORD, FakePhone, NotUsable, Project, local_account, read_project
from local.console.window import Window


async def chat(name: str, env_file: Path) -> int:
    """Opens the window of a name until it is closed. Returns the exit code."""
    try:
        project = read_project(env_file)
        async with AsyncExitStack() as parts:
            window = await open_window(parts, project, name, Timing())
            # A line on the terminal would tear the window.
            logging.basicConfig(filename=project.folder / "chat.log", level=logging.WARNING)
            await window.run_async()
            return window.return_code or 0
    except (NotUsable, ChatError, httpx.HTTPError) as error:
        print(f"./dev chat: {error}", file=sys.stderr)
        return 1


async def open_window(parts: AsyncExitStack, project: Project, name: str, timing: Timing) -> Window:
    """A window whose person is signed in, and on a local cloud has a phone. Raises NotUsable and ChatError."""
    http = await parts.enter_async_context(httpx.AsyncClient(timeout=15))
    local = await local_account(project, http, name) if project.control_url else None
    client = ChatClient(project.settings(name, timing))
    events = client.events()
    await parts.enter_async_context(client)
    if not client.signed_in:
        email, password = (local.email, LOCAL_PASSWORD) if local else _ask()
        await client.sign_in(email, password)
    phone = None
    if project.control_url and local:
        phone = FakePhone(http, project.control_url, name)
        await phone.switch_on(local.id)
        await client.register_device(phone.token, "ios")
    return Window(name, client, events, project, http, phone)


def _ask() -> tuple[str, str]:
    # The event loop's own handler of Ctrl-C would wait for the answer.
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return input("E-mail: "), getpass.getpass("Password: ")
    except (EOFError, KeyboardInterrupt):
        raise NotUsable("nobody has signed in") from None
    finally:
        signal.signal(signal.SIGINT, handler)
