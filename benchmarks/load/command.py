"""The command line of `benchmarks.load`."""

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
from rich.table import Table as Shown

from .. import disk, plot
from ..machine import describe
from . import million, overload, slow_disk, steady
from .result import Part, Result, Table

PARTS: dict[str, Part] = {
    "million": million.measure,
    "steady": steady.measure,
    "slow-disk": slow_disk.measure,
    "overload": overload.measure,
}
_RESULTS = Path(__file__).parent.parent / "results"


def main() -> int:
    """Do the parts that the command line names; 1 if a verdict is that something doesn't hold."""
    arguments = _parser().parse_args()
    console = Console(width=None if sys.stdout.isatty() else 120)
    holds = True
    with tempfile.TemporaryDirectory(prefix="load-", dir=arguments.dir or Path.cwd()) as name:
        probed = disk.probe(Path(name))
        console.print(f"disk: {probed}")
        for part in arguments.parts or PARTS:
            folder = Path(name) / part
            folder.mkdir()
            began = perf_counter()
            result = PARTS[part](folder, arguments.short)
            _show(result, console, perf_counter() - began)
            about = {**describe(), "disk": str(probed), "short": arguments.short}
            _write(arguments.out / f"load-{part}", result, about)
            holds = holds and all(verdict.holds for verdict in result.verdicts)
    return 0 if holds else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.load",
        description="Put trio_durable under load. The exit status tells whether all bounds held.",
    )
    parser.add_argument(
        "parts", nargs="*", metavar="PART", choices=[[], *PARTS], help=f"of {', '.join(PARTS)}"
    )
    parser.add_argument(
        "--short", action="store_true", help="smaller and shorter, to see that all of it works"
    )
    parser.add_argument("--dir", type=Path, help="where to put the databases (default: here)")
    parser.add_argument(
        "--out", type=Path, default=_RESULTS, help="where to write (default: benchmarks/results)"
    )
    return parser


def _show(result: Result, console: Console, seconds: float) -> None:
    console.print(f"\n[bold]{result.title}[/]  ({seconds:.0f} s)")
    for table in result.tables:
        console.print(_shown(table))
    for verdict in result.verdicts:
        mark = "[green]holds[/]" if verdict.holds else "[bold red]DOES NOT HOLD[/]"
        console.print(f"{mark}  {verdict.text}", highlight=False)


def _shown(table: Table) -> Shown:
    shown = Shown()
    for number, heading in enumerate(table.headings):
        shown.add_column(heading, justify="right" if number else "left")
    for row in table.rows:
        shown.add_row(*row)
    return shown


def _write(path: Path, result: Result, about: dict[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    record = {"machine": about, **_without_panels(result)}
    path.with_suffix(".json").write_bytes(orjson.dumps(record, option=orjson.OPT_INDENT_2))
    if result.panels:
        drawn = plot.draw(result.title, str(about["disk"]), result.panels)
        path.with_suffix(".svg").write_text(drawn, encoding="utf-8")
    print(f"wrote {path}.json", *([f"{path}.svg"] if result.panels else []))


def _without_panels(result: Result) -> dict[str, object]:
    panels: Sequence[str] = ("panels",)
    return attrs.asdict(result, filter=lambda attribute, _: attribute.name not in panels)
