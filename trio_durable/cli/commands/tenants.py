"""``trio-durable tenants``, with its command ``drop``."""

from __future__ import annotations

import click

from ..._clock import SystemClock
from ..._errors import StorageInUse
from ..errors import CommandError
from ..options import json_option, required_storage, storage_option, storage_option_of_group
from ..output import add_row, console, new_table, print_json, quantity
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
    with open_reader(resolve_storage(required_storage(context, storage))) as reader:
        for name in iter_tenants(reader):
            total = Total.of(reader.summarize(now, name))
            if as_json:
                print_json({"tenant": name, "objects": total.objects, "alarms": total.alarms})
            add_row(table, name, f"{total.objects:,}", f"{total.alarms:,}")
    if as_json:
        return
    if table.row_count:
        console().print(table)
    else:
        click.echo("There are no tenants.", err=True)


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
    with open_reader(store, name) as reader:
        total = Total.of(reader.summarize(SystemClock().now(), name))
    contents = f"{quantity(total.objects, 'object')} and {quantity(total.alarms, 'alarm')}"
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
