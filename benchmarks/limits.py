"""The limits: trio and sqlite3 alone, without the library.

A call through the library is compared with

- `BareRequestReply`: a trio task that serves requests from a memory channel, with a reply channel
  for each client. No objects, no state, no disk: the cost of an actor without a library.
- `RawRows`: sqlite3 in a plain loop in the main thread, no event loop. Each row goes in as
  ``BEGIN IMMEDIATE``, one upsert, ``COMMIT``: the cost of a durable change without group commit.
- `RawBatches`: the same loop with ``BEGIN IMMEDIATE``, ``executemany`` of as many upserts as there
  are callers, ``COMMIT``: the rate of the disk and SQLite for batches that are already collected.
- `RawSelects`: one row by its primary key at a time: the least cost of a load.

All use a file with the library's own table and rows, in WAL mode, with the ``synchronous`` of the
case. Every upsert writes another revision and time, because SQLite leaves out writes that change
nothing.
"""

from __future__ import annotations

import itertools
import math
import random
import sqlite3
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from time import time_ns

import attrs
import trio

from trio_durable import Durability

from .callers import Period
from .loops import run
from .objects import object_ids
from .workloads import WARM_UP, Workload, make_file, new_ids, repeat, shuffled

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
        return run("trio", lambda: self._rate(seconds))

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
class _Raw(Workload):
    """sqlite3 on a file with the library's table."""

    rows: int
    """The number of stored rows to choose from."""
    durability: Durability

    def prepare(self, folder: Path) -> None:
        make_file(folder / "raw.db", self.rows)

    def rate(self, folder: Path, seconds: float) -> float:
        with closing(sqlite3.connect(folder / "raw.db", isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA synchronous = {self.durability}")
            # The type name and the state of a counter as the library stores it.
            template = "SELECT type_name, state FROM durable_objects LIMIT 1"
            step = self._step(connection, *connection.execute(template).fetchone())
            repeat(step, WARM_UP)
            return repeat(step, seconds)

    @abstractmethod
    def _step(
        self, connection: sqlite3.Connection, type_name: str, state: str
    ) -> Callable[[], int]:
        """A function that runs one transaction and returns its number of rows."""


@attrs.frozen
class RawRows(_Raw):
    """One row per transaction."""

    @property
    def title(self) -> str:
        return f"raw sqlite3, one row per transaction, {self.durability.upper()}"

    def _step(
        self, connection: sqlite3.Connection, type_name: str, state: str
    ) -> Callable[[], int]:
        keys = itertools.cycle(shuffled(object_ids(self.rows)))
        revisions = itertools.count(2)

        def step() -> int:
            connection.execute("BEGIN IMMEDIATE")
            values = (type_name, next(keys), next(revisions), time_ns() // 1000, state)
            connection.execute(_UPSERT, values)
            connection.execute("COMMIT")
            return 1

        return step


@attrs.frozen
class RawBatches(_Raw):
    """Many rows per transaction; new rows if none are stored."""

    size: int

    @property
    def title(self) -> str:
        return f"raw sqlite3, batches of {self.size}, {self.durability.upper()}"

    def _step(
        self, connection: sqlite3.Connection, type_name: str, state: str
    ) -> Callable[[], int]:
        batches = self._batches()
        revisions = itertools.count(2)

        def step() -> int:
            # The table refuses new rows that don't begin at 1.
            revision, now = next(revisions) if self.rows else 1, time_ns() // 1000
            values = [(type_name, key, revision, now, state) for key in next(batches)]
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(_UPSERT, values)
            connection.execute("COMMIT")
            return self.size

        return step

    def _batches(self) -> Iterator[list[str]]:
        if not self.rows:
            fresh = new_ids()
            return (list(itertools.islice(fresh, self.size)) for _ in itertools.count())
        # Drawn beforehand: drawing costs as much as SQLite takes for a row.
        keys = object_ids(self.rows)
        return itertools.cycle([random.sample(keys, self.size) for _ in range(256)])


@attrs.frozen
class RawSelects(_Raw):
    """One row by its key at a time."""

    @property
    def title(self) -> str:
        return "raw sqlite3, one SELECT per row"

    def _step(
        self, connection: sqlite3.Connection, type_name: str, state: str
    ) -> Callable[[], int]:
        keys = itertools.cycle(shuffled(object_ids(self.rows)))
        select = "SELECT revision, state FROM durable_objects WHERE type_name = ? AND object_id = ?"

        def step() -> int:
            connection.execute(select, (type_name, next(keys))).fetchone()
            return 1

        return step
