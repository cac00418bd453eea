"""The code of docs/client: its types against those of Expo, and the calls of chat.ts against the local cloud."""

import re
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from local.app import Person, chat_app
from local.cloud import LocalCloud
from local.packages import NODE_MODULES, node
from local.processes import run
from tests.docs.guides import PROJECT
from tests.node_app import NodeApp, node_app

APP = Path(__file__).parent / "app"


@pytest.fixture(scope="session")
async def tina(cloud: LocalCloud) -> AsyncIterator[Person]:
    """A tourist who writes to the user of the app."""
    async with chat_app(cloud.supabase, cloud.api_url) as app:
        yield await app.sign_up("Tina", "tourist")


@pytest.fixture
async def app(cloud: LocalCloud) -> AsyncIterator[NodeApp]:
    """The app, with Gus signed in."""
    environment = {
        "EXPO_PUBLIC_SUPABASE_URL": cloud.supabase.url,
        "EXPO_PUBLIC_SUPABASE_PUBLISHABLE_KEY": cloud.supabase.publishable_key,
    }
    async with node_app(APP, environment) as app:
        await app.do("signUp", f"gus-{secrets.token_hex(4)}@example.com", secrets.token_urlsafe(16))
        await app.do("createProfile", "Gus")
        yield app


async def rows(cloud: LocalCloud, query: str, *parameters: Any) -> list[Any]:
    async with await psycopg.AsyncConnection.connect(cloud.database_url) as connection:
        return await (await connection.execute(query.encode(), parameters)).fetchall()


async def change(cloud: LocalCloud, statement: str) -> None:
    async with await psycopg.AsyncConnection.connect(cloud.database_url) as connection:
        await connection.execute(statement.encode())


async def test_the_code_has_no_type_errors_against_the_types_of_expo(tmp_path: Path) -> None:
    await run("tsc", node(), NODE_MODULES / "typescript" / "bin" / "tsc", "--project", APP, folder=tmp_path)


async def test_the_chat_functions_open_send_and_page_a_conversation(
    app: NodeApp, cloud: LocalCloud, tina: Person
) -> None:
    conversation = await app.do("openChat", str(tina.id))
    assert await app.do("openChat", str(tina.id)) == conversation
    id = str(uuid4())
    for text in ("Hello", "Hello"):
        await app.do("send", conversation, text, id)
    await tina.send(UUID(conversation), "Hello Gus")
    newest, oldest = await app.do("page", conversation)
    assert [newest["message"], oldest["message"], oldest["client_msg_id"]] == ["Hello Gus", "Hello", id]
    assert await app.do("page", conversation, newest) == [oldest]


async def test_a_sync_brings_what_was_sent_edited_deleted_and_marked_since_the_cursor(
    app: NodeApp, cloud: LocalCloud, tina: Person
) -> None:
    cursor = await app.do("firstCursor")
    assert await app.do("sync", cursor) == []
    conversation = UUID(await app.do("openChat", str(tina.id)))
    edited, deleted = await tina.send(conversation, "Hello"), await tina.send(conversation, "Hello?")
    await app.do("send", str(conversation), "Hi", str(uuid4()))
    (first,) = await app.do("sync", cursor)
    assert [message["message"] for message in first["messages"]] == ["Hello", "Hello?", "Hi"]

    await tina.edit(edited, "Hello Gus")
    await tina.delete(deleted)
    await tina.read(conversation)
    (second,) = await app.do("sync", first["cursor"])
    assert [(message["message"], message["is_read"]) for message in second["messages"]] == [
        ("Hello Gus", False),
        ("", False),
        ("Hi", True),
    ]
    assert second["cursor"] == second["messages"][-1]["changed_at"] > first["cursor"]


async def test_a_sync_stores_each_page_with_its_cursor(app: NodeApp, cloud: LocalCloud, tina: Person) -> None:
    cursor = await app.do("firstCursor")
    conversation = await app.do("openChat", str(tina.id))
    await change(
        cloud,
        "insert into chat_messages (room_id, sender_id, message)"
        f" select '{conversation}', '{tina.id}', n::text from generate_series(1, 501) n",
    )
    first, second = await app.do("sync", cursor)
    assert {message["message"] for page in (first, second) for message in page["messages"]} == {
        str(n) for n in range(1, 502)
    }
    assert [len(page["messages"]) for page in (first, second)] == [500, 1]
    assert first["cursor"] == first["messages"][-1]["changed_at"]


async def test_retry_after_reads_the_seconds_from_a_rate_limit_error(
    app: NodeApp, cloud: LocalCloud, tina: Person
) -> None:
    conversation = await app.do("openChat", str(tina.id))
    await change(cloud, "update private.chat_settings set message_limit = 1, message_batch_limit = 1")
    try:
        assert await app.do("sendOrWait", conversation, "Hello", str(uuid4())) is None
        assert 8 <= await app.do("sendOrWait", conversation, "Hello again", str(uuid4())) <= 10
    finally:
        await change(cloud, "update private.chat_settings set message_limit = default, message_batch_limit = default")


async def test_the_client_passes_every_argument_of_every_function_that_apps_may_call(cloud: LocalCloud) -> None:
    # The HTTP API stands before the first three, and sync in the place of the last.
    not_called = ("register_device", "unregister_device", "my_devices", "get_missed_messages")
    functions = await rows(
        cloud,
        "select proname, coalesce(proargnames, '{}') from pg_proc where pronamespace = 'public'::regnamespace"
        " and has_function_privilege('authenticated', oid, 'execute') and proname <> all(%s)",
        list(not_called),
    )
    client = "".join(file.read_text() for file in (PROJECT / "docs" / "client").glob("*.ts"))
    calls = {
        name: set(re.findall(r"(p_\w+):", body))
        for name, body in re.findall(r"rpc\('(\w+)'(?:, {(.*?)})?\)", client, re.S)
    }
    # The names also have the columns of what a function returns.
    assert calls == {name: {each for each in names if each.startswith("p_")} for name, names in functions}
    assert all(f"`{name}`" in (PROJECT / "docs" / "client.md").read_text() for name in not_called)
