"""Durations and numbers as users give them."""

from __future__ import annotations

import math
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_durable._durations import (
    UNSET,
    interval_seconds,
    optional_seconds,
    positive_int,
    seconds,
)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, 0.0),
        (0.0, 0.0),
        (5, 5.0),
        (0.25, 0.25),
        (timedelta(), 0.0),
        (timedelta(milliseconds=250), 0.25),
        (timedelta(days=1), 86400.0),
        (timedelta(microseconds=1), 1e-06),
    ],
)
def test_seconds(value: float | timedelta, expected: float) -> None:
    result = seconds(value, "timeout")
    assert result == expected
    assert type(result) is float


@pytest.mark.parametrize(
    "value",
    [
        -1,
        -0.001,
        timedelta(microseconds=-1),
        math.inf,
        -math.inf,
        math.nan,
        True,
        False,
        None,
        "5",
        Decimal(5),
        Fraction(5),
        1j,
        [5],
        UNSET,
    ],
    ids=repr,
)
def test_what_is_no_duration(value: object) -> None:
    with pytest.raises(ValueError, match=r"^hibernate_after must be a ") as caught:
        seconds(value, "hibernate_after")  # type: ignore[arg-type]
    shown = -1e-06 if isinstance(value, timedelta) else value
    assert repr(shown) in str(caught.value)


def test_numbers_too_large_for_a_float() -> None:
    with pytest.raises(ValueError, match=r"^timeout must be "):
        seconds(10**400, "timeout")


@given(st.timedeltas(min_value=timedelta(0)))
def test_a_timedelta_is_its_seconds(value: timedelta) -> None:
    assert seconds(value, "timeout") == value.total_seconds()


def test_optional_seconds() -> None:
    assert optional_seconds(None, "timeout") is None
    assert optional_seconds(timedelta(seconds=3), "timeout") == 3.0
    with pytest.raises(ValueError, match=r"^timeout must be "):
        optional_seconds(-3, "timeout")


@pytest.mark.parametrize("value", [0.001, 1, 366 * 86400, timedelta(days=366)])
def test_an_interval_is_its_seconds(value: float | timedelta) -> None:
    assert interval_seconds(value, "polling_interval") == seconds(value, "polling_interval")


@pytest.mark.parametrize("value", [0, 0.0009, timedelta(), 366 * 86400 + 1, timedelta(days=367)])
def test_an_interval_is_between_a_millisecond_and_a_year(value: float | timedelta) -> None:
    with pytest.raises(ValueError, match=r"^claim_ttl must be between a millisecond and a year, "):
        interval_seconds(value, "claim_ttl")


@pytest.mark.parametrize("value", [-1, math.nan, True, None, "5"])
def test_an_interval_is_a_duration(value: object) -> None:
    with pytest.raises(ValueError, match=r"^claim_ttl must be a "):
        interval_seconds(value, "claim_ttl")  # type: ignore[arg-type]


def test_a_number_of_things() -> None:
    assert [positive_int(number, "limit") for number in (1, 2, 10**30)] == [1, 2, 10**30]


@pytest.mark.parametrize("value", [0, -1, True, 1.0, "1", None, Decimal(1)])
def test_what_is_no_number_of_things(value: object) -> None:
    with pytest.raises(ValueError, match=r"^limit must be an int of 1 or more, not ") as caught:
        positive_int(value, "limit")
    assert str(caught.value).endswith(f", not {value!r}")
