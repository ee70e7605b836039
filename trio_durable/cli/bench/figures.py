"""What was measured, and how it is shown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median
from typing import Literal

import attrs
from rich.table import Table

from ... import Durability
from ..output import new_table

DURABILITIES: tuple[Durability, ...] = ("full", "normal")


@attrs.frozen
class Figure:
    """One of the figures."""

    name: str
    title: str
    durability: Durability
    """What the file was opened with."""
    value: float
    unit: Literal["per second", "milliseconds"]
    beside: str | None = None
    """The name of the figure that it is compared with, which has the same durability."""
    ratio: float | None = None
    """How many times that it is."""

    def __str__(self) -> str:
        if self.unit == "milliseconds":
            return f"{self.value:.1f} ms"
        return f"{self.value:,.0f}/s"


def median_rate(name: str, title: str, durability: Durability, rounds: Iterable[float]) -> Figure:
    """A rate, as the median of rounds."""
    return Figure(name, title, durability, median(rounds), "per second")


def compare_rates(
    ours: tuple[str, str], plain: Figure, rounds: Sequence[tuple[float, float]]
) -> Figure:
    """A rate beside a plain one, from rounds in which both were measured in turns.

    Args:
        ours: Name and title.
        plain: What it is compared with.
        rounds: The rates: this one, and the plain one.
    """
    figure = median_rate(*ours, plain.durability, (mine for mine, _ in rounds))
    ratio = median(mine / other for mine, other in rounds)
    return attrs.evolve(figure, beside=plain.name, ratio=ratio)


def figure_table(figures: Sequence[Figure]) -> Table:
    """All of them, a line for each name."""
    table = new_table("", *(heading for each in DURABILITIES for heading in (f">{each}", ">ratio")))
    by_name: dict[str, dict[Durability, Figure]] = {}
    for figure in figures:
        by_name.setdefault(figure.name, {})[figure.durability] = figure
    for found in by_name.values():
        cells = [next(iter(found.values())).title]
        for durability in DURABILITIES:
            shown = found.get(durability)
            cells.append("" if shown is None else str(shown))
            cells.append("" if shown is None or shown.ratio is None else f"{shown.ratio:.2f}")
        table.add_row(*cells)
    return table
