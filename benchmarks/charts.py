"""Charts of the results, drawn by matplotlib as SVG documents.

The background is transparent and every colour has a contrast of at least 3:1 to white and to black,
so that charts are legible on light and on dark pages. Text stays text, and equal results make equal
files.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from io import StringIO
from itertools import groupby
from typing import Any

import attrs
import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter

from .measurements import Outcome, Panel
from .report import figure

GREY = "#767676"
BLUE, GREEN, VERMILLION = "#0072b2", "#009e73", "#d55e00"  # of Okabe and Ito
COLOURS = (BLUE, VERMILLION, GREEN, "#a8659a", "#96762e", GREY)

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "trio_durable",
    "font.family": ["DejaVu Sans"],
    "font.size": 9,
    "text.parse_math": False,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.alpha": 0.35,
    "legend.frameon": False,
    "legend.labelcolor": GREY,
    **{f"{name}.color": GREY for name in ("text", "xtick", "ytick", "grid")},
    **{f"axes.{name}": GREY for name in ("edgecolor", "labelcolor", "titlecolor")},
}
_WIDTH = 10
_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}


def _drawing(height: float, title: str, footnote: str, top: float) -> Figure:
    """An empty drawing under a title that is ``top`` inches high."""
    layout = ConstrainedLayoutEngine(rect=(0.01, 0, 0.98, 1 - top / height))
    drawing = Figure((_WIDTH, height), layout=layout)
    drawing.text(0.02, 1 - 0.35 / height, title, size=15, weight="bold")
    drawing.text(0.02, 1 - 0.6 / height, footnote)
    return drawing


def _document(drawing: Figure) -> bytes:
    file = StringIO()
    drawing.savefig(file, format="svg", transparent=True, metadata=_METADATA)
    # Hundredths of a point are enough, and a third of the size.
    shorter = re.sub(r"\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}", file.getvalue())
    return re.sub(r" *$", "", shorter, flags=re.MULTILINE).encode()


# --- bars ----------------------------------------------------------------------------------------


@attrs.frozen
class Bar:
    """A bar with its labels."""

    title: str
    length: float
    colour: str
    label: str
    note: str = ""
    """A second line below the title."""
    mark: float | None = None
    """A length to reach."""


@mpl.rc_context(_STYLE)
def bars(
    title: str,
    footnote: str,
    groups: Sequence[tuple[str, Sequence[Bar]]],
    keys: dict[str, str],
    *,
    unit: str = "",
    decades: int = 0,
) -> bytes:
    """Horizontal bars in groups, on a linear scale or a logarithmic one of so many decades."""
    step = 1.5 if any(bar.note for _, bars in groups for bar in bars) else 1.0
    y, places, headings = 0.0, list[tuple[float, Bar]](), list[tuple[float, str]]()
    for heading, members in groups:
        headings.append((y := y + 0.8, heading))
        places += [(y := y + step, bar) for bar in members]
        y += 0.6
    height = 1.2 + 0.24 * y
    drawing = _drawing(height, title, footnote, 1.0)
    axes = drawing.add_subplot()
    axes.set(ylim=(y + 0.1, 0), yticks=[place for place, _ in places])
    axes.set_yticklabels([f"{bar.title}\n{bar.note}".strip() for _, bar in places])
    longest = max([1.05, *(bar.length for _, bar in places)])
    right = 10.0**decades if decades else min(longest, 2.0)
    axes.set(xscale="log" if decades else "linear", xlim=(1 if decades else 0, right))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.7g}{unit}"))
    axes.xaxis.tick_top()
    axes.grid(axis="x")
    axes.set_axisbelow(True)
    axes.minorticks_off()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    for y, heading in headings:
        axes.text(0, y, heading, transform=axes.get_yaxis_transform(), weight="bold", va="center")
    axes.barh(
        [place for place, _ in places],
        [bar.length for _, bar in places],
        height=0.7,
        color=[bar.colour for _, bar in places],
    )
    for y, bar in places:
        axes.annotate(
            f"{bar.label}{' (longer)' if bar.length > right else ''}",
            (min(bar.length, right) if decades else right, y),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            annotation_clip=False,
        )
        if bar.mark is not None:
            axes.plot([bar.mark] * 2, [y - 0.55, y + 0.55], color=GREY, linewidth=2)
    handles: list[Patch | Line2D] = [
        Patch(color=colour, label=label) for label, colour in keys.items()
    ]
    if any(bar.mark is not None for _, bar in places):
        handles.append(Line2D([], [], color=GREY, linewidth=2, label="target"))
    place = (0.01, 1 - 0.62 / height)
    drawing.legend(handles=handles, loc="upper left", bbox_to_anchor=place, ncols=len(handles))
    return _document(drawing)


def beside_limits(outcomes: Sequence[Outcome], footnote: str) -> bytes:
    """A bar for each scenario: its share of the limit, or of its target without a limit.

    Rates range from thousands to hundreds of thousands, so the figures are labels.
    """
    grouped = groupby(outcomes, lambda outcome: outcome.scenario.group)
    return bars(
        "trio_durable beside its limits",
        footnote,
        [(group, [_share(outcome) for outcome in members]) for group, members in grouped],
        {"target met": GREEN, "target missed": VERMILLION, "no target": BLUE},
        unit="x",
    )


def _share(outcome: Outcome) -> Bar:
    scenario, figures, target = outcome.scenario, outcome.figures, outcome.scenario.target
    assert figures is not None
    value, ratio = figures.ours.median, figures.ratio
    label = figure(figures.ours, scenario.unit)
    if ratio is None or figures.limit is None:
        one = value if target is None else target.bound
        note = "beside its target"
    else:
        # So that the length is the median of the rounds' ratios.
        one = value / ratio.median
        label += f"  ·  {ratio.median:.2f}x"
        note = f"beside {scenario.limit_title}: {figure(figures.limit, scenario.unit)}"
    mark = None
    if target is not None:
        mark = target.bound if target.of in ("ratio", "most") else target.bound / one
    colour = {"met": GREEN, "MISSED": VERMILLION, "": BLUE}[outcome.verdict]
    return Bar(scenario.title, value / one, colour, label, note, mark)


# --- lines ---------------------------------------------------------------------------------------


@mpl.rc_context(_STYLE)
def lines(title: str, footnote: str, panels: Sequence[Panel]) -> bytes:
    """The panels, two in a row."""
    columns = min(2, len(panels))
    rows = math.ceil(len(panels) / columns)
    drawing = _drawing(0.8 + 2.7 * rows, title, footnote, 0.8)
    grid = drawing.subplots(rows, columns, squeeze=False)
    for panel, axes in zip(panels, grid.flat, strict=False):
        _draw(panel, axes)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    return _document(drawing)


def _draw(panel: Panel, axes: Axes) -> None:
    for line, colour in zip(panel.lines, COLOURS, strict=False):
        marker = "o" if len(line.points) <= 12 else ""
        x, y = zip(*line.points, strict=True)
        axes.plot(x, y, color=colour, label=line.label, marker=marker, markersize=4, linewidth=1.5)
    axes.set(xlabel=panel.x_label)
    axes.set_title(panel.title, pad=22 if len(panel.lines) > 1 else 6)
    axes.grid(axis="y")
    if panel.logarithmic:
        axes.set(xscale="log", yscale="log")
        axes.minorticks_off()
    else:
        axes.set(xlim=0)
        axes.set_ylim(0, max(axes.get_ylim()[1], 1e-9))
    for axis, unit in ((axes.xaxis, ""), (axes.yaxis, panel.unit)):
        axis.set_major_formatter(FuncFormatter(lambda value, _, unit=unit: _short(value) + unit))
    if len(panel.lines) > 1:
        axes.legend(ncols=6, loc="lower left", bbox_to_anchor=(-0.02, 0.98))


def _short(value: float) -> str:
    return f"{value / 1e6:g}M" if value >= 1e6 else f"{value:,.6g}"
