"""The results as a chart: a bar for each scenario, beside that of its limit.

Rates reach from thousands to hundreds of thousands, so a bar's length is its share of its own
limit (of its target where there is no limit); the figures stand beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from .measurements import Measurement
from .report import figure
from .shapes import GRID, INK, SOFT, bar, document, text

_WIDTH = 1000
_MARGIN = 28
_BARS = 400
"""Where bars begin."""
_BARS_WIDTH = 400
_HEAD = 108
_GROUP = 44
_ROW = 40
_FOOT = 20

_LIMIT = "#b6c0ca"
_MET = "#2f7d6d"
_MISSED = "#d1603d"
_PLAIN = "#4a7fb5"
_COLOURS = {"met": _MET, "MISSED": _MISSED, "": _PLAIN}


def draw(measurements: Sequence[Measurement], footnote: str) -> str:
    """The chart, as an SVG document."""
    groups = [(title, list(members)) for title, members in groupby(measurements, lambda m: m.group)]
    height = _HEAD + len(groups) * _GROUP + len(measurements) * _ROW + _FOOT
    span = _span(measurements)
    body = "\n".join([*_head(footnote), *_grid(span, height), *_groups(groups, span)])
    return document("trio_durable beside its limits", _WIDTH, height, body)


def _head(footnote: str) -> Iterator[str]:
    yield text(_MARGIN, 40, "trio_durable beside its limits", 21, weight=600)
    yield text(_MARGIN, 62, footnote, 12, SOFT)
    keys = (
        (12, _MET, "target met", 112),
        (12, _MISSED, "target missed", 130),
        (12, _PLAIN, "no target", 106),
        (6, _LIMIT, "the limit, measured in turns with it", 268),
    )
    x = _MARGIN
    for thickness, colour, label, width in keys:
        yield bar(x, 86 - thickness / 2, 22, thickness, colour)
        yield text(x + 29, 90, label, 12, SOFT)
        x += width
    yield _mark(x, 77)
    yield text(x + 9, 90, "target", 12, SOFT)


def _grid(span: float, height: int) -> Iterator[str]:
    for quarters in range(int(span * 4) + 1):
        x = _BARS + quarters / 4 / span * _BARS_WIDTH
        yield (
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_HEAD + 14}" y2="{height - _FOOT}" '
            f'stroke="{GRID}" stroke-width="{2 if quarters == 4 else 1}"/>'
        )
        if quarters % 2 == 0:
            yield text(x, _HEAD + 8, f"{quarters / 4:g}x", 11, SOFT, anchor="middle")


def _groups(groups: Sequence[tuple[str, Sequence[Measurement]]], span: float) -> Iterator[str]:
    y = _HEAD
    for title, members in groups:
        yield text(_MARGIN, y + 32, title, 14, weight=600)
        y += _GROUP
        for member in members:
            yield from _row(member, y, span)
            y += _ROW


def _row(measurement: Measurement, y: int, span: float) -> Iterator[str]:
    def x(share: float) -> float:
        return min(share / span, 1) * _BARS_WIDTH

    unit = _unit(measurement)
    ours = measurement.ours.median / unit
    note = "beside its target" if measurement.limit is None else measurement.limit_title
    yield text(_MARGIN, y + 12, measurement.title, 13)
    yield text(_MARGIN, y + 27, note, 11, SOFT)
    yield bar(_BARS, y + 1, x(ours), 14, _COLOURS[measurement.verdict])
    if ours > span:
        yield _break(_BARS + _BARS_WIDTH - 12, y + 1)
    right = _BARS + _BARS_WIDTH + 14
    label = figure(measurement.ours.median, measurement)
    if measurement.ratio is not None:
        label += f"  ·  {measurement.ratio.median:.2f}x"
    yield text(right, y + 12, label, 13, weight=600)
    if measurement.limit is not None:
        yield bar(_BARS, y + 19, x(1), 6, _LIMIT)
        yield text(right, y + 27, figure(measurement.limit.median, measurement), 11, SOFT)
    target = _target(measurement)
    if target is not None:
        yield _mark(_BARS + x(target), y - 2)


def _span(measurements: Sequence[Measurement]) -> float:
    """The share that the chart's right end stands for; bars beyond twice the limit are cut."""
    shares = [m.ours.median / _unit(m) for m in measurements]
    return min(max([1.05, *shares]), 2)


def _unit(measurement: Measurement) -> float:
    """What counts as 1: the limit. Chosen so that the ratio of the rounds is what is drawn."""
    if measurement.ratio is not None:
        return measurement.ours.median / measurement.ratio.median
    return measurement.ours.median if measurement.target is None else measurement.target.bound


def _target(measurement: Measurement) -> float | None:
    """Where the target is, as a share."""
    if measurement.target is None:
        return None
    if measurement.target.of == "ratio":
        return measurement.target.bound
    return measurement.target.bound / _unit(measurement)


def _break(x: float, y: float) -> str:
    """The sign that a bar is longer than drawn."""
    return f'<path d="M{x:.1f} {y + 16} l5 -18" stroke="#ffffff" stroke-width="3"/>'


def _mark(x: float, y: float) -> str:
    """The sign of a target: a line with a head, around the bar that has to reach it."""
    return (
        f'<path d="M{x - 4:.1f} {y} h8 l-4 5 z" fill="{INK}"/>'
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{y}" y2="{y + 19}" stroke="{INK}" '
        'stroke-width="1.5"/>'
    )
