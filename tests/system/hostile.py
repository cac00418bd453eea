"""A hostile client: it knows the ids of other people, and tries them everywhere. The database says where.

A table, column or function that is added later is tried, too. What it knows are ids (UUIDs) and ids of devices, but no
texts and no push tokens.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import Any
from uuid import UUID

import httpx
import psycopg

from local.app import Person
from local.cloud import LocalCloud
from local.types import Json

OWN_WORDS = "Eve was here"
OWN_TOKEN = "ExponentPushToken[EveEveEveEveEveEveEve1]"
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT")
_ENDPOINTS = "public"  # the schema of the Data API

# What the client passes for an argument, or writes into a column, that accepts few words only.
_WORDS = {
    "locale": "pt-BR",
    "p_locale": "pt-BR",
    "p_platform": "ios",
    "p_push_environment": "production",
    "p_push_provider": "expo",
    "p_push_token": OWN_TOKEN,
    "p_state": "online",
}


@dataclass(frozen=True)
class Column:
    name: str
    type: str
    insertable: bool  # by a signed-in person


@dataclass(frozen=True)
class Function:
    name: str
    arguments: dict[str, str]  # types by name


@dataclass(frozen=True)
class Victims:
    """Two people with a conversation, and all that the database has of them."""

    users: tuple[Person, ...]
    rows: dict[str, list[Json]]  # of each table of the Data API
    ids: frozenset[str]  # UUIDs
    secrets: frozenset[str]  # ids, texts, tokens and times: what no answer may have


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    body: Json = None
    headers: dict[str, str] = field(default_factory=dict)
    counts: bool = False  # whether the answer says how many rows the filter finds

    def __str__(self) -> str:
        return f"{self.method} {self.path} {json.dumps(self.body)} {self.headers}"


class Catalog:
    """What there is to attack, as the database says."""

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self._connection = connection

    async def _rows(self, query: str, *parameters: object) -> list[Any]:
        return await (await self._connection.execute(query.encode(), parameters)).fetchall()

    async def tables(self) -> dict[str, list[str]]:
        """Returns the names of tables and views by schema, without those of Postgres itself."""
        found = await self._rows(
            "select relnamespace::regnamespace::text, array_agg(relname::text order by relname) from pg_class"
            " where relkind in ('r', 'p', 'v', 'm') and relnamespace::regnamespace::text !~ '^(pg_|information_schema)'"
            " and not relispartition group by 1"
        )
        return dict(found)

    async def columns(self, table: str) -> list[Column]:
        """Returns the columns of a table of the Data API."""
        found = await self._rows(
            "select attname::text, format_type(atttypid, null),"
            " has_column_privilege('authenticated', attrelid, attnum, 'insert')"
            " from pg_attribute where attrelid = %s::regclass and attnum > 0 and not attisdropped order by attnum",
            f"{_ENDPOINTS}.{table}",
        )
        return [Column(*one) for one in found]

    async def functions(self) -> dict[str, list[Function]]:
        """Returns the functions by schema, without triggers and those of Postgres itself."""
        found = await self._rows(
            "select pronamespace::regnamespace::text, proname::text, coalesce(proargnames[:pronargs], '{}'),"
            " array(select format_type(type, null) from unnest(proargtypes) type) from pg_proc"
            " where pronamespace::regnamespace::text !~ '^(pg_|information_schema)'"
            " and prorettype <> 'trigger'::regtype and prokind = 'f'"
        )
        functions: dict[str, list[Function]] = {}
        for schema, name, names, types in found:
            # An argument without a name cannot be passed by the Data API.
            arguments = dict(zip(names, types, strict=False))
            functions.setdefault(schema, []).append(Function(name, arguments))
        return functions

    async def published(self) -> list[str]:
        """Returns the tables whose changes Realtime sends."""
        found = await self._rows(
            "select tablename::text from pg_publication_tables where pubname = 'supabase_realtime'"
        )
        return [name for [name] in found]

    async def mentions(self, ids: frozenset[str]) -> Counter[str]:
        """Returns the rows of all tables of the chat that mention one of these ids, as text."""
        found: Counter[str] = Counter()
        for schema, tables in (await self.tables()).items():
            if schema in ("public", "private", "push", "auth"):
                for table in tables:
                    rows = await self._rows(f'select to_jsonb(stored)::text from "{schema}"."{table}" stored')
                    found.update(f"{schema}.{table} {row}" for [row] in rows if ids & uuids(row))
        return found

    async def rows_of(self, users: frozenset[str]) -> dict[str, list[Json]]:
        """Returns the rows of each table of the Data API that mention one of these people."""
        found = {}
        for table in (await self.tables())[_ENDPOINTS]:
            rows = await self._rows(f'select to_jsonb(stored) from {_ENDPOINTS}."{table}" stored')
            found[table] = [row for [row] in rows if users & uuids(json.dumps(row))]
        return found


def uuids(text: str) -> set[str]:
    """Returns the UUIDs in a text."""
    return {match[0] for match in _UUID.finditer(text)}


async def victims_of(catalog: Catalog, *users: Person) -> Victims:
    """Returns what the database has of these people."""
    rows = await catalog.rows_of(frozenset(str(user.id) for user in users))
    values = [value for some in rows.values() for row in some for value in row.values()]
    texts = {value for value in values if isinstance(value, str) and len(value) >= 12}
    ids = {text for text in texts if _UUID.fullmatch(text)}
    return Victims(users, rows, frozenset(ids), frozenset(texts))


# The requests ----------------------------------------------------------------------------------


async def table_requests(catalog: Catalog, victims: Victims, eve: UUID) -> list[Request]:
    """Returns requests that read and write each table of the Data API by each id of the victims."""
    requests: list[Request] = []
    tables = (await catalog.tables())[_ENDPOINTS]
    for table in tables:
        rows, columns = victims.rows[table][:2], await catalog.columns(table)
        assert rows, f"the victims have no row in {table}: give them one, so that it is attacked"
        requests += [Request("GET", f"{table}?select=*"), Request("HEAD", f"{table}?select=*")]
        requests += [Request("GET", f"{table}?select={column.name}") for column in columns]
        requests += [Request("GET", f"{table}?select=*,{other}(*)") for other in tables if other != table]
        for row in rows:
            filters = [f"{name}=eq.{value}" for name, value in row.items() if str(value) in victims.ids]
            for where in filters:
                requests += [
                    Request(method, f"{table}?{where}", None, {"Prefer": "count=exact"}, counts=True)
                    for method in ("GET", "HEAD")
                ]
            requests += _inserts(table, columns, row, victims, eve)
            values = {column.name: _another(column, row[column.name], eve) for column in columns}
            for where, (name, value) in product(filters, values.items()):
                requests.append(
                    Request("PATCH", f"{table}?{where}", {name: value}, {"Prefer": "return=representation"})
                )
            requests += [
                Request("DELETE", f"{table}?{where}", None, {"Prefer": "return=representation"}) for where in filters
            ]
    return requests


def _inserts(table: str, columns: list[Column], row: Json, victims: Victims, eve: UUID) -> Iterator[Request]:
    """The row of a victim again, in other words: as it is, as far as a person may name its columns, and as Eve's."""
    known = {name: _own(value) if str(value) in victims.secrets - victims.ids else value for name, value in row.items()}
    insertable = {column.name: known[column.name] for column in columns if column.insertable}
    new = {name: value for name, value in insertable.items() if name != "id"}
    bodies = [known, insertable, new]
    bodies += [{**new, name: str(eve)} for name, value in new.items() if str(value) in victims.ids]
    for body in bodies:
        for resolution in ("", "resolution=merge-duplicates,", "resolution=ignore-duplicates,"):
            yield Request("POST", table, body, {"Prefer": f"{resolution}return=representation"})
        yield Request("POST", table, body, {"Prefer": "return=minimal"})


