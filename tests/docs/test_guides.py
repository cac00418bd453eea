"""The guides name only what exists, and everything that an operator or a client needs is in the guides."""

import json
import re
from pathlib import Path
from typing import Any

import psycopg
import pytest
from chat_push.content import QUIET_CHANNEL, SOUND_CHANNEL
from psycopg import sql
from samtranslator.yaml_helper import yaml_parse

from local.cloud import LocalCloud
from tests.docs.guides import GUIDES, PROJECT, anchors, blocks, headings, links, section, table

TEMPLATE = yaml_parse((PROJECT / "template.yaml").read_text())


def resources(kind: str) -> set[str]:
    """The logical ids of the template's resources of this type."""
    return {name for name, resource in TEMPLATE["Resources"].items() if resource["Type"] == kind}


@pytest.mark.parametrize("block", blocks("ts", "tsx"), ids=str)
def test_typescript_in_the_guides_is_quoted_from_files_that_are_type_checked(block: Any) -> None:
    checked = [PROJECT / "docs" / "client", PROJECT / "client" / "expo" / "test"]
    files = [file.read_text() for folder in checked for file in folder.rglob("*.ts*")]
    assert any(block.text in text for text in files)


def test_code_blocks_have_a_language_that_a_test_checks() -> None:
    every = {block.language for file in GUIDES for block in blocks_of(file)}
    assert every <= {"json", "mermaid", "python", "sh", "sql", "ts", "tsx", "text"}


def test_each_rule_of_the_architecture_is_defined_in_the_file_that_its_row_names() -> None:
    for rule, names, link in table(section("docs/architecture.md", "Where each rule is decided"), plain=False)[1:]:
        path = re.findall(r"\]\((.+)\)", link)[0]
        source = (PROJECT / "docs" / path).read_text()
        for name in re.findall(r"`(.+?)`", names):
            defined = rf"(def|class|function|view|table) {re.escape(name)}\b"
            assert re.search(defined, source), f"{rule}: {name} is not defined in {path}"


async def test_the_decision_table_has_every_reason_that_explain_push_knows(cloud: LocalCloud) -> None:
    """tests/database/test_push_decisions.py has their order."""
    rows = table(section("docs/architecture.md", "Decision table"))
    described = {reason for _, result in rows[1:] for reason in re.findall(r", (\w+)(?:;.*)?$", result)}
    async with await psycopg.AsyncConnection.connect(cloud.database_url) as connection:
        found = await connection.execute("select prosrc from pg_proc where oid = 'push.explain_reason'::regproc")
        [[source]] = await found.fetchall()
    explained = set(re.findall(r"when '(\w+)' then", source))
    assert len(explained) >= 10
    assert described - explained == {"recipient_rate_limited", "database_error"}  # reasons to wait (explain_decision)
    # After a send; without a decision; of an alert that makes no sound.
    assert explained - described == {"unanswered", "not_noted", "no_sound"}


async def test_the_tables_of_the_architecture_are_those_of_the_database(cloud: LocalCloud) -> None:
    cells = ", ".join(row[0] for row in table(section("docs/architecture.md", "Tables")))
    async with await psycopg.AsyncConnection.connect(cloud.database_url) as connection:
        found = await connection.execute(
            "select case schemaname when 'public' then '' else schemaname || '.' end || tablename from pg_tables"
            " where schemaname in ('public', 'push', 'private')"
        )
        assert set(cells.split(", ")) - {"table"} == {name for (name,) in await found.fetchall()}


async def test_drawings_name_functions_and_tables_that_exist(cloud: LocalCloud) -> None:
    drawn = {
        word for block in blocks("mermaid") for word in re.findall(r"\b(?:push\.)?[a-z]+(?:_[a-z]+)*\b", block.text)
    }
    names = {word for word in drawn if "_" in word or word.startswith("push.")}
    async with await psycopg.AsyncConnection.connect(cloud.database_url) as connection:
        found = await connection.execute(
            "select case schemaname when 'public' then '' else schemaname || '.' end || tablename from pg_tables"
        )
        tables = {name for (name,) in await found.fetchall()}
    functions = {folder.name for folder in (PROJECT / "functions").iterdir()}
    assert names
    assert names <= functions | tables | {"pg_net"}


def test_app_json_names_the_channel_of_the_pushes_and_only_options_of_the_plugin() -> None:
    [block] = [block for block in blocks("json") if block.file.name == "client.md"]
    app = json.loads(block.text)["expo"]
    [[plugin, options]] = app["plugins"]
    assert plugin == "expo-notifications"
    # https://docs.expo.dev/versions/latest/sdk/notifications/#configurable-properties
    assert options.keys() <= {
        "icon",
        "color",
        "defaultChannel",
        "sounds",
        "mode",
        "enableBackgroundRemoteNotifications",
    }
    push = (PROJECT / "client" / "expo" / "src" / "notifications.ts").read_text()
    assert options["defaultChannel"] == SOUND_CHANNEL
    for channel in (SOUND_CHANNEL, QUIET_CHANNEL):
        assert f"setNotificationChannelAsync('{channel}'" in push


