"""The local Supabase project keeps the rules of a hosted one where Supabase Lite by itself would not."""

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import psycopg
import pytest

from local.processes import temporary_folder
from local.supabase.postgres import SUPERUSER, Postgres, postgres
from local.supabase.project import Supabase, create_database, migrate, supabase

# Added after the migrations, as these have no function with such arguments that every version of them keeps.
ECHO = """
    create function public.echo(j jsonb, a jsonb[]) returns jsonb language sql as
    $$ select jsonb_build_array(jsonb_typeof(j), j, jsonb_typeof(a[1]), a[1]) $$;
    create function public.raises(code text) returns void language plpgsql as
    $$ begin raise exception using errcode = code, message = 'of a test', detail = 'more', hint = 'try'; end $$;
    create function public.limit_of_caller() returns text language sql as
    $$ select current_setting('statement_timeout') $$;
    create function public.sleeps(seconds numeric) returns void language sql as $$ select pg_sleep(seconds) $$;
    create schema test; create table test.notes (note text check (note <> 'forbidden'));
    create function public.writes(note text) returns void language sql security definer as
    $$ insert into test.notes values (note) $$;
    create function public.writes_though_stable() returns void language plpgsql stable as
    $$ begin perform public.writes('written'); end $$;
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
        return answer.status, await answer.json() if answer.status != 204 else None


async def privileges(dsn: str) -> list[tuple[Any, ...]]:
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        return await (await connection.execute(PRIVILEGES)).fetchall()


async def test_a_data_api_request_without_a_key_is_refused(project: Supabase) -> None:
    status, _ = await post(project, "/rest/v1/rpc/echo", {"j": 1, "a": []})
    assert status == 401


async def test_json_arguments_of_a_database_function_arrive_as_json(project: Supabase) -> None:
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


@pytest.fixture(scope="module")
async def session(project: Supabase) -> dict[str, str]:
    """The headers of a signed-in user."""
    person = {"email": "ben@example.com", "password": "correct horse"}
    _, session = await post(project, "/auth/v1/signup", person, apikey=project.publishable_key)
    return {"apikey": project.publishable_key, "Authorization": f"Bearer {session['access_token']}"}


async def test_each_role_of_the_data_api_has_its_statement_timeout(project: Supabase, session: dict[str, str]) -> None:
    for headers, limit in [
        ({"apikey": project.publishable_key}, "3s"),
        (session, "8s"),
        ({"apikey": project.secret_key}, "8s"),
    ]:
        assert await post(project, "/rest/v1/rpc/limit_of_caller", {}, **headers) == (200, limit)


async def test_a_statement_that_takes_too_long_is_500_with_57014(project: Supabase) -> None:
    status, answer = await post(project, "/rest/v1/rpc/sleeps", {"seconds": 30}, apikey=project.publishable_key)
    assert (status, answer["code"]) == (500, "57014")
    assert answer["message"] == "canceling statement due to statement timeout"


@pytest.mark.parametrize(
    ("code", "status"),
    [
        *(("40001", 500), ("40P01", 500), ("57014", 500), ("55P03", 500), ("XX000", 500), ("P0002", 500)),
        *(("53300", 503), ("53400", 500), ("57P01", 503), ("08006", 503), ("28000", 403), ("54001", 500)),
        *(("P0001", 400), ("23514", 400), ("22023", 400), ("23505", 409), ("42501", 403), ("25006", 405)),
        *(("21000", 500), ("42P01", 404), ("PT429", 429)),
    ],
)
async def test_an_error_of_postgres_has_its_code_and_the_status_of_postgrest(
    project: Supabase, session: dict[str, str], code: str, status: int
) -> None:
    answered, answer = await post(project, "/rest/v1/rpc/raises", {"code": code}, **session)
    assert answered == status
    assert {key: answer[key] for key in ("code", "message")} == {"code": code, "message": "of a test"}


async def test_a_violated_check_is_400_with_its_code(project: Supabase) -> None:
    status, answer = await post(project, "/rest/v1/rpc/writes", {"note": "forbidden"}, apikey=project.secret_key)
    assert (status, answer["code"]) == (400, "23514")


async def test_a_stable_function_that_writes_is_refused(project: Supabase) -> None:
    key = project.secret_key
    status, answer = await post(project, "/rest/v1/rpc/writes_though_stable", {}, apikey=key)
    assert (status, answer["code"]) == (405, "25006")
    assert (await post(project, "/rest/v1/rpc/writes", {"note": "written"}, apikey=key))[0] == 204


async def test_the_local_project_grants_nothing_beyond_the_migrations(project: Supabase, server: Postgres) -> None:
    await post(
        project, "/rest/v1/rpc/echo", {"j": 1, "a": []}, apikey=project.secret_key
    )  # it grants on the first query
    migrated = await create_database(server, "migrated")
    await migrate(migrated)
    expected = await privileges(migrated)
    assert expected
    assert await privileges(server.dsn()) == expected


async def test_vault_decrypts_only_with_the_key_of_its_server(server: Postgres) -> None:
    await create_database(server, "vaulted")
    read = "select decrypted_secret from vault.decrypted_secrets where name = 'n'"
    async with await psycopg.AsyncConnection.connect(server.dsn("vaulted"), autocommit=True) as connection:
        await connection.execute("select vault.create_secret('first', 'n')")
        await connection.execute("select vault.update_secret(id, 'zwölf Boxkämpfer') from vault.secrets")
        assert await (await connection.execute(read)).fetchone() == ("zwölf Boxkämpfer",)
        await connection.execute("set vault.root_key = 'another'")
        for statement in (read, "select vault.update_secret(id, 'third') from vault.secrets"):
            with pytest.raises(psycopg.errors.DataException, match="invalid ciphertext"):
                await connection.execute(statement.encode())
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await connection.execute("update vault.secrets set secret = ''")


async def test_migrations_run_without_a_superuser(server: Postgres) -> None:
    async with await psycopg.AsyncConnection.connect(server.dsn()) as connection:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await connection.execute("create role intruder superuser")
    async with await psycopg.AsyncConnection.connect(server.dsn(role=SUPERUSER)) as connection:
        await connection.execute("select pg_read_file('PG_VERSION')")


async def test_without_its_database_the_data_api_answers_503_as_postgrest_does(
    project: Supabase, server: Postgres
) -> None:
    await server.stop()
    try:
        status, answer = await post(project, "/rest/v1/rpc/limit_of_caller", {}, apikey=project.secret_key)
    finally:
        await server.start()
        await project.restart()
    assert (status, answer["code"]) == (503, "PGRST001")
