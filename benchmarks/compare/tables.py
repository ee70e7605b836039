"""The results as text."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .catalogue import ENTRIES, entry_named
from .results import TITLES, WORKLOADS, Absent, Result, WorkloadName


def rate(result: Result) -> str:
    """The median with its unit."""
    return f"{result.rate.median:,.0f}/s"


def show(results: Sequence[Result], absent: Sequence[Absent], console: Console) -> None:
    """Print all of it: a table, the fastest of each workload first, and what isn't in it."""
    table = Table(caption="medians of the rounds, with the lowest and the highest")
    table.add_column("contender")
    for heading in ("per second", "rounds", "syncs per 1,000"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("durability")
    for name in WORKLOADS:
        members = ranked(results, name)
        if members:
            table.add_section()
            table.add_row(f"[bold]{escape(TITLES[name])}[/]")
        for result in members:
            table.add_row(*_cells(result))
    console.print(table)
    for contender in absent:
        title = entry_named(contender.contender).title
        console.print(
            f"{'FAILED' if contender.failed else 'left out'}: {title}: {contender.reason}"
        )
    for entry in ENTRIES:
        if any(result.contender == entry.name for result in results):
            for reason in dict.fromkeys(entry.cannot.values()):
                lacking = [name for name, why in entry.cannot.items() if why == reason]
                console.print(f"{entry.title}: no {', '.join(lacking)}: {reason}")


def ranked(results: Sequence[Result], name: WorkloadName) -> list[Result]:
    """The results of a workload, the highest rate first."""
    members = [result for result in results if result.workload == name]
    return sorted(members, key=lambda result: -result.rate.median)


def _cells(result: Result) -> list[str]:
    entry = entry_named(result.contender)
    low, high = result.rate.low, result.rate.high
    return [
        f"  {escape(entry.title)}{' (HTTP)' if entry.over_http else ''}",
        rate(result),
        f"{low:,.0f}-{high:,.0f}",
        syncs(result),
        entry.durability,
    ]


def syncs(result: Result) -> str:
    """How often the disk was told to sync per 1,000 operations."""
    return "not counted" if result.syncs is None else f"{result.syncs:,.0f}"
