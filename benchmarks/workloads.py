"""Workloads, each with a rate that is taken from scratch in each round.

Every round has a fresh event loop, the file opened again, and the objects activated and called for
a moment before the clock starts. So rounds of two workloads can alternate in one process without
one being in the other's way.
"""

from __future__ import annotations

import gc
import random
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Literal, get_args

import attrs

from trio_durable import Durability, DurableRuntime, PostgresStorage, SQLiteStorage, Storage

from . import instruments, loops
from .callers import Call, Caller, Period, Queue, TimedWalk, Walk, call_each
from .instruments import InstrumentName
from .loops import LoopName
from .objects import Counter, object_ids
from .postgres.server import connect, conninfo

WARM_UP = 0.05
"""Seconds of calls before the clock starts."""
WARM_TRANSACTIONS, WARM_ROWS = 1_100, 64 * 1_100
"""The transactions before it starts, or the rows in them, on SQLite. Its log grows for as long: a
sync takes longer then, and the log is overwritten from its start later on."""

Operation = Literal["read", "change", "async change"]
OPERATIONS: tuple[Operation, ...] = get_args(Operation)
StorageName = Literal["sqlite", "postgres"]

_OPERATIONS: dict[Operation, Callable[[Counter], Call]] = {
    "change": lambda counter: partial(counter.add, 1),
    "async change": lambda counter: partial(counter.add_async, 1),
    "read": lambda counter: counter.value,
}


@attrs.frozen
class Workload(ABC):
    """An operation that is repeated."""

    @property
    @abstractmethod
    def title(self) -> str:
        """A description in a few words."""

    def obstacle(self) -> str | None:
        """The reason that it can't be measured here, or None."""
        return None

    def prepare(self, folder: Path) -> None:  # noqa: B027 - most need no files
        """Make the files it needs, once."""

    @abstractmethod
    def rate(self, folder: Path, seconds: float) -> float:
        """Repeat the operation for ``seconds``; how often a second it was done."""


@attrs.frozen
class OnLoop(Workload):
    """A workload of the library, on one of the event loops."""

    loop: LoopName

    def obstacle(self) -> str | None:
        return loops.obstacle(self.loop)


def is_warm(transactions: int, rows: int) -> bool:
    """True after so many on SQLite."""
    return transactions >= WARM_TRANSACTIONS or rows >= WARM_ROWS


async def rate_of(callers: Sequence[Caller], seconds: float) -> float:
    """The calls per second of ``callers`` for ``seconds``, after a moment that doesn't count."""
    await Period(WARM_UP).run(callers)
    gc.collect()
    return await Period(seconds).run(callers)


@attrs.frozen
class RuntimeCalls(OnLoop):
    """Calls to objects that are active."""

    operation: Operation
    callers: int
    objects: int
    durability: Durability = "full"
    instrument: InstrumentName | None = None
    storage: StorageName = "sqlite"

    @property
    def title(self) -> str:
        callers = "1 caller" if self.callers == 1 else f"{self.callers:,} callers"
        objects = "1 object" if self.objects == 1 else f"{self.objects:,} objects"
        prefix = "async def, " if self.operation == "async change" else ""
        suffix = "" if self.operation == "read" else f", {self.durability.upper()}"
        instrument = f", {self.instrument} instrument" if self.instrument else ""
        return f"{prefix}{callers} x {objects}, {self.loop}{suffix}{instrument}"

    def obstacle(self) -> str | None:
        return instruments.obstacle(self.instrument) or super().obstacle()

    def prepare(self, folder: Path) -> None:
        make_objects(folder, self.storage, self.objects)

    def rate(self, folder: Path, seconds: float) -> float:
        # So that each of very many callers calls more than once or twice.
        return self._rate(folder, seconds * max(1, self.callers / 1024), Walk)

    def latencies(self, folder: Path, seconds: float) -> list[float]:
        """Durations of single calls, in seconds; a pass of its own, since timing costs time."""
        latencies: list[float] = []
        self._rate(folder, seconds, partial(TimedWalk, latencies=latencies))
        return latencies

    def _rate(self, folder: Path, seconds: float, walk: Callable[[list[Call], int], Walk]) -> float:
        async def main() -> float:
            storage = storage_in(folder, self.storage, self.durability)
            watching = instruments.instruments(self.instrument)
            async with DurableRuntime(storage, objects=[Counter], instruments=watching) as runtime:
                operation = _OPERATIONS[self.operation]
                ids = object_ids(self.objects)
                calls = [operation(runtime.get(Counter, key)) for key in ids]
                await call_each(calls)
                warming = [Walk(calls, n) for n in range(self.callers)]
                await Period(WARM_UP).run(warming)
                if self.operation != "read" and self.storage == "sqlite":
                    while not is_warm(*_written(runtime)):
                        await Period(WARM_UP).run(warming)
                gc.collect()
                return await Period(seconds).run([walk(calls, n) for n in range(self.callers)])

        return loops.run(self.loop, main)


