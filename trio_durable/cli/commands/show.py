"""``trio-durable show``."""

from __future__ import annotations

import click
from rich.filesize import decimal

from ..._browsing import find_object, iter_alarms_of
from ..._clock import SystemClock
from ..command_line import command_line
from ..options import output_option, storage_options
from ..output import Output, console, print_line, print_reply, print_rows, printable, quantity
from ..storage.formatting import (
    alarm_json,
    alarm_table,
    format_instant,
    format_relative,
    json_instant,
    json_member,
    key_members,
    pretty_state,
    printable_lines,
    schema_of,
)
from ..storage.missing import object_not_found
from ..storage.open import object_key, open_reader, resolve_storage
from ..storage.paging import iter_messages
from ..storage.type_completion import complete_type

_COLUMNS = (
    *("tenant", "type", "id", "revision", "updated_at", "schema"),
    *("state", "state_text", "alarms", "messages_waiting"),
)


@click.command()
@click.argument("type_name", metavar="TYPE", shell_complete=complete_type)
@click.argument("object_id", metavar="ID")
@storage_options()
@output_option(json_is="json")
def show(type_name: str, object_id: str, storage: str, tenant: str | None, output: Output) -> None:
    """Show the stored state of an object, and its alarms.

    CSV is one line, with the state and the alarms as JSON.

    \b
    Examples:
      trio-durable show -s app.db Cart ada
      trio-durable show -s app.db -t acme Cart ada --json
    """
    key = object_key(type_name, object_id, tenant)
    now = SystemClock().now()
    store = resolve_storage(storage)
    with open_reader(store, tenant) as reader:
        row = find_object(reader, key)
        alarms = list(iter_alarms_of(reader, key, now))
        waiting = sum(1 for _ in iter_messages(reader, type_name, object_id, key.tenant))
        if row is None and not alarms and not waiting:
            raise object_not_found(reader, store, key)
    if output != "table":
        shown = {
            **key_members(key),
            "revision": row.revision if row else 0,
            "updated_at": json_instant(row.updated_at) if row else None,
            "schema": schema_of(row.state) if row else None,
            **json_member("state", row.state if row else None),
            "alarms": [alarm_json(each) for each in alarms],
            **({"messages_waiting": waiting} if waiting else {}),
        }
        if output == "json":
            print_reply(shown)
        else:
            print_rows(output, _COLUMNS, [shown])
        return
    print_line(str(key))
    if row is None:
        click.echo("no stored state, only alarms" if alarms else "no stored state")
    else:
        schema = schema_of(row.state)
        schema_text = "" if schema is None else printable(f"schema {schema}, ")
        click.echo(
            f"revision {row.revision:,}, {schema_text}{decimal(len(row.state))}, "
            f"updated {format_instant(row.updated_at)} UTC ({format_relative(row.updated_at, now)})"
        )
        click.echo(printable_lines(pretty_state(row.state)))
    if alarms:
        console().print(alarm_table(alarms, now, of_one=True))
    if waiting:
        listing = command_line(
            "messages", "list", storage=store.location, tenant=tenant, names=[type_name, object_id]
        )
        print_line(f"{quantity(waiting, 'message')} waiting; `{listing}` has them")
