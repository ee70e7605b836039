"""The storage as it is, on files that a test has in its hands: recorded, failing, full.

What SQLite asks of its files goes through a VFS of the test's, see `apsw_connection`.
"""
# ruff: noqa: N802 (the methods of a VFS have SQLite's names)

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path
from typing import Any, Literal, cast

import apsw
import attrs

from trio_durable import SQLiteStorage
from trio_durable.storage import Durability
from trio_durable.storage.sqlite._log import Log, LogFile

from .apsw_connection import Connection
from .disk import Created, Event, Mark, Removed, Resized, Synced, SyncFailed, Written

Operation = Literal["open", "read", "write", "truncate", "sync", "delete", "size"]


@attrs.frozen
class Call:
    """Something that SQLite asks of its files."""

    number: int
    operation: Operation
    name: str


Fault = Callable[[Call], apsw.Error | None]
"""What goes wrong with a call, if anything does."""

_CODES: dict[Operation, int] = {
    "open": apsw.SQLITE_CANTOPEN,
    "read": apsw.SQLITE_IOERR_READ,
    "write": apsw.SQLITE_IOERR_WRITE,
    "truncate": apsw.SQLITE_IOERR_TRUNCATE,
    "sync": apsw.SQLITE_IOERR_FSYNC,
    "delete": apsw.SQLITE_IOERR_DELETE,
    "size": apsw.SQLITE_IOERR_FSTAT,
}
"""With which SQLite's own VFS answers if the system call has failed."""


def failure(call: Call) -> apsw.Error:
    """The error that a failing disk makes of a call."""
    error: apsw.Error = (
        apsw.CantOpenError(str(call)) if call.operation == "open" else apsw.IOError(str(call))
    )
    error.extendedresult = _CODES[call.operation]  # type: ignore[attr-defined]  # see apsw's docs
    return error


def disk_full(call: Call) -> apsw.Error:
    """The error that a full disk makes of a write."""
    error = apsw.FullError(str(call))
    error.extendedresult = apsw.SQLITE_FULL  # type: ignore[attr-defined]
    return error


def from_then_on(
    operation: Operation, number: int, length: int, error: Callable[[Call], apsw.Error]
) -> Fault:
    """That call of an operation fails, counted from 0, and those after it, so many in all."""
    calls = 0

    def fault(call: Call) -> apsw.Error | None:
        nonlocal calls
        if call.operation != operation:
            return None
        calls += 1
        return error(call) if number < calls <= number + length else None

    return fault


class WatchedDisk(apsw.VFS):
    """Files of the operating system, with a record of what is done to them.

    Reads see what was written, as through the cache of the system; ``events`` says what a power cut
    may leave of it. ``fault`` may let calls fail.

    Which syncs reach the folder is as in SQLite's VFS for Unix: the first one of a new journal or
    log, and a deletion that asks for it.
    """

    _numbers = count()

    def __init__(self, folder: Path) -> None:
        self.name = f"watched-{next(self._numbers)}"
        self.folder = folder
        self.events: list[Event] = []
        self.calls = 0
        self.failed = 0
        self.fault: Fault | None = None
        self.forgets = False
        """A sync that fails throws what it was about out of the cache, so that reads miss it."""
        self._files = count()
        self._numbers_of: dict[str, int] = {}
        super().__init__(self.name, "")

    def mark(self, value: object) -> None:
        """Note what is known outside at this moment."""
        self.events.append(Mark(value))

    def adopt(self, name: str) -> None:
        """Take a file that is there already for one that has been there for long."""
        number = self.file_number(name)
        content = (self.folder / name).read_bytes()
        self.events += [Written(number, 0, content), Synced(number, folder_synced=True)]

    def asked(self, operation: Operation, name: str | None) -> None:
        """Count a call, and raise what goes wrong with it."""
        call = Call(self.calls, operation, name or "a temporary file")
        self.calls += 1
        error = self.fault(call) if self.fault else None
        if error is not None:
            self.failed += 1
            raise error

    def file_number(self, name: str) -> int:
        """Of the file that has this name, which may be new."""
        number = self._numbers_of.get(name)
        if number is None:
            number = self._numbers_of[name] = next(self._files)
            self.events.append(Created(number, name))
        return number

    # --- what SQLite calls -----------------------------------------------------------------------

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> _WatchedFile:
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        self.asked("open", path and Path(path).name)
        is_new = path is not None and not Path(path).exists()
        return _WatchedFile(self, name, flags, path and Path(path).name, is_new)

    def xDelete(self, path: str, sync_folder: bool) -> None:
        name = Path(path).name
        self.asked("delete", name)
        super().xDelete(path, sync_folder)
        if self._numbers_of.pop(name, None) is not None:
            self.events.append(Removed(name, sync_folder))


