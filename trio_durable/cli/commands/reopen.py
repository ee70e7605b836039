"""``trio-durable reopen``."""

from __future__ import annotations

import click

from ..._api.tenant import check_tenant
from ..errors import CommandError
from ..options import storage_options
from ..prompts import confirm, yes_option
from ..storage.open import open_reader, resolve_storage


@click.command()
@storage_options(tenant_help="Reopen this tenant; by default, the storage.")
@yes_option
def reopen(storage: str, tenant: str | None, yes: bool) -> int:
    """Take back the mark of a storage or tenant that was moved.

    `copy --move` makes the mark. Take it back if the copy isn't used, and never
    was: otherwise its alarms and messages happen in both storages. Stop all
    runtimes on the storage first. Exit status 1 if you answer no.

    \b
    Examples:
      trio-durable reopen -s app.db
      trio-durable reopen -s app.db -t acme --yes
    """
    if tenant is not None:
        check_tenant(tenant)
    store = resolve_storage(storage)
    what = store.location if tenant is None else f"tenant {tenant} of {store.location}"
    moves = {move.tenant: move for move in store.list_moves()}
    move = moves.get(tenant or "")
    if move is None:
        with open_reader(store, tenant):
            pass  # there is such a storage, and such a tenant
        others = ", ".join(name for name in moves if name)
        hint = f", but of these tenants: {others}" if others else ""
        raise CommandError(f"{what} has no mark that it was moved{hint}")
    question = (
        f"{move.describe(what)}. If that copy is used, alarms and messages would happen twice. "
        "Reopen it?"
    )
    if not confirm(question, yes=yes):
        click.echo("Nothing was changed.", err=True)
        return 1
    store.reopen(tenant or "")
    click.echo(f"Runtimes may use {what} again.")
    return 0
