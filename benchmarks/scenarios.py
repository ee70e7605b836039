"""All scenarios: each workload with its limit and its target."""

from __future__ import annotations

import gc
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing
from functools import partial
from itertools import product
from pathlib import Path
from time import perf_counter
from typing import Literal

import attrs

from trio_durable import Durability

from . import alarms, loops, memory, messages
from .alarms import AlarmChanges, AlarmsAtOnce, HeapOperations, WheelOperations
from .instruments import INSTRUMENTS
from .limits import BareRequestReply, raw_batches, raw_rows, raw_selects
from .loops import LOOPS, LoopName
from .measurements import Effort, Figures, Sample, Scenario, Target, percentile
from .messages import Messages, OnceCalls
from .postgres import limits as psycopg
from .postgres import server as postgres
from .workloads import OPERATIONS, FirstCalls, Operation, RuntimeCalls, Workload

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
    latency: dict[Literal["p50", "p99"], float] | None = None
    if isinstance(ours, RuntimeCalls) and ours.callers <= 64:
        latencies = ours.latencies(folder / "ours", effort.seconds)
        latency = {"p50": percentile(latencies, 50), "p99": percentile(latencies, 99)}
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
    name: str, ours: Workload, limit: Workload, target: Target | None = None, headline: bool = False
) -> Scenario:
    return Scenario(
        name=name,
        title=ours.title,
        work=partial(_compare, ours, limit),
        obstacle=ours.obstacle,
        limit_title=limit.title,
        target=target,
        headline=headline,
    )


def _on_postgres(
    name: str,
    ours: Workload,
    limit: Workload,
    target: Target | None = None,
    headline: bool = False,
    apart: bool = False,
) -> Scenario:
    def obstacle() -> str | None:
        return postgres.obstacle() or ours.obstacle() or (postgres.cannot_part() if apart else None)

    return attrs.evolve(
        _comparison(f"postgres-{name}", ours, limit, target, headline),
        title=ours.title + (", server on a core of its own" if apart else ""),
        work=partial(_compare_on_postgres, apart, ours, limit),
        obstacle=obstacle,
    )


# --- the catalogue -------------------------------------------------------------------------------

Group = Iterator[Scenario]
_CALLERS, _OBJECTS = (1, 64, 512), (1, 1000)


def _reads() -> Group:
    for loop, callers, objects in product(LOOPS, _CALLERS, _OBJECTS):
        ours, limit = RuntimeCalls(loop, "read", callers, objects), BareRequestReply(callers)
        is_headline = loop == "trio" and callers == 64
        target = Target("ratio", 0.7) if is_headline else None
        yield _comparison(f"reads-{callers}x{objects}-{loop}", ours, limit, target, is_headline)


_ONE_CALLER: dict[LoopName, float] = {"trio": 0.6, "uvloop": 0.7}
_BATCHES: dict[tuple[LoopName, int], float] = {
    ("trio", 64): 0.38,
    ("uvloop", 64): 0.43,
    ("trio", 32): 0.5,
    ("uvloop", 32): 0.6,
}


def _changes() -> Group:
    durabilities: tuple[Durability, ...] = ("full", "normal")
    for durability, loop, callers, objects in product(durabilities, LOOPS, _CALLERS, _OBJECTS):
        least: float | None = None
        ours = RuntimeCalls(loop, "change", callers, objects, durability)
        # On as many rows, but a batch of several needs several.
        limit = raw_batches(max(objects, _RAW_ROWS), durability, callers)
        if callers == 1:
            limit = raw_rows(objects, durability)
        if durability == "full":
            if (callers, objects) == (1, 1):
                least = _ONE_CALLER.get(loop)
            if callers == 64:
                least = 0.4 if objects == 1 else _BATCHES.get((loop, 64))
        name = f"changes-{callers}x{objects}-{loop}-{durability}"
        target = None if least is None else Target("ratio", least)
        yield _comparison(name, ours, limit, target, headline=target is not None)


def _changes_beside_batches() -> Group:
    """Changes by 64 callers beside batches of half as many, and on ten times as many rows."""
    for loop, objects, size in product(LOOPS, (1_000, 10_000), (64, 32)):
        if (objects, size) == (1_000, 64):
            continue  # one of `_changes`
        ours = RuntimeCalls(loop, "change", 64, objects)
        least = _BATCHES.get((loop, size)) if objects == 1_000 else None
        target = None if least is None else Target("ratio", least)
        name = f"changes-64x{objects}-{loop}-full-beside-{size}"
        yield _comparison(name, ours, raw_batches(objects, "full", size), target)


def _async_changes() -> Group:
    for loop in LOOPS:
        plain = RuntimeCalls(loop, "change", 64, 1000)
        ours = attrs.evolve(plain, operation="async change")
        yield _comparison(f"async-changes-64x1000-{loop}", ours, plain, headline=loop == "trio")


