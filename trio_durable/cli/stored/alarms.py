"""``trio-durable alarms``, and what can be done to alarms."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import get_args

import click

from ..._clock import SystemClock
from ...storage import AlarmRow, AlarmStatus, Reader
from ..options import json_option, required_storage, storage_options
from ..output import console, print_json
from ..refusal import Refusal
from .alarm_table import alarm_table
from .opening import key_of, reading, storage_named
from .rows import alarms_in, alarms_of
from .shown import alarm_json
from .type_argument import TypeName

_LIMIT = 100


@click.group(invoke_without_command=True)
@storage_options(required=False)
@click.option("--type", "type_name", metavar="TYPE", type=TypeName(), help="Only those of a type.")
@click.option("--id", "object_id", metavar="ID", help="Only those of one object of that type.")
@click.option(
    "--status",
    type=click.Choice(get_args(AlarmStatus)),
    help="Only those that are due later, due by now, or dead letters.",
)
@click.option(
    "--limit",
    type=click.IntRange(1),
    help=f"At most so many; else {_LIMIT}, or all with --json.",
)
@json_option
@click.pass_context
def alarms(
    context: click.Context,
    storage: str | None,
    tenant: str | None,
    type_name: str | None,
    object_id: str | None,
    status: AlarmStatus | None,
    limit: int | None,
    as_json: bool,
) -> None:
    """List alarms: those due later, those due by now, and dead letters.

    They come in the order of type, id and name. With --json, one line of JSON
    each, as they are read.

    \b
    Examples:
      trio-durable alarms -s app.db
      trio-durable alarms -s app.db --status dead --type Cart
      trio-durable alarms -s app.db --type Cart --id ada
    """
    if context.invoked_subcommand is not None:
        _refuse_filters(context)
        return
    if object_id is not None and type_name is None:
        raise Refusal("--id is an object's among those of a type; name that with --type")
    if type_name is not None:
        key_of(type_name, "x" if object_id is None else object_id, tenant)
    now = SystemClock().now()
    with reading(storage_named(required_storage(context, storage)), tenant) as reader:
        rows = _rows(reader, now, type_name, object_id, tenant, status)
        if as_json:
            for row in islice(rows, limit):
                print_json(alarm_json(row))
            return
        shown = list(islice(rows, limit or _LIMIT))
        is_cut = next(rows, None) is not None
    if shown:
        console().print(alarm_table(shown, now))
    else:
        click.echo("There are no such alarms.", err=True)
    if is_cut:
        click.echo("There are more: raise --limit, or narrow it down.", err=True)


def _refuse_filters(context: click.Context) -> None:
    for name in ("type_name", "object_id", "status", "limit", "as_json"):
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            raise Refusal(
                f"alarms {context.invoked_subcommand} takes its own options, behind its name"
            )


def _rows(
    reader: Reader,
    now: int,
    type_name: str | None,
    object_id: str | None,
    tenant: str | None,
    status: AlarmStatus | None,
) -> Iterator[AlarmRow]:
    if type_name is not None and object_id is not None:
        return alarms_of(reader, key_of(type_name, object_id, tenant), now, status=status)
    return alarms_in(reader, now, type_name, tenant or "", status=status)
