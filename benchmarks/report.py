"""Results as text: a line of progress for each scenario, a table at the end, and files."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .measurements import Outcome, Sample

_STYLES = {"met": "green", "MISSED": "bold red", "": ""}


def figure(sample: Sample, unit: str) -> str:
    """The median with its unit."""
    return f"{sample.median:,.{2 if unit == ' ms' else 0}f}{unit}"


def progress(outcome: Outcome) -> str:
    """An outcome in a line."""
    scenario, figures = outcome.scenario, outcome.figures
    if figures is None:
        return f"{'FAILED' if outcome.failed else 'skipped'}: {outcome.reason}"
    parts = [figure(figures.ours, scenario.unit)]
    if figures.ratio is not None:
        parts.append(f"{figures.ratio.median:.3f}x the limit")
    if scenario.target is not None:
        parts.append(f"target {scenario.target}: {outcome.verdict}")
    return ", ".join(parts)


def show(outcomes: Sequence[Outcome], console: Console) -> None:
    """Print a table of all outcomes, and the number of targets that were met."""
    table = table_of(
        ("scenario", "ours", "limit", "ratio", "p50 / p99", "target", ""),
        caption="medians of the rounds, with the lowest and highest round's ratio",
    )
    for group, members in groupby(outcomes, lambda outcome: outcome.scenario.group):
        table.add_section()
        table.add_row(f"[bold]{escape(group)}[/]")
        for outcome in members:
            table.add_row(*_cells(outcome))
    console.print(table)
    verdicts = [outcome.verdict for outcome in outcomes if outcome.verdict]
    missed = verdicts.count("MISSED")
    text = f"{verdicts.count('met')} of {len(verdicts)} targets met"
    console.print(f"{text}, {missed} MISSED" if missed else text)


def _cells(outcome: Outcome) -> list[str]:
    scenario, figures = outcome.scenario, outcome.figures
    title = f"  {escape(scenario.title)}"
    if figures is None:
        return [title, "", "", "", "", "", "[bold red]FAILED[/]" if outcome.failed else "skipped"]
    ratio, style = figures.ratio, _STYLES[outcome.verdict]
    if scenario.limit_title:
        title += f"\n    [dim]{escape(scenario.limit_title)}[/]"
    return [
        title,
        figure(figures.ours, scenario.unit),
        "" if figures.limit is None else figure(figures.limit, scenario.unit),
        "" if ratio is None else f"{ratio.median:.3f} ({ratio.low:.2f}-{ratio.high:.2f})",
        " / ".join(_duration(seconds) for seconds in (figures.latency or {}).values()),
        str(scenario.target or ""),
        f"[{style}]{outcome.verdict}[/]" if style else "",
    ]


def _duration(seconds: float) -> str:
    return f"{seconds * 1e6:,.0f} µs" if seconds < 0.001 else f"{seconds * 1e3:.2f} ms"


def table_of(
    headings: Sequence[str], *, caption: str | None = None, figures: int = 6, wrap: bool = False
) -> Table:
    """An empty table: the first column is text, then come ``figures`` columns of figures."""
    table = Table(caption=caption)
    for number, heading in enumerate(headings):
        is_figure = 0 < number < figures
        justify: Literal["left", "right"] = "right" if is_figure else "left"
        table.add_column(heading, justify=justify, no_wrap=is_figure and not wrap)
    return table


def write(path: Path, content: bytes) -> None:
    """Write results into a file, and print its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    print(f"wrote {path}")
