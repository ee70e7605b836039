"""``trio-durable export``."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import click

from ..._browsing import iter_alarms
from ..._clock import SystemClock
from ...storage import Reader
from ..errors import CommandError
from ..options import storage_options
from ..output import console, progress_bar
from ..storage.open import open_reader, resolve_storage
from ..storage.paging import (
    iter_dead_messages,
    iter_messages,
    iter_objects,
    iter_once,
    select_tenants,
)
from ..storage.totals import Total
from ..transfer.format import EndLine, count_text, encode_header, encode_line


@click.command()
@click.argument("path", metavar="[FILE]", type=click.Path(path_type=Path), required=False)
@storage_options(tenant_help="Export only this tenant; by default, all.")
def export(path: Path | None, storage: str, tenant: str | None) -> None:
    """Export objects, alarms and messages as lines of JSON.

    The output is FILE, or standard output. An existing file is never replaced.
    While a runtime is open, all rows are of the same moment if the storage keeps
    messages, as SQLite does; else each object is exported in a committed state,
    but not all objects at the same moment.

    \b
    Examples:
      trio-durable export -s app.db app.jsonl
      trio-durable export -s app.db -t acme | gzip > acme.jsonl.gz
    """
    to_file = path is not None and str(path) != "-"
    with (
        open_reader(resolve_storage(storage), tenant) as reader,
        _new_file(path) if path and to_file else _standard_output() as file,
        # A message whose receiver was read after it had handled it would be handled twice.
        reader.snapshot(),
    ):
        names = select_tenants(reader, tenant)
        count = _export(reader, names, file, bar=to_file or not sys.stdout.isatty())
    click.echo(f"Exported {count_text(count)}.", err=True)


def _export(reader: Reader, tenants: Iterable[str], file: IO[bytes], *, bar: bool) -> EndLine:
    now = SystemClock().now()
    err = console(stderr=True)
    bar = bar and err.is_terminal
    # Counting reads all rows, so only a visible bar has a total.
    sums = [Total.of(reader.summarize(now, name)) for name in tenants] if bar else []
    objects = alarms = messages = dead = once = 0
    with progress_bar(err) as progress:
        progress.disable = not bar
        task = progress.add_task("exporting", total=sum(s.objects + s.alarms for s in sums))
        file.write(encode_header())
        for name in tenants:
            for row in iter_objects(reader, None, name):
                file.write(encode_line(row))
                objects += 1
                progress.advance(task)
            for alarm in iter_alarms(reader, now, None, name):
                file.write(encode_line(alarm))
                alarms += 1
                progress.advance(task)
            for letter in iter_dead_messages(reader, None, name):
                file.write(encode_line(letter))
                dead += 1
            for message in iter_messages(reader, tenant=name):
                file.write(encode_line(message))
                messages += 1
            for reply in iter_once(reader, name):
                file.write(encode_line(reply))
                once += 1
    end = EndLine(objects, alarms, messages, dead, once)
    file.write(encode_line(end))
    return end


@contextmanager
def _new_file(path: Path) -> Iterator[IO[bytes]]:
    try:
        file = path.open("xb")
    except FileExistsError:
        if path.is_dir():
            raise CommandError(f"{path}: it is a folder; name a file in it") from None
        raise CommandError(
            f"{path}: it already exists; choose another name, or remove it"
        ) from None
    except FileNotFoundError:
        raise CommandError(f"{path}: there is no folder {path.parent}; create it first") from None
    try:
        with file:
            yield file
    except BaseException:
        path.unlink()
        raise


@contextmanager
def _standard_output() -> Iterator[IO[bytes]]:
    yield sys.stdout.buffer
    sys.stdout.buffer.flush()
