"""Which workload stands beside which limit, and what is to be reached."""

from __future__ import annotations

import gc
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from time import perf_counter

import attrs

from trio_durable import Durability

from . import instruments, loops, memory, postgres_server
from .alarm_scenarios import Backlog, Lateness, ManyAlarms, StartUp
from .alarms import AlarmChanges, AlarmsAtOnce, HeapOperations, WheelOperations
from .instruments import INSTRUMENTS
from .limits import BareRequestReply, RawBatches, RawRows, RawSelects
from .loops import LOOPS
from .measurements import Latency, Measurement, Sample, Target
from .postgres_limits import RawPostgresSelects, RawRecordsets, RawUpserts
from .scenario import Effort, Scenario
from .workloads import FirstCalls, Operation, RuntimeCalls, Workload

Ours = RuntimeCalls | FirstCalls | AlarmsAtOnce | AlarmChanges | WheelOperations
STORED_OBJECTS = 50_000
"""How many objects are stored where first calls load them."""
_RAW_ROWS = 1_000


@attrs.frozen(kw_only=True)
class Comparison(Scenario):
    """A workload beside its limit, in turns."""

    ours: Ours
    limit: Workload

    @property
    def title(self) -> str:
        return self.ours.title

    def obstacle(self) -> str | None:
        if isinstance(self.ours, WheelOperations):
            return None
        if isinstance(self.ours, RuntimeCalls) and self.ours.instrument is not None:
            return instruments.obstacle(self.ours.instrument)
        return loops.obstacle(self.ours.loop)

    def measure(self, folder: Path, effort: Effort) -> Measurement:
        our_folder, limit_folder = folder / "ours", folder / "limit"
        for workload, its_folder in ((self.limit, limit_folder), (self.ours, our_folder)):
            its_folder.mkdir(exist_ok=True)
            workload.prepare(its_folder)
            # A short round that doesn't count: imports, caches and the interpreter's own warming.
            workload.rate(its_folder, effort.seconds / 4)
        ours, limit = [], []
        for _ in range(effort.rounds):
            gc.collect()
            limit.append(self.limit.rate(limit_folder, effort.seconds))
            gc.collect()
            ours.append(self.ours.rate(our_folder, effort.seconds))
        latency = None
        if isinstance(self.ours, RuntimeCalls) and self.ours.callers <= 64:
            latency = Latency.of(self.ours.latencies(our_folder, effort.seconds))
        return Measurement(
            name=self.name,
            group=self.group,
            title=self.title,
            ours=Sample(tuple(ours)),
            limit_title=self.limit.title,
            limit=Sample(tuple(limit)),
            target=self.target,
            latency=latency,
            headline=self.headline,
        )


@attrs.frozen(kw_only=True)
class PostgresComparison(Comparison):
    """The same on a PostgreSQL server, which both have to themselves; in turns."""

    apart: bool = False
    """Whether the server has cores of its own, as on most machines with more than two."""

    @property
    def title(self) -> str:
        return super().title + (", server on a core of its own" if self.apart else "")

    def obstacle(self) -> str | None:
        obstacle = postgres_server.obstacle() or super().obstacle()
        return obstacle or (postgres_server.cannot_part() if self.apart else None)

    def measure(self, folder: Path, effort: Effort) -> Measurement:
        running = postgres_server.running_apart if self.apart else postgres_server.running
        with running(folder) as server, ExitStack() as schemas:
            for name in ("ours", "limit"):
                (folder / name).mkdir()
                schemas.enter_context(server.schema(folder / name))
            measurement = super().measure(folder, effort)
            # Beside the figures, that they are what they are said to be.
            before, began = server.wal_syncs(), perf_counter()
            self.ours.rate(folder / "ours", effort.seconds)
            syncs = (server.wal_syncs() - before) / (perf_counter() - began)
            details = {"postgres": server.version, "wal_syncs_per_second": syncs}
            return attrs.evolve(measurement, details=details)


@attrs.frozen(kw_only=True)
class Memory(Scenario):
    """What one more object takes, on trio.

    The growth of the resident set over so many objects, each called once, divided by their
    number. Objects that hibernate do so while others are still coming, as in an app that has run
    for a while: the memory of their live form is used again.
    """

    status: memory.Status

    @property
    def title(self) -> str:
        if self.status == "hibernated":
            return "per hibernated object, beyond its state"
        return "per active object"

    def obstacle(self) -> str | None:
        return memory.obstacle()

    def measure(self, folder: Path, effort: Effort) -> Measurement:
        count = effort.memory_objects
        path = folder / "objects.db"
        grown = partial(memory.bytes_per_object, count, path, self.status)
        resident, allocated = loops.run("trio", grown)
        state = _average_state(path)
        details = {"objects": count, "state_bytes": state}
        if allocated is not None:
            details["allocator_bytes"] = allocated
        return Measurement(
            name=self.name,
            group=self.group,
            title=self.title,
            ours=Sample((resident - state if self.status == "hibernated" else resident,)),
            unit=" B",
            target=self.target,
            headline=self.headline,
            details=details,
        )


