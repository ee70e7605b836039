"""Two checkouts of the library in turns: ``python -m benchmarks.pair OTHER_CHECKOUT``.

Prints, for each figure, the medians of both and the median, least and greatest of the ratios of
this checkout to the other, pair by pair. A pair is two child processes, one after the other, with
the same interpreter, dependencies and workload (this file), and ``PYTHONPATH`` as the only
difference; the first of a pair is each checkout in turn. The workload uses the public API alone, so
that it runs on any version. ``--cpu`` divides calls by the processor time of the process instead
of by seconds, which is steadier on a machine that has other work to do.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import process_time

from trio_durable import DurableRuntime, MemoryStorage, SQLiteStorage

from . import loops
from .callers import Call, Period, Walk, call_each
from .memory import Status, bytes_per_object
from .objects import Counter, object_ids

_HERE = Path(__file__).resolve().parents[1]
_OBJECTS, _MEMORY_OBJECTS = 1_000, 20_000
_WARM_UP, _SECONDS = 0.1, 0.5
# The library is imported from PYTHONPATH, and then this package from the checkout it is in.
_CHILD = f"""
import sys, trio_durable
sys.path.insert(0, {str(_HERE)!r})
from benchmarks.pair import measure
print(trio_durable.__file__, measure(*sys.argv[1:]))
"""


def _calls(operation: str, callers: int, on_disk: bool, folder: Path, cpu: bool) -> float:
    """Calls to active objects, a second."""

    async def main() -> float:
        storage = SQLiteStorage(folder / "objects.db") if on_disk else MemoryStorage()
        async with DurableRuntime(storage, objects=[Counter]) as runtime:
            counters = [runtime.get(Counter, object_id) for object_id in object_ids(_OBJECTS)]
            adding: list[Call] = [partial(counter.add, 1) for counter in counters]
            await call_each(adding)
            calls = [counter.value for counter in counters] if operation == "read" else adding
            walks = [Walk(calls, number) for number in range(callers)]
            await Period(_WARM_UP).run(walks)
            gc.collect()
            period, began = Period(_SECONDS), process_time()
            rate = await period.run(walks)
            return period.calls / (process_time() - began) if cpu else rate

    return loops.run("trio", main)


def _memory(status: Status, folder: Path, _: bool) -> float:
    """Bytes by which the resident set grows with each object."""
    path = folder / "objects.db"
    return loops.run("trio", partial(bytes_per_object, _MEMORY_OBJECTS, path, status))[0]


# Reads of active objects touch no storage, so they aren't repeated on SQLite.
_FIGURES: dict[str, Callable[[Path, bool], float]] = {
    "reads/s, 1 caller": partial(_calls, "read", 1, False),
    "reads/s, 64 callers": partial(_calls, "read", 64, False),
    "changes/s, 1 caller, in memory": partial(_calls, "change", 1, False),
    "changes/s, 64 callers, in memory": partial(_calls, "change", 64, False),
    "changes/s, 1 caller, SQLite": partial(_calls, "change", 1, True),
    "changes/s, 64 callers, SQLite": partial(_calls, "change", 64, True),
    "bytes per active object": partial(_memory, "active"),
    "bytes per hibernated object": partial(_memory, "hibernated"),
}


def measure(figure: str, folder: str, cpu: str) -> float:
    """One figure, in the process that was started for it."""
    return _FIGURES[figure](Path(folder), cpu == "cpu")


def _in_child(checkout: Path, *, figure: str, cpu: bool, parent: Path) -> float:
    with tempfile.TemporaryDirectory(prefix="pair-", dir=parent) as folder:
        child = subprocess.run(
            # -P: the current folder, which may be a checkout, too, isn't searched for modules.
            [sys.executable, "-P", "-c", _CHILD, figure, folder, "cpu" if cpu else "wall"],
            env={**os.environ, "PYTHONPATH": str(checkout)},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    imported, value = child.stdout.rsplit(maxsplit=1)
    if checkout not in Path(imported).resolve().parents:
        sys.exit(f"{checkout} has no trio_durable: {imported} was imported")
    return float(value)


def main() -> None:
    """Print a line for each figure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pair", description=__doc__)
    parser.add_argument("other", type=Path, help="the checkout to compare with")
    parser.add_argument("--this", type=Path, default=_HERE, help="default: the one this file is in")
    parser.add_argument("--pairs", type=int, default=12, help="default: 12")
    parser.add_argument("--only", default="", help="only figures with this in their names")
    parser.add_argument("--cpu", action="store_true", help="calls per second of processor time")
    parser.add_argument("--dir", type=Path, default=Path.cwd(), help="where to put databases")
    arguments = parser.parse_args()
    checkouts = [arguments.this.resolve(), arguments.other.resolve()]
    print(f"{'':34}{'this':>10}{'other':>10}   this / other (least, greatest)")
    for figure in (figure for figure in _FIGURES if arguments.only in figure):
        run = partial(_in_child, figure=figure, cpu=arguments.cpu, parent=arguments.dir)
        pairs: list[tuple[float, ...]] = []
        for number in range(arguments.pairs):
            # 1, -1: the other way round, and the figures back in order.
            way = 1 if number % 2 else -1
            one, two = (run(checkout) for checkout in checkouts[::way])
            pairs.append((one, two)[::way])
        this, other = (statistics.median(side) for side in zip(*pairs, strict=True))
        ratios = [ours / theirs for ours, theirs in pairs]
        print(
            f"{figure:34}{this:10,.0f}{other:10,.0f}   "
            f"{statistics.median(ratios):.3f} ({min(ratios):.3f}, {max(ratios):.3f})",
            flush=True,
        )


if __name__ == "__main__":
    main()
