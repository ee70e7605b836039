"""``trio-durable restore``."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import click

from ...storage import SQLiteStorage, StorageFault
from ...storage.sqlite._backup import restore as restore_file
from ...storage.sqlite._lock import FileLock
from ..errors import CommandError
from ..output import console, progress_bar, quantity
from ..prompts import confirm, yes_option
from ..storage.open import open_reader, resolve_storage


@click.command()
@click.argument("backup", type=click.Path(path_type=Path))
@click.argument("where", metavar="STORAGE", envvar="TRIO_DURABLE_STORAGE")
@yes_option
def restore(backup: Path, where: str, yes: bool) -> int:
    """Put BACKUP in the place of an SQLite file, while no app has it open.

    The backup is checked first, and stays. What was stored since it was made is
    gone from STORAGE, with all alarms and messages; alarms of the backup that are
    due fire again, and messages that were delivered since are delivered again.
    Exit status 1 if you answer no.

    \b
    Examples:
      trio-durable restore backups/monday.db app.db
    """
    target = resolve_storage(where, option="STORAGE")
    if not isinstance(target, SQLiteStorage):
        raise CommandError(
            "STORAGE: restore takes SQLite files; for PostgreSQL use pg_restore, or `trio-durable "
            "import`"
        )
    path = Path(target.location)
    if not path.parent.is_dir():
        raise CommandError(f"{path}: there is no folder {path.parent}; create it first")
    with open_reader(SQLiteStorage(backup)):  # that it is there, and one of ours
        pass
    if path.exists() and backup.samefile(path):
        raise CommandError(f"{backup} is the storage itself; name a backup of it")
    with ExitStack() as stack:
        # Not the writer's, which opens the database: the old one may be damaged.
        lock = FileLock(path.with_name(f"{path.name}-lock"), str(path))
        stack.callback(lock.release)
        if path.exists() and not confirm(f"Replace {path} by {backup}?", yes=yes):
            click.echo("Nothing was replaced.", err=True)
            return 1
        with progress_bar(console(stderr=True)) as bar:
            task = bar.add_task("copying")
            try:
                rows = restore_file(
                    backup,
                    path,
                    lambda done, total: bar.update(task, completed=done, total=total),
                )
            except StorageFault as fault:
                raise CommandError(f"{fault}; nothing was replaced") from fault
    click.echo(f"Restored {quantity(rows, 'row')} from {backup}.", err=True)
    return 0
