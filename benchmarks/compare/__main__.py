"""The command line: ``python -m benchmarks.compare``."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

import attrs
from rich.console import Console

from benchmarks import machine
from benchmarks.command import chosen, parser_of
from benchmarks.processes import ChildFailed
from benchmarks.report import write

from . import report, syncs
from .catalogue import ENTRIES, Entry
from .driver import Effort, count_syncs, put_through
from .results import WORKLOADS, Absent, Result, Stretch, WorkloadName, collect


@attrs.frozen
class Plan:
    rounds: int
    seconds: float
    """Of each workload that has callers, in each round."""
    alarms: int

    def effort(self, entry: Entry, workloads: tuple[WorkloadName, ...]) -> Effort:
        alarms = min(self.alarms, entry.alarms)
        possible = tuple(name for name in workloads if name not in entry.cannot)
        return Effort(self.seconds, alarms, entry.callers, possible)


FULL = Plan(rounds=3, seconds=0.5, alarms=1_000)
SHORT = Plan(rounds=1, seconds=0.2, alarms=100)


def main() -> int:
    """Compare the contenders that the command line names."""
    parser = parser_of(
        "benchmarks.compare",
        "compare",
        "Run the same workloads on trio_durable and on alternatives to it. "
        "Contenders that aren't installed are left out.",
        short="one short round (about two minutes)",
    )
    parser.add_argument(
        "--workload",
        action="append",
        choices=WORKLOADS,
        help="only this workload; can be repeated",
    )
    arguments = parser.parse_args()
    entries = chosen(ENTRIES, arguments.only)
    if not entries:
        parser.error(
            f"no contender is called anything like {arguments.only}; --list shows them all"
        )
    if arguments.list:
        for entry in entries:
            print(f"{entry.name:22}{entry.title}; {entry.durability}")
        return 0
    parent = arguments.dir or Path.cwd()
    if machine.is_in_memory(parent):
        parser.error(f"{parent} is in memory; name a folder on a disk with --dir")
    with tempfile.TemporaryDirectory(prefix="benchmarks-", dir=parent) as name:
        disk = machine.probe(Path(name))
        print(f"Databases in {parent}: {disk}")
        workloads = tuple(arguments.workload or WORKLOADS)
        plan = SHORT if arguments.short else FULL
        try:
            results, absent = compare(entries, Path(name), plan, workloads)
        except KeyboardInterrupt:
            return 130
    report.show(results, absent, Console(width=None if sys.stdout.isatty() else 160))
    write(arguments.json, report.document(results, absent, disk))
    if results:
        write(arguments.svg, report.draw(results, str(disk)))
    return int(any(contender.failed for contender in absent))


def compare(
    entries: Sequence[Entry], folder: Path, plan: Plan, workloads: tuple[WorkloadName, ...]
) -> tuple[list[Result], list[Absent]]:
    """Let the contenders take turns: each does one round, then each another one."""
    absent: dict[str, Absent] = {}
    rounds: dict[str, list[list[Stretch]]] = {}
    counted: dict[str, dict[WorkloadName, float]] = {}
    entries = [entry for entry in entries if set(workloads) - set(entry.cannot)]
    for entry in entries:
        if obstacle := entry.obstacle():
            print(f"{entry.name} is left out: {obstacle}")
            absent[entry.name] = Absent(entry.name, obstacle, failed=False)
    if obstacle := syncs.obstacle():
        print(f"Syncs aren't counted: {obstacle}")
    steps = [f"round {number + 1}" for number in range(plan.rounds)]
    for step in steps if obstacle else [*steps, "counting"]:
        for entry in entries:
            if entry.name in absent:
                continue
            began = perf_counter()
            try:
                if step == "counting":
                    effort = SHORT.effort(entry, workloads)
                    counted[entry.name] = count_syncs(entry, folder, effort)
                    said = "syncs counted"
                else:
                    stretches = put_through(entry, folder, plan.effort(entry, workloads))
                    rounds.setdefault(entry.name, []).append(stretches)
                    said = ", ".join(f"{each.workload} {each.rate:,.0f}/s" for each in stretches)
            except ChildFailed as error:
                # Its figures stand if only its syncs couldn't be counted.
                if step != "counting":
                    absent[entry.name] = Absent(entry.name, str(error), failed=True)
                said = f"FAILED: {str(error).splitlines()[-1]}"
            print(f"[{step}] {entry.name}: {said}  ({perf_counter() - began:.1f} s)", flush=True)
    results = [
        result
        for entry in entries
        if entry.name not in absent
        for result in collect(entry.name, rounds[entry.name], counted.get(entry.name, {}))
    ]
    return results, list(absent.values())


if __name__ == "__main__":
    sys.exit(main())
