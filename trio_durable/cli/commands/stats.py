"""``trio-durable stats``."""

from __future__ import annotations

from pathlib import Path

import click
from rich.filesize import decimal

from ..._clock import SystemClock
from ...storage import TypeSummary
from ..options import output_option, storage_options
from ..output import Output, add_row, console, new_table, print_reply, print_rows
from ..storage.formatting import format_relative, json_instant
from ..storage.open import open_reader, resolve_storage
from ..storage.paging import select_tenants
from ..storage.totals import Total


@click.command()
@storage_options(tenant_help="Count only this tenant.")
@output_option(json_is="json")
def stats(storage: str, tenant: str | None, output: Output) -> None:
    """Count objects, bytes of state, alarms and messages.

    The counts are per type, per tenant, and in total. All rows are read, so a
    large storage takes some time. As jsonl and csv, a line is printed per type and
    tenant; only json has the totals and the messages as well.

    \b
    Examples:
      trio-durable stats -s app.db
      trio-durable stats -s app.db -t acme --json
    """
    store = resolve_storage(storage)
    now = SystemClock().now()
    with open_reader(store, tenant) as reader:
        names = select_tenants(reader, tenant)
        summaries = {name: reader.summarize(now, name) for name in names}
        mail = {name: reader.summarize_messages(name) for name in names}
    totals = {name: Total.of(types) for name, types in summaries.items()}
    total = Total.of(totals.values())
    file_bytes = _size_of(Path(store.location))
    types_of_all: list[dict[str, object]] = [
        {"tenant": name, "type": each.type_name, **_figures(each)}
        for name, types in summaries.items()
        for each in types
    ]
    if output in ("jsonl", "csv"):
        print_rows(output, ("tenant", "type", *_figures(total)), types_of_all)
        return
    if output == "json":
        print_reply(
            {
                "types": types_of_all,
                "tenants": [{"tenant": name, **_figures(each)} for name, each in totals.items()],
                "total": _figures(total),
                "messages": [
                    {
                        "tenant": name,
                        "type": each.type_name,
                        "waiting": each.waiting,
                        "oldest": None if each.oldest is None else json_instant(each.oldest),
                        "dead": each.dead,
                    }
                    for name, types in mail.items()
                    for each in types
                ],
                "file_size": file_bytes,
            }
        )
        return
    table = new_table("tenant", "type", ">objects", ">size", ">pending", ">overdue", ">dead")
    for name, types in summaries.items():
        for each in types:
            add_row(table, name, each.type_name, *_cells(each))
        if name and len(types) > 1:
            add_row(table, name, "(all)", *_cells(totals[name]))
    add_row(table, "", "(all)", *_cells(total))
    console().print(table)
    if any(mail.values()):
        letters = new_table("tenant", "messages to", ">waiting", "oldest", ">dead")
        for name, received in mail.items():
            for one in received:
                oldest = "" if one.oldest is None else format_relative(one.oldest, now)
                add_row(letters, name, one.type_name, f"{one.waiting:,}", oldest, f"{one.dead:,}")
        console().print(letters)
    if file_bytes is not None:
        click.echo(f"Size of the file: {decimal(file_bytes)}.")


def _size_of(file: Path) -> int | None:
    """The size of an SQLite file with its write-ahead log; None if it isn't a file."""
    if not file.is_file():
        return None
    try:
        log = file.with_name(f"{file.name}-wal").stat().st_size
    except FileNotFoundError:
        log = 0
    return file.stat().st_size + log


def _figures(part: TypeSummary | Total) -> dict[str, int]:
    return {
        "objects": part.objects,
        "size": part.state_bytes,
        "pending": part.pending,
        "overdue": part.overdue,
        "dead": part.dead,
    }


def _cells(part: TypeSummary | Total) -> tuple[str, ...]:
    counts = (part.pending, part.overdue, part.dead)
    return (f"{part.objects:,}", decimal(part.state_bytes), *(f"{count:,}" for count in counts))
