"""Growth: the processor time per item while the number of items grows from 1,000 to 64,000.

``python -m benchmarks.growth`` runs each scenario with growing numbers, on Trio and in memory. It
prints microseconds of processor time per item, and how many times those of the smallest number they
are. Work that grows as n log n gives 1.6 at most, log 64,000 / log 1,000; caches and the garbage
collector add to that. More than 3 is taken for a faster growth, and the exit status is 1 then.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from time import process_time

import trio
from trio.lowlevel import checkpoint
from trio.testing import wait_all_tasks_blocked

from trio_durable import Alarm, CallTimeout, DurableObject, DurableRuntime, handler

SIZES = (1_000, 4_000, 16_000, 64_000)
MOST = 3.0
"""The greatest ratio of times per item that passes for n log n."""
_ROUNDS = 4
"""Rounds of the smallest number, of which the fastest counts: all are compared with it."""


class Cell(DurableObject, mailbox_size=1_000_000, call_timeout=None, hibernate_after=None):
    """An object that counts, hangs, and calls others."""

    count: int = 0

    @handler
    def increment(self) -> int:
        """A change."""
        self.count += 1
        return self.count

    @handler
    async def hang(self) -> None:
        """A turn that doesn't end by itself."""
        await trio.sleep_forever()

    @handler
    async def relay(self, other: str) -> int:
        """Call one other object."""
        return await Cell.increment(other)

    @handler
    async def fan_out(self, name: str, others: list[str]) -> None:
        """Call many other objects at once."""
        async with trio.open_nursery() as nursery:
            for other in others:
                nursery.start_soon(self.ctx.runtime.call, Cell, other, name)

    @handler
    def set_alarms(self, begin: int, end: int) -> None:
        """Set alarms that are due soon."""
        for number in range(begin, end):
            self.ctx.schedule_alarm(str(number), after=1)

    def handle_alarm(self, alarm: Alarm) -> None:
        """A change by an alarm."""
        self.count += 1


class Clock:
    """Processor time from `start` on."""

    def __init__(self) -> None:
        self._began = 0.0

    def start(self) -> None:
        """Leave what was before out of account."""
        gc.collect()
        self._began = process_time()

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return process_time() - self._began


Scenario = Callable[[DurableRuntime, trio.Nursery, Clock, int], Awaitable[None]]
"""Prepares, starts the clock and handles a number of items. Turns that hang stay in the nursery."""


def _ids(count: int) -> list[str]:
    return [f"{number:06}" for number in range(count)]


async def _expire(
    distinct: bool, runtime: DurableRuntime, nursery: trio.Nursery, clock: Clock, count: int
) -> None:
    async def caller(timeout: float) -> None:
        with contextlib.suppress(CallTimeout):
            await runtime.get(Cell, "busy", timeout=timeout).increment()

    nursery.start_soon(Cell.hang, "busy")
    await wait_all_tasks_blocked()
    clock.start()
    async with trio.open_nursery() as callers:
        for number in range(count):
            callers.start_soon(caller, 60 * (1 + number / count) if distinct else 60)


async def _make_room(
    share: float, _: DurableRuntime, nursery: trio.Nursery, clock: Clock, count: int
) -> None:
    """``count`` newcomers, as many as there is room for objects, of which a share is busy."""
    for object_id in _ids(round(count * share)):
        nursery.start_soon(Cell.hang, f"busy {object_id}")
    await wait_all_tasks_blocked()
    clock.start()
    for object_id in _ids(count):
        await Cell.increment(object_id)


async def _ring(runtime: DurableRuntime, _: trio.Nursery, clock: Clock, count: int) -> None:
    """Alarms of one object, all due at once."""
    for begin in range(0, count, 1_000):
        await Cell.set_alarms("a", begin, min(begin + 1_000, count))
    clock.start()
    while (await runtime.get_state(Cell, "a")).count < count:
        await trio.sleep(0.5)


async def _call_many(_: DurableRuntime, __: trio.Nursery, clock: Clock, count: int) -> None:
    """Calls from one turn, each to another object."""
    clock.start()
    await Cell.fan_out("a", "increment", _ids(count))


async def _call_hub(_: DurableRuntime, nursery: trio.Nursery, clock: Clock, count: int) -> None:
    """Turns that call one object, whose own turn waits for as many others."""
    nursery.start_soon(Cell.fan_out, "hub", "hang", _ids(count))
    await wait_all_tasks_blocked()
    clock.start()
    for object_id in _ids(count):
        nursery.start_soon(Cell.relay, f"caller {object_id}", "hub")
    await wait_all_tasks_blocked()


async def _queue(_: DurableRuntime, nursery: trio.Nursery, clock: Clock, count: int) -> None:
    """Calls in one mailbox, cancelled in the order in which they came."""
    nursery.start_soon(Cell.hang, "busy")
    await wait_all_tasks_blocked()
    scopes = []

    async def caller(scope: trio.CancelScope) -> None:
        with scope:
            await Cell.increment("busy")

    clock.start()
    async with trio.open_nursery() as callers:
        for _number in range(count):
            scopes.append(trio.CancelScope())
            callers.start_soon(caller, scopes[-1])
        await wait_all_tasks_blocked()
        for scope in scopes:
            scope.cancel()
            await checkpoint()


_SCENARIOS: dict[str, Scenario] = {
    "calls that time out, all with one timeout": partial(_expire, False),
    "calls that time out, each with a timeout of its own": partial(_expire, True),
    "newcomers, no object busy": partial(_make_room, 0.0),
    "newcomers, half of max_resident busy": partial(_make_room, 0.5),
    "newcomers, all of max_resident busy": partial(_make_room, 1.0),
    "due alarms of one object": _ring,
    "calls of one turn": _call_many,
    "turns that call an object whose turn waits for as many": _call_hub,
    "calls in one mailbox that are cancelled": _queue,
}


async def _measure(scenario: Scenario, count: int) -> float:
    clock = Clock()
    async with (
        DurableRuntime(":memory:", max_resident=max(count, 2), grace_period=0) as runtime,
        trio.open_nursery() as nursery,
    ):
        await scenario(runtime, nursery, clock, count)
        seconds = clock.seconds
        nursery.cancel_scope.cancel()
    return seconds


def _per_item(scenario: Scenario, count: int) -> float:
    """Microseconds of processor time."""
    mock = trio.testing.MockClock(autojump_threshold=0)
    return trio.run(_measure, scenario, count, clock=mock) / count * 1e6


def main() -> int:
    """Print a line for each scenario."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    parser.add_argument("--only", default="", help="only scenarios with this in their names")
    parser.add_argument("--most", type=int, default=SIZES[-1], help="the greatest number of items")
    arguments = parser.parse_args()
    sizes = [size for size in SIZES if size <= arguments.most]
    print(f"{'µs per item':56}" + "".join(f"{size:>14,}" for size in sizes))
    grows = False
    for name, scenario in _SCENARIOS.items():
        if arguments.only not in name:
            continue
        least = min(_per_item(scenario, sizes[0]) for _ in range(_ROUNDS))
        print(f"{name:56}{least:14.1f}", end="", flush=True)
        for size in sizes[1:]:
            figure = _per_item(scenario, size)
            grows = grows or figure / least > MOST
            print(f"{f'{figure:.1f} ({figure / least:.1f})':>14}", end="", flush=True)
        print()
    return int(grows)


if __name__ == "__main__":
    sys.exit(main())
