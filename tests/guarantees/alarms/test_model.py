"""Random histories of alarms, drawn and run against the invariants in `history`."""

from __future__ import annotations

import logging
import os
import random
from typing import Any

import pytest
from hypothesis import given, register_random, settings
from hypothesis import strategies as st
from trio._core import _run as trio_run

from trio_durable import InlineRunner, Runner

from .history import History, OldNews, run

EXAMPLES = int(os.environ.get("TRIO_DURABLE_EXAMPLES", "15"))
"""Per test and backend; `make deep` has more of them."""


IDS = st.sampled_from("abc")
NAMES = st.sampled_from(["quick", "quick", "slow", "other"])
DELAYS = st.sampled_from([0, 0.5, 1, 1, 2, 5, 20])
PLANS = st.sampled_from(["note"] * 4 + ["again", "again", "another", "withdraw", "long", "delete"])
PART = st.sampled_from(["before", "after"])
KIND = st.sampled_from(["commit", "commit", "claim", "postpone", "renew", "due_alarms", "load"])
SET = st.tuples(
    st.just("order"),
    IDS,
    st.sampled_from(["order", "order_slowly", "order_and_fail", "outside", "outside"]),
    NAMES,
    DELAYS,
    PLANS,
    st.sampled_from([0, 0, 0, 1, 2]),
)
OTHER = st.one_of(
    st.tuples(st.just("withdraw"), IDS, st.sampled_from(["withdraw", "outside"]), NAMES),
    st.tuples(
        st.just("withdraw_all"),
        IDS,
        st.sampled_from(["withdraw_all", "outside", "delete", "clear"]),
    ),
    st.tuples(st.just("refuse"), IDS, NAMES),
    st.tuples(st.just("read"), IDS),
    st.tuples(st.just("stop"), IDS),
)
CALL = st.one_of(SET, SET, OTHER, OTHER, OTHER)
WAIT = st.tuples(st.just("wait"), st.sampled_from([0.5, 0.5, 1, 1, 2, 5, 11, 40]))
BURST = st.tuples(st.just("burst"), st.lists(CALL, min_size=2, max_size=5))
REOPEN = st.tuples(st.just("reopen"), st.booleans())
CRASH = st.tuples(st.just("crash"), st.integers(0, 12), PART)
FAIL = st.tuples(st.just("fail"), st.lists(st.tuples(KIND, PART), min_size=1, max_size=4))
CHOOSE = st.tuples(st.just("choose"), st.integers(0, 1))
ANY = st.one_of(SET, CALL, CALL, WAIT, WAIT, BURST, REOPEN, CRASH, CRASH, FAIL)
OPERATIONS = st.lists(ANY, min_size=5, max_size=30)


