"""All scenarios: each workload with its limit and its target."""

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

from . import alarms, loops, memory
from .alarms import AlarmChanges, AlarmsAtOnce, HeapOperations, WheelOperations
from .instruments import INSTRUMENTS
from .limits import BareRequestReply, RawBatches, RawRows, RawSelects
from .loops import LOOPS
from .measurements import Effort, Figures, Latency, Sample, Scenario, Target
from .postgres import server as postgres
from .postgres.limits import RawPostgresSelects, RawRecordsets, RawUpserts
from .workloads import FirstCalls, Operation, RuntimeCalls, Workload

STORED_OBJECTS = 50_000
"""The number of stored objects from which first calls load."""
_RAW_ROWS = 1_000


def _compare(ours: Workload, limit: Workload, folder: Path, effort: Effort) -> Figures:
    """Rounds of a workload and of its limit, alternating."""
    sides = ((limit, folder / "limit"), (ours, folder / "ours"))
    for workload, its_folder in sides:
        its_folder.mkdir(exist_ok=True)
        workload.prepare(its_folder)
        # A short round that doesn't count: imports, caches and the interpreter's own warming.
        workload.rate(its_folder, effort.seconds / 4)
    rates: dict[Workload, list[float]] = {limit: [], ours: []}
    for _ in range(effort.rounds):
        for workload, its_folder in sides:
            gc.collect()
            rates[workload].append(workload.rate(its_folder, effort.seconds))
    latency = None
    if isinstance(ours, RuntimeCalls) and ours.callers <= 64:
        latency = Latency.of(ours.latencies(folder / "ours", effort.seconds))
    return Figures(Sample(rates[ours]), Sample(rates[limit]), latency)


def _compare_on_postgres(
    apart: bool, ours: Workload, limit: Workload, folder: Path, effort: Effort
) -> Figures:
    """The same on a PostgreSQL server, which each has to itself in turn.

    ``apart`` gives the server cores of its own, as on most machines with more than two.
    """
    running = postgres.running_apart if apart else postgres.running
    with running(folder) as server, ExitStack() as schemas:
        for name in ("ours", "limit"):
            (folder / name).mkdir()
            schemas.enter_context(server.schema(folder / name))
        figures = _compare(ours, limit, folder, effort)
        # Evidence that the figures are of durable changes.
        before, began = server.wal_syncs(), perf_counter()
        ours.rate(folder / "ours", effort.seconds)
        syncs = (server.wal_syncs() - before) / (perf_counter() - began)
        details = {"postgres": server.version, "wal_syncs_per_second": syncs}
        return attrs.evolve(figures, details=details)


def _memory_per_object(status: memory.Status, folder: Path, effort: Effort) -> Figures:
    """Bytes per object, on trio.

    The growth of the resident set over many objects, each called once, divided by their number.
    Objects that hibernate do so while others are still coming, as in an app that has run for a
    while: the memory of their live form is used again.
    """
    count, path = effort.memory_objects, folder / "objects.db"
    grown = partial(memory.bytes_per_object, count, path, status)
    resident, allocated = loops.run("trio", grown)
    with closing(sqlite3.connect(path)) as connection:
        query = "SELECT avg(length(CAST(state AS BLOB))) FROM durable_objects"
        state = float(connection.execute(query).fetchone()[0])
    details = {"objects": count, "state_bytes": state}
    if allocated is not None:
        details["allocator_bytes"] = allocated
    ours = resident - state if status == "hibernated" else resident
    return Figures(Sample([ours]), details=details)


def _comparison(
    name: str,
    group: str,
    ours: Workload,
    limit: Workload,
    target: Target | None = None,
    headline: bool = False,
) -> Scenario:
    return Scenario(
        name=name,
        group=group,
        title=ours.title,
        work=partial(_compare, ours, limit),
        obstacle=ours.obstacle,
        limit_title=limit.title,
        target=target,
        headline=headline,
    )


# --- the catalogue -------------------------------------------------------------------------------


