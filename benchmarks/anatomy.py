"""The time of one call: each of its parts on its own, and the whole beside them.

Run it with ``python -m benchmarks.anatomy``. The parts are private; this is the one place outside
the tests that takes a call apart.
"""

from __future__ import annotations

import random
import tempfile
import timeit
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from time import perf_counter, sleep

import trio

from trio_durable import DurableRuntime, MemoryStorage, ObjectKey, ThreadRunner
from trio_durable._activations.turns import run_turn
from trio_durable._persistence.group_commit import GroupCommit
from trio_durable._persistence.ticket import Ticket
from trio_durable._telemetry.events import Turn
from trio_durable.storage import Commit, SQLiteStorage, Storage, Writer

from .objects import Counter

CALLERS = 64
NUMBER = 50_000


class _Owner:
    """The part of an activation that a commit needs."""

    def __init__(self) -> None:
        self.key = ObjectKey("Counter", "a")
        self.revision: int | None = 1
        self.epoch = 0
        self.gate: Ticket | None = None
        self.turn_event: Turn | None = None

    def committed(self, ticket: Ticket) -> None:
        pass

    def commit_failed(self) -> None:
        pass


def _show(part: str, seconds: float) -> None:
    print(f"{part:58s}{seconds * 1e6:8.2f} µs")


def _time(part: str, work: Callable[[], object]) -> None:
    _show(part, min(timeit.repeat(work, number=NUMBER, repeat=3)) / NUMBER)


async def _parts() -> None:
    async with DurableRuntime(MemoryStorage()) as runtime:
        handle = runtime.get(Counter, "a")
        await handle.add(1)
        opened = runtime._open()
        calls = runtime._registry.calls(Counter)
        directory, object_type = calls.directory, calls.object_type
        activation = directory.find("a")
        loop = opened.loop
        assert activation is not None
        instance = activation.state.instance
        read = object_type.handler("value")

        _time("handle method and its coroutine", lambda: handle.add(1).close())
        _time("look-up, and last in the order of use", lambda: directory.use("a"))
        _time(
            "turn of a read-only handler, encoding included",
            lambda: run_turn(activation.state, activation.runtime, read, (), {}),
        )
        _time(
            "  of that: encoding the state",
            lambda: object_type.codec.encode(activation.key, instance),
        )

        def deadline() -> None:
            waiter = loop.waiter()
            waiter.ended = True
            opened.deadlines.watch(waiter, 0.0, 5.0)

        _time("waiter and its deadline", deadline)

        group = opened.group_commit

        def submit() -> None:
            group._doorbell._is_asleep = False  # the writer is busy, so nothing is posted
            group.submit(_Owner(), b"", False)

        _time("commit: into the next transaction", submit)
        _forget(group)

        def settle() -> None:
            ticket = Ticket(_Owner(), 1, b"", False, None, 0)
            ticket.hold(loop.waiter())
            group._settle([ticket], ())

        _time("commit: made, settled, its waiter released", settle)
        _forget(group)


def _forget(group: GroupCommit) -> None:
    group._dirty.clear()
    group._taken_bytes = group._submitted_bytes
    group._doorbell._is_asleep = True


async def _park_and_wake() -> float:
    """Seconds of trio to park one of 64 tasks and to wake it, all of them in step."""
    rounds = 500
    parked: list[trio.lowlevel.Task] = []

    def abort(_: object) -> trio.lowlevel.Abort:
        return trio.lowlevel.Abort.SUCCEEDED

    async def caller() -> None:
        for _ in range(rounds):
            parked.append(trio.lowlevel.current_task())
            await trio.lowlevel.wait_task_rescheduled(abort)

    async with trio.open_nursery() as nursery:
        for _ in range(CALLERS):
            nursery.start_soon(caller)
        began = perf_counter()
        for _ in range(rounds):
            while len(parked) < CALLERS:
                await trio.lowlevel.checkpoint()
            tasks, parked[:] = parked[:], []
            for task in tasks:
                trio.lowlevel.reschedule(task)
    return (perf_counter() - began) / rounds / CALLERS


class _SlowDisk(MemoryStorage):
    """Takes 5 ms for a transaction, in a thread, as a disk would."""

    def open_writer(self) -> Writer:
        writer = super().open_writer()
        commit = writer.commit

        def slowly(batch: Sequence[Commit], now: int) -> Collection[int]:
            sleep(0.005)
            return commit(batch, now)

        writer.commit = slowly  # type: ignore[method-assign]
        return writer


async def _whole(storage: Storage, each: int = 500) -> float:
    """Seconds per change, 64 callers over 1,000 objects."""
    runner = ThreadRunner if isinstance(storage, _SlowDisk) else None
    async with DurableRuntime(storage, runner=runner) as runtime:
        handles = [runtime.get(Counter, str(number)) for number in range(1000)]
        for handle in handles:
            await handle.add(1)

        async def caller(number: int) -> None:
            for step in range(each):
                await handles[(number * 31 + step * 17) % 1000].add(1)

        best = float("inf")
        for _ in range(5):
            began = perf_counter()
            async with trio.open_nursery() as nursery:
                for number in range(CALLERS):
                    nursery.start_soon(caller, number)
            best = min(best, (perf_counter() - began) / each / CALLERS)
    return best


def _transactions(path: Path) -> None:
    """The writer alone, in this thread."""
    writer = SQLiteStorage(path).open_writer()
    keys = [ObjectKey("Counter", str(number)) for number in range(1000)]
    revisions = dict.fromkeys(keys, 0)

    def commit(changed: list[ObjectKey]) -> float:
        batch = [Commit(key, revisions[key], b'{"count":1,"total":1}') for key in changed]
        began = perf_counter()
        stale = writer.commit(batch, 0)
        duration = perf_counter() - began
        assert not stale
        for key in changed:
            revisions[key] += 1
        return duration

    commit(keys)
    for size in (1, 32, 64):
        durations = sorted(commit(random.sample(keys, size)) for _ in range(300))
        _show(f"a transaction of {size}", durations[len(durations) // 2])
    writer.close()


def main() -> None:
    """Print the table."""
    print("On trio, in the event loop's thread:")
    trio.run(_parts)
    _show("trio: to park a task and to wake it, 64 in step", trio.run(_park_and_wake))
    print()
    with tempfile.TemporaryDirectory(dir=".") as folder:
        print("SQLite, WAL, FULL, in the writer's thread:")
        _transactions(Path(folder) / "writer.db")
        print()
        print("A whole change, 64 callers over 1,000 objects:")
        _show("in memory", trio.run(_whole, MemoryStorage()))
        _show("durable", trio.run(_whole, SQLiteStorage(Path(folder) / "whole.db")))
        _show("with transactions that take 5 ms", trio.run(_whole, _SlowDisk(), 50))


if __name__ == "__main__":
    main()
