"""Retries: times of the attempts after a failed alarm."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_durable import Retry


def test_what_is_not_given() -> None:
    retry = Retry()
    assert (retry.initial, retry.factor, retry.maximum, retry.attempts) == (2.0, 2.0, 300.0, None)
    assert retry.crashes == 10


def test_delays_are_timedeltas_or_seconds() -> None:
    retry = Retry(initial=timedelta(milliseconds=250), maximum=timedelta(hours=1))
    assert (retry.initial, retry.maximum) == (0.25, 3600.0)
    retry = Retry(initial=1, factor=3, maximum=10)
    assert [type(value) for value in (retry.initial, retry.factor, retry.maximum)] == [float] * 3


def test_equal_ones_are_equal_and_none_changes() -> None:
    assert Retry(initial=1) == Retry(initial=timedelta(seconds=1))
    assert hash(Retry()) == hash(Retry())
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        Retry().attempts = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    "arguments",
    [
        {"initial": 0},
        {"initial": 0, "maximum": 0},
        {"initial": 10, "maximum": 1},
        {"factor": 1},
        {"factor": 1.5},
        {"factor": 1e308},
        {"factor": 10**308},
        {"attempts": 1},
        {"attempts": 10**9},
        {"crashes": 1},
        {"crashes": 10**9},
        {"crashes": None},
    ],
    ids=repr,
)
def test_what_is_allowed_at_the_edges(arguments: dict[str, Any]) -> None:
    retry = Retry(**arguments)
    assert 0 <= retry.delay(1) <= retry.maximum


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("initial", -1),
        ("initial", timedelta(seconds=-1)),
        ("initial", math.inf),
        ("initial", math.nan),
        ("initial", None),
        ("initial", "2"),
        ("initial", True),
        ("maximum", -0.5),
        ("maximum", math.inf),
        ("maximum", math.nan),
        ("maximum", None),
        ("maximum", False),
        ("factor", 0.99),
        ("factor", 0),
        ("factor", -2),
        ("factor", math.inf),
        ("factor", math.nan),
        ("factor", None),
        ("factor", "2"),
        ("factor", b"2"),
        ("factor", 2 + 0j),
        ("factor", True),
        ("factor", timedelta(seconds=2)),
        ("attempts", 0),
        ("attempts", -1),
        ("attempts", 1.5),
        ("attempts", 3.0),
        ("attempts", True),
        ("attempts", "3"),
        ("attempts", math.inf),
        ("crashes", 0),
        ("crashes", 1.5),
        ("crashes", True),
        ("crashes", "3"),
    ],
    ids=repr,
)
def test_what_makes_no_sense_names_the_argument(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be "):
        Retry(**{name: value})  # type: ignore[arg-type]


def test_numbers_too_large_for_a_float_are_not_finite() -> None:
    for name in ("initial", "factor", "maximum"):
        with pytest.raises(ValueError, match=f"^{name} must be a finite ") as caught:
            Retry(**{name: 10**400})
        # Nobody wants to read the number.
        assert len(str(caught.value)) < 200


def test_each_delay_is_a_multiple_of_the_one_before_up_to_the_maximum() -> None:
    retry = Retry(initial=1, factor=3, maximum=20)
    for failures, longest in [(1, 1.0), (2, 3.0), (3, 9.0), (4, 20.0), (5, 20.0), (50, 20.0)]:
        delays = [retry.delay(failures) for _ in range(200)]
        assert longest / 2 <= min(delays)
        assert max(delays) <= longest


def test_up_to_a_half_is_taken_off_at_random() -> None:
    # So many tries come near to both ends, or something is wrong with the jitter.
    delays = [Retry(initial=10, factor=1).delay(1) for _ in range(1000)]
    assert 5 <= min(delays) < 5.5
    assert 9.5 < max(delays) <= 10


def test_a_maximum_below_the_first_delay_wins() -> None:
    assert 0.5 <= Retry(initial=10, maximum=1).delay(1) <= 1


@given(
    initial=st.floats(0, 1e9),
    factor=st.one_of(st.floats(1, 1.7e308), st.integers(1, 10**308)),
    maximum=st.floats(0, 1e9),
    failures=st.integers(1, 100_000),
)
def test_a_delay_is_never_longer_than_the_maximum(
    initial: float, factor: float, maximum: float, failures: int
) -> None:
    delay = Retry(initial=initial, factor=factor, maximum=maximum).delay(failures)
    assert 0 <= delay <= maximum
    assert delay >= min(initial, maximum) / 2


@given(
    initial=st.floats(0.001, 100),
    factor=st.floats(1, 10),
    maximum=st.floats(0.001, 1000),
    failures=st.integers(1, 60),
)
def test_a_delay_is_between_the_half_and_the_whole_of_the_backoff(
    initial: float, factor: float, maximum: float, failures: int
) -> None:
    longest = initial
    for _ in range(failures - 1):
        longest = min(longest * factor, maximum)
    longest = min(longest, maximum)
    delay = Retry(initial=initial, factor=factor, maximum=maximum).delay(failures)
    assert longest / 2 * 0.999 <= delay <= longest * 1.001


@pytest.mark.parametrize("failures", [1024, 1025, 1026, 10**6, 2**62])
def test_a_huge_count_of_failures_gives_the_maximum(failures: int) -> None:
    assert 150 <= Retry(factor=2.0).delay(failures) <= 300


@pytest.mark.parametrize("failures", [1, 1024, 1025, 1026, 10**6, 2**62])
@pytest.mark.parametrize("factor", [1, 2, 1e308])
def test_no_delay_stays_none_however_often_it_failed(factor: float, failures: int) -> None:
    assert Retry(initial=0, factor=factor).delay(failures) == 0


def test_attempts_are_used_up_by_as_many_failures() -> None:
    retry = Retry(attempts=3)
    assert [retry.is_exhausted(failures) for failures in (0, 1, 2, 3, 4)] == [
        False,
        False,
        False,
        True,
        True,
    ]
    assert Retry(attempts=1).is_exhausted(1)


def test_crashes_are_used_up_by_as_many() -> None:
    assert [Retry(crashes=3).is_fatal(crashes) for crashes in range(5)] == [
        *(False, False, False, True, True)
    ]
    assert not Retry(attempts=1, crashes=None).is_fatal(10**6)
    assert Retry(crashes=1).is_fatal(1)


def test_without_attempts_it_goes_on_for_ever() -> None:
    assert not Retry().is_exhausted(10**18)