_NEEDS_FOLDER = (
    apsw.SQLITE_OPEN_MAIN_JOURNAL | apsw.SQLITE_OPEN_SUPER_JOURNAL | apsw.SQLITE_OPEN_WAL
)


class _WatchedFile(apsw.VFSFile):
    def __init__(
        self,
        disk: WatchedDisk,
        path: str | apsw.URIFilename | None,
        flags: list[int],
        name: str | None,
        is_new: bool,
    ) -> None:
        super().__init__("", path, flags)
        self._disk = disk
        self._name = name
        # Temporary files have no name and nothing to lose.
        self._number = None if name is None else disk.file_number(name)
        self._syncs_folder = is_new and bool(flags[0] & _NEEDS_FOLDER)
        self._unsynced: list[tuple[int, bytes]] = []
        """Where something was written since the last sync, and what was there before."""

    def xRead(self, amount: int, offset: int) -> bytes:
        self._disk.asked("read", self._name)
        return super().xRead(amount, offset)

    def xWrite(self, data: Any, offset: int) -> None:  # a Buffer, which 3.11 has no name for
        self._disk.asked("write", self._name)
        if self._disk.forgets:
            self._unsynced.append((offset, super().xRead(len(data), offset)))
        super().xWrite(data, offset)
        if self._number is not None:
            self._disk.events.append(Written(self._number, offset, bytes(data)))

    def xTruncate(self, size: int) -> None:
        self._disk.asked("truncate", self._name)
        super().xTruncate(size)
        if self._number is not None:
            self._disk.events.append(Resized(self._number, size))

    def xFileSize(self) -> int:
        self._disk.asked("size", self._name)
        return super().xFileSize()

    def xSync(self, flags: int) -> None:
        try:
            self._disk.asked("sync", self._name)
        except apsw.Error:
            if self._number is not None:
                self._disk.events.append(SyncFailed(self._number))
            for offset, data in reversed(self._unsynced):
                super().xWrite(data, offset)
            self._unsynced.clear()
            raise
        super().xSync(flags)
        self._unsynced.clear()
        if self._number is not None:
            self._disk.events.append(Synced(self._number, self._syncs_folder))
            self._syncs_folder = False


class _WatchedLogFile(LogFile):
    """The file of a log, for what the library itself does to it."""

    def __init__(self, disk: WatchedDisk, path: Path) -> None:
        super().__init__(path)
        self._disk = disk
        self._name = path.name
        self._number = disk.file_number(path.name)

    def write_zeros(self, offset: int, length: int) -> int:
        written = super().write_zeros(offset, length)
        self._disk.events.append(Written(self._number, offset, bytes(written)))
        return written

    def truncate(self, size: int) -> None:
        super().truncate(size)
        self._disk.events.append(Resized(self._number, size))

    def sync(self) -> None:
        # The folder isn't synced, as its first sync by SQLite alone does that.
        self._disk.events.append(Synced(self._number, folder_synced=False))


class StorageOnDisk(SQLiteStorage):
    """The storage itself, with its file ``objects.db`` on a watched disk.

    ``instead`` replaces statements, to weaken it.
    """

    def __init__(
        self,
        disk: WatchedDisk,
        *,
        durability: Durability = "full",
        instead: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(disk.folder / "objects.db", durability=durability)
        self._disk = disk
        self._instead = dict(instead or {})

    def _open_log(self, connection: sqlite3.Connection) -> Log | None:
        file = _WatchedLogFile(self._disk, self._path.with_name(f"{self._path.name}-wal"))
        return Log(connection, file, fills=self._durability == "full")

    def _connect(self) -> sqlite3.Connection:
        with self._opening():
            connection = Connection(self._path, self._disk.name, self._busy_timeout, self._instead)
            return cast("sqlite3.Connection", connection)
