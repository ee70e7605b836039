"""Checks that a database file is still the one that was opened.

The file and its log may be removed, renamed, replaced or overwritten while a connection is open.
SQLite goes on then: it writes to files that have no name any more, or mixes its pages with those of
the other file, and the commits are lost. So a check follows each transaction, and nothing is
acknowledged unless it succeeds:

- After each transaction and each read, the path still leads to the same inode: one system call.
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

from .._contract import StorageFault
from ._database_file import HEADER_SIZE, DatabaseFile, Identity, identity_of

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
        self._due = monotonic() + CHECK_SECONDS
        self.log_bytes = self._log_size()
        """The size of the log at the last complete check."""

    def check_if_due(self) -> None:
        """Run `check_all` if it is due.

        Raises:
            StorageFault: See `check_all`.
        """
        if monotonic() >= self._due:
            self.check_all()

    def check(self) -> None:
        """Check that the path leads to the file that was opened.

        Raises:
            StorageFault: It doesn't, or that can't be checked.
        """
        try:
            found = os.stat(self._path)
        except OSError as error:
            self._due = 0.0
            raise _unreachable(self._path, error) from error
        if found.st_ino != self._inode or found.st_dev != self._device:
            self._due = 0.0
            raise StorageFault(
                f"{self._path} was replaced by another file while it was open, and nothing written "
                "since reaches it. Stop the process before you replace its file; start it again now"
            )
        if self._file is not None and self._file.overwritten is not None:
            self._due = 0.0
            raise StorageFault(self._file.overwritten)

    def check_all(self) -> None:
        """Check the file, its log and its header.

        Raises:
            StorageFault: One of them isn't the one that was opened, or that can't be checked.
        """
        self._due = 0.0  # until all of it succeeds
        self.check()
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
        self._due = monotonic() + CHECK_SECONDS

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
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._is_first = True
        self._due = 0.0

    @property
    def is_due(self) -> bool:
        """True if the next commit has to include `apply`."""
        return monotonic() >= self._due

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
        self._due = monotonic() + CHECK_SECONDS
        if self._is_first:
            self._is_first = False
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
