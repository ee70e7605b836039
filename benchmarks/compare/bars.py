"""The results as a chart.

Rates reach from tens to hundreds of thousands, so the scale is logarithmic: a line to the next is
ten times as much. What isn't durable is paler.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from benchmarks.drawing import GRID, SOFT, bar, document, text

from .catalogue import entry_named
from .results import TITLES, WORKLOADS, Result
from .tables import ranked, rate

_WIDTH = 1000
_MARGIN = 28
_BARS = 330
"""Where bars begin."""
_BARS_WIDTH = 540
_HEAD = 112
_GROUP = 40
_ROW = 22
_FOOT = 20
_DECADES = 6
"""From one a second to a million."""

_OURS = "#2f7d6d"
_OTHERS = "#4a7fb5"
_VOLATILE = "#b6c0ca"


def draw(results: Sequence[Result], footnote: str) -> str:
    """The chart, as an SVG document."""
    groups = [(TITLES[name], members) for name in WORKLOADS if (members := ranked(results, name))]
    height = _HEAD + len(groups) * _GROUP + len(results) * _ROW + _FOOT
    body = "\n".join([*_head(footnote), *_grid(height), *_groups(groups)])
    return document(_WIDTH, height, "trio_durable and others", body)


def _head(footnote: str) -> Iterator[str]:
    yield text(_MARGIN, 40, "trio_durable and others, operations per second", 21, weight=600)
    yield text(_MARGIN, 62, footnote, 12, SOFT)
    x = _MARGIN
    for colour, label, width in (
        (_OURS, "trio_durable", 130),
        (_OTHERS, "others, durable", 148),
        (_VOLATILE, "in memory only", 140),
    ):
        yield bar(x, 80, 22, 12, colour)
        yield text(x + 29, 90, label, 12, SOFT)
        x += width
    yield text(x, 90, "(logarithmic scale)", 12, SOFT)


def _grid(height: int) -> Iterator[str]:
    for decade in range(_DECADES + 1):
        x = _BARS + decade / _DECADES * _BARS_WIDTH
        yield (
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_HEAD + 8}" y2="{height - _FOOT}" '
            f'stroke="{GRID}" stroke-width="1"/>'
        )
        yield text(x, _HEAD + 2, f"{10**decade:,}", 11, SOFT, anchor="middle")


def _groups(groups: Sequence[tuple[str, Sequence[Result]]]) -> Iterator[str]:
    y = _HEAD
    for title, members in groups:
        yield text(_MARGIN, y + 30, title, 14, weight=600)
        y += _GROUP
        for member in members:
            yield from _row(member, y)
            y += _ROW


def _row(result: Result, y: int) -> Iterator[str]:
    entry = entry_named(result.contender)
    title = f"{entry.title}{' (HTTP)' if entry.over_http else ''}"
    width = _place(result.rate.median)
    colour = _OTHERS if entry.durable else _VOLATILE
    yield text(_MARGIN + 12, y + 12, title, 12)
    yield bar(_BARS, y + 2, width, 13, _OURS if entry.ours else colour)
    yield text(_BARS + width + 8, y + 13, rate(result), 12, weight=600)


def _place(value: float) -> float:
    return min(max(math.log10(max(value, 1)) / _DECADES, 0), 1) * _BARS_WIDTH
