"""Events of changed rows, for each subscriber as RLS allows. The rules are those of realtime.apply_rls."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import psycopg
from psycopg import sql

from local.supabase.realtime.database import Connection, Session, act_as
from local.supabase.realtime.pgoutput import Change, Row
from local.types import Json

PUBLICATION = "supabase_realtime"
_MOST_IN = 100  # values of a filter with `in`
_KEPT_BYTES = 64  # A value up to this size stays in a row that is too large.
_ACTIONS = ("INSERT", "UPDATE", "DELETE")
_OPERATORS = {
    **{"eq": "=", "neq": "!=", "lt": "<", "lte": "<=", "gt": ">", "gte": ">=", "in": "= any"},
    **{"like": "like", "ilike": "ilike", "match": "~", "imatch": "~*", "is": "is", "isdistinct": "is distinct from"},
}


class SubscriptionRejected(Exception):
    """The parameters of a subscription are not accepted. The message is that of the real server."""


@dataclass(frozen=True)
class Filter:
    """A condition on a column, such as room_id=not.eq.7."""

    column: str
    operator: str
    value: str
    negated: bool = False


@dataclass(frozen=True)
class Binding:
    """What a channel subscribes to, by one entry of its join."""

    id: int
    action: str  # or *
    tables: frozenset[int]  # oids
    filters: tuple[Filter, ...]
    columns: frozenset[str] | None  # None: all

    def wants(self, change: Change) -> bool:
        """Whether the change is one of its table and action."""
        return change.relation.oid in self.tables and self.action in ("*", change.action)


@dataclass(frozen=True, eq=False)
class Subscriber:
    """The bindings of a channel, with the claims that its token had at the subscription."""

    claims: Json
    bindings: tuple[Binding, ...]
    send: Callable[[Json], None]  # Receives the payload of each event.

    @property
    def role(self) -> str:
        """The database role."""
        return str(self.claims["role"])


async def bind(session: Session, entry: Json, id: int, role: str) -> Binding:
    """Checks an entry of `config.postgres_changes`. Raises SubscriptionRejected."""
    event = str(entry.get("event", "*")).upper()
    schema, table = entry.get("schema"), entry.get("table")
    if not (schema or table):
        raise SubscriptionRejected(
            f"No subscription params provided. Please provide at least a `schema` or `table` to subscribe to: {entry}"
        )
    schema, table = schema or "public", table or "*"
    filters = tuple(_parse_filters(entry.get("filter") or ""))
    columns = entry.get("select") or None
    if columns and "*" in (schema, table):
        raise SubscriptionRejected(
            "Column selection is not supported for wildcard subscriptions. Provide an explicit schema and table name."
        )
    event = event if event in _ACTIONS else "*"
    shown = f"event: {event}, schema: {schema}, table: {table}, filters: {_shown(filters)}, select: {columns or 'nil'}"
    async with session.transaction(rollback=True) as connection:
        cursor = await connection.execute(
            """select format('%%I.%%I', schemaname, tablename)::regclass::oid from pg_publication_tables
               where pubname = %s and %s::text in ('*', schemaname::text) and %s::text in ('*', tablename::text)""",
            (PUBLICATION, schema, table),
        )
        tables = [oid for (oid,) in await cursor.fetchall()]
        if not tables:
            raise SubscriptionRejected(
                "Unable to subscribe to changes with given parameters. "
                f"Please check Realtime is enabled for the given connect parameters: [{shown}]"
            )
        for oid in tables:
            if fault := await _fault(connection, oid, filters, role):
                raise SubscriptionRejected(
                    "Unable to subscribe to changes with given parameters. An exception happened so please check your "
                    f"connect parameters: [{shown}]. Exception: {fault}"
                )
    return Binding(id, event, frozenset(tables), filters, frozenset(columns) if columns else None)


async def _fault(connection: Connection, table: int, filters: Iterable[Filter], role: str) -> str | None:
    """What is wrong with a role or with the filters on a table, as the real server's driver says it."""
    cursor = await connection.execute("select to_regrole(%s) is null", (role,))
    if await cursor.fetchone() == (True,):
        return f'ERROR 42704 (undefined_object) role "{role}" does not exist'
    for condition in filters:
        cursor = await connection.execute(
            """select format_type(atttypid, -1) from pg_attribute where attrelid = %s and attname = %s
               and attnum > 0 and not attisdropped and has_column_privilege(%s, attrelid, attnum, 'SELECT')""",
            (table, condition.column, role),
        )
        if (column := await cursor.fetchone()) is None:
            return f"ERROR P0001 (raise_exception) invalid column for filter {condition.column}"
        if condition.operator == "in" and condition.value.count(",") >= _MOST_IN:
            return f"ERROR P0001 (raise_exception) too many values for `in` filter. Maximum {_MOST_IN}"
        try:
            async with connection.transaction():
                await connection.execute(sql.SQL("select {}").format(_condition(condition, column[0], None)))
        except psycopg.Error as error:
            name = re.sub(r"(?<!^)(?=[A-Z])", "_", type(error).__name__).lower()
            return f"ERROR {error.sqlstate} ({name}) {error.diag.message_primary}"
    return None


