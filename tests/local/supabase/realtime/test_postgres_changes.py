"""Changed rows reach the official clients as hosted Realtime sends them: with RLS, filters, errors, and its races."""

from collections.abc import Callable

from local.supabase.postgres import SUPERUSER, Postgres
from local.supabase.project import Supabase
from local.supabase.realtime.database import replication_slot
from local.supabase.realtime.postgres_changes import PUBLICATION
from tests.local.supabase.realtime.clients import Client
from tests.local.supabase.realtime.conftest import Connect, Sql

NOTES = {"event": "*", "schema": "public", "table": "notes"}


async def subscribed(client: Client, *rows: object, topic: str = "notes") -> None:
    """Joins, and waits until rows flow."""
    await client.join(topic, {}, list(rows) or [NOTES], presence=False)
    await client.events.until("status", topic=topic, status="SUBSCRIBED")
    await client.events.until("system", topic=topic, message="Subscribed to PostgreSQL")


async def test_a_client_receives_insert_update_and_delete_of_a_row_that_it_may_read(
    connect: Connect, sql: Sql, number: int
) -> None:
    client = await connect()
    await subscribed(client)
    await sql("insert into notes values (%s, null, 1, 'häß', '{a,b}', 1.5, true)", number)
    inserted = await client.events.until("row", type="INSERT")
    await sql("update notes set body = 'new' where id = %s", number)
    updated = await client.events.until("row", type="UPDATE")
    await sql("delete from notes where id = %s", number)
    deleted = await client.events.until("row", type="DELETE")

    note = {"id": number, "owner": None, "room": 1, "body": "häß", "tags": ["a", "b"], "size": 1.5, "shared": True}
    assert (inserted["new"], inserted["old"], inserted["errors"]) == (note, {}, None)
    assert (updated["new"], updated["old"]) == (note | {"body": "new"}, {"id": number})
    assert (deleted["new"], deleted["old"]) == ({}, {"id": number})
    assert inserted["commit_timestamp"].endswith("Z")


async def test_a_person_receives_no_row_that_rls_hides(
    connect: Connect, sql: Sql, number: int, email: Callable[[], str]
) -> None:
    ana, ben = await connect(), await connect()
    await ana.sign_up(email())
    await ben.sign_up(address := email())
    await subscribed(ana)
    await subscribed(ben)
    ((bens_id,),) = await sql("select id from auth.users where email = %s", address)
    await sql("insert into notes values (%s, %s)", number, bens_id)
    await sql("insert into notes (id, body, shared) values (%s, 'last', true)", -number)
    assert (await ben.events.until("row", type="INSERT"))["new"]["id"] == number
    assert (await ana.events.until("row", type="INSERT"))["new"]["body"] == "last"


async def test_a_deletion_reaches_even_those_who_could_not_read_the_row(
    connect: Connect, sql: Sql, number: int
) -> None:
    client = await connect()
    await sql("insert into notes (id, body) values (%s, 'secret')", number)
    await subscribed(client)
    await sql("delete from notes where id = %s", number)
    assert (await client.events.until("row", type="DELETE"))["old"] == {"id": number}


async def test_a_row_that_is_deleted_when_its_insert_is_read_has_no_insert_event(connect: Connect, sql: Sql) -> None:
    client = await connect()
    await subscribed(client)
    insert, delete = "insert into notes (id, shared) values (-1, true)", "delete from notes where id = -1"
    await sql(f"do $$ begin {insert}; {delete}; end $$")
    await client.events.until("row", type="DELETE")
    assert client.events.all("row") == []


async def test_a_filter_lets_only_its_rows_through_and_no_deletion(connect: Connect, sql: Sql, number: int) -> None:
    client = await connect()
    await subscribed(client, NOTES | {"filter": f"room=eq.{number}"})
    await sql("insert into notes (id, room, shared) values (%s, %s, true), (%s, -1, true)", number, number, -number)
    await sql("delete from notes where id = %s", number)
    await sql("insert into notes (id, room, shared) values (%s, %s, true)", number, number)
    first = await client.events.until("row")
    second = await client.events.until("row")
    assert [(row["type"], row["new"]["id"]) for row in (first, second)] == [("INSERT", number)] * 2


CONDITIONS = {
    **{'body=in.(a,"b,c")': True, "body=neq.b": True, "id=lt.0": False, "body=like.a%": True},
    **{"body=not.in.(a,b)": False, "room=is.null": True, "id=gt.0,body=eq.a": True, "room=eq.1": False},
    **{"body=ilike.A": True, "body=match.^a$": True, "body=imatch.B": False, "room=isdistinct.1": True},
    **{"id=gte.0": True, "id=lte.0": False, "body=not.eq.a": False, "room=not.is.null": False},
}


async def test_with_replica_identity_full_an_update_has_the_old_row_and_a_deletion_only_its_key(
    connect: Connect, sql: Sql, number: int
) -> None:
    client = await connect()
    await subscribed(client, NOTES | {"filter": f"room=eq.{number}"})
    await sql("insert into notes (id, room, body, shared) values (%s, %s, 'before', true)", number, number)
    await sql("alter table notes replica identity full")
    try:
        await sql("update notes set body = 'after' where id = %s", number)
        assert (await client.events.until("row", type="UPDATE"))["old"]["body"] == "before"
        await sql("delete from notes where id = %s", number)
        assert (await client.events.until("row", type="DELETE"))["old"] == {"id": number}
    finally:
        await sql("alter table notes replica identity default")


