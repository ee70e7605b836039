"""``trio-durable top``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import anyio
import click

from ..._keys import ObjectKey
from ...storage import Storage
from ..options import json_option, seconds_option, storage_option
from ..output import add_row, console, new_table, print_json
from ..storage.open import resolve_storage
from ..storage.running import RunningApp, running_app

if TYPE_CHECKING:
    from rich.console import RenderableType

_ROWS = 15
_RATES = ("commits", "alarms_delivered", "messages_delivered")


@click.command()
@storage_option
@seconds_option("--every", default=2.0, help="Seconds between two looks.")
@click.option("--looks", type=click.IntRange(1), help="End after so many; by default 1 in a pipe.")
@json_option
def top(storage: str, every: float, looks: int | None, as_json: bool) -> None:
    """Show the load of a running app.

    Again and again, a line per process: its objects in memory, how many are busy, rates of the
    time between two looks, alarms in memory that are due soon, and messages that
    wait. Below it are the busy objects, each with the function that it awaits.
    Control-C ends it.

    \b
    Examples:
      trio-durable top -s app.db
      trio-durable top -s app.db --looks 1 --json
    """
    if looks is None and not sys.stdout.isatty():
        looks = 1
    anyio.run(_top, resolve_storage(storage), every, looks, as_json, backend="trio")


async def _top(store: Storage, every: float, looks: int | None, as_json: bool) -> None:
    before: dict[str, dict[str, Any]] = {}
    async with running_app(store) as app:
        while True:
            found = await app.statistics()
            if as_json:
                for each in found:
                    print_json(each)
            else:
                await _show(app, found, before, every)
            before = {each["node"]: each for each in found}
            if looks is not None:
                looks -= 1
                if not looks:
                    return
            await anyio.sleep(every)


async def _show(
    app: RunningApp, found: list[dict[str, Any]], before: dict[str, dict[str, Any]], every: float
) -> None:
    from rich.console import Group

    screen = console()
    shown: list[RenderableType] = []
    processes = new_table(
        *(">pid", ">objects", ">busy", ">commits/s"),
        *(">alarms/s", ">messages/s", ">due", ">waiting"),
    )
    for each in found:
        earlier = before.get(each["node"])
        rates = [
            "" if earlier is None else f"{(each[name] - earlier[name]) / every:,.0f}"
            for name in _RATES
        ]
        counts = (f"{each['objects']:,}", f"{each['busy']:,}")
        waiting = (f"{each['alarms_waiting']:,}", f"{each['messages_waiting']:,}")
        add_row(processes, each["pid"], *counts, *rates, *waiting)
    shown.append(processes)
    turns = await app.turns()
    if turns:
        table = new_table("busy object", "doing", ">seconds", ">waiting", "awaits")
        for turn in turns[:_ROWS]:
            key = ObjectKey(turn["type"], turn["id"], turn["tenant"])
            innermost = turn["awaits"][-1] if turn["awaits"] else None
            awaits = "" if innermost is None else f"{innermost['function']}:{innermost['line']}"
            add_row(table, key, turn["doing"], f"{turn['seconds']:.3g}", turn["waiting"], awaits)
        shown.append(table)
    if screen.is_terminal:
        screen.clear()
    screen.print(Group(*shown))
