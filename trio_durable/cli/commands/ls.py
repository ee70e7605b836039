"""``trio-durable ls``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice

import click
from rich.filesize import decimal

from ..._clock import SystemClock
from ...storage import ObjectRow, Reader
from ..command_line import command_line
from ..errors import CommandError
from ..options import output_option, storage_options
from ..output import Output, add_row, console, new_table, print_rows
from ..storage.formatting import format_duration, json_instant, key_members
from ..storage.missing import check_type_stored
from ..storage.open import check_type_name, object_key, open_reader, resolve_storage
from ..storage.paging import iter_objects
from ..storage.totals import Total
from ..storage.type_completion import complete_type

_LIMIT = 100


@click.command()
@click.argument("type_name", metavar="[TYPE]", shell_complete=complete_type, required=False)
@storage_options()
@click.option("--after", metavar="ID", help="List only objects with ids after this one.")
@click.option(
    "--limit",
    type=click.IntRange(1),
    help=f"List at most so many objects; by default {_LIMIT} in a table, else all.",
)
@output_option(json_is="jsonl")
def ls(
    type_name: str | None,
    storage: str,
    tenant: str | None,
    after: str | None,
    limit: int | None,
    output: Output,
) -> None:
    """List the stored types, or the objects of a TYPE.

    Objects are sorted by the UTF-8 bytes of their ids, and listed with revision,
    size of the state, and time since the last change. With --output jsonl or csv,
    each line is printed as soon as it is read.

    \b
    Examples:
      trio-durable ls -s app.db
      trio-durable ls -s app.db Cart --after ada --limit 20
      trio-durable ls -s app.db Cart -o csv
    """
    if type_name is None:
        for option, value in (("--after", after), ("--limit", limit)):
            if value is not None:
                raise CommandError(f"{option} is for the objects of a TYPE; name one")
        with open_reader(resolve_storage(storage), tenant) as reader:
            _list_types(reader, tenant or "", output)
        return
    check_type_name(type_name)
    last = None if after is None else object_key(type_name, after, tenant)
    store = resolve_storage(storage)
    with open_reader(store, tenant) as reader:
        check_type_stored(reader, store, type_name, tenant)
        rows = iter_objects(reader, type_name, tenant or "", last)
        if output == "table":
            last_id = _list_objects(rows, limit or _LIMIT)
            if last_id is not None:
                more = command_line(
                    *("ls", f"--after={last_id}"),
                    *(() if limit is None else (f"--limit={limit}",)),
                    storage=store.location,
                    tenant=tenant,
                    names=[type_name],
                )
                click.echo(f"There are more: {more}", err=True)
        else:
            columns = ("tenant", "type", "id", "revision", "size", "updated_at")
            print_rows(output, columns, map(_object_json, islice(rows, limit)))


def _object_json(row: ObjectRow) -> Mapping[str, object]:
    return {
        **key_members(row.key),
        "revision": row.revision,
        "size": len(row.state),
        "updated_at": json_instant(row.updated_at),
    }


def _list_types(reader: Reader, tenant: str, output: Output) -> None:
    found = reader.summarize(SystemClock().now(), tenant)
    alarms = [Total.of([each]).alarms for each in found]
    if output != "table":
        rows = (
            {
                **({"tenant": tenant} if tenant else {}),
                "type": each.type_name,
                "objects": each.objects,
                "size": each.state_bytes,
                "alarms": count,
            }
            for each, count in zip(found, alarms, strict=True)
        )
        print_rows(output, ("tenant", "type", "objects", "size", "alarms"), rows)
        return
    table = new_table("type", ">objects", ">size", ">alarms")
    for each, count in zip(found, alarms, strict=True):
        row = (each.type_name, f"{each.objects:,}", decimal(each.state_bytes), f"{count:,}")
        add_row(table, *row)
    if table.row_count:
        console().print(table)
    else:
        click.echo("Nothing is stored.", err=True)


def _list_objects(rows: Iterator[ObjectRow], limit: int) -> str | None:
    """Print a table of objects; return the id of the last one if there are more."""
    now = SystemClock().now()
    table = new_table("id", ">revision", ">size", ">age")
    last = None
    for row in islice(rows, limit):
        add_row(
            table,
            row.key.object_id,
            f"{row.revision:,}",
            decimal(len(row.state)),
            format_duration(max(0, now - row.updated_at)),
        )
        last = row.key.object_id
    if last is None:
        click.echo("No objects match.", err=True)
        return None
    console().print(table)
    return None if next(rows, None) is None else last