def _parse_filters(text: str) -> Iterator[Filter]:
    # Commas inside of parentheses or quotes separate no filters.
    for part in re.findall(r'(?:\([^)]*\)|"(?:\\.|[^"])*"|[^,])+|(?<=,)(?=,|$)|^(?=,)', text.strip()):
        if not part.strip():
            raise SubscriptionRejected(
                "Error parsing `filter` params: filter must not contain empty segments (check for extra commas)"
            )
        column, is_filter, condition = part.strip().partition("=")
        negated = condition.startswith("not.")
        operator, has_value, value = condition.removeprefix("not.").partition(".")
        if not is_filter or not has_value or operator not in _OPERATORS:
            parts = [column] if not is_filter else [operator, value] if has_value else [operator]
            shown = ", ".join(f'"{part}"' for part in parts)
            raise SubscriptionRejected(f"Error parsing `filter` params: [{shown}]")
        if operator == "in":
            if not (value.startswith("(") and value.endswith(")")):
                raise SubscriptionRejected(
                    "Error parsing `filter` params: `in` filter value must be wrapped by parentheses"
                )
            value = f"{{{value[1:-1]}}}"
        elif re.fullmatch(r'"(?:\\.|[^"\\])*"', value):
            value = re.sub(r"\\(.)", r"\1", value[1:-1])
        yield Filter(column, operator, value, negated)


def _shown(filters: Iterable[Filter]) -> str:
    shown = (f'{{"{f.column}", "{f.operator}", "{f.value}", {str(f.negated).lower()}}}' for f in filters)
    return f"[{', '.join(shown)}]"


def _condition(condition: Filter, type_name: str, value: str | None) -> sql.Composable:
    operand = sql.SQL("{}::" + type_name).format(sql.Literal(value))
    if condition.operator == "is":
        if condition.value.lower() not in ("null", "true", "false", "unknown"):
            raise SubscriptionRejected("Error parsing `filter` params: `is` filter value must be null, true or false")
        test = sql.SQL("{} is " + condition.value.lower()).format(operand)
    elif condition.operator == "in":
        test = sql.SQL("{} = any ({}::" + type_name + "[])").format(operand, sql.Literal(condition.value))
    else:
        compared = "{} " + _OPERATORS[condition.operator] + " {}::" + type_name
        test = sql.SQL(compared).format(operand, sql.Literal(condition.value))
    return sql.SQL("coalesce({}({}), false)").format(sql.SQL("not " if condition.negated else ""), test)


@dataclass(frozen=True)
class _Column:
    name: str
    type_name: str  # short, such as int8
    cast: str  # for SQL, such as bigint
    is_key: bool
    selectable: bool


