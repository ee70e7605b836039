"""The command line: ``python -m benchmarks``."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from time import perf_counter

import attrs
import orjson
from rich.console import Console

from . import charts, machine, report
from .command import chosen, parser_of
from .measurements import FULL, SHORT, Effort, Outcome, Scenario
from .processes import ChildFailed, in_child
from .scenarios import SCENARIOS

_TIMEOUT = 600


def main() -> int:
    """Run the benchmarks that the command line asks for."""
    parser = parser_of(
        "benchmarks",
        "latest",
        "Measure trio_durable beside the limits of what it is built on. A missed "
        "target is shown in the table and doesn't change the exit status.",
        short="only scenarios with a target, with fewer and shorter rounds (about two minutes)",
    )
    arguments = parser.parse_args()
    scenarios = chosen(
        SCENARIOS
        if arguments.only or not arguments.short
        else [s for s in SCENARIOS if s.headline],
        arguments.only,
    )
    if not scenarios:
        parser.error(f"no scenario is called anything like {arguments.only}; --list shows them all")
    if arguments.list:
        width = max(len(scenario.name) for scenario in scenarios)
        for scenario in scenarios:
            target = "" if scenario.target is None else f" [{scenario.target}]"
            print(f"{scenario.name:{width}}  {scenario.group}: {scenario.title}{target}")
        return 0
    parent = arguments.dir or Path.cwd()
    if not parent.is_dir():
        parser.error(f"--dir: there is no folder {parent}")
    if arguments.dir is None and machine.is_in_memory(parent):
        parser.error(
            f"{parent} is in memory ({machine.filesystem(parent)}), where a sync costs nothing; "
            "name a folder on a disk with --dir, or this one if that is what you want to measure"
        )
    try:
        with tempfile.TemporaryDirectory(prefix="benchmarks-", dir=parent) as name:
            disk = machine.probe(Path(name))
            print(f"Databases in {parent}: {disk}")
            outcomes = _measure(scenarios, Path(name), SHORT if arguments.short else FULL)
    except KeyboardInterrupt:
        return 130
    # A table in a file or a pipe has no window to fit into.
    report.show(outcomes, Console(width=None if sys.stdout.isatty() else 140))
    about = {**machine.describe(), "disk": str(disk), **attrs.asdict(disk)}
    document = {"machine": about, "scenarios": [outcome.as_record() for outcome in outcomes]}
    report.write(arguments.json, orjson.dumps(document, option=orjson.OPT_INDENT_2))
    measured = [outcome for outcome in outcomes if outcome.figures]
    headlines = [outcome for outcome in measured if outcome.scenario.headline] or measured
    if measured:
        report.write(arguments.svg, charts.beside_limits(headlines, str(disk)))
    return int(any(outcome.failed for outcome in outcomes))


def _measure(scenarios: Sequence[Scenario], folder: Path, effort: Effort) -> list[Outcome]:
    outcomes: list[Outcome] = []
    for number, scenario in enumerate(scenarios, 1):
        print(f"[{number:2}/{len(scenarios)}] {scenario.name}: ", end="", flush=True)
        began = perf_counter()
        outcomes.append(outcome := _outcome(scenario, folder, effort))
        print(f"{report.progress(outcome)}  ({perf_counter() - began:.1f} s)")
    return outcomes


def _outcome(scenario: Scenario, folder: Path, effort: Effort) -> Outcome:
    obstacle = scenario.obstacle()
    if obstacle is not None:
        return Outcome(scenario, None, obstacle)
    with tempfile.TemporaryDirectory(prefix=f"{scenario.name}-", dir=folder) as own_folder:
        try:
            work = partial(scenario.work, Path(own_folder), effort)
            return Outcome(scenario, in_child(work, timeout=_TIMEOUT))
        except ChildFailed as error:
            return Outcome(scenario, None, str(error), failed=True)


if __name__ == "__main__":
    sys.exit(main())
