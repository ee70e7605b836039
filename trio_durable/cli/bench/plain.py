"""The baseline of the benchmark: plain ``sqlite3``, in one thread, without an event loop.

The table is like the library's: a key of two texts, two integers and JSON, in WAL mode, with the
``synchronous`` setting of the same durability. Each write stores a new revision, because SQLite
skips the write of an unchanged page.
"""

from __future__ import annotations

import itertools
import random
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter, time_ns
from types import TracebackType
from typing import Self

from ... import Durability

BATCH = 64

_TABLE = """
CREATE TABLE objects (
    type_name TEXT NOT NULL,
    object_id TEXT NOT NULL,
    revision INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    state TEXT NOT NULL,
    PRIMARY KEY (type_name, object_id)
)
"""
_UPSERT = """
INSERT INTO objects VALUES ('Tally', ?, ?, ?, ?)
ON CONFLICT (type_name, object_id) DO UPDATE SET
    revision = excluded.revision, updated_at = excluded.updated_at, state = excluded.state
"""
_SELECT = "SELECT revision, state FROM objects WHERE type_name = 'Tally' AND object_id = ?"
_STATE = '{"count":1000,"label":"the label of a small object"}'


class PlainTable:
    """A table to write and read rows of; a context manager."""

    def __init__(self, path: Path, durability: Durability, ids: Sequence[str]) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute(f"PRAGMA synchronous = {durability}")
        self._connection.execute(_TABLE)
        self._ids = ids
        self._revisions = itertools.count()
        self._write(ids)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._connection.close()

    def upserts_per_second(self, seconds: float, batch: int) -> float:
        """Measure writes, with ``batch`` rows per transaction."""
        # Drawn in advance, because drawing a row costs as much as writing it.
        batches = itertools.cycle([random.sample(self._ids, batch) for _ in range(256)])
        done = 0
        began = now = perf_counter()
        while now < began + seconds:
            self._write(next(batches))
            done += batch
            now = perf_counter()
        return done / (now - began)

    def selects_per_second(self, seconds: float) -> float:
        """Measure reads of one row."""
        ids = itertools.cycle(random.sample(self._ids, len(self._ids)))
        done = 0
        began = now = perf_counter()
        while now < began + seconds:
            self._connection.execute(_SELECT, (next(ids),)).fetchone()
            done += 1
            now = perf_counter()
        return done / (now - began)

    def _write(self, ids: Sequence[str]) -> None:
        revision, now = next(self._revisions), time_ns() // 1000
        rows = [(each, revision, now, _STATE) for each in ids]
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.executemany(_UPSERT, rows)
        self._connection.execute("COMMIT")
