from __future__ import annotations

import pytest

from trio_durable._persistence import group_commit

from .bench import Bench, Stopwatch


@pytest.fixture(autouse=True)
def stopwatch(monkeypatch: pytest.MonkeyPatch) -> Stopwatch:
    stopwatch = Stopwatch()
    monkeypatch.setattr(group_commit, "perf_counter", lambda: stopwatch.time)
    monkeypatch.setattr(group_commit, "sleep", stopwatch.sleep)
    return stopwatch


@pytest.fixture
def bench(stopwatch: Stopwatch) -> Bench:
    return Bench()
