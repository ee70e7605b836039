"""``trio-durable stacks``."""

from __future__ import annotations

from typing import Any

import anyio
import click

from ..._keys import ObjectKey
from ...storage import Storage
from ..options import output_option, storage_option
from ..output import Output, print_line, print_rows, quantity
from ..storage.open import resolve_storage
from ..storage.running import running_app

_COLUMNS = ("tenant", "type", "id", "doing", "seconds", "waiting", "cancelled", "awaits")


@click.command()
@storage_option
@output_option(json_is="jsonl")
def stacks(storage: str, output: Output) -> None:
    """Show what busy objects of a running app await.

    An object is busy while it loads or an async def handler runs. The longest
    busy come first, each with the lines at which its handler awaits, the
    innermost last.

    \b
    Examples:
      trio-durable stacks -s app.db
    """
    turns = anyio.run(_turns, resolve_storage(storage), backend="trio")
    if output != "table":
        print_rows(output, _COLUMNS, turns)
        return
    for turn in turns:
        key = ObjectKey(turn["type"], turn["id"], turn["tenant"])
        waiting = f", {quantity(turn['waiting'], 'call')} waiting" if turn["waiting"] else ""
        print_line(f"{key}: {turn['doing']} for {turn['seconds']:.3g} s{waiting}")
        if turn["cancelled"] is not None:
            print_line(f"cancelled {turn['cancelled']:.3g} s ago, and it goes on", indent=2)
        for frame in turn["awaits"]:
            place = f"{frame['file']}:{frame['line']}"
            print_line(f"{place} in {frame['function']}", indent=2)
    if not turns:
        click.echo("No object is busy.", err=True)


async def _turns(store: Storage) -> list[dict[str, Any]]:
    async with running_app(store) as app:
        return await app.turns()
