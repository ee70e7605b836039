"""``trio-durable top``."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import anyio
import attrs
import click

from ..._api.statistics import RuntimeStatistics
from ..._keys import ObjectKey
from ...storage import Storage
from ..options import output_option, seconds_option, storage_option
from ..output import Output, add_row, console, new_table, row_printer
from ..storage.open import resolve_storage
from ..storage.running import running_app

if TYPE_CHECKING:
    from rich.console import RenderableType

_ROWS = 15
_OF_THE_LOOP = re.compile(
    r"[/\\](site-packages|dist-packages|python3\.\d+)[/\\](anyio|asyncio|outcome|trio|uvloop)[/\\]"
)
"""The files of event loops, by the folders of interpreters."""
_RATES = ("commits", "alarms_delivered", "messages_delivered")
_COLUMNS = (
    *("node", "pid"),
    *(
        field.name
        for field in attrs.fields(RuntimeStatistics)
        if field.name not in ("busiest", "slowest")
    ),
)


@click.command()
@storage_option
@seconds_option("--every", default=2.0, help="Seconds between two looks.")
@click.option("--looks", type=click.IntRange(1), help="End after so many; by default 1 in a pipe.")
@output_option(json_is="jsonl")
def top(storage: str, every: float, looks: int | None, output: Output) -> None:
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
    anyio.run(_top, resolve_storage(storage), every, looks, output, backend="trio")


async def _top(store: Storage, every: float, looks: int | None, output: Output) -> None:
    rates = Rates()
    async with running_app(store) as app:
        with nullcontext() if output == "table" else row_printer(output, _COLUMNS) as print_row:
            while True:
                found = await app.statistics()
                if print_row is None:
                    _show(found, rates.since_last(found, anyio.current_time()), await app.turns())
                else:
                    for each in found:
                        print_row(each)
                if looks is not None:
                    looks -= 1
                    if not looks:
                        return
                await anyio.sleep(every)


class Rates:
    """Rates of the counters of processes, in the time that has passed since the last look."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[float, dict[str, Any]]] = {}

    def since_last(
        self, found: Sequence[dict[str, Any]], now: float
    ) -> list[tuple[float, ...] | None]:
        """The rates of each process, per second; None for one that is new.

        Args:
            found: The counters of each.
            now: The time of the event loop.
        """
        last, self._last = self._last, {each["node"]: (now, each) for each in found}
        return [
            _rates(each, now, *last[node]) if (node := each["node"]) in last else None
            for each in found
        ]


def _rates(
    counters: dict[str, Any], now: float, earlier: float, before: dict[str, Any]
) -> tuple[float, ...]:
    return tuple((counters[name] - before[name]) / (now - earlier) for name in _RATES)


def _show(
    found: Sequence[dict[str, Any]],
    rates: Sequence[tuple[float, ...] | None],
    turns: Sequence[dict[str, Any]],
) -> None:
    from rich.console import Group

    screen = console()
    shown: list[RenderableType] = []
    processes = new_table(
        *(">pid", ">objects", ">busy", ">commits/s"),
        *(">alarms/s", ">messages/s", ">due", ">waiting"),
    )
    for each, since in zip(found, rates, strict=True):
        shown_rates = [""] * len(_RATES) if since is None else [f"{rate:,.0f}" for rate in since]
        counts = (f"{each['objects']:,}", f"{each['busy']:,}")
        waiting = (f"{each['alarms_waiting']:,}", f"{each['messages_waiting']:,}")
        add_row(processes, each["pid"], *counts, *shown_rates, *waiting)
    shown.append(processes)
    if turns:
        table = new_table("busy object", "doing", ">seconds", ">waiting", "awaits")
        for turn in turns[:_ROWS]:
            key = ObjectKey(turn["type"], turn["id"], turn["tenant"])
            seconds, awaits = f"{turn['seconds']:.3g}", awaited(turn["awaits"])
            add_row(table, key, turn["doing"], seconds, turn["waiting"], awaits)
        shown.append(table)
    if screen.is_terminal:
        screen.clear()
    screen.print(Group(*shown))


def awaited(frames: Sequence[dict[str, Any]]) -> str:
    """The innermost line of the app's own code, without those of the event loop; or of any code."""
    own = [frame for frame in frames if _OF_THE_LOOP.search(frame["file"]) is None]
    if not frames:
        return ""
    innermost = (own or frames)[-1]
    return f"{innermost['function']}:{innermost['line']}"
