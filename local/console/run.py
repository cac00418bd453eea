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
        settings = project.settings(name, Timing())
        # A line on the terminal would tear the window.
        logging.basicConfig(filename=settings.database.with_suffix(".log"), level=logging.WARNING)
        async with AsyncExitStack() as parts:
            await (await open_window(parts, project, name)).run_async()
    except (NotUsable, ChatError) as error:
        print(f"./dev chat: {error}", file=sys.stderr)
        return 1
    return 0


async def open_window(parts: AsyncExitStack, project: Project, name: str, timing: Timing = Timing()) -> Window:
    """A window whose person is signed in. Raises ChatError and httpx.HTTPError."""
    http = await parts.enter_async_context(httpx.AsyncClient(timeout=15))
    client = await parts.enter_async_context(ChatClient(project.settings(name, timing)))
    if project.control_url is None:
        if not client.signed_in:
            await client.sign_in(*await asyncio.to_thread(_ask))
        return Window(name, client, project, http)
    account = await local_account(project, http, name)
    if not client.signed_in:
        await client.sign_in(account.email, LOCAL_PASSWORD)
    phone = FakePhone(http, project.control_url, name)
    await phone.switch_on(account.id)
    await client.register_device(phone.token, "ios")
    return Window(name, client, project, http, phone)


def _ask() -> tuple[str, str]:
    return input("E-mail: "), getpass.getpass("Password: ")
