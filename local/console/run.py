"""Opens the window of one person."""

import asyncio
import getpass
import logging
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
    except (NotUsable, ChatError) as error:
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
        email, password = (local.email, LOCAL_PASSWORD) if local else await asyncio.to_thread(_ask)
        await client.sign_in(email, password)
    phone = None
    if project.control_url and local:
        phone = FakePhone(http, project.control_url, name)
        await phone.switch_on(local.id)
        await client.register_device(phone.token, "ios")
    return Window(name, client, events, project, http, phone)


def _ask() -> tuple[str, str]:
    return input("E-mail: "), getpass.getpass("Password: ")
