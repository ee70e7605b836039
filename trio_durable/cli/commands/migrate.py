"""``trio-durable migrate``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import click

from ...storage import SQLiteStorage, Storage
from ..errors import CommandError
from ..options import output_option, storage_option
from ..output import Output, print_reply, print_rows
from ..prompts import confirm, yes_option
from ..storage.open import open_writer, resolve_storage

NONE = "none"
"""The value of ``--down`` that keeps no migration. No migration has this name."""


@runtime_checkable
class _MigratesDown(Protocol):
    """A storage whose migrations can be undone: `PostgresStorage`.

    Recognized by its methods, because the class itself can't be imported without psycopg.
    """

    def migrate_down(self, to: str | None) -> list[str]: ...

    def migrate_down_sql(self, to: str | None) -> str: ...


@click.command()
@storage_option
@click.option(
    "--check",
    is_flag=True,
    help="Only list pending migrations; exit status 1 if any.",
)
@click.option(
    "--down",
    "last",
    metavar="NAME",
    help=f'Undo all migrations after this one, or all with "{NONE}". PostgreSQL only.',
)
@click.option("--sql", is_flag=True, help="Print the SQL instead of executing it.")
@output_option(json_is="json")
@yes_option
def migrate(
    storage: str, check: bool, last: str | None, sql: bool, output: Output, yes: bool
) -> int:
    """Migrate the tables of a storage to this release.

    A runtime does the same when it opens the storage. Stored states are not
    changed; migrate-states upgrades them.

    With --down, migrate back to the tables of an older release. Data that they
    have no place for is lost. Stop all runtimes first. Exit status 1 if you
    answer no, and if migrations of a tenant can't be applied. As jsonl and csv, a
    line is printed per migration.

    \b
    Examples:
      trio-durable migrate -s app.db
      trio-durable migrate -s app.db --check
      trio-durable migrate -s postgresql://db.example.com/app --sql
      trio-durable migrate -s postgresql://db.example.com/app --down m002_alarms
    """
    if sql and (check or output != "table"):
        raise CommandError(
            "--sql prints SQL and nothing else; leave out --check, --output and --json"
        )
    if last is not None and check:
        raise CommandError("--check lists pending migrations; leave it out, or leave out --down")
    store = resolve_storage(storage)
    if last is not None:
        return _down(store, None if last == NONE else last, sql=sql, output=output, yes=yes)
    if sql:
        text = store.migration_sql()
        if text is None:
            raise CommandError(f"{store.location} has no SQL to print; run migrate without --sql")
        click.echo(text, nl=False)
        return 0
    pending = store.pending_migrations()
    left = pending
    if pending and not check:
        with open_writer(store):
            pass  # opening the writer migrates the tables
        left = store.pending_migrations()  # those of tenants whose tables can't be migrated
    applied = [name for name in pending if name not in left]
    if output == "table":
        for name in applied:
            click.echo(f"applied {name}")
        for name in left:
            click.echo(f"{name} is pending")
        if not pending:
            click.echo("The tables are up to date.")
    else:
        found = {} if check else {"applied": applied}
        _print_migrations(output, found | ({"pending": left} if left or check else {}))
    return 1 if left else 0


def _down(store: Storage, last: str | None, *, sql: bool, output: Output, yes: bool) -> int:
    if isinstance(store, SQLiteStorage):
        raise CommandError(
            f"{store.location}: SQLite files can't be migrated down; restore an earlier backup"
        )
    if not isinstance(store, _MigratesDown):
        raise CommandError(
            f"{store.location}: this storage has no migrations to undo; leave out --down"
        )
    try:
        text = store.migrate_down_sql(last)
    except ValueError as error:
        raise CommandError(f"--down: {error}; name one of these, or {NONE}") from None
    if sql:
        click.echo(text, nl=False)
        return 0
    undone: list[str] = []
    if text:
        undone_text = "all migrations" if last is None else f"all migrations after {last}"
        if not confirm(f"Undo {undone_text} in {store.location}, with their data?", yes=yes):
            click.echo("Nothing was undone.", err=True)
            return 1
        undone = store.migrate_down(last)
    if output == "table":
        for name in undone:
            click.echo(f"undid {name}")
        if not undone:
            click.echo("There is nothing to undo.")
    else:
        _print_migrations(output, {"undone": undone})
    return 0


def _print_migrations(output: Output, found: Mapping[str, Sequence[str]]) -> None:
    """Print the names of migrations by their status: one object as JSON, else a line for each."""
    if output == "json":
        print_reply(found)
        return
    rows = [
        {"migration": name, "status": status} for status, names in found.items() for name in names
    ]
    print_rows(output, ("migration", "status"), rows)
