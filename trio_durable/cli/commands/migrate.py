"""``trio-durable migrate``."""

from __future__ import annotations

import click

from ...storage import SQLiteStorage, Storage
from ..errors import CommandError
from ..options import json_option, storage_option
from ..output import print_json
from ..prompts import confirm, yes_option
from ..storage.open import open_writer, resolve_storage

NONE = "none"
"""What keeps no migration; none is called that."""


@click.command()
@storage_option
@click.option("--check", is_flag=True, help="Only look; exit status 1 if something is pending.")
@click.option(
    "--down",
    "last",
    metavar="NAME",
    help=f"Undo what was applied after this migration, or all of it: {NONE}. PostgreSQL only.",
)
@click.option("--sql", is_flag=True, help="Only print what is to be done, for whoever may do it.")
@json_option
@yes_option
def migrate(
    storage: str, check: bool, last: str | None, sql: bool, as_json: bool, yes: bool
) -> int:
    """Bring the tables of a storage up to date with this release.

    A runtime does so too when it opens the storage. Objects stay as they are;
    migrate-states brings these up to date.

    With --down, go back to the tables of an older release. What only the newer
    ones can hold is lost. Stop all runtimes first. Exit status 1 if you say no.

    \b
    Examples:
      trio-durable migrate -s app.db
      trio-durable migrate -s app.db --check
      trio-durable migrate -s postgresql://db.example.com/app --sql
      trio-durable migrate -s postgresql://db.example.com/app --down m002_alarms
    """
    if sql and (check or as_json):
        raise CommandError("--sql prints SQL and nothing else; leave out --check and --json")
    if last is not None and check:
        raise CommandError("--check is about what is pending; leave it out, or leave out --down")
    store = resolve_storage(storage)
    if last is not None:
        return _down(store, None if last == NONE else last, sql=sql, as_json=as_json, yes=yes)
    if sql:
        text = store.migration_sql()
        if text is None:
            raise CommandError(
                f"{store.location} has no SQL to apply; whoever opens it brings it up to date"
            )
        click.echo(text, nl=False)
        return 0
    pending = store.pending_migrations()
    if pending and not check:
        with open_writer(store):
            pass  # opening it did it
    if as_json:
        print_json({"pending" if check else "applied": pending})
    else:
        for name in pending:
            click.echo(f"{name} is pending" if check else f"applied {name}")
        if not pending:
            click.echo("The tables are up to date.")
    return 1 if pending and check else 0


def _down(store: Storage, last: str | None, *, sql: bool, as_json: bool, yes: bool) -> int:
    if isinstance(store, SQLiteStorage):
        raise CommandError(
            f"{store.location}: the migrations of SQLite files only go up; restore a backup from "
            "before"
        )
    # Only now, for nobody else has psycopg.
    from ...storage.postgres import PostgresStorage

    assert isinstance(store, PostgresStorage)
    try:
        text = store.migrate_down_sql(last)
    except ValueError as error:
        raise CommandError(f"--down: {error}; name one of these, or {NONE}") from None
    if sql:
        click.echo(text, nl=False)
        return 0
    undone: list[str] = []
    if text:
        what = "all migrations" if last is None else f"all migrations after {last}"
        if not confirm(f"Undo {what} in {store.location}, with what they hold?", yes=yes):
            click.echo("Nothing was undone.", err=True)
            return 1
        undone = store.migrate_down(last)
    if as_json:
        print_json({"undone": undone})
    else:
        for name in undone:
            click.echo(f"undid {name}")
        if not undone:
            click.echo("There is nothing to undo.")
    return 0
