"""State in PostgreSQL as ``text`` beside ``jsonb``: how fast it is saved and loaded, how big it is.

    python -m benchmarks.postgres.state postgresql://…

Rounds of both alternate, and the ratio is the median of the rounds' ratios. Batches of 64 rows go
in by the statement that the storage uses, and come out as it reads them; in two tables of the
connection's own, which are dropped with it.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
from typing import Any

import psycopg

from trio_durable.storage.postgres._arrays import (
    BigintArray,
    TextArray,
    register_dumpers,
    text_array,
)

from ..workloads import repeat

ROWS, BATCH, ROUNDS, SECONDS = 2_000, 64, 9, 0.3

_TABLE = """
CREATE TEMPORARY TABLE {table} (
    object_id text COLLATE "C" PRIMARY KEY, revision bigint NOT NULL, state {type} NOT NULL
) WITH (fillfactor = 70)
"""
_SAVE = """
INSERT INTO {table} AS o (object_id, revision, state)
SELECT i, r + 1, s::{type} FROM unnest(%s::text[], %s::bigint[], %s::text[]) AS k (i, r, s)
ORDER BY i COLLATE "C"
ON CONFLICT (object_id) DO UPDATE SET revision = excluded.revision, state = excluded.state
WHERE o.revision = excluded.revision - 1
"""
_LOAD = """
SELECT k.n, convert_to(o.state::text, 'UTF8')
FROM unnest(%s::text[]) WITH ORDINALITY AS k (i, n) JOIN {table} AS o ON o.object_id = k.i
"""


def state(size: int, count: int) -> bytes:
    """An object's state of about ``size`` bytes, as applications have them."""
    rng = random.Random(count)
    items: list[dict[str, Any]] = []
    value = {"count": count, "at": "2026-01-01T00:00:00+00:00", "items": items}
    while len(json.dumps(value)) < size:
        items.append({"name": f"item {rng.randrange(10**6)}", "price": rng.random(), "sold": False})
    return json.dumps(value, separators=(",", ":")).encode()


class Table:
    """One of the two tables."""

    def __init__(self, connection: psycopg.Connection[Any], kind: str, size: int) -> None:
        table = f"{kind}_{size}"
        self._connection = connection
        self._table = table
        self._save = _SAVE.format(table=table, type=kind).encode()
        self._load = _LOAD.format(table=table).encode()
        connection.execute(_TABLE.format(table=table, type=kind).encode())
        self._states = [state(size, n) for n in range(100)]
        self._revisions = [0] * ROWS
        for start in range(0, ROWS, BATCH):
            self._write(range(start, min(start + BATCH, ROWS)))

    def write(self) -> int:
        """Save a batch."""
        self._write(random.sample(range(ROWS), BATCH))
        return BATCH

    def _write(self, rows: Any) -> None:
        states = [self._states[(n + self._revisions[n]) % 100] for n in rows]
        revisions = BigintArray([self._revisions[n] for n in rows])
        parameters = (text_array(f"object-{n:05}" for n in rows), revisions, TextArray(states))
        assert self._connection.execute(self._save, parameters).rowcount == len(rows)
        for n in rows:
            self._revisions[n] += 1

    def load(self) -> int:
        """Load a batch."""
        wanted = text_array(f"object-{n:05}" for n in random.sample(range(ROWS), BATCH))
        return len(self._connection.execute(self._load, (wanted,), binary=True).fetchall())

    def bytes_per_row(self) -> float:
        """The average size of a state in the table."""
        query = f"SELECT avg(pg_column_size(state))::float8 FROM {self._table}"
        row = self._connection.execute(query.encode()).fetchone()
        assert row is not None
        return float(row[0])


def main(conninfo: str) -> None:
    with psycopg.connect(conninfo, autocommit=True) as connection:
        register_dumpers(connection)
        for size in (100, 2_000, 20_000):
            text, jsonb = Table(connection, "text", size), Table(connection, "jsonb", size)
            for name in ("write", "load"):
                works = getattr(text, name), getattr(jsonb, name)
                pairs = [[repeat(work, SECONDS) for work in works] for _ in range(ROUNDS)]
                ratio = statistics.median(one / other for one, other in pairs)
                mine = statistics.median(one for one, _ in pairs)
                print(f"{size:>6} bytes, {name:5}: {mine:>8,.0f} rows/s, {ratio:.2f} x jsonb")
            share = text.bytes_per_row() / jsonb.bytes_per_row()
            print(f"{size:>6} bytes, in the table: {share:.2f} x jsonb")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m benchmarks.postgres.state postgresql://…")
    main(sys.argv[1])
