"""The limits: trio and sqlite3 alone, without the library.

A call through the library is compared with

- `BareRequestReply`: a trio task that serves requests from a memory channel, with a reply channel
  for each client. No objects, no state, no disk: the cost of an actor without a library.
- `raw_rows`: sqlite3 in a plain loop in the main thread, no event loop. Each row goes in as
  ``BEGIN IMMEDIATE``, one upsert, ``COMMIT``: the cost of a durable change without group commit.
- `raw_batches`: the same loop with ``BEGIN IMMEDIATE``, ``executemany`` of as many upserts as there
  are callers, ``COMMIT``: the rate of the disk and SQLite for batches that are already collected.
  With 64 callers also of half as many, which is about what a transaction of the library has: while
  one half is committed the turns of the other half run.
- `raw_selects`: one row by its primary key at a time: the least cost of a load.

All use a file with the library's own table and rows, in WAL mode, with the ``synchronous`` of the
case. Every upsert writes another revision and time, because SQLite leaves out writes that change
nothing.
"""

from __future__ import annotations

import itertools
import math
import random
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from time import time_ns
from typing import Any

import attrs
import trio

from trio_durable import Durability

from . import loops
from .callers import Period
from .objects import object_ids
from .workloads import WARM_UP, Workload, is_warm, make_file, new_ids, repeat, shuffled

Step = Callable[[], int]
"""Runs one transaction and returns its number of rows."""

_UPSERT = """
INSERT INTO durable_objects (type_name, object_id, revision, updated_at, state)
VALUES (?, ?, ?, ?, ?)
ON CONFLICT (type_name, object_id) DO UPDATE SET
    revision = excluded.revision, updated_at = excluded.updated_at, state = excluded.state
"""


@attrs.frozen
class BareRequestReply(Workload):
    """Requests through one trio memory channel to one server task."""

    clients: int

    @property
    def title(self) -> str:
        plural = "" if self.clients == 1 else "s"
        return f"bare trio request-reply, {self.clients} client{plural}"

    def rate(self, folder: Path, seconds: float) -> float:
        return loops.run("trio", lambda: self._rate(seconds))

    async def _rate(self, seconds: float) -> float:
        requests, inbox = trio.open_memory_channel[tuple[int, trio.MemorySendChannel[int]]](
            math.inf
        )

        async def serve() -> None:
            async for value, reply in inbox:
                reply.send_nowait(value)

        async def client(period: Period) -> None:
            reply, replies = trio.open_memory_channel[int](1)
            done = 0
            while not period.over:
                requests.send_nowait((done, reply))
                await replies.receive()
                done += 1
            period.calls += done

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            await Period(WARM_UP).run([client] * self.clients)
            rate = await Period(seconds).run([client] * self.clients)
            requests.close()
        return rate


@attrs.frozen
class Raw(Workload):
    """SQL in a plain loop, on the library's table and rows."""

    title: str
    rows: int
    """The number of stored rows to choose from."""
    make_step: Callable[[Any, str, str, list[str]], Step]
    """Of a connection, the type name and the state of a counter as stored, and the rows' ids."""

    def step(self, connection: Any) -> Step:
        """The step on a connection."""
        query = "SELECT type_name, state FROM durable_objects LIMIT 1"
        type_name, state = connection.execute(query).fetchone()
        return self.make_step(connection, type_name, state, object_ids(self.rows))


@attrs.frozen
class _RawSqlite(Raw):
    durability: Durability

    def prepare(self, folder: Path) -> None:
        make_file(folder / "raw.db", self.rows)

    def rate(self, folder: Path, seconds: float) -> float:
        with closing(sqlite3.connect(folder / "raw.db", isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA synchronous = {self.durability}")
            step = self.step(connection)
            repeat(step, WARM_UP)
            transactions = rows = 0
            while not is_warm(transactions, rows):
                transactions, rows = transactions + 1, rows + step()
            return repeat(step, seconds)


def raw_rows(rows: int, durability: Durability) -> Raw:
    """One row per transaction."""
    title = f"raw sqlite3, one row per transaction, {durability.upper()}"
    return _RawSqlite(title, rows, _row_step, durability)


def _row_step(connection: sqlite3.Connection, type_name: str, state: str, ids: list[str]) -> Step:
    keys = itertools.cycle(shuffled(ids))
    revisions = itertools.count(2)

    def step() -> int:
        connection.execute("BEGIN IMMEDIATE")
        values = (type_name, next(keys), next(revisions), time_ns() // 1000, state)
        connection.execute(_UPSERT, values)
        connection.execute("COMMIT")
        return 1

    return step


def raw_batches(rows: int, durability: Durability, size: int) -> Raw:
    """Many rows per transaction; new rows if none are stored."""
    title = f"raw sqlite3, batches of {size}, {durability.upper()}"
    return _RawSqlite(title, rows, partial(_batch_step, size), durability)


def _batch_step(
    size: int, connection: sqlite3.Connection, type_name: str, state: str, ids: list[str]
) -> Step:
    revisions = itertools.count(2) if ids else itertools.repeat(1)  # as the table demands
    batches = sampled(ids, size) if ids else _new_batches(size)

    def step() -> int:
        revision, now = next(revisions), time_ns() // 1000
        values = [(type_name, key, revision, now, state) for key in next(batches)]
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(_UPSERT, values)
        connection.execute("COMMIT")
        return size

    return step


def _new_batches(size: int) -> Iterator[list[str]]:
    fresh = new_ids()
    while True:
        yield list(itertools.islice(fresh, size))


def sampled(ids: list[str], size: int) -> Iterator[list[str]]:
    """Random samples, drawn beforehand: drawing costs as much as the database takes for a row."""
    return itertools.cycle([random.sample(ids, size) for _ in range(256)])


def raw_selects(rows: int) -> Raw:
    """One row by its key at a time."""
    query = "SELECT revision, state FROM durable_objects WHERE type_name = ? AND object_id = ?"
    title = "raw sqlite3, one SELECT per row"
    return _RawSqlite(title, rows, partial(select_step, query), "full")


def select_step(query: str, connection: Any, type_name: str, _: str, ids: list[str]) -> Step:
    """One execution of ``query``, for one row after the other."""
    keys = itertools.cycle(shuffled(ids))

    def step() -> int:
        connection.execute(query, (type_name, next(keys))).fetchone()
        return 1

    return step
