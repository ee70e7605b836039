"""``trio-durable rm``."""

from __future__ import annotations

import click

from ..._browsing import iter_alarms_of
from ..._clock import SystemClock
from ...storage import AlarmChanges, Commit
from ..errors import CommandError
from ..options import storage_options
from ..output import quantity
from ..prompts import confirm, yes_option
from ..storage.missing import object_not_found
from ..storage.open import object_key, open_reader, resolve_storage
from ..storage.owner import open_owner
from ..storage.paging import iter_messages
from ..storage.type_completion import complete_type


@click.command()
@click.argument("type_name", metavar="TYPE", shell_complete=complete_type)
@click.argument("object_ids", metavar="ID...", nargs=-1, required=True)
@storage_options()
@yes_option
def rm(
    type_name: str, object_ids: tuple[str, ...], storage: str, tenant: str | None, yes: bool
) -> int:
    """Remove objects with all their alarms.

    If one of them isn't stored, none is removed. Exit status 1 if you answer no.

    \b
    Examples:
      trio-durable rm -s app.db Cart ada bob
      trio-durable rm -s app.db -t acme Cart ada --yes
    """
    keys = [object_key(type_name, object_id, tenant) for object_id in dict.fromkeys(object_ids)]
    store = resolve_storage(storage)
    now = SystemClock().now()
    with open_reader(store, tenant) as reader:
        alarms = waiting = 0
        for key, row in zip(keys, reader.load(keys), strict=True):
            count = sum(1 for _ in iter_alarms_of(reader, key, now))
            mail = sum(1 for _ in iter_messages(reader, key.type_name, key.object_id, key.tenant))
            if row is None and not count and not mail:
                raise object_not_found(reader, store, key)
            alarms += count
            waiting += mail
        with open_owner(store) as owner:
            objects_text = f"{quantity(len(keys), 'object')} of {type_name!r}"
            alarms_text = f" with {quantity(alarms, 'alarm')}" if alarms else ""
            question = f"Remove {objects_text}{alarms_text}?"
            if waiting:
                question += f" {quantity(waiting, 'message')} to them will be dead letters."
            if not confirm(question, yes=yes):
                click.echo("Nothing was removed.", err=True)
                return 1
            # Read again: from here on a change by others refuses the removal.
            batch = [
                Commit(
                    key,
                    row.revision if row else 0,
                    delete=True,
                    alarms=AlarmChanges(clear=True),
                    epoch=row.epoch if row else 0,
                )
                for key, row in zip(keys, reader.load(keys), strict=True)
            ]
            stale = owner.commit(batch, now)
            if stale:
                raise CommandError(
                    f"{batch[min(stale)].key} was changed meanwhile and not removed; run this again"
                )
    click.echo(f"Removed {objects_text}{alarms_text}.")
    if waiting:
        click.echo(f"Dead letters now: {quantity(waiting, 'message')} that waited for them.")
    return 0
