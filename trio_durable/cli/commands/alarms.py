"""``trio-durable alarms``, with its commands ``retry``, ``cancel``, ``reschedule`` and ``move``."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice
from typing import get_args

import click

from ..._browsing import find_alarm, iter_alarms, iter_alarms_of
from ..._clock import SystemClock
from ...scheduler.oban import ObanScheduler
from ...storage import AlarmRow, AlarmStatus, Reader, SQLiteStorage, Storage
from ..command_line import command_line
from ..errors import CommandError
from ..options import output_option, required_storage, storage_option, storage_options
from ..output import Output, console, print_rows, quantity
from ..storage.app_classes import AppClasses, app_option
from ..storage.formatting import ALARM_COLUMNS, alarm_json, alarm_table
from ..storage.missing import check_type_stored
from ..storage.open import (
    alarm_key,
    check_type_name,
    object_key,
    open_reader,
    resolve_storage,
)
from ..storage.owner import open_owner
from ..storage.paging import recurring_pages, select_tenants
from ..storage.type_completion import complete_type

_LIMIT = 100
_OBAN = ObanScheduler()
"""The settings of an application that names none of its own."""


@click.group(invoke_without_command=True)
@storage_options(required=False)
@click.option(
    "--type",
    "type_name",
    metavar="TYPE",
    shell_complete=complete_type,
    help="List only alarms of this type.",
)
@click.option("--id", "object_id", metavar="ID", help="List only alarms of this object of --type.")
@click.option(
    "--status",
    type=click.Choice(get_args(AlarmStatus)),
    help="List only alarms due later, alarms due by now, or dead letters.",
)
@click.option(
    "--limit",
    type=click.IntRange(1),
    help=f"List at most so many; by default {_LIMIT} in a table, else all.",
)
@output_option(json_is="jsonl")
@click.pass_context
def alarms(
    context: click.Context,
    storage: str | None,
    tenant: str | None,
    type_name: str | None,
    object_id: str | None,
    status: AlarmStatus | None,
    limit: int | None,
    output: Output,
) -> None:
    """List alarms and dead letters.

    The order is by type, id and name. With --output jsonl or csv, each line is
    printed as soon as it is read.

    \b
    Examples:
      trio-durable alarms -s app.db
      trio-durable alarms -s app.db --status dead --type Cart
      trio-durable alarms -s app.db --type Cart --id ada
      trio-durable alarms retry -s app.db Cart ada remind
    """
    if context.invoked_subcommand is not None:
        _reject_filters(context)
        return
    if object_id is not None and type_name is None:
        raise CommandError("--id needs the type of the object; name it with --type")
    now = SystemClock().now()
    store = resolve_storage(required_storage(context, storage))
    with open_reader(store, tenant) as reader:
        if type_name is not None:
            check_type_name(type_name)
            check_type_stored(reader, store, type_name, tenant)
        rows = _rows(reader, now, type_name, object_id, tenant, status)
        if output != "table":
            print_rows(output, ALARM_COLUMNS, map(alarm_json, islice(rows, limit)))
            return
        page = list(islice(rows, limit or _LIMIT))
        has_more = next(rows, None) is not None
    if page:
        console().print(alarm_table(page, now))
    else:
        click.echo("No alarms match.", err=True)
    if has_more:
        click.echo("There are more: raise --limit, or use more filters.", err=True)


def _reject_filters(context: click.Context) -> None:
    for name in ("type_name", "object_id", "status", "limit", "as_json", "output"):
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            raise CommandError(
                f"alarms {context.invoked_subcommand} takes its own options, after its name"
            )


def _listing(store: Storage, tenant: str | None, *options: str) -> str:
    return command_line("alarms", *options, storage=store.location, tenant=tenant)


def _rows(
    reader: Reader,
    now: int,
    type_name: str | None,
    object_id: str | None,
    tenant: str | None,
    status: AlarmStatus | None,
) -> Iterator[AlarmRow]:
    if type_name is not None:
        check_type_name(type_name)
        if object_id is not None:
            return iter_alarms_of(
                reader, object_key(type_name, object_id, tenant), now, status=status
            )
    return iter_alarms(reader, now, type_name, tenant or "", status=status)


@alarms.command()
@click.argument("type_name", metavar="[TYPE]", shell_complete=complete_type, required=False)
@click.argument("object_id", metavar="[ID]", required=False)
@click.argument("name", metavar="[NAME]", required=False)
@storage_options()
@click.option(
    "--all",
    "retry_all",
    is_flag=True,
    help="All dead letters; of TYPE or ID, if given.",
)
def retry(
    type_name: str | None,
    object_id: str | None,
    name: str | None,
    storage: str,
    tenant: str | None,
    retry_all: bool,
) -> None:
    """Make dead letters due now, with their failures reset.

    \b
    Examples:
      trio-durable alarms retry -s app.db Cart ada remind
      trio-durable alarms retry -s app.db --all
      trio-durable alarms retry -s app.db Cart --all
    """
    if retry_all and name is not None:
        raise CommandError("--all retries all dead letters of an object; leave NAME out")
    if not retry_all and name is None:
        raise CommandError("name a dead letter by TYPE, ID and NAME, or use --all")
    store = resolve_storage(storage)
    now = SystemClock().now()
    with open_reader(store, tenant) as reader:
        if type_name is None or object_id is None or name is None:
            rows = _rows(reader, now, type_name, object_id, tenant, "dead")
        else:
            alarm = alarm_key(type_name, object_id, name, tenant)
            row = find_alarm(reader, alarm, now)
            if row is None or row.status != "dead":
                listing = _listing(store, tenant, "--status", "dead")
                raise CommandError(f"there is no dead letter {alarm}; `{listing}` lists them")
            rows = iter([row])
        first = next(rows, None)
        retried = 0
        if first is not None:
            with open_owner(store) as owner:
                for row in chain([first], rows):
                    retried += owner.retry_alarm(row.alarm.key, now)
    click.echo(
        f"Made {quantity(retried, 'dead letter')} due." if retried else "No dead letters match."
    )


@alarms.command()
@click.argument("type_name", metavar="TYPE", shell_complete=complete_type)
@click.argument("object_id", metavar="ID")
@click.argument("name", metavar="NAME")
@storage_options()
def cancel(type_name: str, object_id: str, name: str, storage: str, tenant: str | None) -> None:
    """Remove an alarm or dead letter.

    A recurring alarm is turned off: it leaves a mark, by which it isn't begun
    again by itself. To cancel the mark removes it.

    \b
    Examples:
      trio-durable alarms cancel -s app.db Cart ada remind
    """
    alarm = alarm_key(type_name, object_id, name, tenant)
    store = resolve_storage(storage)
    now = SystemClock().now()
    with open_reader(store, tenant) as reader:
        row = find_alarm(reader, alarm, now)
        if row is None:
            listing = _listing(store, tenant)
            raise CommandError(f"there is no alarm {alarm}; `{listing}` lists them")
        with open_owner(store) as owner:
            owner.cancel_alarm(row, now)
    click.echo(f"Cancelled {alarm}.")


@alarms.command()
@click.argument("type_name", metavar="TYPE", shell_complete=complete_type)
@storage_options(tenant_help="Only alarms of this tenant; by default, of all.")
@app_option(required=True, help="Module with the class.")
def reschedule(type_name: str, storage: str, tenant: str | None, apps: tuple[str, ...]) -> None:
    """Compute the next times of a type's recurring alarms once more.

    After a change of a schedule, or of the rules of a time zone. A runtime does
    so for each object that it loads; this command does it for all. A firing that
    is due, or that was moved, stays as it is.

    \b
    Examples:
      trio-durable alarms reschedule -s app.db --app shop Report
    """
    declared = AppClasses(apps).of_type(type_name).alarms
    store = resolve_storage(storage)
    now = SystemClock().now()
    changed = 0
    with open_reader(store, tenant) as reader, open_owner(store) as owner:
        for name, definition in declared.items():
            if definition.recurrence is None:
                continue
            for each in select_tenants(reader, tenant):
                for page in recurring_pages(reader, type_name, name, each):
                    news = [
                        (row.alarm.key, new)
                        for row in page
                        if (new := definition.recurrence.corrected(row, now)) is not None
                    ]
                    owner.set_alarms(news, now)
                    changed += len(news)
    click.echo(f"Rescheduled {quantity(changed, 'alarm')}.")


@alarms.command()
@storage_option
@click.option(
    "--to",
    "target",
    type=click.Choice(["oban", "wheel"]),
    required=True,
    help="To jobs of Oban, or to the library's own timing wheel.",
)
@click.option("--queue", metavar="QUEUE", default=_OBAN.queue, help="The queue of the jobs.")
@click.option(
    "--prefix", metavar="SCHEMA", default=_OBAN.prefix, help="The schema of Oban's tables."
)
def move(target: str, queue: str, prefix: str, storage: str) -> None:
    """Move all alarms to jobs of Oban, or back, in one transaction.

    Dead letters and alarms that are off move as well. No runtime may be open.
    Open runtimes with scheduler=ObanScheduler(...) afterwards, or without it.

    \b
    Examples:
      trio-durable alarms move -s postgresql:///app --to oban
      trio-durable alarms move -s postgresql:///app --to wheel
    """
    stored = resolve_storage(storage)
    if isinstance(stored, SQLiteStorage):
        raise CommandError(
            f"{stored.location} is an SQLite file; Oban's jobs are in PostgreSQL databases only"
        )
    from ...storage.postgres import Jobs, PostgresStorage  # here, since psycopg is an extra

    if not isinstance(stored, PostgresStorage):
        raise CommandError(f"{stored.location} isn't a PostgreSQL database")
    moved = stored.move_alarms(Jobs(prefix, queue) if target == "oban" else None)
    place = f"jobs of Oban in queue {queue}" if target == "oban" else "the wheel"
    click.echo(f"Moved {quantity(moved, 'alarm')} to {place}.")
