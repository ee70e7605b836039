"""``trio-durable migrate``."""

from __future__ import annotations

import click

from ..options import json_option, storage_option
from ..output import print_json
from .opening import storage_named, writing


@click.command()
@storage_option
@click.option("--check", is_flag=True, help="Only look; exit status 1 if something is pending.")
@json_option
def migrate(storage: str, check: bool, as_json: bool) -> int:
    """Bring the tables of a storage up to date with this release.

    A runtime does so too when it opens the storage. Objects stay as they are;
    migrate-states brings these up to date.

    \b
    Examples:
      trio-durable migrate -s app.db
      trio-durable migrate -s app.db --check
    """
    kept = storage_named(storage)
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
