"""Descriptor of the database file itself: a lock that follows the inode, and the raw header.

The lock file beside the database excludes a second runtime under the same name. The same file may
have other names, as a hard link or a bind mount has, in a folder or a container where that lock
file isn't seen. SQLite doesn't exclude them either: each name has a log of its own, and the second
writer undoes the commits of the first. So the inode itself is locked, too: one byte of the
lock-byte page, after the 512 bytes that SQLite locks. SQLite never reads or writes that page.

The lock is an open file description lock, which Linux has. Locks of SQLite are POSIX locks of the
process, and the two kinds don't conflict on different bytes. Elsewhere the lock file is all: a
lock on the whole file, as of ``flock``, would conflict with SQLite's on macOS, BSD and NFS.

Closing a descriptor of a file drops all POSIX locks that the process has on that file, those of
SQLite's connections included, and another process could then remove the log under them. So a
descriptor is closed only when the process has no other descriptor of its file. Until then it is
parked: open, and unlocked.
"""

from __future__ import annotations

import contextlib
import os
import struct
import sys
import threading
from pathlib import Path

from ..._errors import StorageInUse

LOCK_BYTE = 0x40000000 + 1024
HEADER_SIZE = 100

Identity = tuple[int, int]
"""Device and inode, which all names of a file share."""


class DatabaseFile:
    """Exclusive lock on the inode of a database, which is created if necessary.

    Doesn't wait for another owner. Thread-safe.

    Args:
        path: The database.

    Raises:
        StorageInUse: Another runtime has the file open, under this or another name.
        OSError: The file can't be opened for writing.
    """

    def __init__(self, path: Path) -> None:
        self._guard = threading.Lock()
        self._fd: int | None = None
        self.overwritten: str | None = None
        """A description of the change, once the contents were seen to be others'."""
        self.is_locked = False
        """False if this system has no lock that follows the inode."""
        with _registry_guard:
            with contextlib.suppress(FileNotFoundError):
                _refuse_own(path, identity_of(os.stat(path)))
            # With the permissions that SQLite gives to a new file.
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            self.identity = identity_of(os.fstat(self._fd))
            try:
                _refuse_own(path, self.identity)
            except BaseException:
                self._park()
                raise
            _owned[self.identity] = self  # first: another thread may fork as soon as it is locked
            try:
                locked = _lock(self._fd)
                if locked is False:
                    raise _in_use(path, None)
            except BaseException:
                del _owned[self.identity]
                self._park()
                raise
            self.is_locked = locked is True

    def other_names(self, path: Path) -> list[Path]:
        """Other names of the file in the folder of ``path``; empty after `release`.

        Raises:
            OSError: The folder can't be read.
        """
        with self._guard:
            if self._fd is None or os.fstat(self._fd).st_nlink < 2:
                return []
        with os.scandir(path.parent) as entries:
            same = [entry.name for entry in entries if entry.inode() == self.identity[1]]
        return [path.with_name(name) for name in sorted(same) if name != path.name]

    @property
    def is_open(self) -> bool:
        """False after `release`."""
        return self._fd is not None

    def header(self) -> bytes | None:
        """The first `HEADER_SIZE` bytes of the file, read past SQLite and its log.

        Less if the file is shorter. None after `release`, and on Windows, which has no ``pread``.

        Raises:
            OSError: It can't be read.
        """
        with self._guard:
            if self._fd is None or sys.platform == "win32":
                return None
            return os.pread(self._fd, HEADER_SIZE, 0)

    def release(self) -> None:
        """Release the lock. Does nothing if it was released before.

        The caller has closed its connection to the database.
        """
        with _registry_guard:
            if self._fd is not None:
                _unlock(self._fd)
                del _owned[self.identity]
                self._park()

    def _park(self) -> None:
        with self._guard:
            fd, self._fd = self._fd, None
        assert fd is not None
        _parked.append(fd)
        _close_parked()

    def abandon(self) -> None:
        """Close the descriptor and nothing else: in a forked child, whose parent has the lock."""
        fd, self._fd = self._fd, None
        if fd is not None:
            with contextlib.suppress(OSError):
                os.close(fd)


def identity_of(status: os.stat_result) -> Identity:
    """The identity of the file with this status."""
    return status.st_dev, status.st_ino


def is_owned(path: Path) -> bool | None:
    """True if a runtime has the file open, under any name; None if this system can't tell.

    Raises:
        OSError: The file can't be opened.
    """
    with _registry_guard:
        if identity_of(os.stat(path)) in _owned:
            return True
        fd = os.open(path, os.O_RDONLY)
        try:
            return _is_locked(fd)
        finally:
            _parked.append(fd)
            _close_parked()


_registry_guard = threading.Lock()
_owned: dict[Identity, DatabaseFile] = {}
"""The files that this process has locked. An entry ends with `DatabaseFile.release`."""
_parked: list[int] = []
"""Descriptors to close as soon as that drops no lock of SQLite's."""


def _refuse_own(path: Path, identity: Identity) -> None:
    if identity in _owned:
        raise _in_use(path, os.getpid())


def _in_use(path: Path, pid: int | None) -> StorageInUse:
    return StorageInUse(
        str(path), "the file is locked under another name, a hard link or a bind mount", pid
    )


def _close_parked() -> None:
    """Close the parked descriptors whose files this process has open nowhere else.

    A connection that another thread opens between the look and the closing loses its lock. That
    takes microseconds, and is a loss only if another process then closes the database as well.
    """
    try:
        fds = {int(name) for name in os.listdir("/dev/fd")}
    except (OSError, ValueError):
        if sys.platform != "win32":
            return  # they stay parked
        fds = set()  # on Windows, closing one descriptor leaves the locks of others
    in_use = set()
    for fd in fds.difference(_parked):
        with contextlib.suppress(OSError):  # the listing's own, which is closed by now
            in_use.add(identity_of(os.fstat(fd)))
    for fd in [fd for fd in _parked if identity_of(os.fstat(fd)) not in in_use]:
        _parked.remove(fd)
        os.close(fd)


def _abandon_in_child() -> None:
    # As of the lock file: a forked child shares the open file description, and would keep the lock
    # after its parent has died. Another thread may have held the guard when the process forked.
    global _registry_guard
    _registry_guard = threading.Lock()
    for file in list(_owned.values()):
        file.abandon()
    _owned.clear()


if sys.platform == "linux":
    import fcntl

    _FLOCK = struct.Struct("@hhqqi4x")  # type, whence, start, length, pid

    def _lock(fd: int) -> bool | None:
        """Lock the byte. False if it is locked by another; None if the file has no such locks."""
        try:
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _flock(fcntl.F_WRLCK))
        except (BlockingIOError, PermissionError):
            return False
        except OSError:  # a file system, or a sandbox's kernel, without these locks
            return None
        return True

    def _unlock(fd: int) -> None:
        with contextlib.suppress(OSError):
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _flock(fcntl.F_UNLCK))

    def _is_locked(fd: int) -> bool | None:
        try:
            found = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _flock(fcntl.F_WRLCK))
        except OSError:
            return None
        kind: int = _FLOCK.unpack(found)[0]
        return kind != fcntl.F_UNLCK

    def _flock(kind: int) -> bytes:
        return _FLOCK.pack(kind, os.SEEK_SET, LOCK_BYTE, 1, 0)
else:

    def _lock(fd: int) -> bool | None:  # noqa: ARG001
        return None

    def _unlock(fd: int) -> None:
        """Nothing to unlock."""

    def _is_locked(fd: int) -> bool | None:  # noqa: ARG001
        return None


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_abandon_in_child)
