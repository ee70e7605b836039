"""Output of commands: text and tables for people, JSON for programs.

Results are printed to standard output, everything else to standard error. Colours and progress
bars are for terminals: rich leaves them out elsewhere, and where ``NO_COLOR`` is set.

rich is imported where it is used, because it takes longer to import than the help to print.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click
import orjson

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table


def print_json(value: object) -> None:
    """Print ``value`` as one line of JSON."""
    click.echo(orjson.dumps(value))


def print_reply(value: object) -> None:
    """Print JSON: coloured and on several lines on a terminal, as one line elsewhere."""
    if not sys.stdout.isatty():
        print_json(value)
        return
    from rich.json import JSON

    # Non-ASCII characters are escaped, since some of them change what a terminal shows.
    console().print(JSON.from_data(value, ensure_ascii=True))


def console(*, stderr: bool = False) -> Console:
    """A console for text that people read, without automatic highlighting."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False)


def progress_bar(console: Console) -> Progress:
    """A progress bar that disappears at the end. It shows on a terminal only."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        TextColumn("{task.percentage:3.0f} %"),
        TimeElapsedColumn(),
        # Some releases of rich print an empty line at the end of a disabled bar.
        console=console if console.is_terminal else Console(quiet=True),
        transient=True,
        expand=True,
        disable=not console.is_terminal,
    )


def new_table(*headings: str) -> Table:
    """An empty table. A heading that begins with ``>`` makes a column of numbers.

    Long names are folded, not cut off, so that they can be copied.
    """
    from rich import box
    from rich.table import Table

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
    """Add a row of values, which are printed literally, without markup or control characters."""
    from rich.text import Text

    table.add_row(*(Text(printable(str(cell))) for cell in cells))


def printable(text: str) -> str:
    """``text`` on one line, with control characters escaped."""
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )


def quantity(count: int, noun: str) -> str:
    """A count with its noun, in the plural unless it is one."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
