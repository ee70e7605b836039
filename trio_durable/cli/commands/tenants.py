"""``trio-durable tenants``, with its command ``drop``."""

from __future__ import annotations

import click

from ..._clock import SystemClock
from ..._errors import StorageInUse
from ...storage import Storage
from ..errors import CommandError
from ..options import json_option, required_storage, storage_option, storage_option_of_group
from ..output import add_row, console, new_table, print_json, printable, quantity
from ..prompts import confirm, yes_option
from ..storage.open import open_reader, resolve_storage
from ..storage.owner import open_owner
from ..storage.paging import iter_tenants
from ..storage.totals import Total


@click.group(invoke_without_command=True)
@storage_option_of_group
@json_option
@click.pass_context
def tenants(context: click.Context, storage: str | None, as_json: bool) -> None:
    """List the tenants, and count their objects and alarms.

    \b
    Examples:
      trio-durable tenants -s app.db
      trio-durable tenants -s app.db --json
      trio-durable tenants drop -s app.db acme
    """
    if context.invoked_subcommand is not None:
        if as_json:
            raise CommandError("--json is for the list; leave it out")
        return
    now = SystemClock().now()
    table = new_table("tenant", ">objects", ">alarms")
    store = resolve_storage(required_storage(context, storage))
    moves = [move for move in store.list_moves() if move.tenant]
    with open_reader(store) as reader:
        for name in iter_tenants(reader):
            total = Total.of(reader.summarize(now, name))
            if as_json:
                print_json({"tenant": name, "objects": total.objects, "alarms": total.alarms})
            add_row(table, name, f"{total.objects:,}", f"{total.alarms:,}")
    if as_json:
        for move in moves:
            print_json({"tenant": move.tenant, "moved_to": move.target})
        return
    if table.row_count:
        console().print(table)
    elif not moves:
        click.echo("There are no tenants.", err=True)
    for move in moves:
        click.echo(printable(f"{move.describe(move.tenant)}."))


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
