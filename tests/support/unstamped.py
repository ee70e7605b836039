"""Commits of an SQLite storage without stamp, for tests that count statements or read the log."""

from __future__ import annotations

from trio_durable.storage.sqlite._watch import Stamp


class NoStamp(Stamp):
    """A stamp that is never due. It takes the place of ``Stamp`` in the module of the writer."""

    @property
    def is_due(self) -> bool:
        return False
