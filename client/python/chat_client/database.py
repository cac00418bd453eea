"""The SQLite file: its lock, its damage, and what its errors mean."""

import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
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


def rescue(path: Path) -> tuple[Path, int]:
    """Replaces a damaged file by one with what can be read of its account and its outbox.

    A process that is killed in between leaves the damaged file, or the complete new one, which `finish_rescue` puts in
    its place. Returns where the damaged file is now, and how many entries of the outbox were saved.
    """
    new = _rescued(path)
    for side in _SIDE_FILES:
        Path(f"{new}{side}").unlink(missing_ok=True)  # of a rescue that was killed
    meta, outbox = _salvage(path)
    with closing(connect(new)) as connection, translating():
        connection.execute("begin immediate")
        # Without the cursor: the messages are gone, so this is a new phone.
        connection.executemany("insert or ignore into meta select :key, :value where :key <> 'cursor'", meta)
        connection.executemany(
            "insert or ignore into outbox values (:seq, :id, :conversation_id, :kind, :text, :attachments,"
            " :created_at, :attempts, :tried_at, :next_try, :edited, :state, :error)",
            outbox,
        )
        connection.execute("commit")
    moved_to = _move_aside(path)
    finish_rescue(path)
    return moved_to, len(outbox)


def finish_rescue(path: Path) -> None:
    """Puts the new file of a rescue in the place of the damaged one, after that was moved aside."""
    if not path.exists() and _rescued(path).exists():
        os.replace(_rescued(path), path)


def _rescued(path: Path) -> Path:
    return path.with_name(f"{path.name}.rescued")


def _salvage(path: Path) -> tuple[list[Json], list[Json]]:
    """What can be read of the account and of the outbox in a damaged file."""
    with closing(sqlite3.connect(path, timeout=0)) as connection:
        connection.row_factory = sqlite3.Row
        meta = _readable(connection, "select * from meta where key > ? order by key limit 1", "")
        # From both ends to the damage.
        first = _readable(connection, "select * from outbox where seq > ? order by seq limit 1", 0)
        last = _readable(connection, "select * from outbox where seq < ? order by seq desc limit 1", 2**62)
    return list(meta.values()), list((first | last).values())


def _readable(connection: sqlite3.Connection, query: str, start: str | int) -> dict[str | int, Json]:
    """The rows up to the damage, by their key: `query` has the row that follows a key."""
    found: dict[str | int, Json] = {}
    try:
        # One query for each row: sqlite3 reads ahead, and would lose the last row before the damage.
        while row := connection.execute(query, (start,)).fetchone():
            start = row[0]
            if start in found:  # Rows of a damaged file may be in a wrong order.
                break
            found[start] = dict(row)
    except sqlite3.DatabaseError as error:
        _log.warning("the damaged database: %s", error.sqlite_errorname)
    return found


def _move_aside(path: Path) -> Path:
    """Renames a damaged file and those beside it. Returns the new path."""
    number = 1
    while (moved_to := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    # The file itself last: until then, a process that is killed has left the damaged database.
    for side in reversed(_SIDE_FILES):
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
