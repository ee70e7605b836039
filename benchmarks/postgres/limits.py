"""The limits of PostgreSQL: psycopg with nothing around it, on the library's table and rows.

- `raw_upserts`: one upsert after the other, each a transaction of its own, on one connection or on
  several in a thread each: the cost of a durable change without group commit.
- `raw_recordsets`: as many upserts as there are callers in one statement, by `jsonb_to_recordset`:
  the rate of the server for batches that are already collected.
- `raw_selects`: one row by its primary key at a time: the least cost of a load.

Every upsert writes another revision and time. Statements are prepared, as psycopg does by itself.
"""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from threading import Barrier
from time import time_ns

import attrs
import orjson

from ..limits import Raw, Step, sampled, select_step
from ..workloads import WARM_UP, make_objects, repeat, shuffled
from .server import Connection, connect

_INSERT = "INSERT INTO durable_objects (type_name, object_id, epoch, revision, updated_at, state)"
_UPDATE = """ON CONFLICT (type_name, object_id) DO UPDATE SET
    revision = excluded.revision, updated_at = excluded.updated_at, state = excluded.state
"""
_UPSERT = f"{_INSERT} VALUES (%s, %s, %s, %s, %s, %s) {_UPDATE}"
_RECORDSET = f"""{_INSERT} SELECT t, i, 1, r, u, s
FROM jsonb_to_recordset(%s::jsonb) AS x (t text, i text, r bigint, u bigint, s text) {_UPDATE}"""


@attrs.frozen
class _RawPsycopg(Raw):
    connections: int = 1

    def prepare(self, folder: Path) -> None:
        make_objects(folder, "postgres", self.rows)

    def rate(self, folder: Path, seconds: float) -> float:
        # All begin at the same time, and each counts for as long as it worked.
        start = Barrier(self.connections)

        def work(connection: Connection) -> float:
            step = self.step(connection)
            repeat(step, WARM_UP)
            start.wait()
            return repeat(step, seconds)

        with ExitStack() as stack:
            connections = [stack.enter_context(connect(folder)) for _ in range(self.connections)]
            if len(connections) == 1:
                return work(connections[0])
            with ThreadPoolExecutor(self.connections) as threads:
                return sum(threads.map(work, connections))


def raw_upserts(rows: int, connections: int = 1) -> Raw:
    """One row per transaction."""
    title = "raw psycopg, one upsert after the other"
    if connections > 1:
        title = f"raw psycopg, the same on {connections} connections, in threads"
    return _RawPsycopg(title, rows, _upsert_step, connections)


def _upsert_step(connection: Connection, type_name: str, state: str, ids: list[str]) -> Step:
    keys = itertools.cycle(shuffled(ids))
    revisions = itertools.count(2)

    def step() -> int:
        values = (type_name, next(keys), 1, next(revisions), time_ns() // 1000, state)
        connection.execute(_UPSERT, values)
        return 1

    return step


def raw_recordsets(rows: int, size: int = 64) -> Raw:
    """Many rows per transaction."""
    title = f"raw psycopg, batches of {size}, jsonb_to_recordset"
    return _RawPsycopg(title, rows, partial(_recordset_step, size))


def _recordset_step(
    size: int, connection: Connection, type_name: str, state: str, ids: list[str]
) -> Step:
    batches = itertools.cycle(
        [sorted(batch) for batch in itertools.islice(sampled(ids, size), 256)]
    )
    revisions = itertools.count(2)

    def step() -> int:
        revision, now = next(revisions), time_ns() // 1000
        rows = [
            {"t": type_name, "i": key, "r": revision, "u": now, "s": state} for key in next(batches)
        ]
        connection.execute(_RECORDSET, (orjson.dumps(rows).decode(),))
        return size

    return step


def raw_selects(rows: int) -> Raw:
    """One row by its key at a time."""
    query = "SELECT revision, state FROM durable_objects WHERE type_name = %s AND object_id=%s"
    return _RawPsycopg("raw psycopg, one SELECT per row", rows, partial(select_step, query))