def _reads() -> Iterator[Scenario]:
    for loop in LOOPS:
        for callers in (1, 64, 512):
            for objects in (1, 1000):
                has_target = loop == "trio" and callers == 64
                yield _comparison(
                    f"reads-{callers}x{objects}-{loop}",
                    "Reads",
                    RuntimeCalls(loop, "read", callers, objects),
                    BareRequestReply(callers),
                    Target("ratio", 0.7) if has_target else None,
                    has_target,
                )


def _changes() -> Iterator[Scenario]:
    durabilities: tuple[Durability, ...] = ("full", "normal")
    targets = {(1, 1): 0.5, (64, 1): 0.4, (64, 1000): 0.6}
    for durability in durabilities:
        for loop in LOOPS:
            for callers in (1, 64, 512):
                for objects in (1, 1000):
                    bound = targets.get((callers, objects)) if durability == "full" else None
                    yield _comparison(
                        f"changes-{callers}x{objects}-{loop}-{durability}",
                        "Durable changes",
                        RuntimeCalls(loop, "change", callers, objects, durability),
                        RawRows(objects, durability)
                        if callers == 1
                        else RawBatches(_RAW_ROWS, durability, callers),
                        None if bound is None else Target("ratio", bound),
                        bound is not None,
                    )


def _async_changes() -> Iterator[Scenario]:
    for loop in LOOPS:
        yield _comparison(
            f"async-changes-64x1000-{loop}",
            "An async def handler, beside a def one",
            RuntimeCalls(loop, "async change", 64, 1000),
            RuntimeCalls(loop, "change", 64, 1000),
            headline=loop == "trio",
        )


def _telemetry() -> Iterator[Scenario]:
    operations: tuple[Operation, ...] = ("read", "change", "async change")
    for instrument in INSTRUMENTS:
        for operation in operations:
            plain = RuntimeCalls("trio", operation, 64, 1000)
            yield _comparison(
                f"telemetry-{instrument}-{operation.replace(' ', '-')}s",
                "With an instrument, beside none",
                attrs.evolve(plain, instrument=instrument),
                plain,
            )


