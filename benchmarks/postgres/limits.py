"""The limits of PostgreSQL: psycopg with nothing around it, on the library's table and rows.

- `RawUpserts`: one upsert after the other, each a transaction of its own, on one connection or on
  several in a thread each: the cost of a durable change without group commit.
- `RawRecordsets`: as many upserts as there are callers in one statement, by `jsonb_to_recordset`:
  the rate of the server for batches that are already collected.
- `RawPostgresSelects`: one row by its primary key at a time: the least cost of a load.

Every upsert writes another revision and time. Statements are prepared, as psycopg does by itself.
"""

from __future__ import annotations

import itertools
import random
from abc import abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from threading import Barrier
from time import time_ns

import attrs
import orjson

from ..objects import object_ids
from ..workloads import WARM_UP, Workload, make_objects, repeat, shuffled
from .server import Connection, connect

_UPSERT = """
INSERT INTO durable_objects (type_name, object_id, epoch, revision, updated_at, state)
VALUES (%s, %s, %s, %s, %s, %s)
ON CONFLICT (type_name, object_id) DO UPDATE SET
    revision = excluded.revision, updated_at = excluded.updated_at, state = excluded.state
"""
_RECORDSET = """
INSERT INTO durable_objects (type_name, object_id, epoch, revision, updated_at, state)
SELECT t, i, 1, r, u, s
FROM jsonb_to_recordset(%s::jsonb) AS x (t text, i text, r bigint, u bigint, s text)
ON CONFLICT (type_name, object_id) DO UPDATE SET
    revision = excluded.revision, updated_at = excluded.updated_at, state = excluded.state
"""


@attrs.frozen
class _Raw(Workload):
    """psycopg on a schema with the library's tables."""

    rows: int
    """The number of stored rows to choose from."""

    def prepare(self, folder: Path) -> None:
        make_objects(folder, "postgres", self.rows)

    def rate(self, folder: Path, seconds: float) -> float:
        with connect(folder) as connection:
            step = self._prepared_step(connection)
            repeat(step, WARM_UP)
            return repeat(step, seconds)

    def _prepared_step(self, connection: Connection) -> Callable[[], int]:
        # The type name and the state of a counter as the library stores it.
        query = "SELECT type_name, state FROM durable_objects LIMIT 1"
        type_name, state = next(connection.execute(query))
        return self._step(connection, type_name, state)

    @abstractmethod
    def _step(self, connection: Connection, type_name: str, state: str) -> Callable[[], int]:
        """A function that runs one transaction and returns its number of rows."""


@attrs.frozen
class RawUpserts(_Raw):
    """One row per transaction."""

    connections: int = 1

    @property
    def title(self) -> str:
        if self.connections == 1:
            return "raw psycopg, one upsert after the other"
        return f"raw psycopg, the same on {self.connections} connections, in threads"

    def rate(self, folder: Path, seconds: float) -> float:
        if self.connections == 1:
            return super().rate(folder, seconds)
        # All begin at the same time, and each counts for as long as it worked.
        start = Barrier(self.connections)

        def work(connection: Connection) -> float:
            step = self._prepared_step(connection)
            repeat(step, WARM_UP)
            start.wait()
            return repeat(step, seconds)

        with ExitStack() as stack:
            connections = [stack.enter_context(connect(folder)) for _ in range(self.connections)]
            with ThreadPoolExecutor(self.connections) as threads:
                return sum(threads.map(work, connections))

    def _step(self, connection: Connection, type_name: str, state: str) -> Callable[[], int]:
        keys = itertools.cycle(shuffled(object_ids(self.rows)))
        revisions = itertools.count(2)

        def step() -> int:
            values = (type_name, next(keys), 1, next(revisions), time_ns() // 1000, state)
            connection.execute(_UPSERT, values)
            return 1

        return step


@attrs.frozen
class RawRecordsets(_Raw):
    """Many rows per transaction."""

    size: int = 64

    @property
    def title(self) -> str:
        return f"raw psycopg, batches of {self.size}, jsonb_to_recordset"

    def _step(self, connection: Connection, type_name: str, state: str) -> Callable[[], int]:
        # Drawn beforehand: drawing costs about as much as the rest of it does here.
        keys = object_ids(self.rows)
        batches = itertools.cycle([sorted(random.sample(keys, self.size)) for _ in range(256)])
        revisions = itertools.count(2)

        def step() -> int:
            revision, now = next(revisions), time_ns() // 1000
            rows = [
                {"t": type_name, "i": key, "r": revision, "u": now, "s": state}
                for key in next(batches)
            ]
            connection.execute(_RECORDSET, (orjson.dumps(rows).decode(),))
            return self.size

        return step


@attrs.frozen
class RawPostgresSelects(_Raw):
    """One row by its key at a time."""

    @property
    def title(self) -> str:
        return "raw psycopg, one SELECT per row"

    def _step(self, connection: Connection, type_name: str, state: str) -> Callable[[], int]:
        keys = itertools.cycle(shuffled(object_ids(self.rows)))
        select = "SELECT revision, state FROM durable_objects WHERE type_name = %s AND object_id=%s"

        def step() -> int:
            connection.execute(select, (type_name, next(keys))).fetchone()
            return 1

        return step