def _telemetry() -> Group:
    for instrument, operation in product(INSTRUMENTS, OPERATIONS):
        plain = RuntimeCalls("trio", operation, 64, 1000)
        name = f"telemetry-{instrument}-{operation.replace(' ', '-')}s"
        yield _comparison(name, attrs.evolve(plain, instrument=instrument), plain)


def _scaling() -> Group:
    sizes = ((64, 1000), (512, 1000), (4096, 10_000))
    for loop in LOOPS:
        few, many, most = (RuntimeCalls(loop, "change", *size) for size in sizes)
        name = f"scaling-{{}}x{{}}-{loop}".format
        yield _comparison(name(*sizes[1]), many, few, Target("ratio", 1.0), headline=True)
        yield _comparison(name(*sizes[2]), most, many, Target("ratio", 0.6), loop == "trio")


def _first_calls() -> Group:
    stored, batches = STORED_OBJECTS, partial(raw_batches, durability="full", size=64)
    cases: tuple[tuple[str, Operation, int, Workload, int], ...] = (
        ("new", "change", 0, batches(0), 15_000),
        ("stored-read", "read", stored, raw_selects(stored), 20_000),
        ("stored-change", "change", stored, batches(stored), 20_000),
    )
    for loop, (name, operation, count, limit, least) in product(LOOPS, cases):
        ours, target = FirstCalls(loop, operation, count), Target("rate", least)
        yield _comparison(f"cold-{name}-{loop}", ours, limit, target, headline=loop == "trio")


def _memory() -> Group:
    cases: tuple[tuple[memory.Status, str, float], ...] = (
        ("active", "per active object", 6000),
        ("hibernated", "per hibernated object, beyond its state", 700),
    )
    for status, title, bound in cases:
        yield Scenario(
            name=f"memory-{status}",
            title=title,
            work=partial(_memory_per_object, status),
            obstacle=memory.obstacle,
            unit=" B",
            target=Target("bytes", bound),
            headline=True,
        )


def _lateness() -> Group:
    for loop, (percent, bound) in product(LOOPS, ((50, 2.0), (99, 10.0))):
        yield Scenario(
            name=f"alarm-lateness-p{percent}-{loop}",
            title=f"p{percent}, {loop}",
            work=partial(alarms.lateness, percent, loop),
            obstacle=partial(loops.obstacle, loop),
            unit=" ms",
            target=Target("ms", bound),
            headline=loop == "trio",
        )


_TEN_THOUSAND = raw_batches(10_000, "full", 64)


def _at_once() -> Group:
    for loop, (name, least) in product(LOOPS, (("warm", 10_000), ("cold", 6_000))):
        ours, target = AlarmsAtOnce(loop, 10_000, name == "warm"), Target("rate", least)
        is_headline = loop == "trio"
        yield _comparison(f"alarms-at-once-{name}-{loop}", ours, _TEN_THOUSAND, target, is_headline)


def _alarm_changes() -> Group:
    for loop, change in product(LOOPS, alarms.CHANGES):
        ours, is_set = AlarmChanges(loop, change, 64), change == "set"
        target, is_headline = Target("rate", 20_000) if is_set else None, is_set and loop == "trio"
        yield _comparison(f"alarms-{change}-{loop}", ours, _TEN_THOUSAND, target, is_headline)


def _wheel() -> Group:
    for step in alarms.STEPS:
        ours, limit, target = WheelOperations(step), HeapOperations(step), Target("rate", 500_000)
        yield _comparison(f"wheel-{step}", ours, limit, target, headline=True)


def _backlog() -> Group:
    for loop in LOOPS:
        yield Scenario(
            name=f"alarms-backlog-{loop}",
            title=f"beside a backlog, {loop}",
            work=partial(alarms.beside_backlog, loop),
            obstacle=partial(loops.obstacle, loop),
            unit=" ms",
            limit_title="the same calls without alarms",
            headline=loop == "trio",
        )


def _many_alarms() -> Group:
    yield Scenario(
        name="alarms-start-up",
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
            title=f"memory, many alarms {place} the horizon",
            work=partial(alarms.memory_with_many, place == "within"),
            obstacle=memory.obstacle,
            unit=" B",
            headline=True,
        )


