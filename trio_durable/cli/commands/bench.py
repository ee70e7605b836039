"""The command."""

from __future__ import annotations

import os
import platform
import sqlite3
import tempfile
from importlib.metadata import version
from pathlib import Path

import anyio
import attrs
import click

from ..bench.figures import figure_table
from ..bench.measure import STEPS, measure
from ..options import Seconds, json_option
from ..output import console, print_json, progress_bar


@click.command()
@click.option(
    "--dir",
    "folder",
    type=click.Path(exists=True, file_okay=False, writable=True, path_type=Path),
    default=Path(),
    help="A folder on the disk in question; else the current one.",
)
@click.option(
    "--seconds",
    type=Seconds(0.001),
    default=0.25,
    show_default=True,
    help="For each of the measurements, which are made three times.",
)
@json_option
def bench(folder: Path, seconds: float, as_json: bool) -> None:
    """Measure what to expect on this machine and disk.

    Changes, calls that change nothing, loads and alarms on Trio, beside plain
    sqlite3 in the same minute on the same disk; with durability "full", where
    every commit is synced, and "normal". Takes about ten seconds. The files are
    in a temporary folder, which is removed at the end, also after Control-C.

    \b
    Examples:
      trio-durable bench
      trio-durable bench --dir /var/lib/shop
      trio-durable bench --json
    """
    with (
        tempfile.TemporaryDirectory(prefix="trio_durable-bench-", dir=folder) as name,
        progress_bar(console(stderr=True)) as progress,
    ):
        task = progress.add_task("measuring", total=STEPS)
        figures = anyio.run(
            measure, Path(name), seconds, lambda: progress.advance(task), backend="trio"
        )
    if as_json:
        print_json({"machine": _machine(), "figures": [attrs.asdict(each) for each in figures]})
        return
    out = console()
    out.print(", ".join(f"{what} {value}" for what, value in _machine().items()))
    out.print(figure_table(figures))
    out.print(
        "Medians of three rounds, in which trio_durable and plain sqlite3 took turns.\n"
        "Ratio: to the plain figure above, which is from the same rounds."
    )


def _machine() -> dict[str, object]:
    return {
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "trio": version("trio"),
        "trio_durable": version("trio-durable"),
    }
