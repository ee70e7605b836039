"""Checks that a database file is still the one that was opened.

The file and its log may be removed, renamed, replaced or overwritten while a connection is open.
SQLite goes on then: it writes to files that have no name any more, or mixes its pages with those of
the other file, and the commits are lost. So checks follow the transactions, and nothing is
acknowledged once one has failed:

- The path still leads to the same inode: after a transaction or a read, unless that was checked in
  the last millisecond. It is one system call, which on a real disk follows each transaction.
- Once a second, the log and its index have the inodes that they had, and the header in the file
  hasn't gone back: its change counter is at least as high as before.

A backup that is copied over the open file keeps the inode, and is detected by the counter. SQLite
raises it rarely in WAL mode, so the writer does so once a second, see `Stamp`. Each checkpoint
brings the latest stamp into the file. A copy that is older than the last stamp before the last
checkpoint therefore has a lower counter. A copy made later is not detected, nor is another file
whose counter happens to be higher.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import struct
from pathlib import Path
from time import monotonic, sleep

from .._faults import StorageFault
from ._database_file import HEADER_SIZE, DatabaseFile, Identity, identity_of

PATH_CHECK_SECONDS = 0.001
"""The interval below which the path isn't checked again."""
CHECK_SECONDS = 1.0
"""The interval of the checks that take more than one system call."""
_REREAD_SECONDS = 0.01
_MAGIC = b"SQLite format 3\0"
_CHANGE_COUNTER = struct.Struct(">24xI")


class FileWatch:
    """Checks of one connection's files, from the connection's thread.

    Made when the connection has read from the database, so that its log exists.

    Args:
        path: The database.
        file: The descriptor of the owner, if it is in this process: only with it the header is
            checked.

    Raises:
        OSError: The file is gone.
    """

    def __init__(self, path: Path, file: DatabaseFile | None = None) -> None:
        self._path = str(path)
        self._file = file
        self._device, self._inode = identity_of(os.stat(path)) if file is None else file.identity
        self._companions = {
            name: self._identity_of(name) for name in (f"{path}-wal", f"{path}-shm")
        }
        self._counter: int | None = None
        if file is not None:
            self._check_header(file)
        self._due = self._all_due = 0.0
        self.has_failed = False
        """True if the last check failed. The caller then runs `check_all` before a transaction as
        well, so that it writes nothing more to a file that isn't there."""
        self.log_bytes = self._log_size()
        """The size of the log at the last complete check."""
        self.rounds = 0
        """The number of complete checks."""

    def check(self) -> None:
        """Run the checks that are due, after a transaction or a read.

        Raises:
            StorageFault: A file isn't the one that was opened, or that can't be checked.
        """
        now = monotonic()
        if now < self._due:
            return
        if now >= self._all_due:
            self.check_all()
            return
        self._check_path()
        self._due = now + PATH_CHECK_SECONDS

    def check_all(self) -> None:
        """Check the path, the log, its index and the header.

        Raises:
            StorageFault: See `check`.
        """
        self._all_due = 0.0
        self._check_path()
        self.has_failed = True  # until the rest succeeds
        for name, identity in self._companions.items():
            if identity is not None and self._identity_of(name) != identity:
                raise StorageFault(
                    f"{name} was removed or replaced while it was open, so other processes and the "
                    "next start miss what was committed. Stop the process in an orderly way, which "
                    "writes its log to the database, and start it again"
                )
        if self._file is not None:
            self._check_header(self._file)
        self.log_bytes = self._log_size()
        self.rounds += 1
        now = monotonic()
        self._due, self._all_due = now + PATH_CHECK_SECONDS, now + CHECK_SECONDS
        self.has_failed = False

    def _check_path(self) -> None:
        self.has_failed = True
        self._due = 0.0
        try:
            found = os.stat(self._path)
        except OSError as error:
            raise _unreachable(self._path, error) from error
        if found.st_ino != self._inode or found.st_dev != self._device:
            raise StorageFault(
                f"{self._path} was replaced by another file while it was open, and nothing written "
                "since reaches it. Stop the process before you replace its file; start it again now"
            )
        if self._file is not None and self._file.overwritten is not None:
            raise StorageFault(self._file.overwritten)
        self.has_failed = False

    def close(self) -> None:
        """Release the owner's descriptor, if there is one. The connection is closed."""
        if self._file is not None:
            self._file.release()

    def _check_header(self, file: DatabaseFile) -> None:
        try:
            # A checkpoint of another process may be writing the header right now.
            if self._has_gone_back(file.header()):
                sleep(_REREAD_SECONDS)
                if self._has_gone_back(file.header()):
                    file.overwritten = (
                        f"{self._path} was overwritten while it was open, as by a backup that is "
                        f"restored in place. Stop the process, delete {self._path}-wal and "
                        f"{self._path}-shm, and restore the backup again"
                    )
                    raise StorageFault(file.overwritten)
        except OSError as error:
            raise _unreachable(self._path, error) from error

    def _has_gone_back(self, header: bytes | None) -> bool:
        """True if the header isn't one of SQLite's, or its counter is lower than before."""
        if header is None:
            return False
        if len(header) < HEADER_SIZE or not header.startswith(_MAGIC):
            return True
        counter: int = _CHANGE_COUNTER.unpack_from(header)[0]
        # The counter has 32 bits and may overflow.
        if self._counter is not None and (counter - self._counter) % 2**32 >= 2**31:
            return True
        self._counter = counter
        return False

    def _identity_of(self, name: str) -> Identity | None:
        try:
            return identity_of(os.stat(name))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _unreachable(name, error) from error

    def _log_size(self) -> int:
        try:
            return os.stat(f"{self._path}-wal").st_size
        except OSError:
            return 0


class Stamp:
    """Raises the change counter in the header: with the first commit, and then once a second.

    SQLite raises it when it writes the first page, to one more than in the version of that page
    that it read. So the page has to be read again before.

    Args:
        connection: The writer's.
        watch: The checks of the file, each round of which makes a stamp due.
    """

    def __init__(self, connection: sqlite3.Connection, watch: FileWatch) -> None:
        self._connection = connection
        self._watch = watch
        self._round: int | None = None

    @property
    def is_due(self) -> bool:
        """True if the next commit has to include `apply`."""
        return self._watch.rounds != self._round

    def prepare(self) -> None:
        """Drop the cached pages. The caller has no transaction open."""
        self._connection.execute("PRAGMA shrink_memory")

    def apply(self) -> None:
        """Raise the counter, in the transaction that the caller has open."""
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        self._connection.execute(f"PRAGMA user_version = {version}")

    def applied(self) -> None:
        """Note that the transaction was committed, and bring the first stamp into the file.

        Until then the file may have the same counter as a backup of it.
        """
        is_first, self._round = self._round is None, self._watch.rounds
        if is_first:
            # The commit is durable, so a failure here isn't one of the commit.
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("PRAGMA wal_checkpoint")


def _unreachable(path: str, error: OSError) -> StorageFault:
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return StorageFault(
            f"{path} was removed or renamed while it was open, and nothing written since can be "
            "found again. Move it back with its -wal; or stop the process, and restore a backup"
        )
    return StorageFault(
        f"{path} can't be checked ({error.strerror}), so nothing is acknowledged. Make its folder "
        "accessible"
    )
