"""The local Supabase project keeps the rules of a hosted one where Supabase Lite by itself would not."""

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import psycopg
import pytest

from local.postgres import SUPERUSER, Postgres, postgres
from local.processes import temporary_folder
from local.supabase import Supabase, create_database, migrate, supabase

# Added after the migrations, as these have no function with such arguments that every version of them keeps.
ECHO = """
    create function public.echo(j jsonb, a jsonb[]) returns jsonb language sql as
    $$ select jsonb_build_array(jsonb_typeof(j), j, jsonb_typeof(a[1]), a[1]) $$;
    create function public.metadata() returns text language sql security definer as
    $$ select raw_user_meta_data::jsonb ->> 'name' from auth.users $$;
"""

# Every privilege of the three roles of the Data API that no PUBLIC privilege gives them anyway.
PRIVILEGES = """
    select relation.oid::regclass::text, grantee::regrole::text, privilege_type
    from pg_class relation, aclexplode(relation.relacl) acl
    where relation.relnamespace::regnamespace::text in ('public', 'push', 'private')
      and grantee::regrole::text in ('anon', 'authenticated', 'service_role')
    union all
    select attrelid::regclass || '.' || attname, grantee::regrole::text, privilege_type
    from pg_attribute, aclexplode(attacl) acl
    where grantee::regrole::text in ('anon', 'authenticated', 'service_role')
    order by 1, 2, 3
"""


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[Postgres]:
    with temporary_folder() as folder:
        async with postgres(folder) as server:
            yield server


@pytest.fixture(scope="module")
async def project(server: Postgres) -> AsyncIterator[Supabase]:
    with temporary_folder() as folder:
        async with supabase(folder, server) as project:
            async with await psycopg.AsyncConnection.connect(server.dsn()) as connection:
                await connection.execute(ECHO)
            await project.restart()  # which is when it sees a new function
            yield project


async def post(project: Supabase, path: str, body: object, **headers: str) -> tuple[int, Any]:
    async with aiohttp.request("POST", f"{project.url}{path}", json=body, headers=headers) as answer:
        return answer.status, await answer.json()


async def privileges(dsn: str) -> list[tuple[Any, ...]]:
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        return await (await connection.execute(PRIVILEGES)).fetchall()


async def test_a_request_without_key_is_refused(project: Supabase) -> None:
    status, _ = await post(project, "/rest/v1/rpc/echo", {"j": 1, "a": []})
    assert status == 401


async def test_json_arguments_arrive_as_json(project: Supabase) -> None:
    argument = {"ids": [1, {"text": 'a "quoted" {brace}'}]}
    status, answer = await post(
        project, "/rest/v1/rpc/echo", {"j": argument, "a": [argument]}, apikey=project.secret_key
    )
    assert (status, answer) == (200, ["object", argument, "object", argument])


async def test_the_metadata_of_a_sign_up_arrives_as_json(project: Supabase) -> None:
    person = {"email": "ana@example.com", "password": "correct horse", "data": {"name": "Ana"}}
    status, _ = await post(project, "/auth/v1/signup", person, apikey=project.publishable_key)
    assert status == 200
    assert await post(project, "/rest/v1/rpc/metadata", {}, apikey=project.secret_key) == (200, "Ana")


async def test_lite_grants_nothing_beyond_the_migrations(project: Supabase, server: Postgres) -> None:
    await post(
        project, "/rest/v1/rpc/echo", {"j": 1, "a": []}, apikey=project.secret_key
    )  # it grants on the first query
    migrated = await create_database(server, "migrated")
    await migrate(migrated)
    expected = await privileges(migrated)
    assert expected
    assert await privileges(server.dsn()) == expected


async def test_migrations_run_without_a_superuser(server: Postgres) -> None:
    async with await psycopg.AsyncConnection.connect(server.dsn()) as connection:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await connection.execute("create role somebody superuser")
    async with await psycopg.AsyncConnection.connect(server.dsn(role=SUPERUSER)) as connection:
        await connection.execute("select pg_read_file('PG_VERSION')")