def _scaling() -> Iterator[Scenario]:
    for loop in LOOPS:
        few, many, most = (
            RuntimeCalls(loop, "change", callers, objects)
            for callers, objects in ((64, 1000), (512, 1000), (4096, 10_000))
        )
        for ours, limit, bound in ((many, few, 1.0), (most, many, 0.6)):
            yield _comparison(
                f"scaling-{ours.callers}x{ours.objects}-{loop}",
                "More callers, beside fewer",
                ours,
                limit,
                Target("ratio", bound),
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
            yield _comparison(
                f"cold-{name}-{loop}",
                "Cold first calls, 64 callers, FULL",
                FirstCalls(loop, operation, stored),
                limit,
                Target("rate", bound),
                headline=loop == "trio",
            )


def _memory() -> Iterator[Scenario]:
    cases: tuple[tuple[memory.Status, str, float], ...] = (
        ("active", "per active object", 6000),
        ("hibernated", "per hibernated object, beyond its state", 700),
    )
    for status, title, bound in cases:
        yield Scenario(
            name=f"memory-{status}",
            group="Memory, trio",
            title=title,
            work=partial(_memory_per_object, status),
            obstacle=memory.obstacle,
            unit=" B",
            target=Target("bytes", bound),
            headline=True,
        )


def _alarms() -> Iterator[Scenario]:
    for loop in LOOPS:
        for percent, bound in ((50, 2.0), (99, 10.0)):
            yield Scenario(
                name=f"alarm-lateness-p{percent}-{loop}",
                group="Lateness of 1,000 alarms set 200 ms ahead",
                title=f"p{percent}, {loop}",
                work=partial(alarms.lateness, percent, loop),
                obstacle=partial(loops.obstacle, loop),
                unit=" ms",
                target=Target("ms", bound),
                headline=loop == "trio",
            )
    for loop in LOOPS:
        for warm, least in ((True, 10_000), (False, 6_000)):
            yield _comparison(
                f"alarms-at-once-{'warm' if warm else 'cold'}-{loop}",
                "Alarms, each with a change of state, FULL",
                AlarmsAtOnce(loop, 10_000, warm),
                RawBatches(10_000, "full", 64),
                Target("rate", least),
                headline=loop == "trio",
            )
    for loop in LOOPS:
        for change in alarms.CHANGES:
            yield _comparison(
                f"alarms-{change}-{loop}",
                "Alarms from outside, FULL",
                AlarmChanges(loop, change, 64),
                RawBatches(10_000, "full", 64),
                Target("rate", 20_000) if change == "set" else None,
                headline=loop == "trio" and change == "set",
            )
    for step in alarms.STEPS:
        yield _comparison(
            f"wheel-{step}",
            "The timing wheel beside a heap",
            WheelOperations(step),
            HeapOperations(step),
            Target("rate", 500_000),
            headline=True,
        )
    for loop in LOOPS:
        yield Scenario(
            name=f"alarms-backlog-{loop}",
            group="p99 of 16 callers' changes beside 100,000 overdue alarms",
            title=f"beside a backlog, {loop}",
            work=partial(alarms.beside_backlog, loop),
            obstacle=partial(loops.obstacle, loop),
            unit=" ms",
            limit_title="the same calls without alarms",
            headline=loop == "trio",
        )
    yield Scenario(
        name="alarms-start-up",
        group="Many alarms in the table",
        title="opening a runtime, many alarms beyond the horizon",
        work=alarms.start_up,
        unit=" ms",
        limit_title="with one",
        target=Target("most", 1.5),
        headline=True,
    )
    for place in ("within", "beyond"):
        yield Scenario(
            name=f"alarms-memory-{place}",
            group="Many alarms in the table",
            title=f"memory, many alarms {place} the horizon",
            work=partial(alarms.memory_with_many, place == "within"),
            obstacle=memory.obstacle,
            unit=" B",
            headline=True,
        )


def _on_postgres(
    name: str,
    group: str,
    ours: Workload,
    limit: Workload,
    target: Target | None = None,
    headline: bool = False,
    apart: bool = False,
) -> Scenario:
    def obstacle() -> str | None:
        return postgres.obstacle() or ours.obstacle() or (postgres.cannot_part() if apart else None)

    return attrs.evolve(
        _comparison(f"postgres-{name}", f"PostgreSQL, {group}", ours, limit, target, headline),
        title=ours.title + (", server on a core of its own" if apart else ""),
        work=partial(_compare_on_postgres, apart, ours, limit),
        obstacle=obstacle,
    )


def _postgres() -> Iterator[Scenario]:
    for loop in LOOPS:
        is_shown = loop == "trio"
        changes = partial(RuntimeCalls, loop, "change", storage="postgres")
        cases: tuple[tuple[str, Workload, Workload, float], ...] = (
            ("1x1000", changes(1, 1000), RawUpserts(1000), 0.6),
            ("64x1000", changes(64, 1000), RawRecordsets(1000), 0.5),
            ("64x1000-singly", changes(64, 1000), RawUpserts(1000, connections=16), 3.0),
            ("64x1", changes(64, 1), RawRecordsets(1000), 0.0),
            ("512x1000", changes(512, 1000), RawRecordsets(1000), 0.0),
        )
        for name, ours, limit, bound in cases:
            yield _on_postgres(
                f"changes-{name}-{loop}",
                "durable changes",
                ours,
                limit,
                Target("ratio", bound) if bound else None,
                is_shown and bound > 0,
            )
        for name, ours, limit, bound in cases[:2]:
            yield _on_postgres(
                f"changes-{name}-apart-{loop}",
                "durable changes",
                ours,
                limit,
                Target("ratio", bound),
                apart=True,
            )
        operations: tuple[Operation, ...] = ("read", "change")
        for operation in operations:
            yield _on_postgres(
                f"cold-stored-{operation}-{loop}",
                "cold first calls, 64 callers",
                FirstCalls(loop, operation, STORED_OBJECTS, "postgres"),
                RawPostgresSelects(STORED_OBJECTS),
                Target("rate", 10_000),
                is_shown,
            )
        for warm in (True, False):
            yield _on_postgres(
                f"alarms-at-once-{'warm' if warm else 'cold'}-{loop}",
                "alarms, each with a change of state",
                AlarmsAtOnce(loop, 10_000, warm, "postgres"),
                RawRecordsets(10_000),
                Target("rate", 5_000),
                is_shown,
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
