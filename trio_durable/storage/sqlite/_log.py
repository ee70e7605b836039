"""Write-ahead log of a connection: filled before it grows, and checkpointed between transactions.

*Filling.* With ``synchronous=FULL`` each commit syncs the log. While the file grows, such a sync
commits metadata of the file system, too, which takes about as long again. A log is overwritten from
its start after each checkpoint, so in a file that is used it soon stops growing; until then a
commit costs up to twice as much. So once a log has some pages, it is extended by zeros to the size
that it will have.

SQLite's format allows that: a log "is valid" frame by frame, by the salts of its header and a
checksum, recovery stops at the first frame that isn't, and a frame has a page number of 1 or more
(https://www.sqlite.org/walformat.html, "WAL File Format" and "Recovery"). A log that was
overwritten from its start has other invalid frames at its end, the old ones. The rules:

- Zeros are written only at the end of the file, never over a byte that is there.
- The connection has the write lock meanwhile, so that no other process appends frames there.
- If the file ends within a frame, as after a power cut, it is left alone: zeros could make that
  frame whole, and a commit valid that recovery has dropped.
- If the disk doesn't have much more room than that, or the writing fails, the file has its old size
  afterwards.

*Checkpoints.* SQLite itself makes one as a part of a commit, so one reply in a few hundred waits
for it. Here the writer makes it when it has released the replies, by `Log.maintain`. SQLite's own,
at `OWN_CHECKPOINT_PAGES`, bounds the log for callers that don't call that.

The number of pages in a log isn't to be had from SQLite without a checkpoint. So the log's file is
looked at: the place of the frame that makes the log long has other bytes as soon as the log reaches
it again, since each round has other salts.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import sys
from contextlib import ExitStack
from pathlib import Path

from ._transaction import transaction

logger = logging.getLogger("trio_durable.storage")

CHECKPOINT_PAGES = 1000
"""The number of pages in the log from which on a checkpoint is due, as SQLite's default."""
LATER_PAGES = 100
"""The number of pages after which another one is due if the log wasn't begun again, as readers
still need it."""
OWN_CHECKPOINT_PAGES = 4000
"""The number of pages at which SQLite makes a checkpoint as a part of a commit."""
FILL_FROM_PAGES = 64
"""The number of pages from which on a log is filled, more than opening a file writes to it. A file
with a few changes between opening and closing takes no space in advance."""
FILLED_PAGES = CHECKPOINT_PAGES + 64
"""The size of a filled log: the last commit before a checkpoint takes some more pages."""
MAX_FILLED_BYTES = 8 * 1024 * 1024
"""The largest size to which a log is filled, in a file with large pages."""
ROOM = 16
"""A log is filled if the disk has this many times the space for it."""
_HEADER_SIZE = 32
_FRAME_HEADER_SIZE = 24
_CHUNK = 1 << 20


class LogFile:
    """The file of a log, read and extended past SQLite.

    SQLite takes no locks on a log, so closing this descriptor releases none, see `_database_file`.

    Args:
        path: The log.

    Raises:
        OSError: It can't be opened.
    """

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR)

    def read(self, offset: int, length: int) -> bytes:
        """The bytes at an offset; fewer at the end of the file."""
        if sys.platform == "win32":
            return b""
        return os.pread(self._fd, length, offset)

    @property
    def size(self) -> int:
        """The size in bytes."""
        return os.fstat(self._fd).st_size

    @property
    def free_bytes(self) -> int:
        """The space on the disk that is free for this process."""
        if sys.platform == "win32":
            return 0
        disk = os.statvfs(self._fd)
        return disk.f_bavail * disk.f_frsize

    def write_zeros(self, offset: int, length: int) -> int:
        """Write up to so many zeros; return how many were written."""
        if sys.platform == "win32":
            return 0
        return os.pwrite(self._fd, bytes(length), offset)

    def sync(self) -> None:
        """Make the content and the size durable."""
        os.fsync(self._fd)

    def truncate(self, size: int) -> None:
        """Cut the file to a size."""
        os.ftruncate(self._fd, size)

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self._fd)


