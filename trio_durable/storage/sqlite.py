"""Objects in an SQLite file.

The batch is one statement. Python's sqlite3 gives up the GIL around every step of a statement
and, while the event loop is busy, waits up to the interpreter's switch interval (5 ms) to get it
back; a batch of 64 rows stepped one by one could wait 64 times. So a batch goes in as one
``INSERT … SELECT … FROM (VALUES …)``, padded to the next power of two so that a dozen prepared
statements serve all sizes, in a transaction of its own (autocommit), which is one step in all.

The fence is in the statement: a row whose stored revision isn't the expected one becomes a NULL
revision, which the table refuses, and one that is gone would be inserted with a revision other
than 1, which a trigger refuses; so the whole statement fails and nothing is applied. Only then the
batch is taken apart, in a transaction: find the stale ones, apply the others. Stale commits are
rare, so the common path pays nothing for them. Deletions and alarms go along in a transaction of
several statements, which is taken apart in the same way.

WAL with ``synchronous=FULL`` syncs the log at every commit; ``NORMAL`` leaves that to the next
checkpoint, so that a loss of power (not of the process) may undo the latest commits, never in
part.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import orjson
import sqlite_utils

from .._durations import Duration, seconds
from .._errors import SchemaTooNew, StorageUnavailable
from .._keys import AlarmKey, ObjectKey
from ._contract import (
    Commit,
    DueAlarm,
    NewAlarm,
    Postponement,
    Reader,
    Storage,
    StorageFault,
    StoredAlarm,
    StoredObject,
    Writer,
)
from ._lock import FileLock
from ._sqlite_alarms import MAX_ROWS, AlarmTable
from .migrations import known_names, migrations

Durability = Literal["full", "normal"]

_LARGE_STATE = 64 * 1024
_OLDEST = (3, 38)
"""The first SQLite with the ``->>`` operator."""

_LOAD = f"""
SELECT json_group_array(json_array(
    k.key, o.revision, CASE WHEN length(o.state) <= {_LARGE_STATE} THEN o.state END))
FROM json_each(?) AS k
CROSS JOIN durable_objects AS o
    ON o.type_name = k.value ->> 0 AND o.object_id = k.value ->> 1
"""
_LOAD_ONE = """
SELECT revision, CAST(state AS BLOB) FROM durable_objects WHERE type_name = ? AND object_id = ?
"""

_LIST = """
SELECT json_group_array(object_id) FROM (
    SELECT object_id FROM durable_objects
    WHERE type_name = ? AND object_id > ? ORDER BY object_id LIMIT ?)
"""

# The positions of those whose stored revision isn't the expected one.
_STALE = """
SELECT json_group_array(k.value ->> 0)
FROM json_each(?) AS k
LEFT JOIN durable_objects AS o
    ON o.type_name = k.value ->> 1 AND o.object_id = k.value ->> 2
WHERE ifnull(o.revision, 0) <> k.value ->> 3
"""

_DELETE = """
DELETE FROM durable_objects WHERE (type_name, object_id, revision) IN (
    SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each(?))
