"""A connection of apsw that does for the library what one of sqlite3 does.

The standard library's sqlite3 lets nobody come between SQLite and its files; apsw does, by a VFS
written in Python, and brings an SQLite of its own. So a connection of apsw is dressed as the few
methods of ``sqlite3.Connection`` that the storage and sqlite-utils use, and everything above that
is the library's own code.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import apsw

_ERRORS: list[tuple[type[apsw.Error], type[sqlite3.Error]]] = [
    (apsw.ConstraintError, sqlite3.IntegrityError),
    (apsw.MismatchError, sqlite3.IntegrityError),
    (apsw.CorruptError, sqlite3.DatabaseError),
    (apsw.NotADBError, sqlite3.DatabaseError),
    (apsw.TooBigError, sqlite3.DataError),
    (apsw.Error, sqlite3.OperationalError),
]
"""As which of sqlite3's errors each of SQLite's codes is raised."""

_TEXTS = {
    apsw.IOError: "disk I/O error",
    apsw.FullError: "database or disk is full",
    apsw.CantOpenError: "unable to open database file",
}
"""What sqlite3 says; apsw repeats the text of the exception that a VFS has raised."""

_CHECKPOINT_AFTER = 12
"""Pages in the log. By default it's a thousand, for which a test would have to write a lot."""


def _raised_by_sqlite3(error: apsw.Error) -> sqlite3.Error:
    kind = next(ours for theirs, ours in _ERRORS if isinstance(error, theirs))
    raised = kind(_TEXTS.get(type(error)) or str(error))
    raised.__cause__ = error
    return raised


class Cursor:
    """The rows of a statement that has run to its end."""

    def __init__(
        self,
        rows: list[tuple[Any, ...]],
        description: Sequence[tuple[Any, ...]] | None,
        rowcount: int,
        lastrowid: int,
    ) -> None:
        self._rows = iter(rows)
        self.description = description
        self.rowcount = rowcount
        self.lastrowid = lastrowid

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return self._rows

    def fetchone(self) -> tuple[Any, ...] | None:
        return next(self._rows, None)

    def fetchall(self) -> list[tuple[Any, ...]]:
        return list(self._rows)


class Connection:
    """What of ``sqlite3.Connection`` is used, in autocommit mode, on a connection of apsw."""

    def __init__(
        self, path: Path, vfs: str, busy_timeout: float, instead: Mapping[str, str]
    ) -> None:
        self._instead = instead
        try:
            self._apsw = apsw.Connection(str(path), vfs=vfs)
        except apsw.Error as error:
            raise _raised_by_sqlite3(error) from error
        self._apsw.set_busy_timeout(round(busy_timeout * 1000))
        # As SQLite's own hook does. But with that one, apsw would raise what a VFS raised while
        # SQLite makes a checkpoint, after a commit that has succeeded.
        self._apsw.set_wal_hook(_checkpoint)

    @property
    def in_transaction(self) -> bool:
        return self._apsw.in_transaction

    def execute(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> Cursor:
        connection = self._apsw
        if sql.startswith("PRAGMA journal_size_limit"):
            # SQLite ignores it if it can't shorten the log after a commit, apsw would raise that.
            sql = "PRAGMA journal_size_limit"
        if sql.startswith("PRAGMA wal_autocheckpoint"):
            sql = "PRAGMA wal_autocheckpoint"  # it would replace the hook
        changes = connection.total_changes()
        description: Sequence[tuple[Any, ...]] = ()

        def note_description(cursor: apsw.Cursor, sql: str, bindings: object) -> bool:
            nonlocal description
            description = cursor.get_description()
            return True

        try:
            cursor = connection.cursor()
            # Afterwards, apsw no longer knows it.
            cursor.exec_trace = note_description
            cursor.execute(self._instead.get(sql, sql), parameters)
            rows = cursor.fetchall()
        except apsw.Error as error:
            raise _raised_by_sqlite3(error) from error
        changed = connection.changes() if connection.total_changes() != changes else 0
        return Cursor(rows, description, changed, connection.last_insert_rowid())

    def close(self) -> None:
        try:
            self._apsw.close()
        except apsw.Error:
            # SQLite's close tells nobody of a checkpoint that didn't succeed, apsw's does.
            self._apsw.close()


def _checkpoint(connection: apsw.Connection, name: str, pages: int) -> int:
    if pages >= _CHECKPOINT_AFTER:
        with contextlib.suppress(apsw.Error):
            connection.wal_checkpoint(name)
    return apsw.SQLITE_OK
