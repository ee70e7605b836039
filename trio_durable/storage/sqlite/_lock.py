"""One runtime per SQLite file, told by the operating system.

An advisory lock on a file beside the database, held by an open file description: it goes away
with a killed process, and it holds within one process too. The file's content, the holder's pid,
is for the message only. The file stays when the lock is released, because removing it would race
with the next holder.
"""

from __future__ import annotations

import contextlib
import os
import sys
import weakref
from pathlib import Path

from ..._errors import StorageInUse


class FileLock:
    """An exclusive lock on ``path``, taken at once or not at all.

    Raises:
        StorageInUse: Somebody else holds it.
        OSError: The file can't be made.
    """

    def __init__(self, path: Path, location: str) -> None:
        self._fd: int | None = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if not _lock(self._fd):
                holder = os.read(self._fd, 32)
                pid = int(holder) if holder.isdigit() else None
                raise StorageInUse(location, "it is locked", pid)
            os.ftruncate(self._fd, 0)
            os.write(self._fd, str(os.getpid()).encode())
        except BaseException:
            self.release()
            raise
        _held.add(self)

    def release(self) -> None:
        """Let the next one in."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


_held: weakref.WeakSet[FileLock] = weakref.WeakSet()


def _release_in_child() -> None:
    # A forked child shares the open file description and would keep the lock past its parent's
    # death. Closing the child's copy leaves the parent's lock alone.
    for lock in list(_held):
        with contextlib.suppress(OSError):
            lock.release()


if sys.platform == "win32":
    import msvcrt

    def _lock(fd: int) -> bool:
        # Far behind the content, which then stays readable.
        os.lseek(fd, 1 << 30, os.SEEK_SET)
        try:
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        except PermissionError:
            return False
        finally:
            os.lseek(fd, 0, os.SEEK_SET)
        return True
else:
    import fcntl

    os.register_at_fork(after_in_child=_release_in_child)

    def _lock(fd: int) -> bool:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
