"""Lines over an axis: panels beside each other, in the style of `chart`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import attrs

from .drawing import GRID, MET, MISSED, PLAIN, SOFT, bar, document, text

_WIDTH = 1000
_MARGIN = 28
_HEAD = 84
_PANEL = 300
_TITLE = 56
"""Of a panel: its title and keys."""
_LABELS = 64
"""Room for the labels on the left of a panel."""
_SCALE = 44
"""Room for the scale below it."""

_COLOURS = (PLAIN, MET, MISSED, "#8a63a8", "#b08a2e", "#5c6b78")


@attrs.frozen
class Line:
    """What is drawn as one line."""

    label: str
    points: Sequence[tuple[float, float]]
    dashed: bool = False


@attrs.frozen(kw_only=True)
class Panel:
    """Lines over one axis. Scales begin at 0, or are logarithmic."""

    title: str
    x_label: str
    lines: Sequence[Line]
    unit: str = ""
    """Of the values, behind each label of their scale."""
    logarithmic_x: bool = False
    logarithmic_y: bool = False


def draw(title: str, footnote: str, panels: Sequence[Panel]) -> str:
    """The panels, two in a row, as an SVG document."""
    columns = min(2, len(panels))
    height = _HEAD + math.ceil(len(panels) / columns) * _PANEL
    parts = [text(_MARGIN, 40, title, 21, weight=600), text(_MARGIN, 62, footnote, 12, SOFT)]
    width = (_WIDTH - _MARGIN) / columns
    for number, panel in enumerate(panels):
        x, y = _MARGIN + number % columns * width, _HEAD + number // columns * _PANEL
        parts += _panel(panel, x, y, width - _MARGIN)
    return document(_WIDTH, height, title, "\n".join(parts))


def _panel(panel: Panel, x: float, y: float, width: float) -> Iterator[str]:
    left, right = x + _LABELS, x + width
    top, bottom = y + _TITLE, y + _PANEL - _SCALE
    points = [point for line in panel.lines for point in line.points]
    across = _Scale.of([x for x, _ in points], panel.logarithmic_x, ends_with_them=True)
    up = _Scale.of([y for _, y in points], panel.logarithmic_y)

    def place(point: tuple[float, float]) -> tuple[float, float]:
        return (
            left + across.share(point[0]) * (right - left),
            bottom - up.share(point[1]) * (bottom - top),
        )

    yield text(x, y + 20, panel.title, 14, weight=600)
    key = x
    for line, colour in zip(panel.lines, _COLOURS, strict=False):
        if len(panel.lines) > 1:
            yield bar(key, y + 32, 16, 3, colour)
            yield text(key + 21, y + 38, line.label, 11, SOFT)
            key += 36 + 6.3 * len(line.label)
    for tick in up.ticks:
        height = place((across.low, tick))[1]
        yield _rule(left, height, right, height)
        yield text(left - 8, height + 4, f"{_short(tick)}{panel.unit}", 11, SOFT, anchor="end")
    for tick in across.ticks:
        yield text(place((tick, up.low))[0], bottom + 17, _short(tick), 11, SOFT, anchor="middle")
    yield text((left + right) / 2, bottom + 34, panel.x_label, 11, SOFT, anchor="middle")
    for line, colour in zip(panel.lines, _COLOURS, strict=False):
        path = " ".join("{:.1f},{:.1f}".format(*place(point)) for point in line.points)
        dashes = ' stroke-dasharray="5 4"' if line.dashed else ""
        yield (
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2" '
            f'stroke-linejoin="round"{dashes}/>'
        )
        if len(line.points) <= 12 and not line.dashed:
            for point in line.points:
                cx, cy = place(point)
                yield f'<circle cx="{cx:.1f}" cy="{cy:.1f}" r="3" fill="{colour}"/>'


def _rule(x1: float, y1: float, x2: float, y2: float) -> str:
    return (
        f'<line x1="{x1:.1f}" x2="{x2:.1f}" y1="{y1:.1f}" y2="{y2:.1f}" stroke="{GRID}" '
        'stroke-width="1"/>'
    )


@attrs.frozen
class _Scale:
    low: float
    high: float
    ticks: Sequence[float]
    logarithmic: bool

    @classmethod
    def of(
        cls, values: Sequence[float], logarithmic: bool, *, ends_with_them: bool = False
    ) -> _Scale:
        """One that has room for ``values``."""
        if logarithmic:
            positive = [value for value in values if value > 0] or [1.0]
            first = math.floor(math.log10(min(positive)))
            last = max(math.ceil(math.log10(max(positive))), first + 1)
            powers = [10.0**power for power in range(first, last + 1)]
            return cls(powers[0], powers[-1], powers, True)
        most = max([*values, 1e-9])
        step = 10.0 ** math.floor(math.log10(most))
        step = next(step * part for part in (0.2, 0.25, 0.5, 1, 2) if most / (step * part) <= 6)
        if ends_with_them:
            ticks = [number * step for number in range(int(most / step) + 1)]
            return cls(0.0, most, ticks, False)
        ticks = [number * step for number in range(math.ceil(most / step) + 1)]
        return cls(0.0, ticks[-1], ticks, False)

    def share(self, value: float) -> float:
        """How far along it ``value`` is, from 0 to 1."""
        if self.logarithmic:
            value = max(value, self.low)
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


def _short(value: float) -> str:
    if value >= 1e6:
        return f"{value / 1e6:g}M"
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:g}"
