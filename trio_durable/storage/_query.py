"""Result of an SQL query that a user has written, bounded in rows and in bytes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import attrs

MOST_BYTES = 64 * 1024 * 1024
"""The size of the texts of a result from which on no more rows are fetched."""


@attrs.frozen
class QueryResult:
    """The rows of a query, as far as they were fetched."""

    columns: tuple[str, ...]
    rows: list[tuple[object, ...]]
    is_whole: bool
    """False if there are more rows."""


@attrs.define
class RowLimit:
    """The bounds of a result while its rows arrive."""

    rows: int
    """The most rows."""
    most_bytes: int = MOST_BYTES
    taken: list[tuple[object, ...]] = attrs.field(factory=list, init=False)
    is_exceeded: bool = attrs.field(default=False, init=False)
    """There are rows that weren't taken."""
    _bytes: int = attrs.field(default=0, init=False)

    def take(self, rows: Iterable[Sequence[object]]) -> bool:
        """Take rows as far as they fit; return False if there are others."""
        for row in rows:
            if len(self.taken) >= self.rows or self._bytes >= self.most_bytes:
                self.is_exceeded = True
                return False
            self.taken.append(tuple(row))
            self._bytes += sum(len(each) for each in row if isinstance(each, str | bytes))
        return True