def _own(value: str) -> str:
    """What Eve writes instead of a text or token that she does not know. Times stay as they are."""
    if value.startswith("ExponentPushToken"):
        return OWN_TOKEN
    return value if _TIME.match(value) else OWN_WORDS


def _another(column: Column, value: Json, eve: UUID) -> Json:
    match column.type:
        case "uuid":
            return str(eve)
        case "boolean":
            return not value
        case "integer" | "bigint" | "smallint":
            return 4711
        case "json" | "jsonb":
            return []
        case "timestamp with time zone" | "timestamp without time zone" | "date":
            return "2001-01-01T00:00:00Z"
        case _:
            return OWN_WORDS


async def function_requests(catalog: Catalog, victims: Victims, eve: UUID) -> list[Request]:
    """Returns calls of each function of the Data API, with each id of the victims for each argument."""
    kinds = [str(eve), *(str(user.id) for user in victims.users)]
    kinds += [victims.rows[table][0]["id"] for table in ("chat_rooms", "chat_messages")]
    device_id = victims.rows["user_devices"][0]["device_id"]

    def values(name: str, type: str) -> list[Json]:
        match type:
            case "uuid":
                return kinds
            case "uuid[]":
                return [sorted(victims.ids)]
            case "text":
                return [_WORDS.get(name, device_id)]
            case "text[]":
                return [["expo"]]
            case "boolean":
                return [True]
            case "integer" | "bigint":
                return [50]
            case "double precision" | "numeric":
                return [1.5]
            case "timestamp with time zone":
                return ["2001-01-01T00:00:00Z"]
            case "interval":
                return ["1 hour"]
            case "json" | "jsonb":
                return [{}]
            case "jsonb[]":
                return [[{}]]
        raise AssertionError(f"say what to pass for an argument of the type {type}, as {name} has")

    return [
        Request("POST", f"rpc/{function.name}", dict(zip(function.arguments, chosen, strict=True)))
        for function in (await catalog.functions())[_ENDPOINTS]
        for chosen in product(*(values(*argument) for argument in function.arguments.items()))
    ]


