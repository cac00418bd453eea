"""Reads the output of logical decoding: https://www.postgresql.org/docs/18/protocol-logicalrep-message-formats.html."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)

type Row = dict[str, str | None]  # Values as text. TOASTed values that an update did not change are missing.


@dataclass(frozen=True)
class Relation:
    """A table at the time of a change."""

    oid: int
    schema: str
    name: str
    full: bool  # REPLICA IDENTITY FULL
    types: dict[str, int]  # type oids of the columns
    identity: frozenset[str]  # columns of the replica identity


@dataclass(frozen=True)
class Change:
    """A change of one row. `old` has the columns of the replica identity, or all columns if it is full."""

    action: Literal["INSERT", "UPDATE", "DELETE"]
    relation: Relation
    committed_at: datetime
    new: Row
    old: Row


class Decoder:
    """Decodes the messages of one read of a slot."""

    def __init__(self) -> None:
        self._relations: dict[int, Relation] = {}
        self._committed_at = _EPOCH

    def decode(self, data: bytes) -> Iterator[Change]:
        """The change in a message. Most messages have none: begin, commit, the description of a table."""
        message = _Reader(data)
        match message.take("c"):
            case b"B":
                _, microseconds, _ = message.unpack("qqi")
                self._committed_at = _EPOCH + timedelta(microseconds=microseconds)
            case b"R":
                relation = _relation(message)
                self._relations[relation.oid] = relation
            case b"I":
                relation = self._relations[message.take("I")]
                message.take("c")
                yield Change("INSERT", relation, self._committed_at, message.row(relation), {})
            case b"U":
                yield self._update(message)
            case b"D":
                relation = self._relations[message.take("I")]
                message.take("c")
                yield Change("DELETE", relation, self._committed_at, {}, _identity(relation, message.row(relation)))

    def _update(self, message: "_Reader") -> Change:
        relation = self._relations[message.take("I")]
        old = None
        if message.take("c") != b"N":
            old = message.row(relation)
            message.take("c")
        new = message.row(relation)
        # Without an old row, the identity did not change.
        return Change("UPDATE", relation, self._committed_at, new, _identity(relation, new if old is None else old))


def _identity(relation: Relation, row: Row) -> Row:
    return row if relation.full else {name: value for name, value in row.items() if name in relation.identity}


def _relation(message: "_Reader") -> Relation:
    oid, schema, name = message.take("I"), message.string(), message.string()
    full = message.take("c") == b"f"
    types, identity = {}, set()
    for _ in range(message.take("h")):
        in_identity, column = message.take("b"), message.string()
        types[column], _ = message.unpack("Ii")
        if in_identity:
            identity.add(column)
    return Relation(oid, schema, name, full, types, frozenset(identity))


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def unpack(self, form: str) -> tuple[Any, ...]:
        values = struct.unpack_from(f"!{form}", self._data, self._at)
        self._at += struct.calcsize(f"!{form}")
        return values

    def take(self, form: str) -> Any:
        return self.unpack(form)[0]

    def string(self) -> str:
        end = self._data.index(0, self._at)
        value = self._data[self._at : end].decode()
        self._at = end + 1
        return value

    def row(self, relation: Relation) -> Row:
        columns = self.take("h")
        row: Row = {}
        for name, _ in zip(relation.types, range(columns), strict=True):
            match self.take("c"):
                case b"n":
                    row[name] = None
                case b"t":
                    length = self.take("i")
                    row[name] = self._data[self._at : self._at + length].decode()
                    self._at += length
        return row
