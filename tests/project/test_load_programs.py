"""The programs of `benchmarks.load`, the charts, and the child processes of all benchmarks."""

from __future__ import annotations

import re
import time
from collections import Counter
from functools import partial
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

pytest.importorskip("benchmarks.load", reason="the benchmarks aren't installed")

from benchmarks import charts, pair
from benchmarks.load.overload import Run, Tick
from benchmarks.load.steady import slope
from benchmarks.measurements import Line, Panel, percentile
from benchmarks.processes import ChildFailed, in_child


def test_a_slope_is_that_of_the_line_through_the_samples() -> None:
    assert slope([(0, 5), (1, 7), (2, 9)]) == pytest.approx(2)
    assert slope([(0, 5), (1, 9), (2, 5), (3, 9), (4, 5)]) == pytest.approx(0)


def test_too_few_values_have_no_percentile() -> None:
    assert percentile([], 50) != percentile([], 50)
    assert percentile([3.0] * 99 + [7.0], 50) == 3


def tick(at: float, done: int, refused: int, grown: int = 0) -> Tick:
    return Tick(
        at,
        resident_bytes=100 + grown,
        outcomes=Counter(done=done, refused=refused),
        latencies=[0.1] * done,
        told_after=[0.0] * refused,
        arrived=done + refused,
        turned_away=refused,
    )


def test_a_run_is_judged_by_the_second_half_of_its_overload() -> None:
    storm = [tick(0.25, 0, 9), tick(0.5, 0, 9, 40), tick(0.75, 8, 9), tick(1.0, 12, 9)]
    run = Run("loads", 5, 50.0, 100, storm, [tick(1.25, 5, 1), tick(2.25, 7, 3)])
    assert run.kept == pytest.approx(10 / 0.25 / 50)
    assert run.grown == 40
    assert run.recovered == pytest.approx(0.7)


@pytest.mark.parametrize("logarithmic", [False, True])
def test_a_plot_is_a_drawing_that_holds_all_its_points(logarithmic: bool) -> None:
    points = [(1.0, 3.0), (64.0, 0.5), (4096.0, 90_000.0)]
    panel = Panel(
        title="a < b",
        x_label="callers",
        lines=[Line("one", points), Line("other", points[:2])],
        logarithmic=logarithmic,
    )
    drawing = charts.lines("title", "note", [panel, panel, panel])
    drawn = ET.fromstring(drawing)
    lines = [
        path.attrib["d"]
        for path in drawn.iter("{http://www.w3.org/2000/svg}path")
        if "clip-path" in path.attrib and "stroke-width: 1.5" in path.attrib["style"]
    ]
    places = [
        tuple(map(float, place.split()))
        for line in lines
        for place in re.findall(r"[ML] ([\d.-]+ [\d.-]+)", line)
    ]
    assert len(places) == 3 * 5
    _, _, width, height = map(float, drawn.attrib["viewBox"].split())
    assert all(0 <= x <= width and 0 <= y <= height for x, y in places)
    assert charts.lines("title", "note", [panel, panel, panel]) == drawing


def luminance(colour: str) -> float:
    """Relative luminance, by WCAG."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("colour", charts.COLOURS)
def test_charts_are_legible_on_white_and_on_black_pages(colour: str) -> None:
    assert 1.05 / (luminance(colour) + 0.05) >= 3
    assert (luminance(colour) + 0.05) / 0.05 >= 3


def test_a_child_returns_the_result_of_its_function() -> None:
    assert in_child(partial(divmod, 7, 2)) == (3, 1)


def test_a_child_that_raises_says_why() -> None:
    with pytest.raises(ChildFailed, match="ZeroDivisionError"):
        in_child(partial(divmod, 7, 0))


def test_a_child_that_takes_too_long_is_ended() -> None:
    with pytest.raises(ChildFailed, match=r"it took longer than 0\.5 s"):
        in_child(partial(time.sleep, 60), timeout=0.5)


def test_a_folder_without_the_library_is_no_checkout(tmp_path: Path) -> None:
    figure = "reads/s, 1 caller"
    child = pair._child(tmp_path, figure=figure, cpu=False, parent=tmp_path, postgres=None)
    with pytest.raises(SystemExit, match="has no trio_durable"), child:
        pass
