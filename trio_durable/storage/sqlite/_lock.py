"""Lock file of an SQLite database: one runtime per file.

An advisory lock of the operating system on the file ``<database>-lock``. It belongs to an open file
description, so it ends with its process, however that ends, and also excludes a second runtime in
the same process. A row in the database, by contrast, would survive a killed process, and SQLite's
exclusive mode would exclude readers.

The file contains the owner's pid, for error messages only. It stays when the lock is released,
because removing it would race with the next owner: two processes could lock two files of one name.

Other names of the database have other lock files, so `_database_file` locks its inode as well.
Earlier releases know this lock alone.
"""

from __future__ import annotations

import contextlib
import os
import sys
import weakref
from pathlib import Path

from ..._errors import StorageInUse


class FileLock:
    """Exclusive lock on a file, which is created if necessary. Doesn't wait for another owner.

    Args:
        path: The lock file.
        location: The database, for messages.

    Raises:
        StorageInUse: Another runtime holds the lock.
        OSError: The file can't be created.
    """

    def __init__(self, path: Path, location: str) -> None:
        self._fd: int | None = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        _held.add(self)  # first: another thread may fork as soon as it is locked
        try:
            if not _lock(self._fd):
                holder = os.read(self._fd, 32)
                pid = int(holder) if holder.isdigit() else None
                raise StorageInUse(location, "" if pid else "it is locked", pid)
            os.ftruncate(self._fd, 0)
            os.write(self._fd, str(os.getpid()).encode())
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Release the lock. Does nothing if it was released before."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def holder_of(path: Path) -> tuple[bool, int | None]:
    """State of a lock file: True if it is locked, and the pid of its owner if it is known.

    A runtime that opens the database in the same microseconds is refused.

    Raises:
        OSError: The file can't be opened.
    """
    fd = os.open(path, os.O_RDONLY)
    try:
        if _lock(fd, shared=True):
            return False, None
        holder = os.read(fd, 32)
        return True, int(holder) if holder.isdigit() else None
    finally:
        os.close(fd)


_held: weakref.WeakSet[FileLock] = weakref.WeakSet()


def _release_in_child() -> None:
    # A forked child shares the open file description, and would keep the lock after its parent has
    # died. Closing the child's descriptor doesn't release the parent's lock.
    for lock in list(_held):
        with contextlib.suppress(OSError):
            lock.release()


if sys.platform == "win32":
    import msvcrt

    def _lock(fd: int, *, shared: bool = False) -> bool:  # noqa: ARG001
        # Windows locks are mandatory: far beyond the content, which stays readable.
        os.lseek(fd, 1 << 30, os.SEEK_SET)
        try:
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        except PermissionError:
            return False
        finally:
            os.lseek(fd, 0, os.SEEK_SET)
        return True
else:
    from .._flock import flock as _lock

    os.register_at_fork(after_in_child=_release_in_child)
