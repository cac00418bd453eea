"""A project with Realtime, a table under RLS, and policies for private channels."""

import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import jwt
import psycopg
import pytest

from local.processes import temporary_folder
from local.supabase.postgres import Postgres, postgres
from local.supabase.project import Supabase, supabase
from local.supabase.realtime.hub import Delays
from local.supabase.realtime.server import Realtime, realtime
from tests.local.supabase.realtime.clients import (
    Client,
    JsClient,
    Node,
    PythonClient,
    js_client,
    node_process,
    python_client,
)

# Shorter than on the real server, in the same order.
DELAYS = Delays(
    changes=0.02,
    idle_changes=0.1,
    subscription=0.05,
    resubscription=(0.05, 0.05),
    rejected_join=0.05,
    rejected_connection=0.05,
)

# A note belongs to a person, and everybody may read it if it is shared. The names of private channels begin with the
# id of the person who may join them; ":read" at their end forbids to send, ":fleeting" to store what is sent.
TABLES = """
    create table public.notes (
      id bigint primary key, owner uuid, room int, body text, tags text[], size numeric, shared boolean default false);
    alter table public.notes enable row level security;
    grant select on public.notes to anon, authenticated;
    create policy own on public.notes for select to authenticated using (owner = (select auth.uid()) or shared);
    create policy shared on public.notes for select to anon using (shared);
    create table public.logs (id int primary key, line text);
    grant select on public.logs to anon, authenticated;
    create table public.secrets (id int primary key, public_part text, secret text);
    grant select (id, public_part) on public.secrets to anon, authenticated;
    create table public.hidden (id int primary key);
    create table public.unpublished (id int primary key);
    alter publication supabase_realtime add table public.notes, public.logs, public.secrets, public.hidden;
    create policy receive on realtime.messages for select to authenticated
      using (realtime.topic() like (select auth.uid())::text || '%');
    create policy send on realtime.messages for insert to authenticated
      with check (realtime.topic() like (select auth.uid())::text || '%' and realtime.topic() not like '%:read'
        and (extension <> 'persistence' or realtime.topic() not like '%:fleeting'));
"""


def token(project: Supabase, seconds: float, **claims: object) -> str:
    """An access token that is valid for some seconds."""
    payload = {"role": "authenticated", "exp": int(time.time() + seconds), **claims}
    return jwt.encode(payload, project.jwt_secret, "HS256")


_numbers = itertools.count(1)

type Connect = Callable[[], Awaitable[Client]]
type ConnectTo = Callable[[Realtime], Awaitable[Client]]
type Sql = Callable[..., Awaitable[list[tuple[Any, ...]]]]


@pytest.fixture(scope="package")
async def server() -> AsyncIterator[Postgres]:
    with temporary_folder() as folder:
        async with postgres(folder) as server:
            yield server


@pytest.fixture(scope="package")
async def project(server: Postgres) -> AsyncIterator[Supabase]:
    with temporary_folder() as folder:
        async with supabase(folder, server) as project:
            async with await psycopg.AsyncConnection.connect(server.dsn()) as connection:
                await connection.execute(TABLES)
            yield project


@pytest.fixture(scope="package")
async def node() -> AsyncIterator[Node]:
    """The process of all clients of supabase-js."""
    async with node_process() as node:
        yield node


@pytest.fixture(scope="package")
async def running(server: Postgres, project: Supabase) -> AsyncIterator[Realtime]:
    """The Realtime server of all tests that leave it as it is."""
    async with realtime(server, project, delays=DELAYS) as running:
        yield running


@pytest.fixture
async def clients() -> AsyncIterator[AsyncExitStack]:
    """The clients of a test, closed at its end."""
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture(params=["js", "python"])
async def connect_to(
    request: pytest.FixtureRequest, node: Node, project_key: str, clients: AsyncExitStack
) -> ConnectTo:
    """Creates an official client of a server."""

    async def create(server: Realtime) -> Client:
        if request.param == "js":
            return await clients.enter_async_context(js_client(node, server.url, project_key))
        return await clients.enter_async_context(python_client(server.url, project_key))

    return create


@pytest.fixture
async def connect(running: Realtime, connect_to: ConnectTo) -> Connect:
    """Creates an official client."""
    return lambda: connect_to(running)


@pytest.fixture
def project_key(project: Supabase) -> str:
    """The publishable key."""
    return project.publishable_key


@pytest.fixture
async def js(node: Node, running: Realtime, project_key: str) -> AsyncIterator[JsClient]:
    """A client of supabase-js."""
    async with js_client(node, running.url, project_key) as client:
        yield client


@pytest.fixture
async def other_js(node: Node, running: Realtime, project_key: str) -> AsyncIterator[JsClient]:
    """A second client of supabase-js."""
    async with js_client(node, running.url, project_key) as client:
        yield client


@pytest.fixture
async def python(running: Realtime, project_key: str) -> AsyncIterator[PythonClient]:
    """A client of supabase for Python."""
    async with python_client(running.url, project_key) as client:
        yield client


@pytest.fixture
async def sql(server: Postgres) -> AsyncIterator[Sql]:
    """Runs a statement as the owner of the database. Returns the rows."""
    async with await psycopg.AsyncConnection.connect(server.dsn(), autocommit=True) as connection:

        async def execute(statement: str, *parameters: object) -> list[tuple[Any, ...]]:
            cursor = await connection.execute(statement.encode(), parameters)
            return await cursor.fetchall() if cursor.description else []

        yield execute


@pytest.fixture
def email() -> Callable[[], str]:
    """A new address at each call."""
    return lambda: f"person-{next(_numbers)}@example.com"


@pytest.fixture
def number() -> int:
    """A new number, for rows and rooms."""
    return next(_numbers)