async def schema_requests(catalog: Catalog) -> list[Request]:
    """Returns requests for each table and function that the Data API must not serve: those of other schemas."""
    requests = []
    for schema, tables in (await catalog.tables()).items():
        profile = {"Accept-Profile": schema, "Content-Profile": schema}
        if schema != _ENDPOINTS:
            requests += [Request("GET", f"{table}?select=*", None, profile) for table in tables]
            requests += [Request("POST", table, {}, profile) for table in tables]
    for schema, functions in (await catalog.functions()).items():
        profile = {"Accept-Profile": schema, "Content-Profile": schema}
        if schema != _ENDPOINTS:
            requests += [Request("POST", f"rpc/{function.name}", {}, profile) for function in functions]
    return requests


# The attack ------------------------------------------------------------------------------------


def keys_of(cloud: LocalCloud) -> frozenset[str]:
    """Returns the keys of the backend, which no client may see."""
    return frozenset((cloud.supabase.secret_key, cloud.supabase.jwt_secret, cloud.webhook_secret))


def learned(secrets: frozenset[str], question: str, answer: httpx.Response) -> set[str]:
    """Returns the secrets in an answer, without those that the client knew when it asked."""
    text = f"{answer.headers} {answer.text}"
    return {secret for secret in secrets if secret in text and secret not in question}


async def changed(catalog: Catalog, victims: Victims, before: Counter[str], eve: UUID) -> list[str]:
    """Returns rows of the victims that are gone or changed, and rows that mention them and are not only Eve's.

    Everybody may open a conversation with everybody: a new row may name a victim beside Eve.
    """
    after = await catalog.mentions(victims.ids)
    people = {str(user.id) for user in victims.users}
    return [*(f"gone: {row}" for row in before - after)] + [
        f"new: {row}" for row in after - before if str(eve) not in row or uuids(row) & (victims.ids - people)
    ]
