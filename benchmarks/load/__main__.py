"""The command line: ``python -m benchmarks.load``."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from time import perf_counter

import attrs
import orjson
from rich.console import Console

from .. import charts, machine
from ..command import RESULTS
from ..report import table_of, write
from . import million, overload, slow_disk, steady
from .parts import Result

PARTS = {
    "million": million.measure,
    "steady": steady.measure,
    "slow-disk": slow_disk.measure,
    "overload": overload.measure,
}


def main() -> int:
    """Measure the parts that the command line names; 1 if a bound doesn't hold."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.load",
        description="Put trio_durable under load. The exit status is 0 if all bounds held.",
    )
    parser.add_argument(
        "parts", nargs="*", metavar="PART", choices=[[], *PARTS], help=f"of {', '.join(PARTS)}"
    )
    parser.add_argument(
        "--short", action="store_true", help="smaller and shorter, to see that all of it works"
    )
    parser.add_argument("--dir", type=Path, help="where to put the databases (default: here)")
    parser.add_argument(
        "--out", type=Path, default=RESULTS, help="where to write (default: benchmarks/results)"
    )
    arguments = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 120)
    holds = True
    with tempfile.TemporaryDirectory(prefix="load-", dir=arguments.dir or Path.cwd()) as name:
        disk = str(machine.probe(Path(name)))
        console.print(f"disk: {disk}")
        for part in arguments.parts or PARTS:
            folder = Path(name) / part
            folder.mkdir()
            began = perf_counter()
            result = PARTS[part](folder, arguments.short)
            console.print(f"\n[bold]{result.title}[/]  ({perf_counter() - began:.0f} s)")
            _show(result, console)
            about = {**machine.describe(), "disk": disk, "short": arguments.short}
            record = {"machine": about, **attrs.asdict(result)}
            path = arguments.out / f"load-{part}"
            write(path.with_suffix(".json"), orjson.dumps(record, option=orjson.OPT_INDENT_2))
            write(path.with_suffix(".svg"), charts.lines(result.title, disk, result.panels))
            holds = holds and all(verdict.holds for verdict in result.verdicts)
    return 0 if holds else 1


def _show(result: Result, console: Console) -> None:
    for table in result.tables:
        shown = table_of(table.headings, figures=len(table.headings), wrap=True)
        for row in table.rows:
            shown.add_row(*row)
        console.print(shown)
    for verdict in result.verdicts:
        mark = "[green]holds[/]" if verdict.holds else "[bold red]DOES NOT HOLD[/]"
        console.print(f"{mark}  {verdict.text}", highlight=False)


if __name__ == "__main__":
    sys.exit(main())
