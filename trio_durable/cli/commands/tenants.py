"""``trio-durable tenants``, with its command ``drop``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain

import click

from ..._clock import SystemClock
from ..._errors import StorageInUse
from ...storage import Reader, Storage
from ..errors import CommandError
from ..options import output_option, required_storage, storage_option, storage_option_of_group
from ..output import Output, add_row, console, new_table, print_line, print_rows, quantity
from ..prompts import confirm, yes_option
from ..storage.open import open_reader, resolve_storage
from ..storage.owner import open_owner
from ..storage.paging import iter_tenants
from ..storage.totals import Total


@click.group(invoke_without_command=True)
@storage_option_of_group
@output_option(json_is="jsonl")
@click.pass_context
def tenants(context: click.Context, storage: str | None, output: Output) -> None:
    """List the tenants, and count their objects and alarms.

    \b
    Examples:
      trio-durable tenants -s app.db
      trio-durable tenants -s app.db --json
      trio-durable tenants drop -s app.db acme
    """
    if context.invoked_subcommand is not None:
        if output != "table":
            raise CommandError("--output or --json is for the list; leave it out")
        return
    store = resolve_storage(required_storage(context, storage))
    moves = [move for move in store.list_moves() if move.tenant]
    with open_reader(store) as reader:
        totals = _totals(reader)
        if output != "table":
            rows = (
                {"tenant": name, "objects": total.objects, "alarms": total.alarms}
                for name, total in totals
            )
            gone = ({"tenant": move.tenant, "moved_to": move.target} for move in moves)
            columns = ("tenant", "objects", "alarms", "moved_to")
            print_rows(output, columns, chain[Mapping[str, object]](rows, gone))
            return
        table = new_table("tenant", ">objects", ">alarms")
        for name, total in totals:
            add_row(table, name, f"{total.objects:,}", f"{total.alarms:,}")
    if table.row_count:
        console().print(table)
    elif not moves:
        click.echo("There are no tenants.", err=True)
    for move in moves:
        print_line(f"{move.describe(move.tenant)}.")


def _totals(reader: Reader) -> Iterator[tuple[str, Total]]:
    now = SystemClock().now()
    return ((name, Total.of(reader.summarize(now, name))) for name in iter_tenants(reader))


@tenants.command()
@click.argument("name")
@storage_option
@yes_option
def drop(name: str, storage: str, yes: bool) -> int:
    """Remove a tenant with all its objects and alarms.

    Exit status 1 if you answer no.

    \b
    Examples:
      trio-durable tenants drop -s app.db acme
      trio-durable tenants drop -s app.db acme --yes
    """
    store = resolve_storage(storage)
    contents = _contents(store, name)
    try:
        with open_owner(store) as owner:
            if not confirm(f"Drop tenant {name} with {contents}?", yes=yes):
                click.echo("Nothing was dropped.", err=True)
                return 1
            owner.drop_tenant(name)
    except StorageInUse as error:
        raise CommandError(
            f"{error}, or drop it in the app: await runtime.drop_tenant({name!r})"
        ) from error
    click.echo(f"Dropped tenant {name} with {contents}.")
    return 0


def _contents(store: Storage, name: str) -> str:
    """The contents of a tenant, for the question. Those of one that was moved can't be counted."""
    for move in store.list_moves():
        if move.tenant == name:
            return move.describe("what")
    with open_reader(store, name) as reader:
        total = Total.of(reader.summarize(SystemClock().now(), name))
        waiting = sum(each.waiting for each in reader.summarize_messages(name))
    parts = [quantity(total.objects, "object"), quantity(total.alarms, "alarm")]
    if waiting:
        parts.append(quantity(waiting, "message"))
    return f"{', '.join(parts[:-1])} and {parts[-1]}"
