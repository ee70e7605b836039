"""``trio-durable bench``."""

from __future__ import annotations

import os
import platform
import sqlite3
import tempfile
from importlib.metadata import version
from pathlib import Path

import attrs
import click

from ..options import Seconds, output_option
from ..output import Output, console, print_reply, print_rows, progress_bar


@click.command()
@click.option(
    "--dir",
    "folder",
    type=click.Path(exists=True, file_okay=False, writable=True, path_type=Path),
    default=Path(),
    help="Folder on the disk to measure; by default, the current folder.",
)
@click.option(
    "--seconds",
    type=Seconds(0.001),
    default=0.25,
    show_default=True,
    help="Duration of each measurement. Each is repeated three times.",
)
@output_option(json_is="json")
def bench(folder: Path, seconds: float, output: Output) -> None:
    """Measure throughput and latency on this machine and disk.

    Changes, readonly calls, loads and alarms are measured on Trio, and compared
    with plain sqlite3 on the same disk; with durability "full", where every
    commit is synced, and "normal". This takes about ten seconds. The files are
    in a temporary folder, which is removed at the end, even after Control-C. As
    jsonl and csv, a line is printed per figure.

    \b
    Examples:
      trio-durable bench
      trio-durable bench --dir /var/lib/shop
      trio-durable bench --json
    """
    # Imported here, so that other commands start without them.
    import anyio

    from ..bench.figures import Figure, figure_table
    from ..bench.measure import STEPS, measure

    with (
        tempfile.TemporaryDirectory(prefix="trio_durable-bench-", dir=folder) as path,
        progress_bar(console(stderr=True)) as progress,
    ):
        task = progress.add_task("measuring", total=STEPS)
        figures = anyio.run(
            measure, Path(path), seconds, lambda: progress.advance(task), backend="trio"
        )
    rows = map(attrs.asdict, figures)
    if output == "json":
        print_reply({"machine": _machine(), "figures": list(rows)})
        return
    if output != "table":
        print_rows(output, [field.name for field in attrs.fields(Figure)], rows)
        return
    out = console()
    out.print(", ".join(f"{name} {value}" for name, value in _machine().items()))
    out.print(figure_table(figures))
    out.print(
        "Medians of three rounds, in which trio_durable and plain sqlite3 took turns.\n"
        "Ratio: to the figure of plain sqlite3 above, from the same rounds."
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
