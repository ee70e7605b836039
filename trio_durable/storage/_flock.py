"""Locks of open file descriptions by ``flock``, which end with their processes. Not on Windows."""

from __future__ import annotations

import sys

if sys.platform == "win32":

    def flock(fd: int, *, shared: bool = False) -> bool:  # noqa: ARG001
        raise OSError("there is no flock")
else:
    import fcntl

    def flock(fd: int, *, shared: bool = False) -> bool:
        """Lock a file, unless another one has it. Doesn't wait; returns whether it is locked.

        Args:
            fd: The file.
            shared: Only a lock that isn't shared excludes it.

        Raises:
            OSError: Files of this kind can't be locked.
        """
        try:
            fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
