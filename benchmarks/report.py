"""The results as text: a line of progress for each scenario, a table at the end, and files."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .measurements import Latency, Measurement, Outcome, Sample, Unmeasured

_STYLES = {"met": "green", "MISSED": "bold red", "": ""}


def figure(value: float, measurement: Measurement) -> str:
    """A rate, a number of bytes or a time, with its unit."""
    return f"{value:,.{2 if measurement.unit == ' ms' else 0}f}{measurement.unit}"


def progress(outcome: Outcome) -> str:
    """An outcome in a line."""
    if isinstance(outcome, Unmeasured):
        return f"{'FAILED' if outcome.failed else 'skipped'}: {outcome.reason}"
    parts = [figure(outcome.ours.median, outcome)]
    if outcome.ratio is not None:
        parts.append(f"{outcome.ratio.median:.3f}x the limit")
    if outcome.target is not None:
        parts.append(f"target {outcome.target}: {outcome.verdict}")
    return ", ".join(parts)


def summary(outcomes: Sequence[Outcome]) -> str:
    """How many targets were met."""
    verdicts = [o.met for o in outcomes if isinstance(o, Measurement) and o.met is not None]
    missed = verdicts.count(False)
    text = f"{verdicts.count(True)} of {len(verdicts)} targets met"
    return f"{text}, {missed} MISSED" if missed else text


def show(outcomes: Sequence[Outcome], console: Console) -> None:
    """Print all of it as a table."""
    table = Table(caption="medians of the rounds, with the lowest and highest round's ratio")
    table.add_column("scenario")
    for heading in ("ours", "limit", "ratio", "p50 / p99", "target"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("")
    for group, members in groupby(outcomes, lambda outcome: outcome.group):
        table.add_section()
        table.add_row(f"[bold]{escape(group)}[/]")
        for outcome in members:
            table.add_row(*_cells(outcome))
    console.print(table)
    console.print(summary(outcomes))


def _cells(outcome: Outcome) -> list[str]:
    title = f"  {escape(outcome.title)}"
    if isinstance(outcome, Unmeasured):
        return [title, "", "", "", "", "", "[bold red]FAILED[/]" if outcome.failed else "skipped"]
    style = _STYLES[outcome.verdict]
    if outcome.limit is not None:
        title += f"\n    [dim]{escape(outcome.limit_title)}[/]"
    return [
        title,
        figure(outcome.ours.median, outcome),
        "" if outcome.limit is None else figure(outcome.limit.median, outcome),
        _ratio(outcome.ratio),
        _latency(outcome.latency),
        "" if outcome.target is None else str(outcome.target),
        f"[{style}]{outcome.verdict}[/]" if style else "",
    ]


def _ratio(ratio: Sample | None) -> str:
    if ratio is None:
        return ""
    return f"{ratio.median:.3f} ({ratio.low:.2f}-{ratio.high:.2f})"


def _latency(latency: Latency | None) -> str:
    if latency is None:
        return ""
    return f"{_duration(latency.p50)} / {_duration(latency.p99)}"


def _duration(seconds: float) -> str:
    return f"{seconds * 1e6:,.0f} µs" if seconds < 0.001 else f"{seconds * 1e3:.2f} ms"


def write(path: Path, content: bytes) -> None:
    """Put results into a file, and say so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    print(f"wrote {path}")
