"""``trio-durable tenants``, and dropping one."""

from __future__ import annotations

import click

from ..._clock import SystemClock
from ..options import json_option, required_storage, storage_option_of_group
from ..output import add_row, console, listing, print_json
from .opening import reading, storage_named
from .rows import tenants_in
from .totals import Total


@click.group(invoke_without_command=True)
@storage_option_of_group
@json_option
@click.pass_context
def tenants(context: click.Context, storage: str | None, as_json: bool) -> None:
    """List the tenants, and count what they have.

    \b
    Examples:
      trio-durable tenants -s app.db
      trio-durable tenants -s app.db --json
    """
    if context.invoked_subcommand is not None:
        return
    now = SystemClock().now()
    table = listing("tenant", ">objects", ">alarms")
    with reading(storage_named(required_storage(context, storage))) as reader:
        for name in tenants_in(reader):
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
