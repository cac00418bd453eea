"""Follows "An app that exists" of docs/deploy.md on the database of an app with fewer columns and old queries."""

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from local.cloud import LocalCloud
from local.processes import run
from local.supabase.project import create_database, supabase_cli
from tests.database.chat import Chat, as_user, connected, row, rows, value
from tests.database.test_existing_columns import NEEDED
from tests.docs.guides import PROJECT, blocks, section, table

EXISTING_APP = Path(__file__).parents[1] / "database" / "existing_app.sql"
DEPLOY = "docs/deploy.md"


@pytest.fixture(scope="module")
async def followed(cloud: LocalCloud, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URL of the app's database after the guide's commands. Before, it had only the required columns.

    The app has a migration of its own, which is newer than those of Chat Push.
    """
    dsn = await create_database(cloud.postgres, "existing_app")
    app = tmp_path_factory.mktemp("app")
    migrations = app / "supabase" / "migrations"
    migrations.mkdir(parents=True)
    fewer_columns = """
        alter table chat_messages drop message_type, drop is_read, drop read_at, drop updated_at;
        alter table chat_rooms drop last_message, drop last_message_at, drop updated_at;
    """
    (migrations / "20991231235959_app.sql").write_text(EXISTING_APP.read_text() + fewer_columns)
    push = ("db", "push", "--yes", "--db-url", f"{dsn}?sslmode=disable")
    await supabase_cli(*push, project=app)
    [block] = [block for block in blocks("sh") if "--include-all" in block.text]
    copy, enter, include_all = block.commands
    assert (enter, include_all) == ('cd "$YOUR_APP"', "supabase db push --include-all")
    await run("cp", "bash", "-euc", copy, folder=app, env={**os.environ, "YOUR_APP": str(app)}, cwd=PROJECT)
    await supabase_cli(*push, "--include-all", project=app)
    return dsn


@pytest.fixture
async def chat(followed: str) -> AsyncIterator[Chat]:
    """A conversation of the app. All changes of a test are rolled back."""
    async with connected(followed) as connection, connection.transaction(force_rollback=True):
        room = await row(connection, "select * from chat_rooms order by id limit 1")
        yield Chat(connection, room["user1_id"], room["user2_id"], room["id"])


def test_the_guide_for_existing_apps_names_every_required_column() -> None:
    text = " ".join(section(DEPLOY, "An app that exists").split())
    said = text.partition("They need ")[2].partition("All other columns")[0]
    for name, columns in NEEDED.items():
        for column in columns:
            assert f"`{column}`" in said, f"{name}.{column}"
        assert f"`{name}`" in said


async def test_the_migration_report_lists_changes_and_mark_existing_messages_read_clears_the_unread_counters(
    chat: Chat,
) -> None:
    report, start, _ = [block for block in blocks("sql") if block.text in section(DEPLOY, "An app that exists")]
    found = await rows(chat.connection, report.text)
    assert {"what": "column added", "subject": "chat_messages.is_read", "affected_rows": None} in found
    unread = "select sum(unread_count_user1 + unread_count_user2) from chat_rooms"
    assert await value(chat.connection, unread) == 6000
    await chat.connection.execute(start.text.encode())
    assert await value(chat.connection, unread) == 0
    assert await rows(chat.connection, "select from message_receipts") == []


async def test_the_title_is_found_in_a_usual_column_of_the_profile(chat: Chat) -> None:
    assert str(await value(chat.connection, "select push.display_name(%s)", chat.tourist)).startswith("User ")


# The SQL of a request of an old version of the tourist's app, and a query that is true afterwards.
OLD = {
    "inserts a message or a conversation": (
        "insert into chat_messages (room_id, sender_id, message, is_read, created_at, updated_at)"
        " values (%(room)s, %(me)s, 'Old', false, '2001-01-01', '2001-01-01') returning *",
        "select message = 'Old' and created_at > now() - interval '1 minute' from chat_messages"
        " where room_id = %(room)s order by server_timestamp desc limit 1",
    ),
    "updates is_read, read_at or delivered_at": (
        "update chat_messages set is_read = true, read_at = '2001-01-01'"
        " where room_id = %(room)s and sender_id <> %(me)s",
        "select bool_and(is_read and read_at > now() - interval '1 minute') and count(*) > 0"
        " and count(*) = (select count(*) from message_receipts) from chat_messages"
        " where room_id = %(room)s and sender_id <> %(me)s",
    ),
    "updates last_message, last_message_at, updated_at or unread counters": (
        "update chat_rooms set last_message = 'Old', last_message_at = '2001-01-01', updated_at = '2001-01-01'"
        " where id = %(room)s",
        "select last_message <> 'Old' and last_message_at > '2001-01-01' and updated_at > '2001-01-02' from chat_rooms"
        " where id = %(room)s",
    ),
    "deletes a message of its own": (
        "delete from chat_messages where room_id = %(room)s and sender_id = %(me)s",
        "select bool_and((deleted_at is not null and message = '') = (sender_id = %(me)s)) from chat_messages"
        " where room_id = %(room)s",
    ),
    "deletes a conversation": (
        "delete from chat_rooms where id = %(room)s",
        "select archived_by_user1 and not archived_by_user2 from chat_rooms where id = %(room)s",
    ),
}
OLD_VERSIONS = [cells[0] for cells in table(section(DEPLOY, "Old versions of your app"))[1:]]


def test_every_row_of_the_table_of_old_app_versions_has_a_test() -> None:
    assert len(OLD) == len(OLD_VERSIONS)


@pytest.mark.parametrize("line", OLD_VERSIONS)
async def test_an_old_app_version_works_as_the_guide_says(chat: Chat, line: str) -> None:
    [(statement, holds)] = [act for said, act in OLD.items() if line.startswith(said)]
    names: dict[str, Any] = {"room": chat.room, "me": chat.tourist}
    async with as_user(chat.connection, chat.tourist):
        await chat.connection.execute(statement.encode(), names)
    [found] = await (await chat.connection.execute(holds.encode(), names)).fetchall()
    assert set(found.values()) == {True}
