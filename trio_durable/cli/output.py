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
from rich.text import Text


def print_json(value: object) -> None:
    """Print ``value`` as one line of JSON."""
    click.echo(orjson.dumps(value))


def console(*, stderr: bool = False) -> Console:
    """Where to print what people read. Numbers and names in it get no colours of their own."""
    return Console(stderr=stderr, highlight=False)


def progress_bar(console: Console) -> Progress:
    """A progress bar that is gone when it is done; nothing, unless a terminal shows it."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        TextColumn("{task.percentage:3.0f} %"),
        TimeElapsedColumn(),
        # Older releases of rich end even what is disabled with an empty line.
        console=console if console.is_terminal else Console(quiet=True),
        transient=True,
        expand=True,
        disable=not console.is_terminal,
    )


def new_table(*headings: str) -> Table:
    """An empty table; a column whose heading begins with > is of numbers.

    Long names are folded, not cut: what people see here, they may want to copy.
    """
    table = Table(box=box.SIMPLE_HEAD, collapse_padding=True)
    for heading in headings:
        is_number = heading.startswith(">")
        table.add_column(
            heading.removeprefix(">"),
            justify="right" if is_number else "left",
            no_wrap=is_number,
            overflow="fold",
        )
    return table


def add_row(table: Table, *cells: object) -> None:
    """Add a row of values, which are shown as they are, whatever they have in them."""
    table.add_row(*(Text(printable(str(cell))) for cell in cells))


def printable(text: str) -> str:
    """``text`` as one line that does nothing to a terminal."""
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )


def quantity(count: int, noun: str) -> str:
    """A count with its noun, in the plural unless it is one."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
