"""Four processes on one SQLite file, of which one has the objects, beside one process alone.

Each of the four has a quarter of the callers. All processes run all the time, and those whose turn
it isn't are idle.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Literal, cast

import anyio

from trio_durable import DurableRuntime

from .. import loops
from ..measurements import Sample
from ..objects import Counter, object_ids
from ..serving import serving
from .rounds import MANY, WARM_UP, Call, Effort, medians, rate, ratio

_WORKERS = 4

Operation = Literal["reads", "changes"]


def measure(effort: Effort) -> None:
    """Print the calls per second of all four, and of the one."""
    with tempfile.TemporaryDirectory(prefix="cluster-") as name:
        for loop in effort.loops():
            path, alone = str(Path(name, f"{loop}.db")), str(Path(name, f"{loop}-alone.db"))
            with ExitStack() as stack:
                # The first has the file when the others start.
                workers = [
                    stack.enter_context(_worker(loop, path, number, _WORKERS))
                    for number in range(_WORKERS)
                ]
                single = stack.enter_context(_worker(loop, alone, 0, 1))
                for operation in ("reads", "changes"):
                    _compare(loop, operation, workers, single, effort)


class _Worker:
    """A process that calls when it is asked to."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._requests, self._results = process.stdin, process.stdout

    def begin(self, operation: Operation, seconds: float) -> None:
        """Let it call for that long."""
        self._requests.write(f"{operation} {seconds}\n")
        self._requests.flush()

    def rate(self) -> float:
        """Its calls per second, when the time is over."""
        return float(self._results.readline())


@contextmanager
def _worker(loop: loops.LoopName, storage: str, number: int, among: int) -> Iterator[_Worker]:
    """One of so many processes that open a storage and divide the callers."""
    with serving(__name__, loop, storage, str(number), str(among)) as process:
        yield _Worker(process)


def _compare(
    loop: loops.LoopName,
    operation: Operation,
    workers: list[_Worker],
    single: _Worker,
    effort: Effort,
) -> None:
    sides = {f"{_WORKERS} processes": workers, "one alone": [single]}
    found: dict[str, list[float]] = {side: [] for side in sides}
    shares: list[float] = []
    for processes in sides.values():
        _together(processes, operation, WARM_UP)
    for number in range(effort.rounds):
        for side in list(sides)[:: -1 if number % 2 else 1]:
            each = _together(sides[side], operation, effort.seconds)
            found[side].append(sum(each))
            if sides[side] is workers:
                shares.append(each[0])
    samples = {side: Sample(each) for side, each in found.items()}
    print(f"{loop}, {operation}, {MANY} in flight: {medians(samples)}")
    print(f"      {Sample(shares).median:,.0f}/s of these in the process with the objects")
    print(f"      {ratio(samples, f'{_WORKERS} processes', 'one alone')}", flush=True)


def _together(workers: list[_Worker], operation: Operation, seconds: float) -> list[float]:
    """The rate of each of these processes, which call at the same time."""
    for worker in workers:
        worker.begin(operation, seconds)
    return [worker.rate() for worker in workers]


async def _work(storage: str, number: int, among: int) -> None:
    callers = MANY // among
    ids = object_ids(MANY)[number * callers :][:callers]
    async with DurableRuntime(storage, objects=[Counter], cluster=among > 1) as runtime:
        counters = [runtime.get(Counter, each) for each in ids]
        calls: dict[str, Call] = {
            "reads": lambda n: counters[n].value(),
            "changes": lambda n: counters[n].add(1),
        }
        print("ready", flush=True)
        while request := await anyio.to_thread.run_sync(sys.stdin.readline):
            operation, seconds = request.split()
            print(await rate(calls[operation], callers, float(seconds)), flush=True)


if __name__ == "__main__":
    name, location, place, total = sys.argv[1:]
    loops.run(cast("loops.LoopName", name), partial(_work, location, int(place), int(total)))
