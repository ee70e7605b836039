"""The command line: ``python -m benchmarks``."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

import attrs
import orjson
from rich.console import Console

from . import chart, disk, report
from .child import measure_in_child, skipped
from .machine import describe
from .measurements import Measurement, Outcome, as_record
from .scenario import FULL, SHORT, Scenario
from .scenarios import SCENARIOS

_RESULTS = Path(__file__).parent / "results"


def main() -> int:
    """Run the benchmarks that the command line asks for."""
    parser = _parser()
    arguments = parser.parse_args()
    scenarios = _chosen(arguments.only or (), short=arguments.short)
    if not scenarios:
        parser.error(f"no scenario is called anything like {arguments.only}; --list shows them all")
    if arguments.list:
        _list(scenarios)
        return 0
    parent = arguments.dir or Path.cwd()
    if not parent.is_dir():
        parser.error(f"--dir: there is no folder {parent}")
    if arguments.dir is None and disk.is_in_memory(parent):
        parser.error(
            f"{parent} is in memory ({disk.filesystem(parent)}), where a sync costs nothing; "
            "name a folder on a disk with --dir, or this one if that is what you want to measure"
        )
    try:
        with tempfile.TemporaryDirectory(prefix="benchmarks-", dir=parent) as name:
            outcomes, machine = _measure(scenarios, Path(name), short=arguments.short)
    except KeyboardInterrupt:
        return 130
    # A table in a file or a pipe has no window to fit into.
    report.show(outcomes, Console(width=None if sys.stdout.isatty() else 140))
    report.write(
        arguments.json, orjson.dumps(_document(outcomes, machine), option=orjson.OPT_INDENT_2)
    )
    measured = [outcome for outcome in outcomes if isinstance(outcome, Measurement)]
    headlines = [m for m in measured if m.headline] or measured
    report.write(arguments.svg, chart.draw(headlines, f"{machine['disk']}").encode())
    return int(len(measured) < len([o for o in outcomes if isinstance(o, Measurement) or o.failed]))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure trio_durable beside the limits of what it is built on. A missed "
        "target is told in the table and doesn't change the exit status.",
    )
    parser.add_argument(
        "--short",
        action="store_true",
        help="only what has a target, with fewer and shorter rounds (about two minutes)",
    )
    parser.add_argument(
        "--only",
        action="append",
        metavar="NAME",
        help="only the scenario called NAME, or those with NAME in theirs; can be repeated",
    )
    parser.add_argument("--list", action="store_true", help="list the scenarios and end")
    parser.add_argument(
        "--dir",
        type=Path,
        metavar="PATH",
        help="where to put the databases, in a folder that is removed again (default: here)",
    )
    parser.add_argument(
        "--json",
        type=Path,
        metavar="PATH",
        default=_RESULTS / "latest.json",
        help="where to write all figures (default: benchmarks/results/latest.json)",
    )
    parser.add_argument(
        "--svg",
        type=Path,
        metavar="PATH",
        default=_RESULTS / "latest.svg",
        help="where to draw the chart (default: benchmarks/results/latest.svg)",
    )
    return parser


def _chosen(only: Sequence[str], *, short: bool) -> list[Scenario]:
    if not only:
        return [scenario for scenario in SCENARIOS if scenario.headline or not short]
    exact = {scenario.name for scenario in SCENARIOS}
    return [
        scenario
        for scenario in SCENARIOS
        if any(scenario.name == part if part in exact else part in scenario.name for part in only)
    ]


def _list(scenarios: Sequence[Scenario]) -> None:
    width = max(len(scenario.name) for scenario in scenarios)
    for scenario in scenarios:
        target = "" if scenario.target is None else f" [{scenario.target}]"
        print(f"{scenario.name:{width}}  {scenario.group}: {scenario.title}{target}")


def _measure(
    scenarios: Sequence[Scenario], folder: Path, *, short: bool
) -> tuple[list[Outcome], dict[str, object]]:
    probed = disk.probe(folder)
    print(f"Databases in {folder.parent}: {probed}")
    outcomes: list[Outcome] = []
    for number, scenario in enumerate(scenarios, 1):
        print(f"[{number:2}/{len(scenarios)}] {scenario.name}: ", end="", flush=True)
        began = perf_counter()
        obstacle = scenario.obstacle()
        if obstacle is not None:
            outcome: Outcome = skipped(scenario, obstacle)
        else:
            outcome = measure_in_child(scenario, folder, SHORT if short else FULL)
        print(f"{report.progress(outcome)}  ({perf_counter() - began:.1f} s)")
        outcomes.append(outcome)
    return outcomes, {**describe(), "disk": str(probed), **attrs.asdict(probed)}


def _document(outcomes: Sequence[Outcome], machine: dict[str, object]) -> dict[str, object]:
    return {"machine": machine, "scenarios": [as_record(outcome) for outcome in outcomes]}


if __name__ == "__main__":
    sys.exit(main())
