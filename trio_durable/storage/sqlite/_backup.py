"""Online backup of a database file: a copy of one moment, verified before it gets its name.

SQLite's backup begins again whenever another connection writes between two of its steps. An open
read transaction of the source connection prevents that: all steps, and the counts that the copy is
compared with, see the same snapshot. Runtimes go on writing; their log only grows meanwhile.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from .._faults import StorageFault

_PAGES_PER_STEP = 1000
_BUSY_SECONDS = 60.0


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

    The log beside the old database is removed before the backup gets its name: SQLite would apply
    it to the backup. If the process is killed between the two, the old database is there without
    the commits in its log, and restoring can be repeated.

    Args:
        backup: A database file. It stays.
        target: The database. It may exist, and no runtime may have it open; the caller's lock says
            so.
        progress: See `back_up`.

    Returns:
        The number of rows in the database.

    Raises:
        OSError: ``target`` can't be written.
        StorageFault: ``backup`` can't be read, or isn't whole.
    """
    with _verified_copy(backup, target, progress) as (part, rows):
        if target.exists():
            os.chmod(part, target.stat().st_mode)
        for suffix in ("-wal", "-shm"):
            with suppress(FileNotFoundError):
                os.unlink(f"{target}{suffix}")
        _sync(target.parent)
        os.replace(part, target)
        _sync(target.parent)
    return rows


@contextmanager
def _verified_copy(
    source: Path, target: Path, progress: Callable[[int, int], object]
) -> Iterator[tuple[Path, int]]:
    """A durable copy beside the target, and the number of its rows. It is removed at the end."""
    number, name = tempfile.mkstemp(prefix=f".{target.name}-", dir=target.parent)
    os.close(number)
    part = Path(name)
    try:
        try:
            rows = _copy(source, part, progress)
        except sqlite3.Error as error:
            raise StorageFault(f"{source} can't be copied: {error}") from error
        _sync(part)
        yield part, rows
    finally:
        for suffix in ("", "-journal", "-wal", "-shm"):
            with suppress(FileNotFoundError):
                os.unlink(f"{part}{suffix}")


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