def _postgres_changes(loop: LoopName) -> Group:
    changes = partial(RuntimeCalls, loop, "change", storage="postgres")
    upserts, recordsets = psycopg.raw_upserts, psycopg.raw_recordsets(1000)
    cases: tuple[tuple[str, Workload, Workload, float], ...] = (
        ("1x1000", changes(1, 1000), upserts(1000), 0.6),
        ("64x1000", changes(64, 1000), recordsets, 0.5),
        ("64x1000-singly", changes(64, 1000), upserts(1000, connections=16), 3.0),
        ("64x1", changes(64, 1), recordsets, 0.0),
        ("512x1000", changes(512, 1000), recordsets, 0.0),
    )
    for name, ours, limit, bound in cases:
        target = Target("ratio", bound) if bound else None
        is_headline = loop == "trio" and bound > 0
        yield _on_postgres(f"changes-{name}-{loop}", ours, limit, target, is_headline)
    for name, ours, limit, bound in cases[:2]:
        target = Target("ratio", bound)
        yield _on_postgres(f"changes-{name}-apart-{loop}", ours, limit, target, apart=True)


def _postgres_first_calls(loop: LoopName) -> Group:
    operations: tuple[Operation, ...] = ("read", "change")
    limit, target = psycopg.raw_selects(STORED_OBJECTS), Target("rate", 10_000)
    for operation in operations:
        ours = FirstCalls(loop, operation, STORED_OBJECTS, "postgres")
        yield _on_postgres(f"cold-stored-{operation}-{loop}", ours, limit, target, loop == "trio")


def _postgres_alarms(loop: LoopName) -> Group:
    limit, target = psycopg.raw_recordsets(10_000), Target("rate", 5_000)
    for name in ("warm", "cold"):
        ours = AlarmsAtOnce(loop, 10_000, name == "warm", "postgres")
        yield _on_postgres(f"alarms-at-once-{name}-{loop}", ours, limit, target, loop == "trio")


def _messages() -> Group:
    for loop in LOOPS:
        calls, is_headline = RuntimeCalls(loop, "change", 64, 1000), loop == "trio"
        for sending in messages.SENDINGS:
            ours, name = Messages(loop, sending, 64, 1000), sending.replace(" ", "-")
            target = Target("ratio", 0.5) if sending == "send" else None
            headline = is_headline and target is not None
            yield _comparison(f"messages-{name}-{loop}", ours, calls, target, headline)
        once, target = OnceCalls(loop, 64, 1000), Target("ratio", 0.7)
        yield _comparison(f"once-keys-{loop}", once, calls, target, is_headline)


def _message_latency() -> Group:
    for loop, moment in product(LOOPS, messages.MOMENTS):
        yield Scenario(
            name=f"message-latency-{moment}-{loop}",
            title=f"until it is {moment}, {loop}",
            work=partial(messages.latency, moment, loop, "sqlite"),
            obstacle=partial(loops.obstacle, loop),
            unit=" ms",
            limit_title="a call",
            target=Target("most", 2.0),
            headline=loop == "trio",
        )


def _message_backlog() -> Group:
    for loop, (is_asleep, state) in product(LOOPS, ((True, "asleep"), (False, "handled"))):
        yield Scenario(
            name=f"messages-backlog-{state}-{loop}",
            title=f"{state} meanwhile, {loop}",
            work=partial(messages.beside_backlog, is_asleep, loop),
            obstacle=partial(loops.obstacle, loop),
            unit=" ms",
            limit_title="the same calls without messages",
            target=Target("most", 1.1),
            headline=loop == "trio",
        )


def _groups() -> Iterator[tuple[str, Group]]:
    yield "Reads", _reads()
    yield "Durable changes", _changes()
    yield "Durable changes, beside other batches", _changes_beside_batches()
    yield "An async def handler, beside a def one", _async_changes()
    yield "With an instrument, beside none", _telemetry()
    yield "More callers, beside fewer", _scaling()
    yield "Cold first calls, 64 callers, FULL", _first_calls()
    yield "Memory, trio", _memory()
    yield "Lateness of 1,000 alarms set 200 ms ahead", _lateness()
    yield "Alarms, each with a change of state, FULL", _at_once()
    yield "Alarms from outside, FULL", _alarm_changes()
    yield "The timing wheel beside a heap", _wheel()
    yield "p99 of 16 callers' changes beside 100,000 overdue alarms", _backlog()
    yield "Many alarms in the table", _many_alarms()
    yield "Messages and once-keys, beside durable calls", _messages()
    yield "Latency of one message, p50, beside that of a durable call", _message_latency()
    yield "p99 of 16 callers' changes beside a million messages for one object", _message_backlog()
    for loop in LOOPS:
        yield "PostgreSQL, durable changes", _postgres_changes(loop)
        yield "PostgreSQL, cold first calls, 64 callers", _postgres_first_calls(loop)
        yield "PostgreSQL, alarms, each with a change of state", _postgres_alarms(loop)


SCENARIOS: tuple[Scenario, ...] = tuple(
    attrs.evolve(scenario, group=name) for name, group in _groups() for scenario in group
)
