"""Online backup of a database file: a copy of one moment, verified before it gets its name.

SQLite's backup begins again whenever another connection writes between two of its steps. An open
read transaction of the source connection prevents that: all steps, and the counts that the copy is
compared with, see the same snapshot. Runtimes go on writing; their log only grows meanwhile.
"""

from __future__ import annotations

import glob
import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from .._faults import StorageFault
from .._flock import flock

_PAGES_PER_STEP = 1000
_BUSY_SECONDS = 60.0
_PRIMARY_CODE = 0xFF
"""The bits of SQLite's result codes that aren't their details."""
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_PART = ".part"
_BESIDE = ("-journal", "-wal", "-shm")
"""The suffixes of the files that SQLite keeps beside a database."""


def back_up(source: Path, target: Path, progress: Callable[[int, int], object]) -> int:
    """Copy a database, also while runtimes have it open.

    Args:
        source: The database file.
        target: The copy. It must not exist, and exists only once it is complete and durable.
        progress: Called with the numbers of pages that are copied, and of all.

    Returns:
        The number of rows in the copy.

    Raises:
        FileExistsError: ``target`` exists.
        OSError: ``target`` can't be written.
        StorageFault: ``source`` can't be read, or the copy isn't whole.
    """
    if os.path.lexists(target):
        raise FileExistsError(f"{target}: it already exists; choose another name, or remove it")
    with _verified_copy(source, target, progress) as (part, rows):
        os.link(part, target)  # unlike a rename, it replaces nothing that has come meanwhile
        _sync(target.parent)
    return rows


def restore(backup: Path, target: Path, progress: Callable[[int, int], object]) -> int:
    """Put a backup in the place of a database.

    If the process is killed, the database is the old or the new one, with all its commits: the log
    of the old one is written into it before the backup gets its name. SQLite would apply a log that
    is left to the backup.

    Args:
        backup: A database file. It stays.
        target: The database. It may exist, and no runtime may have it open; the caller's lock says
            so.
        progress: See `back_up`.

    Returns:
        The number of rows in the database.

    Raises:
        OSError: ``target`` can't be written.
        StorageFault: ``backup`` can't be read, or isn't whole; or another program reads the
            database.
    """
    with _verified_copy(backup, target, progress) as (part, rows):
        if target.exists():
            os.chmod(part, target.stat().st_mode)
            _settle(target)
        _remove(target, _BESIDE)
        _sync(target.parent)
        os.replace(part, target)
        _sync(target.parent)
    return rows


@contextmanager
def _verified_copy(
    source: Path, target: Path, progress: Callable[[int, int], object]
) -> Iterator[tuple[Path, int]]:
    """A durable copy beside the target, and the number of its rows. It is removed at the end."""
    _remove_parts_of_killed_processes(target)
    number, name = tempfile.mkstemp(prefix=f".{target.name}-", suffix=_PART, dir=target.parent)
    part = Path(name)
    try:
        with suppress(OSError):  # not all file systems have it
            flock(number)
        try:
            rows = _copy(source, part, progress)
        except sqlite3.Error as error:
            raise StorageFault(f"{source} can't be copied: {error}") from error
        _sync(part)
        yield part, rows
    finally:
        _remove(part, ("", *_BESIDE))
        os.close(number)


def _remove_parts_of_killed_processes(target: Path) -> None:
    """Remove copies that weren't completed. A process that lives has locked its own."""
    for part in target.parent.glob(f".{glob.escape(target.name)}-*{_PART}"):
        with suppress(OSError):
            number = os.open(part, os.O_RDWR)
            try:
                if flock(number):
                    _remove(part, ("", *_BESIDE))
            finally:
                os.close(number)


def _remove(path: Path, suffixes: Iterable[str]) -> None:
    for suffix in suffixes:
        with suppress(FileNotFoundError):
            os.unlink(f"{path}{suffix}")


def _settle(target: Path) -> None:
    """Write the log of a database into it, so that it is whole without one.

    A damaged one stays as it is.

    Raises:
        StorageFault: It can't be done now.
    """
    uri = f"{target.absolute().as_uri()}?mode=rw"
    mode, problem = "", "its log can't be written into it"
    try:
        with closing(sqlite3.connect(uri, uri=True, timeout=_BUSY_SECONDS)) as old:
            # Needs the database for itself, so no other program reads the old log.
            (mode,) = old.execute("PRAGMA journal_mode = DELETE").fetchone()
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode & _PRIMARY_CODE in _DAMAGED:
            return
        problem = str(error)
    if mode != "delete":
        raise StorageFault(f"{target}: {problem}; end the programs that have it open")


def _copy(source: Path, part: Path, progress: Callable[[int, int], object]) -> int:
    # Not to be made if it isn't there. Read-only, it couldn't use the log of a runtime.
    uri = f"{source.absolute().as_uri()}?mode=rw"
    with (
        closing(sqlite3.connect(uri, uri=True, timeout=_BUSY_SECONDS, isolation_level=None)) as db,
        closing(sqlite3.connect(part, isolation_level=None)) as copy,
    ):
        db.execute("BEGIN")
        expected = _counts(db)
        db.backup(
            copy,
            pages=_PAGES_PER_STEP,
            progress=lambda _status, left, total: progress(total - left, total),
        )
        # A file of its own, without a log beside it, until a runtime opens it.
        copy.execute("PRAGMA journal_mode = DELETE")
        (verdict,) = copy.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise StorageFault(f"the copy is damaged, and so is the storage: {verdict}")
        found = _counts(copy)
        if found != expected:
            raise StorageFault(f"the copy has {found} rows, but the storage has {expected}")
    return sum(found.values())


def _counts(db: sqlite3.Connection) -> dict[str, int]:
    """The numbers of rows, by table. Reading them begins the snapshot."""
    tables = db.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
    counts = {}
    for (name,) in tables.fetchall():
        quoted = name.replace('"', '""')
        (counts[name],) = db.execute(f'SELECT count(*) FROM "{quoted}"').fetchone()
    return counts


def _sync(path: Path) -> None:
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
