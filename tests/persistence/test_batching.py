"""`BatchPolicy` alone: in turns where the loop is the slower, in step where the disk is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_durable._persistence.batching import BatchPolicy

FAST, SLOW = 250e-6, 5e-3


def policy(rows: int, duration: float) -> BatchPolicy:
    made = BatchPolicy()
    made.done(rows, duration)
    return made


def test_the_first_transaction_takes_all() -> None:
    assert BatchPolicy().share(64, 1.0) == 64
    assert BatchPolicy().wait(64) == 0


def test_callers_in_step_are_parted_where_their_turns_take_longer_than_a_transaction() -> None:
    assert policy(64, FAST).share(64, 500e-6) == 32
    assert policy(65, FAST).share(65, 500e-6) == 33


def test_in_turns_everything_is_taken() -> None:
    # The writer wasn't idle: the other half came while it was busy.
    assert policy(32, FAST).share(32, 0.0) == 32


def test_callers_in_step_stay_so_where_a_transaction_takes_longer() -> None:
    assert policy(64, SLOW).share(64, 500e-6) == 64


@pytest.mark.parametrize("few", [1, 2, 8, 15])
def test_a_few_are_never_parted(few: int) -> None:
    assert policy(few, FAST).share(few, 1.0) == few


def test_a_slow_disk_is_worth_a_wait_for_those_just_released() -> None:
    wait = policy(32, SLOW).wait(32)
    assert 0 < wait <= SLOW / 4


def test_a_fast_disk_is_not() -> None:
    assert policy(32, FAST).wait(32) == 0


def test_nobody_is_waited_for_where_nobody_waits() -> None:
    # The writer goes idle then, and takes what comes at once.
    assert policy(32, SLOW).wait(0) == 0


def test_a_wait_for_nothing_is_not_repeated_for_a_while() -> None:
    made = policy(32, SLOW)
    assert made.wait(32)
    made.waited(came=3)
    waits = [made.wait(32) for _ in range(40)]
    assert not any(waits[:32])
    assert all(waits[32:])


def test_a_wait_that_paid_is_repeated() -> None:
    made = policy(32, SLOW)
    made.waited(came=30)
    assert made.wait(32)


@given(
    st.integers(0, 10_000),
    st.floats(0, 10),
    st.integers(1, 10_000),
    st.floats(0, 10),
)
def test_some_are_always_taken_and_waits_are_bounded(
    pending: int, idle_for: float, rows: int, duration: float
) -> None:
    made = policy(rows, duration)
    assert (pending + 1) // 2 <= made.share(pending, idle_for) <= pending
    assert 0 <= made.wait(pending) <= duration / 4