def _average_state(path: Path) -> float:
    with closing(sqlite3.connect(path)) as connection:
        row = connection.execute("SELECT avg(length(CAST(state AS BLOB))) FROM durable_objects")
        return float(row.fetchone()[0])


# --- the catalogue -------------------------------------------------------------------------------


def _changes() -> Iterator[Scenario]:
    durabilities: tuple[Durability, ...] = ("full", "normal")
    targets = {(1, 1): 0.5, (64, 1): 0.4, (64, 1000): 0.6}
    for durability in durabilities:
        for loop in LOOPS:
            for callers in (1, 64, 512):
                for objects in (1, 1000):
                    bound = targets.get((callers, objects)) if durability == "full" else None
                    yield Comparison(
                        name=f"changes-{callers}x{objects}-{loop}-{durability}",
                        group="Durable changes",
                        ours=RuntimeCalls("change", callers, objects, loop, durability),
                        limit=(
                            RawRows(objects, durability)
                            if callers == 1
                            else RawBatches(_RAW_ROWS, durability, callers)
                        ),
                        target=None if bound is None else Target("ratio", bound),
                        headline=bound is not None,
                    )


def _reads() -> Iterator[Scenario]:
    for loop in LOOPS:
        for callers in (1, 64, 512):
            for objects in (1, 1000):
                has_target = loop == "trio" and callers == 64
                yield Comparison(
                    name=f"reads-{callers}x{objects}-{loop}",
                    group="Reads",
                    ours=RuntimeCalls("read", callers, objects, loop),
                    limit=BareRequestReply(callers),
                    target=Target("ratio", 0.7) if has_target else None,
                    headline=has_target,
                )


def _async_changes() -> Iterator[Scenario]:
    for loop in LOOPS:
        yield Comparison(
            name=f"async-changes-64x1000-{loop}",
            group="An async def handler, beside a def one",
            ours=RuntimeCalls("async change", 64, 1000, loop),
            limit=RuntimeCalls("change", 64, 1000, loop),
            headline=loop == "trio",
        )


def _telemetry() -> Iterator[Scenario]:
    operations: tuple[Operation, ...] = ("read", "change", "async change")
    for instrument in INSTRUMENTS:
        for operation in operations:
            plain = RuntimeCalls(operation, 64, 1000, "trio")
            yield Comparison(
                name=f"telemetry-{instrument}-{operation.replace(' ', '-')}s",
                group="With an instrument, beside none",
                ours=attrs.evolve(plain, instrument=instrument),
                limit=plain,
            )


def _scaling() -> Iterator[Scenario]:
    for loop in LOOPS:
        few, many, most = (
            RuntimeCalls("change", callers, objects, loop)
            for callers, objects in ((64, 1000), (512, 1000), (4096, 10_000))
        )
        for ours, limit, bound in ((many, few, 1.0), (most, many, 0.6)):
            yield Comparison(
                name=f"scaling-{ours.callers}x{ours.objects}-{loop}",
                group="More callers, beside fewer",
                ours=ours,
                limit=limit,
                target=Target("ratio", bound),
                headline=ours is many or loop == "trio",
            )


def _first_calls() -> Iterator[Scenario]:
    cases: tuple[tuple[str, Operation, int, Workload, int], ...] = (
        ("new", "change", 0, RawBatches(0, "full", 64), 15_000),
        ("stored-read", "read", STORED_OBJECTS, RawSelects(STORED_OBJECTS, "full"), 20_000),
        ("stored-change", "change", STORED_OBJECTS, RawBatches(STORED_OBJECTS, "full", 64), 20_000),
    )
    for loop in LOOPS:
        for name, operation, stored, limit, bound in cases:
            yield Comparison(
                name=f"cold-{name}-{loop}",
                group="Cold first calls, 64 callers, FULL",
                ours=FirstCalls(operation, stored, loop),
                limit=limit,
                target=Target("rate", bound),
                headline=loop == "trio",
            )


def _memory() -> Iterator[Scenario]:
    bounds: dict[memory.Status, float] = {"active": 6000, "hibernated": 700}
    for status, bound in bounds.items():
        yield Memory(
            name=f"memory-{status}",
            group="Memory, trio",
            status=status,
            target=Target("bytes", bound),
            headline=True,
        )


