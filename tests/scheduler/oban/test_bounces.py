"""Pauses of jobs that a process can't serve."""

from __future__ import annotations

import pytest

from trio_durable._keys import AlarmKey
from trio_durable.scheduler._oban import bounces as module
from trio_durable.scheduler._oban.bounces import Bounces

KEY = AlarmKey("Cart", "a", "x")


def test_each_pause_is_twice_the_one_before_up_to_the_longest() -> None:
    bounces = Bounces(0.3)
    assert [bounces.pause(KEY, n / 10) for n in range(5)] == [0.05, 0.1, 0.2, 0.3, 0.3]
    assert bounces.pause(KEY._replace(name="y"), 0.5) == 0.05


def test_an_alarm_that_hasn_t_bounced_for_long_begins_with_the_first_pause() -> None:
    bounces = Bounces(10.0)
    assert [bounces.pause(KEY, now) for now in (0, 20, 40.1)] == [0.05, 0.1, 0.05]


def test_the_first_pause_is_no_longer_than_the_longest() -> None:
    assert Bounces(0.01).pause(KEY, 0) == 0.01


def test_the_alarms_that_bounced_longest_ago_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CAPACITY", 2)
    bounces = Bounces(10.0)
    keys = [KEY._replace(name=name) for name in "xyz"]
    for key in keys:
        bounces.pause(key, 0)
    assert [bounces.pause(key, 0) for key in (keys[2], keys[1], keys[0])] == [0.1, 0.1, 0.05]
