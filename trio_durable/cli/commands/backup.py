"""``trio-durable backup``."""

from __future__ import annotations

from pathlib import Path

import click

from ...storage import SQLiteStorage, StorageFault
from ...storage.sqlite._backup import back_up
from ..errors import CommandError
from ..output import console, progress_bar, quantity
from ..storage.open import open_reader, resolve_storage


@click.command()
@click.argument("where", metavar="STORAGE", envvar="TRIO_DURABLE_STORAGE")
@click.argument("path", type=click.Path(path_type=Path))
def backup(where: str, path: Path) -> None:
    """Copy an SQLite file to PATH while the app runs.

    All of the copy is of one moment. It is checked before it gets its name, so
    a PATH that exists is a whole backup. An existing file is never replaced.
    For PostgreSQL use pg_dump, or `trio-durable export`.

    \b
    Examples:
      trio-durable backup app.db backups/monday.db
    """
    storage = resolve_storage(where, option="STORAGE")
    if not isinstance(storage, SQLiteStorage):
        raise CommandError(
            "STORAGE: backup copies SQLite files; for PostgreSQL use pg_dump, or `trio-durable "
            "export`"
        )
    if not path.parent.is_dir():
        raise CommandError(f"{path}: there is no folder {path.parent}; create it first")
    with open_reader(storage):  # that it is there, and one of ours
        pass
    with progress_bar(console(stderr=True)) as bar:
        task = bar.add_task("copying")
        try:
            rows = back_up(
                Path(storage.location),
                path,
                lambda done, total: bar.update(task, completed=done, total=total),
            )
        except StorageFault as fault:
            raise CommandError(f"{storage.location}: {fault}; nothing was written") from fault
    size = path.stat().st_size
    click.echo(f"Backed up {quantity(rows, 'row')}, {quantity(size, 'byte')}, to {path}.", err=True)