"""


def _save_sql(rows: int) -> str:
    """Save ``rows`` objects of (type_name, object_id, revision, state), or fail altogether."""
    values = ",".join(["(?,?,?,?)"] * rows)
    return f"""
    INSERT INTO durable_objects (type_name, object_id, revision, updated_at, state)
    SELECT column1, column2, column3 + 1, ?, CAST(column4 AS TEXT)
    FROM (VALUES {values}) WHERE column1 IS NOT NULL
    ON CONFLICT (type_name, object_id) DO UPDATE SET
        revision = CASE WHEN revision = excluded.revision - 1 THEN excluded.revision END,
        updated_at = excluded.updated_at,
        state = excluded.state
    """


class SQLiteStorage(Storage):
    """Objects in the SQLite file at ``path``.

    Args:
        path: The file; made if it isn't there, in a folder that is.
        durability: ``"full"`` syncs every commit to the disk; ``"normal"`` may lose the latest
            commits with the power, not with the process.
        busy_timeout: How long to wait for another process that has the file locked.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        durability: Durability = "full",
        busy_timeout: Duration = 2.0,
    ) -> None:
        if durability not in ("full", "normal"):
            raise ValueError(f'durability must be "full" or "normal", not {durability!r}')
        # Two spellings of one path must meet at one lock.
        self._path = Path(os.path.realpath(path))
        self._durability = durability
        self._busy_timeout = seconds(busy_timeout, "busy_timeout")

    @property
    def location(self) -> str:
        """The path."""
        return str(self._path)

    def open_writer(self) -> Writer:
        """See `Storage.open_writer`."""
        if sqlite3.sqlite_version_info < _OLDEST:
            raise StorageUnavailable(
                self.location,
                f"this Python has SQLite {sqlite3.sqlite_version}; 3.38 or newer is needed",
            )
        if not self._path.parent.is_dir():
            raise StorageUnavailable(
                self.location, f"there is no folder {self._path.parent}; make it first"
            )
        if self._path.is_dir():
            raise StorageUnavailable(self.location, "it is a folder; name a file in it")
        try:
            lock = FileLock(self._path.with_name(self._path.name + "-lock"), self.location)
        except OSError as error:
            raise StorageUnavailable(
                self.location, f"its lock can't be taken ({error}); is the folder writable?"
            ) from error
        try:
            connection = self._connect()
            try:
                self._prepare(connection)
            except BaseException:
                connection.close()
                raise
        except BaseException:
            lock.release()
            raise
        return _SQLiteWriter(connection, lock)

    def open_reader(self) -> Reader:
        """See `Storage.open_reader`."""
        with self._opening():
            connection = self._connect()
            connection.execute("PRAGMA query_only = ON")
            return _SQLiteReader(connection)

    def _connect(self) -> sqlite3.Connection:
        with self._opening():
            return sqlite3.connect(self._path, timeout=self._busy_timeout, isolation_level=None)

    def _prepare(self, connection: sqlite3.Connection) -> None:
        with self._opening():
            mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
            if mode != "wal":
                raise StorageUnavailable(
                    self.location, f"SQLite keeps its journal in {mode} mode here; WAL is needed"
                )
            connection.execute(f"PRAGMA synchronous = {self._durability}")
            db = sqlite_utils.Database(connection)
            unknown = {applied.name for applied in migrations.applied(db)} - known_names()
            if unknown:
                raise SchemaTooNew(self.location, "", tuple(sorted(unknown)))
            migrations.apply(db)
            # A file that can't be written is found out now, not at the first commit.
            # Beginning to write isn't enough for that.
            connection.execute("DELETE FROM durable_objects WHERE 0")
            AlarmTable(connection).give_back()

    @contextmanager
    def _opening(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            text = str(error)
            mend = {
                "file is not a database": "; it is not an SQLite file: choose another path",
                "attempt to write a readonly database": "; make the file and its folder writable",
                "unable to open database file": "; check the path and its permissions",
                "database is locked": "; another program has it locked: close that first",
            }.get(text, "")
            raise StorageUnavailable(self.location, text + mend) from error


class _NotOnlySaves(Exception):
    """A batch has more in it than the one statement for saves can do."""


class _Stale(Exception):
    """Something in a batch is not as it was expected."""


class _SQLiteWriter(Writer):
    def __init__(self, connection: sqlite3.Connection, lock: FileLock) -> None:
        self._connection = connection
        self._alarms = AlarmTable(connection)
        self._lock = lock
        self._statements: dict[int, str] = {}

    def commit(self, batch: Sequence[Commit], now: int) -> Collection[int]:
        with _faults():
            try:
                try:
                    self._save(batch, now)
                except _NotOnlySaves:
                    self._commit_whole(batch, now)
            except (sqlite3.IntegrityError, _Stale):
                return self._commit_apart(batch, now)
            return ()

    def _commit_whole(self, batch: Sequence[Commit], now: int) -> None:
        """Apply a batch with more than saves in it, or nothing if something in it is stale."""
        steps = list(self._steps(batch, now))
        if len(steps) == 1 and _is_atomic(batch):
            steps[0]()  # a transaction by itself
            return
        with self._transaction():
            for step in steps:
                step()

    def _commit_apart(self, batch: Sequence[Commit], now: int) -> Collection[int]:
        """Apply what isn't stale of a batch."""
        with self._transaction():
            stale = self._stale(enumerate(batch)) | self._alarms.lost(
                [
                    (position, c.key.alarm(name), claim)
                    for position, c in enumerate(batch)
                    if c.alarms
                    for name, claim in c.alarms.acknowledged.items()
                ]
            )
            fresh = [commit for position, commit in enumerate(batch) if position not in stale]
            for step in self._steps(fresh, now):
                step()
        return stale

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def _steps(self, batch: Sequence[Commit], now: int) -> Iterator[Callable[[], None]]:
        """What there is to do for a batch: a statement for each kind of thing that is in it."""
        saves = [c for c in batch if c.state is not None and not c.delete]
        if saves:
            yield lambda: self._save(saves, now, only=False)
        deleted = [
            [c.key.type_name, c.key.object_id, c.revision] for c in batch if c.delete and c.revision
        ]
        if deleted:
            yield lambda: self._delete(deleted)
        untouched = [
            c
            for c in batch
            if c.revision is not None and (not c.revision if c.delete else c.state is None)
        ]
        if untouched:
            yield lambda: self._require_fresh(untouched)
        acknowledged: list[tuple[AlarmKey, int]] = []
        cleared: list[ObjectKey] = []
        cancelled: list[AlarmKey] = []
        set_anew: list[tuple[AlarmKey, NewAlarm]] = []
        for commit in batch:
            changes = commit.alarms
            if changes is None:
                continue
            type_name, object_id = commit.key.type_name, commit.key.object_id
            for name, claim in changes.acknowledged.items():
                acknowledged.append((AlarmKey(type_name, object_id, name), claim))
            if changes.clear:
                cleared.append(commit.key)
            for name, new in changes.changed.items():
                key = AlarmKey(type_name, object_id, name)
                if new is not None:
                    set_anew.append((key, new))
                elif not changes.clear:
                    cancelled.append(key)
        # In the order of the fields of AlarmChanges; keys of different commits are distinct.
        if acknowledged:
            yield lambda: self._acknowledge(acknowledged)
        if cleared:
            yield lambda: self._alarms.clear(cleared)
        if cancelled:
            yield lambda: self._alarms.cancel(cancelled)
        if set_anew:
            yield lambda: self._alarms.set(set_anew)

    def _acknowledge(self, claims: Sequence[tuple[AlarmKey, int]]) -> None:
        if not self._alarms.acknowledge(claims):
            raise _Stale

    def _delete(self, rows: Sequence[object]) -> None:
        if self._connection.execute(_DELETE, (_json(rows),)).rowcount != len(rows):
            raise _Stale

    def _require_fresh(self, batch: Sequence[Commit]) -> None:
        if self._stale(enumerate(batch)):
            raise _Stale

    def _stale(self, batch: Iterable[tuple[int, Commit]]) -> set[int]:
        expected = _json(
            [
                [position, c.key.type_name, c.key.object_id, c.revision]
                for position, c in batch
                if c.revision is not None
            ]
        )
        stale = orjson.loads(self._connection.execute(_STALE, (expected,)).fetchone()[0])
        return set(stale)

    def _save(self, batch: Sequence[Commit], now: int, *, only: bool = True) -> None:
        """Save the states of a batch, or nothing if one is stale."""
        size = 1 << (len(batch) - 1).bit_length()
        statement = self._statements.get(size)
        if statement is None:
            statement = self._statements[size] = _save_sql(size)
        values: list[object] = [now]
        for commit in batch:
            state = commit.state
            if only and (state is None or commit.delete or commit.alarms is not None):
                raise _NotOnlySaves
            key = commit.key
            values += (key.type_name, key.object_id, commit.revision, state)
        values += [None] * (4 * (size - len(batch)))
        self._connection.execute(statement, values)

    def claim(
        self, alarms: Sequence[AlarmKey], claim: int, now: int, until: int
    ) -> list[StoredAlarm]:
        with _faults():
            if len(alarms) <= MAX_ROWS:
                return self._alarms.claim(alarms, claim, now, until)
            with self._transaction():
                return self._alarms.claim(alarms, claim, now, until)

    def renew(self, claims: Sequence[tuple[AlarmKey, int]], until: int) -> None:
        with _faults():
            self._alarms.renew(claims, until)

    def postpone(self, postponements: Sequence[Postponement]) -> None:
        with _faults():
            self._alarms.postpone(postponements)

    def revive(self, alarm: AlarmKey, now: int) -> bool:
        with _faults():
            return self._alarms.revive(alarm, now)

    def close(self) -> None:
        try:
            self._connection.close()
        finally:
            self._lock.release()


class _SQLiteReader(Reader):
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._alarms = AlarmTable(connection)

    def load(self, keys: Sequence[ObjectKey]) -> Sequence[StoredObject | None]:
        with _faults():
            wanted = _json([[key.type_name, key.object_id] for key in keys])
            try:
                rows = orjson.loads(self._connection.execute(_LOAD, (wanted,)).fetchone()[0])
            except (sqlite3.OperationalError, orjson.JSONDecodeError):
                # One of the states is no text, which must not keep the others from loading.
                return [self._load_one(key) for key in keys]
            found: list[StoredObject | None] = [None] * len(keys)
            for position, revision, state in rows:
                found[position] = (
                    self._load_one(keys[position])
                    if state is None
                    else StoredObject(revision, state.encode())
                )
            return found

    def _load_one(self, key: ObjectKey) -> StoredObject | None:
        row = self._connection.execute(_LOAD_ONE, (key.type_name, key.object_id)).fetchone()
        return None if row is None else StoredObject(*row)

    def list_ids(self, type_name: str, after: str | None, limit: int) -> list[str]:
        with _faults():
            row = self._connection.execute(_LIST, (type_name, after or "", limit)).fetchone()
        ids: list[str] = orjson.loads(row[0])
        return ids

    def due_alarms(
        self, before: int, after: DueAlarm | None, limit: int, except_types: Collection[str]
    ) -> list[DueAlarm]:
        with _faults():
            return self._alarms.due(before, after, limit, except_types)

    def list_alarms(self, key: ObjectKey) -> list[StoredAlarm]:
        with _faults():
            return self._alarms.of_object(key)

    def list_dead_letters(
        self, type_name: str, after: AlarmKey | None, limit: int
    ) -> list[StoredAlarm]:
        with _faults():
            return self._alarms.dead(type_name, after, limit)

    def close(self) -> None:
        self._connection.close()


def _is_atomic(batch: Sequence[Commit]) -> bool:
    """Whether all that a batch does is to change alarms, by one statement that can't be stale."""
    return (
        all(
            commit.revision is None and commit.alarms is not None and not commit.alarms.acknowledged
            for commit in batch
        )
        and sum(len(commit.alarms.changed) for commit in batch if commit.alarms) <= MAX_ROWS
    )


@contextmanager
def _faults() -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OverflowError) as error:
        raise StorageFault.of(error) from error


def _json(value: object) -> str:
    return orjson.dumps(value).decode()
