"""Presence of a process on its machine: a locked file whose lock ends with the process.

Another process on the same machine that can lock the file has the proof that its owner is gone. A
process id would be no proof: it is hidden by hidepid and PID namespaces, and cloned machines have
the same ones.

The file counts only under the same start of the kernel and as the same inode, so neither a clone of
the machine's disk nor another file of that name proves anything. Where there is no proof, the
owner's lease has to run out.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import weakref
from pathlib import Path

import orjson

from .._flock import flock

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Presence:
    """A locked file of this process. Where files can't be locked there is none."""

    def __init__(self) -> None:
        self._fd: int | None = None
        self._path = ""
        self.proof: str | None = None
        """Where the file is, as JSON; None without one."""
        boot = _boot_id()
        if boot is None:
            return
        with contextlib.suppress(OSError):
            self._fd, self._path = tempfile.mkstemp(prefix="trio-durable-", suffix=".lock")
            _held.add(self)
            if flock(self._fd):
                self.proof = orjson.dumps([boot, self._path, _identity(self._fd)]).decode()

    def release(self) -> None:
        """Remove the file and end the lock. May be repeated."""
        if self._fd is not None:
            with contextlib.suppress(OSError):
                os.unlink(self._path)
        self.drop()

    def drop(self) -> None:
        """Close this process' descriptor, as a forked process must: the lock is its parent's."""
        fd, self._fd = self._fd, None
        if fd is not None:
            with contextlib.suppress(OSError):
                os.close(fd)


def is_gone(proof: str | None) -> bool | None:
    """True if the owner of a proof is proved to be gone, and False if it is there.

    None if that can't be known, as on another machine.
    """
    if proof is None:
        return None
    try:
        boot, path, identity = orjson.loads(proof)
        if boot != _boot_id():
            return None
        fd = os.open(path, os.O_RDONLY)
    except (OSError, ValueError, TypeError):
        return None
    try:
        return None if _identity(fd) != identity else flock(fd, shared=True)
    except OSError:
        return None
    finally:
        os.close(fd)


def _boot_id() -> str | None:
    """The id of this start of the kernel."""
    try:
        return _BOOT_ID.read_text().strip() or None
    except OSError:
        return None


def _identity(fd: int) -> str:
    found = os.fstat(fd)
    return f"{found.st_dev}:{found.st_ino}"


_held: weakref.WeakSet[Presence] = weakref.WeakSet()


def _drop_in_child() -> None:
    for presence in list(_held):
        presence.drop()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_drop_in_child)
