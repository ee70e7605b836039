"""``trio-durable rename``."""

from __future__ import annotations

import click

from ..errors import CommandError
from ..options import storage_options
from ..output import printable, quantity
from ..prompts import confirm, yes_option
from ..storage.open import check_type_name, open_reader, open_writer, resolve_storage
from ..storage.type_completion import complete_type


@click.command()
@click.argument("old", shell_complete=complete_type)
@click.argument("new")
@storage_options()
@yes_option
def rename(old: str, new: str, storage: str, tenant: str | None, yes: bool) -> int:
    """Rename a type in all that is stored.

    In objects, alarms, messages from and to them, dead letters and once-keys, by
    one transaction; nothing is renamed if an object has both names. Stop all
    runtimes first, and rename the class, or its name=..., in the app. Exit
    status 1 if you answer no.

    \b
    Examples:
      trio-durable rename -s app.db Cart Basket
      trio-durable rename -s app.db -t acme Cart Basket --yes
    """
    for name in (old, new):
        check_type_name(name)
    if old == new:
        raise CommandError(f"OLD and NEW are the same, {old!r}; name two types")
    store = resolve_storage(storage)
    with open_reader(store, tenant):
        pass  # it exists, and so does the tenant
    with open_writer(store) as writer:
        question = f"Rename the type {printable(repr(old))} to {printable(repr(new))}?"
        if not confirm(question, yes=yes):
            click.echo("Nothing was renamed.", err=True)
            return 1
        count = writer.rename_type(old, new, tenant or "")
    click.echo(f"Renamed {quantity(count, 'object')} of {printable(repr(old))}.")
    return 0
