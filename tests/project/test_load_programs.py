"""The programs of `benchmarks.load`: statistics of their samples, and their charts."""

from __future__ import annotations

from collections import Counter
from xml.etree import ElementTree as ET

import pytest

pytest.importorskip("benchmarks.load", reason="the benchmarks aren't installed")

from benchmarks.load import samples
from benchmarks.load.overload import Run, Tick
from benchmarks.plot import Line, Panel, draw


def test_a_slope_is_that_of_the_line_through_the_samples() -> None:
    assert samples.slope([(0, 5), (1, 7), (2, 9)]) == pytest.approx(2)
    assert samples.slope([(0, 5), (1, 9), (2, 5), (3, 9), (4, 5)]) == pytest.approx(0)


def test_too_few_values_have_no_percentile() -> None:
    assert samples.percentile([], 50) != samples.percentile([], 50)
    assert samples.percentile([3.0] * 99 + [7.0], 50) == 3


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
        logarithmic_x=logarithmic,
        logarithmic_y=logarithmic,
    )
    drawn = ET.fromstring(draw("title", "note", [panel, panel, panel]))
    places = [
        tuple(map(float, point.split(",")))
        for line in drawn.iter("{http://www.w3.org/2000/svg}polyline")
        for point in line.attrib["points"].split()
    ]
    assert len(places) == 3 * 5
    width, height = float(drawn.attrib["width"]), float(drawn.attrib["height"])
    assert all(0 <= x <= width and 0 <= y <= height for x, y in places)
