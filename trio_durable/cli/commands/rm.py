"""``trio-durable rm``."""

from __future__ import annotations

import click

from ..._clock import SystemClock
from ...storage import AlarmChanges, Commit
from ..errors import Refusal
from ..options import storage_options
from ..prompts import confirmed, yes_option
from ..storage.formatting import counted
from ..storage.open import key_of, nothing_stored, reading, storage_named, writing
from ..storage.paging import alarms_of
from ..storage.type_argument import TypeName


@click.command()
@click.argument("type_name", metavar="TYPE", type=TypeName())
@click.argument("object_ids", metavar="ID...", nargs=-1, required=True)
@storage_options()
@yes_option
def rm(
    type_name: str, object_ids: tuple[str, ...], storage: str, tenant: str | None, yes: bool
) -> int:
    """Remove objects: their state and all their alarms.

    All of them, or none if one isn't there. Exit status 1 if you say no.

    \b
    Examples:
      trio-durable rm -s app.db Cart ada bob
      trio-durable rm -s app.db -t acme Cart ada --yes
    """
    keys = [key_of(type_name, object_id, tenant) for object_id in dict.fromkeys(object_ids)]
    kept = storage_named(storage)
    now = SystemClock().now()
    with reading(kept, tenant) as reader:
        alarms = 0
        for key, row in zip(keys, reader.load(keys), strict=True):
            its_alarms = sum(1 for _ in alarms_of(reader, key, now))
            if row is None and not its_alarms:
                raise nothing_stored(key)
            alarms += its_alarms
        with writing(kept) as writer:
            what = f"{counted(len(keys), 'object')} of {type_name!r}"
            with_what = f" with {counted(alarms, 'alarm')}" if alarms else ""
            if not confirmed(f"Remove {what}{with_what}?", yes=yes):
                click.echo("Nothing was removed.", err=True)
                return 1
            # Anew, for by now nobody else writes.
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
            stale = writer.commit(batch, now)
            if stale:
                raise Refusal(f"{batch[min(stale)].key} was changed meanwhile; the others are gone")
    click.echo(f"Removed {what}{with_what}.")
    return 0
