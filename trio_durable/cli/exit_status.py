"""Exit statuses of the command, the same for all of its commands."""

from __future__ import annotations

from enum import IntEnum


class ExitStatus(IntEnum):
    """How a command has ended. A script can rely on these numbers."""

    DONE = 0
    """The command did what was asked, or the answer is yes."""
    NO = 1
    """The command ran, and the answer is no: a check failed, a handler raised, a wait timed out, a
    question was answered with no."""
    REFUSED = 2
    """The command can't be carried out, for the reason on standard error. Nothing was changed."""
    UNKNOWN = 3
    """The outcome is unknown: no reply came in time, or the app has ended. Check before you repeat
    it, or use `--once`."""
    INTERRUPTED = 130
    """Control-C ended the command, as shells report a process that SIGINT has ended."""