class Dispatcher:
    """Sends each change to the subscribers that may see it."""

    def __init__(self, session: Session, row_bytes: int) -> None:
        self.subscribers: set[Subscriber] = set()
        self._session = session
        self._row_bytes = row_bytes

    async def dispatch(self, change: Change) -> None:
        """Sends an event to each subscriber whose bindings and whose rights match."""
        interested = defaultdict(list)
        for subscriber in self.subscribers:
            for binding in subscriber.bindings:
                if binding.wants(change):
                    interested[subscriber.role].append((subscriber, binding))
        for role, bound in interested.items():
            await self._dispatch(change, role, bound)

    async def _dispatch(self, change: Change, role: str, bound: list[tuple[Subscriber, Binding]]) -> None:
        async with self._session.transaction(rollback=True) as connection:
            columns, has_rls = await _table(connection, change.relation.oid, role)
            data: Json = {"schema": change.relation.schema, "table": change.relation.name, "type": change.action}
            keys = [column for column in columns if column.is_key]
            error = None
            if change.action != "DELETE" and not keys:
                error = "Error 400: Bad Request, no primary key"
            elif change.action != "DELETE" and not all(key.selectable for key in keys):
                error = "Error 401: Unauthorized"
            if error:
                empty = {"commit_timestamp": _timestamp(change), "columns": [], "record": {}, "errors": [error]}
                _send([(subscriber, binding, data | empty) for subscriber, binding in bound])
                return
            old = await _json(connection, columns, change.old)
            new = await _json(connection, columns, change.new)
            passed = await _passed(connection, columns, change, {binding.filters for _, binding in bound})
        bound = [(subscriber, binding) for subscriber, binding in bound if binding.filters in passed]
        if has_rls and change.action != "DELETE":
            visible = await self._visible_to({subscriber for subscriber, _ in bound}, change, keys)
            bound = [(subscriber, binding) for subscriber, binding in bound if subscriber in visible]
        size = sum(len(value or "") for row in (change.new, change.old) for value in row.values())
        events = []
        for subscriber, binding in bound:
            shown = [c for c in columns if c.selectable and (binding.columns is None or c.name in binding.columns)]
            kept = {
                c.name
                for c in shown
                if size <= self._row_bytes or len((change.new or change.old).get(c.name) or "") <= _KEPT_BYTES
            }
            event: Json = data | {
                "commit_timestamp": _timestamp(change),
                "columns": [{"name": column.name, "type": column.type_name} for column in shown],
                "errors": ["Error 413: Payload Too Large"] if size > self._row_bytes else None,
            }
            if change.action != "DELETE":
                event["record"] = {name: value for name, value in (old | new).items() if name in kept}
            if change.action != "INSERT":
                if change.action == "DELETE" and has_rls:
                    kept &= {key.name for key in keys}
                event["old_record"] = {name: value for name, value in old.items() if name in kept}
            events.append((subscriber, binding, event))
        _send(events)

    async def _visible_to(self, subscribers: set[Subscriber], change: Change, keys: list[_Column]) -> set[Subscriber]:
        """The subscribers whose claims see the row as it is now."""
        row = sql.SQL("select exists (select from {} where {})").format(
            sql.Identifier(change.relation.schema, change.relation.name),
            sql.SQL(" and ").join(
                sql.SQL("{} = {}::" + key.cast).format(sql.Identifier(key.name), sql.Literal(change.new[key.name]))
                for key in keys
            ),
        )
        visible = set()
        for subscriber in subscribers:
            async with self._session.transaction(rollback=True) as connection:
                await act_as(connection, subscriber.claims)
                try:
                    async with connection.transaction():
                        cursor = await connection.execute(row)
                        if await cursor.fetchone() == (True,):
                            visible.add(subscriber)
                except psycopg.OperationalError:
                    raise
                except psycopg.Error:
                    continue  # As on the real server, a policy that fails hides the row from this subscriber only.
        return visible


def _timestamp(change: Change) -> str:
    return change.committed_at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _send(events: list[tuple[Subscriber, Binding, Json]]) -> None:
    """Sends one message for all bindings of a subscriber that receive the same."""
    messages: list[tuple[Subscriber, Json, list[int]]] = []
    for subscriber, binding, data in events:
        for receiver, sent, ids in messages:
            if receiver is subscriber and sent == data:
                ids.append(binding.id)
                break
        else:
            messages.append((subscriber, data, [binding.id]))
    for subscriber, data, ids in messages:
        subscriber.send({"ids": ids, "data": data})


async def _table(connection: Connection, oid: int, role: str) -> tuple[list[_Column], bool]:
    """The columns of a table, for a role, and whether it has RLS."""
    cursor = await connection.execute(
        """select attname, typname, format_type(atttypid, -1), coalesce(attnum = any (indkey), false),
             has_column_privilege(%s, attrelid, attnum, 'SELECT'), relrowsecurity
           from pg_attribute join pg_type on pg_type.oid = atttypid join pg_class on pg_class.oid = attrelid
             left join pg_index on indrelid = attrelid and indisprimary
           where attrelid = %s and attnum > 0 and not attisdropped order by attnum""",
        (role, oid),
    )
    rows = await cursor.fetchall()
    return [_Column(*row[:5]) for row in rows], any(row[5] for row in rows)


async def _json(connection: Connection, columns: list[_Column], row: Row) -> Json:
    """A row as JSON, with each value as to_jsonb gives it for its type."""
    known = [column for column in columns if column.name in row]
    if not known:
        return {}
    values = [sql.SQL("to_jsonb({}::" + c.cast + ")").format(sql.Literal(row[c.name])) for c in known]
    cursor = await connection.execute(sql.SQL("select array[{}]").format(sql.SQL(", ").join(values)))
    (converted,) = await cursor.fetchone() or ([],)
    return dict(zip((column.name for column in known), converted, strict=True))


async def _passed(
    connection: Connection, columns: list[_Column], change: Change, filters: set[tuple[Filter, ...]]
) -> set[tuple[Filter, ...]]:
    """The filters that let the change through. A filter on a column that the change does not have does not."""
    casts = {column.name: column.cast for column in columns}
    row = change.old if change.action == "DELETE" else change.old | change.new
    known = [chosen for chosen in filters if all(f.column in row and f.column in casts for f in chosen)]
    if not known:
        return set()
    tests = [
        sql.SQL(" and ").join([sql.SQL("true"), *(_condition(f, casts[f.column], row[f.column]) for f in chosen)])
        for chosen in known
    ]
    cursor = await connection.execute(sql.SQL("select array[{}]").format(sql.SQL(", ").join(tests)))
    (results,) = await cursor.fetchone() or ([],)
    return {chosen for chosen, result in zip(known, results, strict=True) if result}
