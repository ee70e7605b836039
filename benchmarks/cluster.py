"""Calls of objects in another process, take-overs and hand-overs: ``python -m benchmarks.cluster``.

    calls     calls forwarded to another process, beside local ones and a bare framed socket
    deaths    the longest silence for callers when the process with their objects dies or stops
    moves     the longest wait of a caller while another process gets half of the objects, and
              while it leaves
    all       these one after the other

Both processes are on this machine. Ratios are of runs that alternate; medians of all rounds.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from time import perf_counter

import anyio

from trio_durable import Cluster, DurableError, DurableRuntime

from . import link, loops
from .objects import Counter, object_ids
from .postgres.server import conninfo, running

_MANY = 64
_WARM_UP = 0.2


@contextmanager
def _database() -> Iterator[str]:
    """The connection string of an empty database."""
    with tempfile.TemporaryDirectory(prefix="cluster-pg-") as name, running(Path(name)) as server:
        folder = Path(name, "cluster")
        folder.mkdir()
        with server.schema(folder):
            yield conninfo(folder)


# --- the other process ---------------------------------------------------------------------------


async def _own(storage: str, ttl: float) -> None:
    """Own objects until standard input ends."""
    async with DurableRuntime(storage, objects=[Counter], cluster=Cluster(ttl=ttl)) as runtime:
        print(runtime.node_id, flush=True)
        await anyio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)


@contextmanager
def _owner(storage: str, loop: str, ttl: float = 5.0) -> Iterator[subprocess.Popen[str]]:
    """A process that owns objects; it leaves at the end, if it is there still."""
    command = [sys.executable, "-m", "benchmarks.cluster", "--own", loop, storage, str(ttl)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        if not process.stdout.readline():
            raise RuntimeError("the other process has failed")
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.communicate("")


# --- calls ---------------------------------------------------------------------------------------


async def _rate(call: Callable[[int], Awaitable[object]], callers: int, seconds: float) -> float:
    """Calls per second of so many callers, each with an object of its own."""
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


async def _compare_calls(
    shared: str, alone: str, link_folder: Path, rounds: int, seconds: float
) -> None:
    client = Cluster(serve=False)
    ids = object_ids(_MANY)
    async with (
        DurableRuntime(shared, objects=[Counter], cluster=client) as guest,
        DurableRuntime(alone, objects=[Counter]) as local,
        link.bare_callers(link_folder) as bare,
    ):
        away = [guest.get(Counter, each) for each in ids]
        here = [local.get(Counter, each) for each in ids]
        for callers in (1, _MANY):
            runs: dict[str, Callable[[int], Awaitable[object]]] = {
                "bare socket": lambda _: bare(),
                "read away": lambda n: away[n].value(),
                "change away": lambda n: away[n].add(1),
                "change here": lambda n: here[n].add(1),
                "read here": lambda n: here[n].value(),
            }
            results: dict[str, list[float]] = {name: [] for name in runs}
            for call in runs.values():
                await _rate(call, callers, _WARM_UP)
            for number in range(rounds):
                order = list(runs)
                for name in order[number % len(order) :] + order[: number % len(order)]:
                    results[name].append(await _rate(runs[name], callers, seconds))
            medians = {name: statistics.median(each) for name, each in results.items()}
            print(
                f"  {callers:3} in flight: "
                + ", ".join(f"{name} {each:,.0f}/s" for name, each in medians.items())
            )
            for name, other in (("read away", "bare socket"), ("change away", "change here")):
                ratios = [a / b for a, b in zip(results[name], results[other], strict=True)]
                print(
                    f"      {name} / {other}: {statistics.median(ratios):.2f} "
                    f"({min(ratios):.2f}, {max(ratios):.2f})",
                    flush=True,
                )


def calls(rounds: int, seconds: float) -> None:
    """Compare calls of objects here, in another process, and a bare socket."""
    with _database() as url, tempfile.TemporaryDirectory(prefix="cluster-") as name:
        folder = Path(name)
        for loop in loops.LOOPS:
            if loops.obstacle(loop):
                continue
            with link.server(loop, folder):
                for kind, shared, alone in (
                    ("SQLite", str(folder / f"{loop}.db"), str(folder / f"{loop}-alone.db")),
                    ("PostgreSQL", url, str(folder / f"{loop}-alone.db")),
                ):
                    print(f"{kind}, {loop}")
                    with _owner(shared, loop):
                        loops.run(
                            loop,
                            partial(_compare_calls, shared, alone, folder, rounds, seconds),
                        )


# --- deaths --------------------------------------------------------------------------------------


async def _silence(runtime: DurableRuntime, ids: list[str], harm: Callable[[], object]) -> float:
    """The longest time in which no call of a caller ends, around ``harm``."""
    longest = 0.0
    harmed = anyio.Event()

    async def call(each: str) -> None:
        nonlocal longest
        last, succeeded = perf_counter(), 0
        while succeeded < 50:
            try:
                await runtime.get(Counter, each).add(1)
            except DurableError:
                continue
            now = perf_counter()
            if harmed.is_set():
                longest = max(longest, now - last)
                succeeded += 1
            last = now

    async with anyio.create_task_group() as tasks:
        for each in ids:
            tasks.start_soon(call, each)
        await anyio.sleep(0.5)
        harmed.set()
        harm()
    return longest


async def _survive(storage: str, process: subprocess.Popen[str], how: signal.Signals) -> float:
    async with DurableRuntime(
        storage, objects=[Counter], cluster=Cluster(ttl=2), call_timeout=10
    ) as runtime:
        await _settled(runtime, 2)
        ids = object_ids(16)
        return await _silence(runtime, ids, lambda: os.kill(process.pid, how))


async def _settled(runtime: DurableRuntime, members: int) -> None:
    """Wait until the members have equal shares; on a file one has all."""
    while True:
        nodes = [each for each in await runtime.list_nodes() if each.serves]
        shards = [each.shards for each in nodes]
        if len(nodes) == members and (max(shards) - min(shards) <= 1 or sum(shards) == 1):
            return
        await anyio.sleep(0.05)


def deaths(rounds: int) -> None:
    """Measure the silence after a death, a stop and a clean leave."""
    with _database() as url, tempfile.TemporaryDirectory(prefix="cluster-") as name:
        for kind in ("SQLite", "PostgreSQL"):
            for how in (signal.SIGKILL, signal.SIGSTOP):
                if kind == "SQLite" and how is signal.SIGSTOP:
                    continue  # its lock can't be overruled
                found = []
                for number in range(rounds):
                    storage = url if kind == "PostgreSQL" else f"{name}/{number}.db"
                    with _owner(storage, "trio", 2.0) as process:
                        found.append(loops.run("trio", partial(_survive, storage, process, how)))
                        process.kill()
                found.sort()
                print(
                    f"{kind}, {how.name}: p50 {1e3 * statistics.median(found):,.0f} ms, max "
                    f"{1e3 * found[-1]:,.0f} ms of {rounds}",
                    flush=True,
                )


# --- hand-overs ----------------------------------------------------------------------------------


@asynccontextmanager
async def _calling(runtime: DurableRuntime, ids: list[str]) -> AsyncIterator[list[float]]:
    """Sixteen callers of many objects; yields the seconds that each call has taken."""
    taken: list[float] = []
    over = False

    async def call(first: int) -> None:
        at = first
        while not over:
            begin = perf_counter()
            await runtime.get(Counter, ids[at % len(ids)]).add(1)
            taken.append(perf_counter() - begin)
            at += 7919

    async with anyio.create_task_group() as tasks:
        for first in range(16):
            tasks.start_soon(call, first * 1009)
        yield taken
        over = True


async def _move(url: str, objects: int) -> None:
    ids = object_ids(objects)
    async with DurableRuntime(
        url, objects=[Counter], cluster=True, max_resident=2 * objects, call_timeout=30
    ) as runtime:
        for begin in range(0, objects, 512):
            async with anyio.create_task_group() as tasks:
                for each in ids[begin : begin + 512]:
                    tasks.start_soon(runtime.get(Counter, each).add, 1)
        async with _calling(runtime, ids) as taken:
            await anyio.sleep(1)
            before, began = len(taken), perf_counter()
            command = [sys.executable, "-m", "benchmarks.cluster", "--own", "trio", url, "5"]
            process = await anyio.open_process(command, stderr=None)
            await _settled(runtime, 2)
            _report("joins", taken[before:], perf_counter() - began)
            before, began = len(taken), perf_counter()
            assert process.stdin is not None
            await process.stdin.aclose()
            await process.wait()
            await _settled(runtime, 1)
            _report("leaves", taken[before:], perf_counter() - began)


def _report(what: str, taken: list[float], seconds: float) -> None:
    taken = sorted(taken)
    print(
        f"a process {what}, {seconds:.1f} s: {len(taken):,} calls without an error, p50 "
        f"{1e3 * taken[len(taken) // 2]:.1f} ms, p99 {1e3 * taken[len(taken) * 99 // 100]:.1f} ms, "
        f"the longest {1e3 * taken[-1]:.0f} ms",
        flush=True,
    )


def moves(objects: int) -> None:
    """Measure the waits of callers while objects move to another process and back."""
    with _database() as url:
        print(f"{objects:,} objects in memory, 16 callers")
        loops.run("trio", partial(_move, url, objects))


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cluster", description=__doc__)
    parts = ["all", "calls", "deaths", "moves"]
    parser.add_argument("part", nargs="?", default="all", choices=parts)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.4, help="of each measurement")
    parser.add_argument("--deaths", type=int, default=20, help="of each kind")
    parser.add_argument("--objects", type=int, default=100_000, help="that are in memory")
    parser.add_argument("--own", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.own:
        loop, storage, ttl = arguments.own
        loops.run(loop, partial(_own, storage, float(ttl)))
        return
    if arguments.part in ("all", "calls"):
        calls(arguments.rounds, arguments.seconds)
    if arguments.part in ("all", "deaths"):
        deaths(arguments.deaths)
    if arguments.part in ("all", "moves"):
        moves(arguments.objects)


if __name__ == "__main__":
    main()