class Log:
    """The log of the writer's connection.

    Args:
        connection: The writer's, which has read from the database, so that its log exists.
        file: Its log. Closed with this.
        fills: Fill the log.
    """

    def __init__(self, connection: sqlite3.Connection, file: LogFile, *, fills: bool) -> None:
        self._connection = connection
        self._file = file
        (page_size,) = connection.execute("PRAGMA page_size").fetchone()
        self._frame_size: int = _FRAME_HEADER_SIZE + page_size
        self._fills = fills
        self._long_at = self._end_of(CHECKPOINT_PAGES - 1)
        self._seen = self._frame_at(self._long_at)
        """The header of the frame that makes the log long, as it was when that was last decided."""
        # An earlier process may have left a log that is long already.
        self._later: tuple[int, bytes] | None = None
        if self._seen:
            self._look_later(file.size)
        self._last_warning = ""

    def _end_of(self, pages: int) -> int:
        """The size of a log with so many pages."""
        return _HEADER_SIZE + pages * self._frame_size

    def _frame_at(self, offset: int) -> bytes:
        """The header of the frame at an offset; empty if the file ends before it."""
        return self._file.read(offset, _FRAME_HEADER_SIZE)

    def maintain(self) -> None:
        """Fill the log, or make a checkpoint, if it is time. The connection has no transaction.

        A failure loses nothing, since each commit is in the log. It is logged, and tried again when
        the log has some more pages.

        Raises:
            OSError: The log can't be read.
        """
        there = self._frame_at(self._long_at)
        if not there:  # the log has never been as long
            if self._fills and self._file.size >= self._end_of(FILL_FROM_PAGES):
                self._fill()
            return
        if there != self._seen or self._is_longer():
            self._seen = there
            self._checkpoint()

    def close(self) -> None:
        """Close the file of the log."""
        self._file.close()

    # --- checkpoints -----------------------------------------------------------------------------

    def _is_longer(self) -> bool:
        """True if the log has gone on after the last checkpoint, and has some more pages now."""
        if self._later is None:
            return False
        offset, seen = self._later
        return self._frame_at(offset) != seen

    def _look_later(self, end: int) -> None:
        """Have another checkpoint made some pages after this size if the log isn't begun again."""
        pages = (end - _HEADER_SIZE) // self._frame_size
        offset = self._end_of(max(pages, 0) + LATER_PAGES - 1)
        self._later = offset, self._frame_at(offset)

    def _checkpoint(self) -> None:
        # Passive: it waits for no reader. What a reader still needs stays in the log, which SQLite
        # begins again once all of it is in the database and no reader needs it.
        try:
            _, pages, _ = self._connection.execute("PRAGMA wal_checkpoint").fetchone()
        except sqlite3.Error as error:
            if str(error) != self._last_warning:
                self._last_warning = str(error)
                logger.warning(
                    "a checkpoint failed, so the log grows until one succeeds: %s", error
                )
            self._look_later(self._file.size)
        else:
            self._last_warning = ""
            self._look_later(self._end_of(pages))

    # --- filling ---------------------------------------------------------------------------------

    def _fill(self) -> None:
        self._fills = False  # whatever comes of it
        # Without it a commit takes longer, and nothing else. The lock may be another program's.
        with contextlib.suppress(sqlite3.Error, OSError), transaction(self._connection):
            pages = min(FILLED_PAGES, MAX_FILLED_BYTES // self._frame_size)
            size, end = self._file.size, self._end_of(pages)
            ends_whole = (size - _HEADER_SIZE) % self._frame_size == 0
            if size < end and ends_whole and self._file.free_bytes >= ROOM * (end - size):
                try:
                    self._extend(size, end)
                except OSError:
                    self._file.truncate(size)

    def _extend(self, size: int, end: int) -> None:
        while size < end:
            written = self._file.write_zeros(size, min(end - size, _CHUNK))
            if not written:
                raise OSError("nothing was written")
            size += written
        self._file.sync()
        self._seen = self._frame_at(self._long_at)


def open_log(connection: sqlite3.Connection, path: Path, *, fills: bool) -> Log | None:
    """The log of a connection, which then leaves checkpoints to `Log.maintain`.

    Args:
        connection: See `Log`.
        path: The database.
        fills: See `Log`.

    Returns:
        None if the log can't be looked at. SQLite makes its checkpoints itself then.
    """
    if sys.platform == "win32":
        return None
    with contextlib.suppress(OSError), ExitStack() as undo:
        file = LogFile(path.with_name(f"{path.name}-wal"))
        undo.callback(file.close)
        log = Log(connection, file, fills=fills)
        connection.execute(f"PRAGMA wal_autocheckpoint = {OWN_CHECKPOINT_PAGES}")
        undo.pop_all()
        return log
    return None