@pytest.fixture(autouse=True)
def _repeatable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The order in which trio runs tasks is drawn; let it be the same for the same example."""
    monkeypatch.setattr(trio_run, "_ALLOW_DETERMINISTIC_SCHEDULING", True)
    register_random(trio_run._r)
    # A history tells of failures by the dozen.
    monkeypatch.setattr(logging.getLogger("trio_durable.alarms"), "disabled", True)


BACKENDS = pytest.mark.parametrize("backend", ["trio", "asyncio"])


@BACKENDS
@pytest.mark.parametrize("gives_back", [True, False], ids=["given back", "run out"])
def test_histories_with_crashes(backend: str, gives_back: bool) -> None:
    """What a dead process has claimed is given back when the next one opens, or runs out."""

    @given(OPERATIONS)
    @settings(max_examples=EXAMPLES, deadline=None, database=None, derandomize=True)
    def check(operations: list[tuple[Any, ...]]) -> None:
        run(backend, History(gives_back=gives_back), operations)

    check()


@BACKENDS
def test_histories_of_two_runtimes_on_one_storage(backend: str) -> None:
    """Each claims what it finds due; both write to the same objects."""

    @given(st.lists(st.one_of(ANY, ANY, CHOOSE), min_size=5, max_size=30))
    @settings(max_examples=EXAMPLES, deadline=None, database=None, derandomize=True)
    def check(operations: list[tuple[Any, ...]]) -> None:
        run(backend, History(gives_back=False, together=2), operations)

    check()


@BACKENDS
@pytest.mark.parametrize("other", [0, 1])
@pytest.mark.parametrize(
    "change",
    [
        ("withdraw", "a", "outside", "slow"),
        ("withdraw_all", "a", "outside"),
        ("order", "a", "outside", "slow", 0, "note", 0),
        ("order", "a", "outside", "slow", 5, "note", 0),
    ],
)
@pytest.mark.parametrize("failures", [0, 1])
def test_what_one_runtime_withdraws_another_does_not_bring_to_its_end(
    backend: str, other: int, change: tuple[Any, ...], failures: int
) -> None:
    """Whichever of them it is that handles the alarm just then, and whether it fails."""
    first = ("order", "a", "outside", "slow", 0, "note", failures)
    history = History(gives_back=False, together=2)
    run(backend, history, [first, ("wait", 0.75), ("choose", other), change])
    assert history.journal.effects["t1"] == 0


# Whose handlers neither fail nor keep their object waiting.
PUNCTUAL_SET = st.tuples(
    st.just("order"),
    IDS,
    st.sampled_from(["order", "order_and_fail", "outside", "outside"]),
    st.sampled_from(["quick", "other"]),
    DELAYS,
    st.sampled_from(["note", "again", "another", "withdraw", "delete"]),
    st.just(0),
)
PUNCTUAL = st.one_of(PUNCTUAL_SET, PUNCTUAL_SET, OTHER)


@BACKENDS
@pytest.mark.parametrize("runner", [InlineRunner, OldNews])
def test_while_nothing_fails_no_alarm_is_late(backend: str, runner: type[Runner]) -> None:
    """Not even one that is set while the table is read, or in the moment of its old time."""
    may_be_late = OldNews.DELAY if runner is OldNews else 0  # when it is opened anew

    @given(
        st.lists(
            st.one_of(
                PUNCTUAL,
                PUNCTUAL,
                WAIT,
                st.tuples(st.just("burst"), st.lists(PUNCTUAL, min_size=2, max_size=5)),
                st.tuples(st.just("reopen"), st.just(False)),
            ),
            min_size=5,
            max_size=30,
        )
    )
    @settings(max_examples=EXAMPLES, deadline=None, database=None, derandomize=True)
    def check(operations: list[tuple[Any, ...]]) -> None:
        history = History(runner=runner)
        run(backend, history, operations)
        assert history.late <= may_be_late + 0.01

    check()


# Something of each kind, with as little else as there can be. Some alarms come due together, some
# while an earlier one is handled, and some in the moment in which they are set anew.
SCENARIO: list[tuple[Any, ...]] = [
    ("order", "a", "order", "quick", 1, "again", 0),
    ("order", "a", "outside", "slow", 1, "note", 1),
    ("order", "b", "order_and_fail", "quick", 1, "another", 0),
    ("order", "b", "outside", "other", 20, "note", 0),
    ("order", "c", "order_slowly", "slow", 0, "again", 0),
    ("wait", 1),
    ("order", "b", "order", "other", 2, "withdraw", 0),
    ("order", "c", "outside", "quick", 2, "note", 2),
    ("withdraw", "a", "outside", "slow"),
    ("burst", [("order", "a", "outside", "other", 1, "note", 0), ("withdraw_all", "b", "outside")]),
    ("wait", 2),
    ("order", "b", "outside", "slow", 0, "long", 0),
    ("order", "c", "order", "other", 1, "delete", 0),
    ("order", "c", "order", "quick", 5, "note", 0),
    ("wait", 11),
    ("withdraw_all", "a", "delete"),
    ("order", "a", "order", "quick", 0.5, "note", 0),
    ("wait", 20),
]


@BACKENDS
@pytest.mark.parametrize("gives_back", [True, False], ids=["given back", "run out"])
@pytest.mark.parametrize("part", ["before", "after"])
def test_a_crash_at_every_call_of_the_storage(backend: str, gives_back: bool, part: str) -> None:
    def run_with_crash(number: int | None) -> History:
        # The calls before the crash are the same each time.
        random.seed(1)
        trio_run._r.seed(1)
        history = History(gives_back=gives_back)
        history.storages.crash_at = None if number is None else (number, part)
        run(backend, history, SCENARIO)
        return history

    whole = run_with_crash(None)
    kinds = whole.storages.kinds
    assert {"commit", "claim", "postpone", "renew", "due_alarms", "load"} <= kinds.keys()
    assert whole.calls > 50
    for number in range(whole.calls):
        assert run_with_crash(number).storages.troubles == 1
