"""Simulates with fresh seeds, for as long as wanted, and kills real processes now and then.

    PYTHONPATH=tests python -m tests.simulation.soak [--minutes N] [--seed N] [--count N] [--kills]
        [--backend NAME] [--storage NAME] [--processes NAME]

Without an end of its own it goes on until Control-C. Every few seconds it says what it has done. If
something isn't as it must be, it says what, with the seed and the command that shows it again, and
exits with 1.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from itertools import count
from pathlib import Path
from random import SystemRandom
from typing import TypeAlias

from support.postgres import Database, running

from trio_durable import PostgresStorage, SQLiteStorage, Storage

from .run import Broken, Undecided, Violation, simulate
from .schedule import BACKENDS

NewStorage: TypeAlias = "Callable[[], Storage]"

_BETWEEN_LINES = 10.0
_BETWEEN_KILLS = 300.0
_SEEDS = 2**31
_COUNTED = (
    *("operations", "unknown", "crashes", "faults", "attempts", "histories"),
    *("leases_lost", "moves"),
)


def main(arguments: list[str] | None = None) -> int:
    """Simulate, and kill, until told to stop; 1 if something was wrong."""
    parser = argparse.ArgumentParser(prog="soak", description="Simulates with fresh seeds.")
    parser.add_argument("--minutes", type=float, help="how long; until Control-C if not given")
    parser.add_argument("--count", type=int, help="how many seeds; without end if not given")
    parser.add_argument("--seed", type=int, help="the first seed; a fresh one if not given")
    parser.add_argument(
        "--kills", action="store_true", help="kill real processes, too, every five minutes"
    )
    parser.add_argument("--backend", choices=BACKENDS, default="trio", help="the event loop")
    parser.add_argument(
        "--storage", choices=STORAGES, default="memory", help='"postgres" starts a server'
    )
    parser.add_argument(
        "--processes",
        choices=("apart", "cluster"),
        help="not members of a cluster, or members; by turns if not given",
    )
    options = parser.parse_args(arguments)
    first = SystemRandom().randrange(_SEEDS) if options.seed is None else options.seed
    seeds = count(first) if options.count is None else range(first, first + options.count)
    began = told = time.monotonic()
    deadline = began + (float("inf") if options.minutes is None else options.minutes * 60)
    total: Counter[str] = Counter()
    kill_at = began if options.kills else float("inf")
    say(f"seeds from {first} on")
    stack = contextlib.ExitStack()
    new_storage = stack.enter_context(STORAGES[options.storage]())
    try:
        for seed in seeds:
            if time.monotonic() >= kill_at:
                if problem := kill():
                    say(problem)
                    return 1
                total["kills"] += 1
                kill_at = time.monotonic() + _BETWEEN_KILLS
            total["seeds"] += 1
            processes = options.processes or ("cluster" if seed % 4 == 3 else "apart")
            try:
                storage = None if new_storage is None else new_storage()
                report = simulate(
                    seed,
                    storage=storage,
                    backend=options.backend,
                    cluster=processes == "cluster",
                )
            except Undecided:
                total["undecided"] += 1
            else:
                for name in _COUNTED:
                    total[name] += getattr(report, name)
            now = time.monotonic()
            if now >= deadline:
                break
            if now - told >= _BETWEEN_LINES:
                told = now
                say(line(total, now - began))
    except KeyboardInterrupt:
        say("\nstopped")
    except (Violation, Broken) as violation:
        say(line(total, time.monotonic() - began))
        where = "".join(
            f" --{name} {value}"
            for name in ("backend", "storage", "processes")
            if (value := getattr(options, name)) != parser.get_default(name)
        )
        say(f"{violation}\n\nto see it again:\n    {REPLAY} --seed {seed} --count 1{where}")
        return 1
    finally:
        stack.close()
    say(f"{line(total, time.monotonic() - began)}\nnothing was wrong")
    return 0


REPLAY = "PYTHONPATH=tests python -m tests.simulation.soak"
KILLS = ("tests/crash/test_kills.py", "tests/crash/test_alarm_kills.py")
KILLS_EACH = 20
"""Of each test; at moments that are never the same."""


@contextlib.contextmanager
def in_memory() -> Iterator[None]:
    """The simulation's own."""
    yield None


@contextlib.contextmanager
def in_files() -> Iterator[NewStorage]:
    """SQLite files, each removed with the next."""
    with tempfile.TemporaryDirectory() as folder:
        numbers = count()

        def new() -> Storage:
            for path in Path(folder).iterdir():
                path.unlink()
            return SQLiteStorage(Path(folder) / f"{next(numbers)}.db", durability="normal")

        yield new


@contextlib.contextmanager
def on_a_server() -> Iterator[NewStorage]:
    """A PostgreSQL server, with an empty schema for each."""
    with running() as server:
        database = Database(server.conninfo(dbname="postgres"))

        def new() -> Storage:
            database.clear()
            return PostgresStorage(database.new_schema())

        try:
            yield new
        finally:
            database.close()


STORAGES: dict[str, Callable[[], AbstractContextManager[NewStorage | None]]] = {
    "memory": in_memory,
    "sqlite": in_files,
    "postgres": on_a_server,
}


def kill() -> str:
    """Kill processes under load; what was wrong, if anything was."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *KILLS],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "TRIO_DURABLE_KILLS": str(KILLS_EACH)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if not done.returncode:
        return ""
    again = f"TRIO_DURABLE_KILLS={KILLS_EACH} python -m pytest {' '.join(KILLS)}"
    return f"{done.stdout}\nto try it again:\n    {again}"


def line(total: Counter[str], seconds: float) -> str:
    """What there was by now."""
    return (
        f"{seconds:6.0f} s: {total['seeds']:,} seeds, {total['operations']:,} operations "
        f"({total['unknown']:,} of unknown outcome), {total['crashes']:,} crashes, "
        f"{total['faults']:,} faults of the storage, {total['attempts']:,} deliveries of alarms, "
        f"{total['leases_lost']:,} leases lost, {total['moves']:,} moves of shards, "
        f"{total['histories']:,} histories checked"
        + (f"; rounds of SIGKILL: {total['kills']}" if total["kills"] else "")
        + (f"; {total['undecided']} seeds too hard to judge" if total["undecided"] else "")
    )


def say(text: str) -> None:
    """Write a line, at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
