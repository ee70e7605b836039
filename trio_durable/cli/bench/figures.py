"""Figures of the benchmark, and their table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median
from typing import TYPE_CHECKING, Literal

import attrs

from ... import Durability
from ..output import new_table

if TYPE_CHECKING:
    from rich.table import Table

DURABILITIES: tuple[Durability, ...] = ("full", "normal")


@attrs.frozen
class Figure:
    """A measured figure."""

    name: str
    title: str
    durability: Durability
    """The durability of the runtime and of the plain table."""
    value: float
    unit: Literal["per second", "milliseconds"]
    beside: str | None = None
    """The name of the plain figure that it is compared with, of the same durability."""
    ratio: float | None = None
    """The ratio to the plain figure."""

    def __str__(self) -> str:
        if self.unit == "milliseconds":
            return f"{self.value:.1f} ms"
        return f"{self.value:,.0f}/s"


def median_rate(name: str, title: str, durability: Durability, rounds: Iterable[float]) -> Figure:
    """A rate: the median of its rounds."""
    return Figure(name, title, durability, median(rounds), "per second")


def compare_rates(
    ours: tuple[str, str], plain: Figure, rounds: Sequence[tuple[float, float]]
) -> Figure:
    """A rate with its ratio to a plain one. Each round has measured both.

    Args:
        ours: Name and title of the rate.
        plain: The plain figure.
        rounds: The rate and the plain rate of each round.
    """
    figure = median_rate(*ours, plain.durability, (mine for mine, _ in rounds))
    ratio = median(mine / other for mine, other in rounds)
    return attrs.evolve(figure, beside=plain.name, ratio=ratio)


def figure_table(figures: Sequence[Figure]) -> Table:
    """A table of all figures, with a row per name."""
    table = new_table("", *(heading for each in DURABILITIES for heading in (f">{each}", ">ratio")))
    by_name: dict[str, dict[Durability, Figure]] = {}
    for figure in figures:
        by_name.setdefault(figure.name, {})[figure.durability] = figure
    for found in by_name.values():
        cells = [next(iter(found.values())).title]
        for durability in DURABILITIES:
            cell = found.get(durability)
            cells.append("" if cell is None else str(cell))
            cells.append("" if cell is None or cell.ratio is None else f"{cell.ratio:.2f}")
        table.add_row(*cells)
    return table
