"""The SQLite file: its lock, its damage, and what its errors mean."""

import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.resources import files
from pathlib import Path

from chat_client.errors import DatabaseCorrupt, DatabaseError, DatabaseFull, DatabaseInUse
from chat_client.models import Json

_log = logging.getLogger(__name__)
_SIDE_FILES = ("", "-wal", "-journal")


def connect(path: Path) -> sqlite3.Connection:
    """Opens or creates the file, and locks it. Raises DatabaseError and its subclasses."""
    with translating(), ExitStack() as after_error:
        # No wait for a lock: whoever has it keeps it until it closes the file.
        connection = sqlite3.connect(path, timeout=0, isolation_level=None)
        after_error.callback(connection.close)
        connection.row_factory = sqlite3.Row
        # The lock of SQLite is that of the process, and ends with it, also after kill -9.
        connection.execute("pragma locking_mode = exclusive")
        connection.execute("pragma journal_mode = wal")
        # A message that the person saw as pending is on the disk, even if the power fails.
        connection.execute("pragma synchronous = full")
        connection.execute("pragma secure_delete = on")
        connection.execute("begin immediate")
        for statement in files(__package__).joinpath("schema.sql").read_text().split(";\n"):
            connection.execute(statement)
        connection.execute("commit")
        if connection.execute("pragma quick_check(1)").fetchone()[0] != "ok":
            raise DatabaseCorrupt("the local database is damaged")
        after_error.pop_all()
    return connection


def salvage(path: Path) -> dict[str, list[Json]]:
    """What can be read of the account and of the outbox in a damaged file."""
    saved: dict[str, list[Json]] = {"meta": [], "outbox": []}
    connection = sqlite3.connect(path, timeout=0)
    connection.row_factory = sqlite3.Row
    try:
        for table, query in (("meta", "select * from meta"), ("outbox", "select * from outbox order by seq")):
            try:
                # One row after the other: those before the damage are read.
                for row in connection.execute(query):
                    saved[table].append(dict(row))
            except sqlite3.DatabaseError as error:
                _log.warning("table %s of the damaged database: %s", table, error.sqlite_errorname)
    finally:
        connection.close()
    return saved


def move_aside(path: Path) -> Path:
    """Renames a damaged file and those beside it. Returns the new path."""
    number = 1
    while (moved_to := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    for side in _SIDE_FILES:
        if os.path.exists(f"{path}{side}"):
            os.replace(f"{path}{side}", f"{moved_to}{side}")
    return moved_to


@contextmanager
def translating() -> Iterator[None]:
    """Raises the errors of SQLite as those of the client."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise _translated(error) from error


def _translated(error: sqlite3.DatabaseError) -> DatabaseError:
    match getattr(error, "sqlite_errorcode", 0) & 0xFF:  # the primary result code
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return DatabaseInUse("another client has opened the local database")
        case sqlite3.SQLITE_FULL:
            return DatabaseFull("the local database cannot grow: the disk is full")
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return DatabaseCorrupt("the local database is damaged")
    return DatabaseError(f"the local database failed: {getattr(error, 'sqlite_errorname', type(error).__name__)}")