def _written(runtime: DurableRuntime) -> tuple[int, int]:
    """The transactions so far, and the rows in them."""
    statistics = runtime.statistics()
    return statistics.transactions, statistics.commits


@attrs.frozen
class FirstCalls(OnLoop):
    """First calls to objects that aren't in memory, by 64 callers."""

    operation: Operation
    stored: int
    """The number of stored objects to choose from; 0 for calls to objects that don't exist."""
    storage: StorageName = "sqlite"

    @property
    def title(self) -> str:
        which = "stored objects" if self.stored else "new objects"
        return f"{which}, first call is a {self.operation}, {self.loop}"

    def prepare(self, folder: Path) -> None:
        make_objects(folder, self.storage, self.stored)

    def rate(self, folder: Path, seconds: float) -> float:
        async def main() -> float:
            storage = storage_in(folder, self.storage)
            async with DurableRuntime(storage, objects=[Counter]) as runtime:
                operation = _OPERATIONS[self.operation]
                keys = iter(shuffled(object_ids(self.stored))) if self.stored else new_ids()
                calls = (operation(runtime.get(Counter, key)) for key in keys)
                return await rate_of([Queue(calls)] * 64, seconds)

        return loops.run(self.loop, main)


def repeat(step: Callable[[], int], seconds: float) -> float:
    """Call ``step`` for ``seconds``; the rows a second that it reports."""
    done = 0
    began = now = perf_counter()
    end = began + seconds
    while now < end:
        done += step()
        now = perf_counter()
    return done / (now - began)


def storage_in(folder: Path, storage: StorageName, durability: Durability = "full") -> Storage:
    """The storage of the workload that has ``folder`` to itself."""
    if storage == "postgres":
        return PostgresStorage(conninfo(folder), durability=durability)
    return SQLiteStorage(folder / "objects.db", durability=durability)


def make_objects(folder: Path, storage: StorageName, objects: int) -> None:
    """Store ``objects`` counters where `storage_in` finds them."""
    if storage == "sqlite":
        make_file(folder / "objects.db", objects)
        return
    _make_one(storage_in(folder, storage), Counter)
    with connect(folder) as connection:
        connection.execute(
            """
            INSERT INTO durable_objects (type_name, object_id, epoch, revision, updated_at, state)
            SELECT type_name, i, epoch, revision, updated_at, state
            FROM durable_objects, unnest(%s::text[]) AS i
            """,
            (object_ids(objects),),
        )
        connection.execute("VACUUM ANALYZE durable_objects")


def make_file(path: Path, objects: int, cls: type[Counter] = Counter) -> None:
    """Make a file with ``objects`` stored counters.

    The library makes its own table and stores one object; the others are copies of that row, so
    that workloads without the library use the very same rows.
    """
    _make_one(SQLiteStorage(path), cls)
    with closing(sqlite3.connect(path)) as connection, connection:
        columns = "type_name, revision, updated_at, state"
        row = connection.execute(f"SELECT {columns} FROM durable_objects").fetchone()
        connection.executemany(
            f"INSERT INTO durable_objects ({columns}, object_id) VALUES (?, ?, ?, ?, ?)",
            [(*row, key) for key in object_ids(objects)],
        )


def _make_one(storage: Storage, cls: type[Counter]) -> None:
    async def main() -> None:
        async with DurableRuntime(storage, objects=[cls]) as runtime:
            await runtime.get(cls, "the first").add(1)

    loops.run("trio", main)


def new_ids() -> Iterator[str]:
    """Ids of objects that don't exist, in random order."""
    while True:
        yield f"{random.getrandbits(64):016x}"


def shuffled(ids: list[str]) -> list[str]:
    """The same ids in random order."""
    return random.sample(ids, len(ids))
