"""``trio-durable migrate``."""

from __future__ import annotations

import click

from ..options import json_option, storage_option
from ..output import print_json
from ..refusal import Refusal
from .opening import storage_named, writing


@click.command()
@storage_option
@click.option("--check", is_flag=True, help="Only look; exit status 1 if something is pending.")
@click.option("--sql", is_flag=True, help="Only print what is to be done, for whoever may do it.")
@json_option
def migrate(storage: str, check: bool, sql: bool, as_json: bool) -> int:
    """Bring the tables of a storage up to date with this release.

    A runtime does so too when it opens the storage. Objects stay as they are;
    migrate-states brings these up to date.

    \b
    Examples:
      trio-durable migrate -s app.db
      trio-durable migrate -s app.db --check
      trio-durable migrate -s postgresql://db.example.com/app --sql
    """
    if sql and (check or as_json):
        raise Refusal("--sql prints SQL and nothing else; leave out --check and --json")
    kept = storage_named(storage)
    if sql:
        text = kept.migration_sql()
        if text is None:
            raise Refusal(
                f"{kept.location} has no SQL to apply; whoever opens it brings it up to date"
            )
        click.echo(text, nl=False)
        return 0
    pending = kept.pending_migrations()
    if pending and not check:
        with writing(kept):
            pass  # opening it did it
    if as_json:
        print_json({"pending" if check else "applied": pending})
    else:
        for name in pending:
            click.echo(f"{name} is pending" if check else f"applied {name}")
        if not pending:
            click.echo("The tables are up to date.")
    return 1 if pending and check else 0