def test_the_guide_installs_the_packages_that_the_app_and_the_package_import() -> None:
    folders = (PROJECT / "docs" / "client", PROJECT / "client" / "expo" / "src")
    code = "".join(file.read_text() for folder in folders for file in folder.glob("*.ts"))
    imported = set(re.findall(r"(?:from |require\()'(expo-[\w-]+)'", code)) - {"expo-router"}
    [installed] = [command for block in blocks("sh") for command in block.commands if "expo install" in command]
    assert set(installed.split()[3:]) == imported


def test_the_readme_quotes_steps_that_the_demo_prints() -> None:
    source = (PROJECT / "local" / "demo" / "steps.py").read_text()
    [quoted] = [block.text for block in blocks_of(PROJECT / "README.md") if block.language == "text"]
    titles = re.findall(r"^\d+\. (.+)$", quoted, re.MULTILINE)
    assert titles
    for title in titles:
        assert title in source


def blocks_of(file: Path) -> list[Any]:
    languages = set(re.findall(r"^ *```(\w*)$", file.read_text(), re.MULTILINE))
    return [block for block in blocks(*languages) if block.file == file]


@pytest.mark.parametrize("file", GUIDES, ids=lambda file: file.name)
def test_links_have_an_existing_target(file: Path) -> None:
    for link in links(file):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (file.parent / path).resolve() if path else file
        assert target.exists(), f"there is no {link}"
        assert not anchor or anchor in anchors(target), f"{path or file.name} has no heading for #{anchor}"


def test_each_alarm_of_the_template_has_a_section_in_the_operations_guide() -> None:
    described = {heading for heading in headings(PROJECT / "docs" / "operate.md") if heading.endswith("Alarm")}
    assert described == resources("AWS::CloudWatch::Alarm")
    for alarm in described:
        assert len(section("docs/operate.md", alarm)) > 100


def test_each_alarm_that_the_operations_guide_names_has_a_section() -> None:
    operate = PROJECT / "docs" / "operate.md"
    assert set(re.findall(r"\w+Alarm\b", operate.read_text())) <= set(headings(operate))


def test_the_deployment_guide_describes_each_parameter_of_the_stack() -> None:
    described = {row[0] for row in table(section("docs/deploy.md", "2. The stack")) if row[0] in TEMPLATE["Parameters"]}
    assert described == set(TEMPLATE["Parameters"])


def test_the_deployment_guide_describes_each_output_of_the_stack() -> None:
    cells = ", ".join(row[0] for row in table(section("docs/deploy.md", "2. The stack")))
    assert set(cells.split(", ")) == {*TEMPLATE["Outputs"], *TEMPLATE["Parameters"], "parameter", "output"}


@pytest.mark.parametrize(
    ("title", "schema", "name"), [("setting", "push", "settings"), ("chat setting", "private", "chat_settings")]
)
async def test_settings_are_described_with_their_defaults(
    cloud: LocalCloud, title: str, schema: str, name: str
) -> None:
    described: dict[str, str] = {}
    for cells in table(section("docs/operate.md", "Settings")):
        if cells[1] == "default":
            in_table = cells[0] == title
        elif in_table:
            described[cells[0]] = cells[1]
    async with (
        await psycopg.AsyncConnection.connect(cloud.database_url) as connection,
        connection.transaction(force_rollback=True),
    ):
        found = await connection.execute(
            "select column_name, udt_name from information_schema.columns"
            " where table_schema = %s and table_name = %s and column_name <> 'only_row'",
            (schema, name),
        )
        columns: dict[str, str] = dict(await found.fetchall())
        assert described.keys() == columns.keys()
        # Other tests have settings of their own.
        settings = sql.Identifier(schema, name)
        reset = sql.SQL(", ").join(sql.SQL("{} = default").format(sql.Identifier(column)) for column in columns)
        await connection.execute(sql.SQL("update {} set {}").format(settings, reset))
        for column, default in described.items():
            compare = sql.SQL("select {column} = {default}::{type} from {settings}").format(
                column=sql.Identifier(column), default=default, type=sql.SQL(columns[column]), settings=settings
            )
            found = await connection.execute(compare)
            assert await found.fetchone() == (True,), f"{column} is not {default} by default"


def test_the_client_guide_describes_each_error_of_the_api() -> None:
    sources = "".join(file.read_text() for file in (PROJECT / "functions" / "register_device").glob("*.py"))
    thrown = set(re.findall(r'Failure\(\s*(\d+),\s*"(\w+)"', sources))
    described = set()
    for row in table(section("docs/client.md", "Errors")):
        described |= set(re.findall(r"(\d{3}) (\w+)", row[0]))
    assert described == thrown


def test_contributing_names_tests_that_exist() -> None:
    named = set(re.findall(r"\btest_\w+(?=`)", (PROJECT / "CONTRIBUTING.md").read_text()))
    sources = "".join(file.read_text() for file in (PROJECT / "tests").rglob("test_*.py"))
    assert len(named) >= 5
    assert {name for name in named if f"def {name}(" not in sources} == set()