async def test_each_operator_of_a_filter_works_as_in_the_data_api(connect: Connect, sql: Sql, number: int) -> None:
    client = await connect()
    for condition in CONDITIONS:
        await client.join(condition, {}, [NOTES | {"filter": condition}], presence=False)
    for condition in CONDITIONS:
        await client.events.until("system", topic=condition, message="Subscribed to PostgreSQL")
    await subscribed(client, {"event": "INSERT", "schema": "public", "table": "logs"}, topic="logs")
    await sql("insert into notes (id, body, shared) values (%s, 'a', true)", number)
    await sql("insert into logs values (%s, 'end')", number)
    await client.events.until("row", topic="logs")
    received = {row["topic"] for row in client.events.all("row")}
    assert {condition: condition in received for condition in CONDITIONS} == CONDITIONS


WRONG = [
    (NOTES | {"filter": "body=foo.hey"}, 'Error parsing `filter` params: ["foo", "hey"]'),
    (NOTES | {"filter": "nope=eq.1"}, "Exception: ERROR P0001 (raise_exception) invalid column for filter nope"),
    (NOTES | {"filter": "id=eq.x"}, 'invalid input syntax for type bigint: "x"'),
    (NOTES | {"filter": f"id=in.({','.join(map(str, range(101)))})"}, "too many values for `in` filter"),
    (NOTES | {"table": "unpublished"}, "Please check Realtime is enabled for the given connect parameters"),
]


async def test_a_subscription_with_wrong_parameters_gets_a_system_error(connect: Connect) -> None:
    client = await connect()
    for number, (row, message) in enumerate(WRONG):
        await client.join(str(number), {}, [row], presence=False)
        await client.events.until("status", topic=str(number), status="SUBSCRIBED")
        event = await client.events.until("system", topic=str(number), status="error")
        assert event["extension"] == "postgres_changes"
        assert message in event["message"]


async def test_a_client_receives_only_the_columns_that_its_role_may_read(
    connect: Connect, sql: Sql, number: int
) -> None:
    client = await connect()
    await subscribed(client, {"event": "*", "schema": "public"})
    await sql("insert into secrets values (%s, 'shown', 'not shown')", number)
    assert (await client.events.until("row"))["new"] == {"id": number, "public_part": "shown"}
    await sql("insert into hidden values (%s)", number)
    event = await client.events.until("row")
    assert (event["new"], event["errors"]) == ({}, ["Error 401: Unauthorized"])


async def test_a_row_that_is_too_large_arrives_with_an_error_and_its_short_values(
    connect: Connect, sql: Sql, number: int
) -> None:
    client = await connect()
    await subscribed(client, {"event": "*", "schema": "public", "table": "logs"})
    await sql("insert into logs values (%s, repeat('x', 1100000))", number)
    event = await client.events.until("row")
    assert (event["new"], event["errors"]) == ({"id": number}, ["Error 413: Payload Too Large"])


async def test_rows_arrive_in_the_order_of_their_commits_and_without_those_rolled_back(
    connect: Connect, sql: Sql, number: int
) -> None:
    client = await connect()
    await subscribed(client, {"event": "*", "schema": "public", "table": "logs"})
    await sql("insert into logs select %s + n, 'many' from generate_series(0, 150) n", number * 1000)
    await sql("do $$ begin insert into logs values (0); rollback; end $$")
    await sql("insert into logs values (%s, 'end')", number)
    await client.events.until("row", new={"id": number, "line": "end"})
    assert [row["new"]["id"] - number * 1000 for row in client.events.all("row")] == list(range(151))


async def test_a_dropped_table_does_not_stop_the_rows_of_others(connect: Connect, sql: Sql, number: int) -> None:
    client = await connect()
    await sql("create table dropped (id int primary key); grant select on dropped to anon")
    await sql("alter publication supabase_realtime add table dropped")
    await subscribed(client, {"event": "*", "schema": "public"})
    await sql("do $$ begin insert into dropped values (1); drop table dropped; end $$")
    await sql("insert into logs values (%s)", number)
    assert (await client.events.until("row", new={"id": number, "line": None}))["errors"] is None


async def test_two_bindings_of_a_channel_that_match_receive_the_row_once_each(
    connect: Connect, sql: Sql, number: int
) -> None:
    client = await connect()
    logs = {"event": "INSERT", "schema": "public", "table": "logs"}
    await subscribed(client, logs, logs | {"filter": f"id=eq.{number}"}, logs | {"filter": "id=lt.0"})
    await sql("insert into logs values (%s)", number)
    await sql("insert into logs values (%s)", number + 1_000_000)
    await client.events.until("row", new={"id": number + 1_000_000, "line": None})
    assert [row["new"]["id"] for row in client.events.all("row")] == [number, number]


async def test_each_change_is_read_once_also_what_is_left_when_nothing_more_is_written(
    server: Postgres, project: Supabase, sql: Sql, number: int
) -> None:
    async with replication_slot(server.dsn(role=SUPERUSER), "test", PUBLICATION) as slot:
        assert await slot.read(1) == []
        await sql("insert into logs values (%s)", number)
        await sql("insert into logs values (%s)", -number)
        read = [[change.new["id"] for change in await slot.read(1)] for _ in range(3)]
    assert read == [[str(number)], [str(-number)], []]
