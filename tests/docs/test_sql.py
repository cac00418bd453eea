"""All SQL of the guides runs on a migrated database. After the uninstallation the chat still works."""

from collections.abc import AsyncIterator
from itertools import count
from uuid import uuid4

import pytest

from local.cloud import LocalCloud
from local.supabase.project import create_database, migrate
from tests.database.chat import Chat, connected, insert, rows, start_chat, value
from tests.docs.guides import Block, blocks, section

_numbers = count(1)


@pytest.fixture(scope="session")
async def migrated(cloud: LocalCloud) -> str:
    """The name of a migrated database, to copy."""
    await migrate(await create_database(cloud.postgres, "guides"))
    return "guides"


@pytest.fixture
async def chat(cloud: LocalCloud, migrated: str) -> AsyncIterator[Chat]:
    """A conversation in a database of its own."""
    name = f"guides_{next(_numbers)}"
    async with connected(cloud.database_url) as owner:
        await owner.execute(f"create database {name} template {migrated}".encode())
    async with connected(cloud.postgres.dsn(name)) as connection:
        await connection.execute(
            "create table profiles (id uuid, full_name text)"
        )  # the app's own, as in an example of deploy.md
        yield await start_chat(connection)


async def filled_in(chat: Chat, block: Block) -> str:
    """The SQL with values instead of its placeholders."""
    text = block.text
    if "<message id>" in text:
        text = text.replace("<message id>", str(await chat.message()))
    if "<run id>" in text:
        run_id = uuid4()
        await insert(chat.connection, "push.receipt_runs", id=run_id, state="held")
        text = text.replace("<run id>", str(run_id))
    if "<report id>" in text:
        message = await chat.message()
        report = await insert(
            chat.connection, "private.reports", reported_id=chat.tourist, message_id=message, reason="spam"
        )
        text = text.replace("<report id>", str(report["id"]))
    text = text.replace("<user id>", str(chat.tourist))
    secret = "a secret of at least 24 characters"
    for placeholder, instead in {
        "<WebhookUrl>": "https://example.com/api/push/chat-message",
        "<current>": secret,
        "<new secret>": secret,
        "<ref>": "abcdefghijkl",
    }.items():
        text = text.replace(placeholder, instead)
    return text


async def run(chat: Chat, block: Block) -> None:
    text = await filled_in(chat, block)
    assert "<" not in text.replace("<>", ""), "a placeholder without a value in this test"
    await chat.connection.execute(text.encode())


@pytest.mark.parametrize("block", blocks("sql"), ids=str)
async def test_all_sql_of_the_guides_runs(block: Block, chat: Chat) -> None:
    await run(chat, block)


async def test_a_configured_webhook_is_called_for_a_message(chat: Chat) -> None:
    [block] = [block for block in blocks("sql") if "<current>" in block.text]
    await run(chat, block)
    await chat.message()
    assert await value(chat.connection, "select count(*) from net.http_request_queue") == 1


async def test_image_url_prefixes_of_the_guide_allow_images_of_another_host(chat: Chat) -> None:
    [block] = [block for block in blocks("sql") if "image_url_prefixes" in block.text]
    await run(chat, block)
    url = "https://images.example.com/photos/castle.jpg"
    message = await chat.message(attachments=f'[{{"type": "image", "url": "{url}"}}]')
    shown = "select push.message_image(sent, null) from chat_messages sent where id = %s"
    assert await value(chat.connection, shown, message) == url


async def test_display_name_of_the_guide_reads_the_apps_own_table(chat: Chat) -> None:
    await chat.connection.execute("insert into profiles (id, full_name) values (%s, ' Tina Turner ')", (chat.tourist,))
    [block] = [block for block in blocks("sql") if "function push.display_name" in block.text]
    await run(chat, block)
    assert await value(chat.connection, "select push.display_name(%s)", chat.tourist) == "Tina Turner"


async def test_uninstalling_keeps_the_chat_working_and_leaves_nothing_of_the_pushes(chat: Chat) -> None:
    await chat.message()
    for block in blocks("sql"):
        if block.text in section("docs/deploy.md", "Uninstalling"):
            await run(chat, block)
    message = await chat.message()
    presence = {"user_id": chat.guide, "is_online": True, "current_conversation_id": chat.room}
    await insert(chat.connection, "public.user_presence", **presence)
    await chat.connection.execute("update user_presence set is_online = false")
    await insert(chat.connection, "public.message_receipts", message_id=message, user_id=chat.guide)
    await chat.device()
    left = "select proname from pg_proc where prosrc ~ '\\mpush\\.' and pronamespace <> 'net'::regnamespace"
    assert await rows(chat.connection, left) == []
    assert await value(chat.connection, "select to_regnamespace('push')") is None
