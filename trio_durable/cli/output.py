"""What commands print: text and tables for people, JSON for programs.

Results go to standard output, all else to standard error. Colours and progress bars are for
terminals; rich leaves them out elsewhere, or where ``NO_COLOR`` is set.
"""

from __future__ import annotations

import click
import orjson
from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table


def print_json(value: object) -> None:
    """Print ``value`` as one line of JSON."""
    click.echo(orjson.dumps(value))


def console(*, stderr: bool = False) -> Console:
    """Where to print what people read. Numbers and names in it get no colours of their own."""
    return Console(stderr=stderr, highlight=False)


def progress_on(console: Console) -> Progress:
    """A progress bar that is gone when it is done; nothing, unless a terminal shows it."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        TextColumn("{task.percentage:3.0f} %"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        expand=True,
        disable=not console.is_terminal,
    )


def numbers(*headings: str) -> Table:
    """An empty table whose columns are numbers."""
    table = Table(box=box.SIMPLE_HEAD, collapse_padding=True)
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    return table
