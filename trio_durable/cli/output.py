"""Output of commands: text and tables for people, JSON and CSV for programs.

Results are printed to standard output, everything else to standard error. Colours and progress
bars are for terminals: rich leaves them out elsewhere, and where ``NO_COLOR`` is set. Stored data
may hold control characters, which change what a terminal shows: there all of them are escaped.
Elsewhere the data is printed as it is.

rich is imported where it is used, because it takes longer to import than the help to print.
"""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, repeat
from typing import TYPE_CHECKING, Literal, NoReturn, TypeAlias

import click
import orjson

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table

_EXCERPT = 120
"""In characters."""

Output: TypeAlias = Literal["table", "json", "jsonl", "csv"]
"""The formats of lists: a table, one JSON array, one line of JSON for each row, or CSV."""


def print_rows(
    output: Output, columns: Sequence[str], rows: Iterable[Mapping[str, object]]
) -> None:
    """Print rows in a format for programs, each as soon as it is there.

    Args:
        output: The format; no table.
        columns: The members that are the columns of CSV. JSON has all members of a row.
        rows: The rows; their values are JSON.
    """
    with row_printer(output, columns) as print_row:
        for row in rows:
            print_row(row)


@contextmanager
def row_printer(
    output: Output, columns: Sequence[str]
) -> Iterator[Callable[[Mapping[str, object]], object]]:
    """A function that prints a row, for the block. See `print_rows`."""
    match output:
        case "jsonl":
            yield lambda row: print_reply(row, indent=None)
        case "json" if sys.stdout.isatty():
            rows: list[Mapping[str, object]] = []
            yield rows.append
            print_reply(rows)
        case "json":
            separators = chain([b"["], repeat(b",\n"))
            yield lambda row: click.echo(next(separators) + orjson.dumps(row), nl=False)
            click.echo(b"[]" if next(separators) == b"[" else b"]")
        case "csv":
            print_cells = _csv_printer()
            print_cells(columns)
            yield lambda row: print_cells([row.get(name) for name in columns])
        case "table":
            raise AssertionError("each command makes its own tables")


def _csv_printer() -> Callable[[Sequence[object]], None]:
    """A function that prints a line of CSV. A member that is no scalar is printed as JSON.

    A cell is the data itself, also if it begins like a formula of a spreadsheet. A quote before it
    would be part of the data for all other programs.
    """
    is_terminal = sys.stdout.isatty()
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")

    def print_cells(values: Sequence[object]) -> None:
        cells = [cell(value) for value in values]
        writer.writerow([printable(each) for each in cells] if is_terminal else cells)
        click.echo(text.getvalue(), nl=False)
        text.seek(0)
        text.truncate()

    return print_cells


def cell(value: object) -> str:
    """A value of JSON as the text of a cell, which is empty for null."""
    if value is None:
        return ""
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def print_json(value: object) -> None:
    """Print ``value`` as one line of JSON."""
    click.echo(orjson.dumps(value))


def print_reply(value: object, *, indent: int | None = 2) -> None:
    """Print JSON: coloured, and on several lines with ``indent``, on a terminal, else as a line."""
    if not sys.stdout.isatty():
        print_json(value)
        return
    from rich.json import JSON

    # By a parser that keeps integers of any size. Non-ASCII characters are escaped, since some of
    # them change what a terminal shows.
    data = json.loads(orjson.dumps(value))
    shown = JSON.from_data(data, indent=indent, ensure_ascii=True)
    console().print(shown, soft_wrap=True)


def console(*, stderr: bool = False) -> Console:
    """A console for text that people read, without automatic highlighting."""
    from rich.console import Console

    class OurConsole(Console):
        def on_broken_pipe(self) -> NoReturn:
            """Raise the error, which rich would make the exit status 1, that is "no"."""
            raise BrokenPipeError

    return OurConsole(stderr=stderr, highlight=False)


def leave_closed_pipe() -> None:
    """Print nothing more: the program that reads standard output has closed it.

    It has read enough, such as ``head``. Python would report the rest when it exits.
    """
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


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
    """An empty table.

    A heading that begins with ``>`` makes a column of numbers, and one that begins with ``|`` a
    column that isn't folded.

    Long names are folded, not cut off, so that they can be copied.
    """
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, collapse_padding=True)
    for heading in headings:
        is_number = heading.startswith(">")
        table.add_column(
            heading.lstrip(">|"),
            justify="right" if is_number else "left",
            no_wrap=is_number or heading.startswith("|"),
            overflow="fold",
        )
    return table


def literal_table(names: Iterable[str]) -> Table:
    """An empty table whose headings are data, so that none is markup."""
    from rich.text import Text

    table = new_table()
    for name in names:
        table.add_column(Text(printable(name)), overflow="fold")
    return table


def add_row(table: Table, *cells: object) -> None:
    """Add a row of values, which are printed literally, without markup or control characters.

    A tuple is a cell of several lines.
    """
    from rich.text import Text

    table.add_row(
        *(
            Text("\n".join(printable(str(line)) for line in cell))
            if isinstance(cell, tuple)
            else Text(printable(str(cell)))
            for cell in cells
        )
    )


def print_line(text: str, *, indent: int = 0) -> None:
    """Print a line that may be long: folded to the width of a terminal, and whole elsewhere.

    Args:
        text: The line, which is printed literally, without markup or control characters.
        indent: Spaces before it, and before its continuation.
    """
    from rich.padding import Padding
    from rich.text import Text

    line = printable(text)
    if sys.stdout.isatty():
        console().print(Padding(Text(line, overflow="fold"), (0, 0, 0, indent), expand=False))
    else:
        click.echo(f"{' ' * indent}{line}")


def excerpt(text: str) -> str:
    """The beginning of a long text on a terminal, and the whole text elsewhere."""
    if len(text) <= _EXCERPT or not sys.stdout.isatty():
        return text
    return f"{text[:_EXCERPT]}…"


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
