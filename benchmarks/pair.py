"""Two checkouts of the library in turns: ``python -m benchmarks.pair OTHER_CHECKOUT``.

Prints, for each figure, the medians of both and the median, least and greatest of the ratios of
this checkout to the other, turn by turn. A pair is two child processes, with the same interpreter,
dependencies and workload (this file), and ``PYTHONPATH`` as the only difference. They take turns of
a twentieth of a second, in which the other one waits, and the first of two turns is each checkout
in turn. So whatever else slows the machine slows both. Memory is measured once in a process. The
workload uses the public API alone, so that it runs on any version.

``--cpu`` divides calls by the processor time of the process instead of by seconds, which is
steadier still. ``--storage postgres`` has the figures of PostgreSQL instead, each child with an
empty schema of one server.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from time import process_time
from typing import Any, Literal, get_args

from trio_durable import DurableRuntime, MemoryStorage, SQLiteStorage, Storage
from trio_durable.storage.postgres import PostgresStorage

from . import loops
from .callers import Call, Period, Walk, call_each
from .memory import Status, bytes_per_object
from .objects import Counter, object_ids
from .postgres import server

_HERE = Path(__file__).resolve().parents[1]
_OBJECTS, _MEMORY_OBJECTS = 1_000, 20_000
_WARM_UP, _SECONDS, _TURNS = 0.1, 0.05, 20
# The library is imported from PYTHONPATH, and then this package from the checkout it is in.
_CHILD = f"""
import sys, trio_durable
sys.path.insert(0, {str(_HERE)!r})
from benchmarks.pair import measure
print(trio_durable.__file__, flush=True)
measure(*sys.argv[1:])
"""


Operation = Literal["read", "async read", "change", "async change"]
StorageName = Literal["memory", "sqlite", "postgres"]


def _storage(name: StorageName, folder: Path) -> Storage:
    """The storage for a child whose folder is that."""
    if name == "postgres":
        return PostgresStorage(server.conninfo(folder))
    return SQLiteStorage(folder / "objects.db") if name == "sqlite" else MemoryStorage()


def _calls(
    operation: Operation, callers: int, storage: StorageName, folder: Path, cpu: bool
) -> None:
    """Calls to active objects, a second; one figure for each line of the input."""

    async def main() -> None:
        async with DurableRuntime(_storage(storage, folder), objects=[Counter]) as runtime:
            counters = [runtime.get(Counter, object_id) for object_id in object_ids(_OBJECTS)]
            kinds: dict[Operation, list[Call]] = {
                "read": [counter.value for counter in counters],
                "async read": [counter.value_async for counter in counters],
                "change": [partial(counter.add, 1) for counter in counters],
                "async change": [partial(counter.add_async, 1) for counter in counters],
            }
            await call_each(kinds["change"])
            calls = kinds[operation]
            walks = [Walk(calls, number) for number in range(callers)]
            await Period(_WARM_UP).run(walks)
            gc.collect()
            for _ in sys.stdin:
                period, began = Period(_SECONDS), process_time()
                rate = await period.run(walks)
                print(period.calls / (process_time() - began) if cpu else rate, flush=True)

    loops.run("trio", main)


def _memory(status: Status, folder: Path, _: bool) -> None:
    """Bytes by which the resident set grows with each object."""
    sys.stdin.readline()
    path = folder / "objects.db"
    print(loops.run("trio", partial(bytes_per_object, _MEMORY_OBJECTS, path, status))[0])


_POSTGRES = ", PostgreSQL"
# Reads of active objects touch no storage, so they aren't repeated on SQLite. On PostgreSQL they
# are, since a reply needs a valid lease.
_FIGURES: dict[str, Callable[[Path, bool], None]] = {
    "reads/s, 1 caller": partial(_calls, "read", 1, "memory"),
    "reads/s, 64 callers": partial(_calls, "read", 64, "memory"),
    "changes/s, 1 caller, in memory": partial(_calls, "change", 1, "memory"),
    "changes/s, 64 callers, in memory": partial(_calls, "change", 64, "memory"),
    "changes/s, 1 caller, SQLite": partial(_calls, "change", 1, "sqlite"),
    "changes/s, 64 callers, SQLite": partial(_calls, "change", 64, "sqlite"),
    "bytes per active object": partial(_memory, "active"),
    "bytes per hibernated object": partial(_memory, "hibernated"),
    **{
        f"{operation}s/s, {callers}{_POSTGRES}": partial(_calls, operation, number, "postgres")
        for operation in get_args(Operation)
        for number, callers in ((1, "1 caller"), (64, "64 callers"))
    },
}


def measure(figure: str, folder: str, cpu: str) -> None:
    """Print a figure at each of its turns, in the process that was started for it."""
    _FIGURES[figure](Path(folder), cpu == "cpu")


@contextmanager
def _child(
    checkout: Path, *, figure: str, cpu: bool, parent: Path, postgres: server.Server | None
) -> Iterator[Callable[[], float]]:
    """A process with one checkout; what is yielded gives it a turn, and returns its figure."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="pair-", dir=parent))
        if postgres is not None:
            stack.enter_context(postgres.schema(Path(folder)))
        process = subprocess.Popen(
            # -P: the current folder, which may be a checkout, too, isn't searched for modules.
            [sys.executable, "-P", "-c", _CHILD, figure, folder, "cpu" if cpu else "wall"],
            env={**os.environ, "PYTHONPATH": str(checkout)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        stack.enter_context(process)  # its end closes the pipes, and waits
        assert process.stdin is not None
        assert process.stdout is not None
        into, out = process.stdin, process.stdout

        def turn() -> float:
            into.write("\n")
            into.flush()
            return float(out.readline())

        imported = out.readline().rstrip()
        if checkout not in Path(imported).resolve().parents:
            sys.exit(f"{checkout} has no trio_durable: {imported!r} was imported")
        yield turn


def _compare(figure: str, checkouts: list[Path], pairs: int, child: Callable[..., Any]) -> None:
    """Print the line of a figure."""
    found: list[tuple[float, ...]] = []
    for _ in range(pairs):
        with ExitStack() as stack:
            children = [stack.enter_context(child(each, figure=figure)) for each in checkouts]
            for _ in range(1 if "bytes" in figure else _TURNS):
                # 1, -1: the other way round, and the figures back in order.
                way = 1 if len(found) % 2 else -1
                found.append(tuple([turn() for turn in children[::way]][::way]))
    this, other = (statistics.median(side) for side in zip(*found, strict=True))
    ratios = [ours / theirs for ours, theirs in found]
    print(
        f"{figure:40}{this:10,.0f}{other:10,.0f}   "
        f"{statistics.median(ratios):.3f} ({min(ratios):.3f}, {max(ratios):.3f})",
        flush=True,
    )


def main() -> None:
    """Print a line for each figure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pair", description=__doc__)
    parser.add_argument("other", type=Path, help="the checkout to compare with")
    parser.add_argument("--this", type=Path, default=_HERE, help="default: the one this file is in")
    parser.add_argument("--pairs", type=int, default=4, help="of processes (default: 4)")
    parser.add_argument("--only", default="", help="only figures with this in their names")
    parser.add_argument("--cpu", action="store_true", help="calls per second of processor time")
    parser.add_argument("--dir", type=Path, default=Path.cwd(), help="where to put databases")
    parser.add_argument(
        "--storage", choices=["postgres"], help="its figures (default: all but PostgreSQL's)"
    )
    arguments = parser.parse_args()
    checkouts = [arguments.this.resolve(), arguments.other.resolve()]
    on_postgres = arguments.storage == "postgres"
    with ExitStack() as stack:
        postgres = None
        if on_postgres:
            parent = tempfile.TemporaryDirectory(prefix="pair-pg-", dir=arguments.dir)
            postgres = stack.enter_context(server.running(Path(stack.enter_context(parent))))
        child = partial(_child, cpu=arguments.cpu, parent=arguments.dir, postgres=postgres)
        print(f"{'':40}{'this':>10}{'other':>10}   this / other (least, greatest)")
        for figure in _FIGURES:
            if arguments.only in figure and figure.endswith(_POSTGRES) == on_postgres:
                _compare(figure, checkouts, arguments.pairs, child)


if __name__ == "__main__":
    main()