def _alarms() -> Iterator[Scenario]:
    for loop in LOOPS:
        for percentile, bound in ((50, 2.0), (99, 10.0)):
            yield Lateness(
                name=f"alarm-lateness-p{percentile}-{loop}",
                group="Lateness of 1,000 alarms set 200 ms ahead",
                percentile=percentile,
                loop=loop,
                target=Target("ms", bound),
                headline=loop == "trio",
            )
    for loop in LOOPS:
        for warm, bound in ((True, 10_000), (False, 6_000)):
            yield Comparison(
                name=f"alarms-at-once-{'warm' if warm else 'cold'}-{loop}",
                group="Alarms, each with a change of state, FULL",
                ours=AlarmsAtOnce(10_000, warm, loop),
                limit=RawBatches(10_000, "full", 64),
                target=Target("rate", bound),
                headline=loop == "trio",
            )
    for loop in LOOPS:
        for operation in ("set", "cancel"):
            yield Comparison(
                name=f"alarms-{operation}-{loop}",
                group="Alarms from outside, FULL",
                ours=AlarmChanges(operation, 64, loop),
                limit=RawBatches(10_000, "full", 64),
                target=Target("rate", 20_000) if operation == "set" else None,
                headline=loop == "trio" and operation == "set",
            )
    for step in ("insert", "cancel"):
        yield Comparison(
            name=f"wheel-{step}",
            group="The timing wheel beside a heap",
            ours=WheelOperations(step),
            limit=HeapOperations(step),
            target=Target("rate", 500_000),
            headline=True,
        )
    for loop in LOOPS:
        yield Backlog(
            name=f"alarms-backlog-{loop}",
            group="p99 of 16 callers' changes beside 100,000 overdue alarms",
            loop=loop,
            headline=loop == "trio",
        )
    yield StartUp(
        name="alarms-start-up",
        group="Many alarms in the table",
        target=Target("most", 1.5),
        headline=True,
    )
    for within in (True, False):
        yield ManyAlarms(
            name=f"alarms-memory-{'within' if within else 'beyond'}",
            group="Many alarms in the table",
            within=within,
            headline=True,
        )


def _postgres() -> Iterator[Scenario]:
    for loop in LOOPS:
        is_shown = loop == "trio"
        changes = partial(RuntimeCalls, "change", loop=loop, storage="postgres")
        cases: tuple[tuple[str, Ours, Workload, float], ...] = (
            ("1x1000", changes(1, 1000), RawUpserts(1000), 0.6),
            ("64x1000", changes(64, 1000), RawRecordsets(1000), 0.5),
            ("64x1000-singly", changes(64, 1000), RawUpserts(1000, connections=16), 3.0),
            ("64x1", changes(64, 1), RawRecordsets(1000), 0.0),
            ("512x1000", changes(512, 1000), RawRecordsets(1000), 0.0),
        )
        for name, ours, limit, bound in cases:
            yield PostgresComparison(
                name=f"postgres-changes-{name}-{loop}",
                group="PostgreSQL, durable changes",
                ours=ours,
                limit=limit,
                target=Target("ratio", bound) if bound else None,
                headline=is_shown and bound > 0,
            )
        for name, ours, limit, bound in cases[:2]:
            yield PostgresComparison(
                name=f"postgres-changes-{name}-apart-{loop}",
                group="PostgreSQL, durable changes",
                ours=ours,
                limit=limit,
                target=Target("ratio", bound),
                apart=True,
            )
        operations: tuple[Operation, ...] = ("read", "change")
        for operation in operations:
            yield PostgresComparison(
                name=f"postgres-cold-stored-{operation}-{loop}",
                group="PostgreSQL, cold first calls, 64 callers",
                ours=FirstCalls(operation, STORED_OBJECTS, loop, "postgres"),
                limit=RawPostgresSelects(STORED_OBJECTS),
                target=Target("rate", 10_000),
                headline=is_shown,
            )
        for warm in (True, False):
            yield PostgresComparison(
                name=f"postgres-alarms-at-once-{'warm' if warm else 'cold'}-{loop}",
                group="PostgreSQL, alarms, each with a change of state",
                ours=AlarmsAtOnce(10_000, warm, loop, "postgres"),
                limit=RawRecordsets(10_000),
                target=Target("rate", 5_000),
                headline=is_shown,
            )


SCENARIOS: tuple[Scenario, ...] = (
    *_reads(),
    *_changes(),
    *_async_changes(),
    *_telemetry(),
    *_scaling(),
    *_first_calls(),
    *_memory(),
    *_alarms(),
    *_postgres(),
)


def scenario_named(name: str) -> Scenario:
    """The scenario of that name."""
    return next(scenario for scenario in SCENARIOS if scenario.name == name)
