"""A part of the brute force: values of all types and unions, exact or refused."""

from __future__ import annotations

import os

import trio

from .brute_force import CHANGED, EXACT, OLD, SAME, tried

EVERY = int(os.environ.get("TRIO_DURABLE_BRUTE_FORCE_EVERY", "600"))
"""One of so many values is tried; `make deep` tries more of them."""


def test_values_of_all_types_and_unions_are_exact_or_refused() -> None:
    report = trio.run(tried, EVERY)
    assert report.failures == 0, "\n".join(report.lines(10))
    for way in (SAME, CHANGED, OLD):
        assert report.counts[way][EXACT] > 0
