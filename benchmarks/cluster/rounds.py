"""Rates measured in turns, so that the drift of the machine cancels out of their ratios."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from functools import partial
from time import perf_counter

import anyio
import attrs

from .. import loops
from ..measurements import Sample, Target

MANY = 64
WARM_UP = 0.2

Call = Callable[[int], Awaitable[object]]
"""A call of the caller with that number."""


@attrs.frozen(kw_only=True)
class Effort:
    """Amount of work, and the event loops to do it on."""

    rounds: int
    seconds: float
    """Duration of each rate in each round."""
    only: loops.LoopName | None = None
    """The one event loop to measure; all of them by default."""

    def loops(self, *among: loops.LoopName) -> Iterator[loops.LoopName]:
        """The event loops that can be measured here, of all or of those named."""
        for loop in among or loops.LOOPS:
            if self.only in (None, loop) and not loops.obstacle(loop):
                yield loop


async def rate(call: Call, callers: int, seconds: float) -> float:
    """Calls per second of so many callers, each of which calls again when it has its reply."""
    done = 0
    end = perf_counter() + seconds

    async def run(number: int) -> None:
        nonlocal done
        while perf_counter() < end:
            await call(number)
            done += 1

    begin = perf_counter()
    async with anyio.create_task_group() as tasks:
        for number in range(callers):
            tasks.start_soon(run, number)
    return done / (perf_counter() - begin)


async def rates(calls: Mapping[str, Call], callers: int, effort: Effort) -> dict[str, Sample]:
    """The rate of each call, in rounds of all of them whose order rotates."""
    runs = {name: partial(rate, call, callers) for name, call in calls.items()}
    for run in runs.values():
        await run(WARM_UP)
    found: dict[str, list[float]] = {name: [] for name in runs}
    names = list(runs)
    for number in range(effort.rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            found[name].append(await runs[name](effort.seconds))
    return {name: Sample(each) for name, each in found.items()}


def medians(samples: Mapping[str, Sample]) -> str:
    """The medians in a line."""
    return ", ".join(f"{name} {sample.median:,.0f}/s" for name, sample in samples.items())


def ratio(samples: Mapping[str, Sample], one: str, other: str, bound: float | None = None) -> str:
    """The median, least and greatest of the rounds' ratios, and whether the bound holds."""
    found = samples[one].over(samples[other])
    text = f"{one} / {other}: {found.median:.2f} ({found.low:.2f}, {found.high:.2f})"
    if bound is None:
        return text
    verdict = "met" if found.median >= bound else "MISSED"
    return f"{text}, {Target('ratio', bound)} {verdict}"
