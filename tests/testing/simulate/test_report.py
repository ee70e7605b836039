"""The report of a simulation, and the warning about one that could hardly fail."""

from __future__ import annotations

import re
import unittest
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition

from trio_durable import DurableObject, handler
from trio_durable._durations import Duration
from trio_durable.testing.simulate import (
    Call,
    Simulation,
    SimulationReport,
    SimulationWarning,
    run_simulation,
)

from ..test_guide import run_pytest
from .objects import Account, Accounts, Clerk, Office
from .test_steps import simulating


class Gate(DurableObject, name="simulate.Gate"):
    """Lets in who has the word."""

    entered: int = 0

    @handler
    def enter(self, word: str) -> None:
        if word != "sesame":
            raise PermissionError(word)
        self.entered += 1

    @handler(readonly=True)
    def count(self) -> int:
        return self.entered


class Gates(Simulation):
    objects = (Gate,)
    allowed = (PermissionError,)
    left_out: ClassVar[tuple[str, ...]] = ("Gate.count",)

    @invariant()
    def is_counted(self) -> None:
        assert all(gate.entered > 0 for gate in self.stored(Gate).values())

    @precondition(lambda self: "nobody" in self.stored(Gate))
    @invariant()
    def of_nobody(self) -> None:
        raise NotImplementedError


class OpenGates(Gates):
    arguments: ClassVar = {"Gate.enter.word": st.just("sesame")}


# --- a story -------------------------------------------------------------------------------------


def test_a_story_counts_what_has_happened() -> None:
    with simulating(Accounts) as state:
        state.call(Account, "a", "deposit", 5)
        state.call(Account, "a", "withdraw", 6)
        state.call(Account, "b", "deposit", 1, fault="crash after commit 1")
        state.call(Account, "b", "deposit", 1, fault="fail before commit 1")
        state.call(Account, "b", "deposit", 1, fault="fail before commit 7")
        state.call(Account, "a", "pay_interest")
        state.wait(60)
        report = state.report
    assert (report.steps, report.alarms_fired, report.messages_delivered) == (7, 1, 0)
    assert report.accepted == {"Account.deposit": 2, "Account.pay_interest": 1}
    assert report.refused == {"Account.withdraw": 1}
    assert report.refusals == {"Overdrawn": 1}
    assert report.unanswered == {"Account.deposit": 2}
    assert report.faults == {"crash after commit": 1, "fail before commit": 1}
    assert report.invariants == {"interest_goes_on_until_it_has_been_paid_three_times": 7}
    assert report.models_compared > 0
    assert not report.doubts


def test_messages_are_counted_once_they_are_handled() -> None:
    from examples.simulations import Payments

    with simulating(Payments) as state:
        state.call(Payments.objects[0], "a", "pay", cents=1, fault="crash after effect 1")
        assert not state.messages
        assert state.report.messages_delivered == 2


def test_a_story_that_fails_is_counted_up_to_there() -> None:
    with simulating(Office) as state:
        with pytest.raises(TypeError):
            state.call(Clerk, "a", "send", "once")
        assert (state.report.steps, state.report.refused) == (1, {"Clerk.send": 1})


# --- a run ---------------------------------------------------------------------------------------


def test_a_run_adds_its_stories() -> None:
    report = run_simulation(OpenGates, seed=1, stories=15)
    assert report.stories == 15
    assert report.steps == report.invariants["is_counted"] > 5
    assert report.accepted["Gate.enter"] > report.unanswered["Gate.enter"] > 0
    assert report.invariants["of_nobody"] == 0
    lines = str(report).splitlines()
    assert lines[0] == f"OpenGates: 15 stories, {report.steps:,} steps"
    assert lines[-1] == "  never evaluated: of_nobody"
    assert re.search(r"\n  faults hit: \d+: \d+ (crash|fail) (before|after) ", str(report))


def test_the_same_seed_has_the_same_report() -> None:
    assert run_simulation(OpenGates, seed=7, stories=15) == run_simulation(
        OpenGates, seed=7, stories=15
    )


def test_who_is_never_let_in_is_named() -> None:
    with pytest.warns(SimulationWarning) as warned:
        report = run_simulation(Gates, seed=1, stories=3)
    [message] = [str(each.message) for each in warned]
    assert message.startswith("Gates could hardly fail: no call was accepted: ")
    assert "PermissionError; choose other `arguments`" in message
    assert "  never accepted: Gate.enter" in str(report).splitlines()
    assert warned[0].filename == __file__


class Unchecked(Simulation):
    objects = (Gate,)
    arguments: ClassVar = OpenGates.arguments


class Untroubled(OpenGates):
    """Each step names a fault that it doesn't reach."""

    def call(self, *args: Any, **kwargs: Any) -> Any:
        return super().call(*args, **{**kwargs, "fault": "fail before commit 9"})

    def together(self, *calls: Call, fault: str | None = None) -> Sequence[Call]:
        return super().together(*calls, fault="fail before commit 9")

    def wait(self, delay: Duration, fault: str | None = None) -> None: ...

    def crash(self, down_for: Duration = 0, fault: str | None = None) -> None: ...

    def restart(self, fault: str | None = None) -> None: ...


for _each in (Gates, OpenGates, Unchecked, Untroubled):
    _each.TestCase.settings = settings(_each.TestCase.settings, stateful_step_count=8)


@pytest.mark.parametrize(
    ("simulation", "doubt"),
    [
        (Unchecked, "no invariant and no model was evaluated; add one"),
        (Untroubled, "no fault was hit; call handlers that change or load something"),
    ],
)
def test_a_run_that_could_hardly_fail_is_warned_of(
    simulation: type[Simulation], doubt: str
) -> None:
    with pytest.warns(SimulationWarning, match=f"{simulation.__name__} could.*: {doubt}$"):
        run_simulation(simulation, seed=1, stories=3)


def test_a_run_in_which_much_happens_is_not_warned_of() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run_simulation(Accounts, seed=1, stories=3)


def test_a_failure_is_raised_with_its_story() -> None:
    class Wrong(OpenGates):
        @invariant()
        def is_empty(self) -> None:
            assert not self.stored(Gate)

    with pytest.raises(AssertionError) as raised:
        run_simulation(Wrong, seed=1, stories=20)
    assert any("state.call(Gate, 'a', 'enter'" in note for note in raised.value.__notes__)


# --- test runners --------------------------------------------------------------------------------


def test_a_test_case_keeps_its_report() -> None:
    class Few(OpenGates):
        pass

    test_case: Any = Few.TestCase
    test_case.settings = settings(Few.TestCase.settings, max_examples=2, database=None)
    result = unittest.TestResult()
    test_case().run(result)
    assert result.wasSuccessful()
    report = test_case.durable_simulation_report
    assert isinstance(report, SimulationReport)
    assert report.stories == 2


SUITE = """
from hypothesis import settings, strategies as st
from hypothesis.stateful import invariant
from trio_durable import DurableObject, handler
from trio_durable.testing.simulate import Simulation

class Gate(DurableObject):
    entered: int = 0

    @handler
    def enter(self, word: str) -> None:
        if word != "sesame":
            raise PermissionError(word)
        self.entered += 1

class Gates(Simulation):
    objects = (Gate,)
    allowed = (PermissionError,)

    @invariant()
    def holds(self):
        self.stored(Gate)

class OpenGates(Gates):
    arguments = {"Gate.enter.word": st.just("sesame")}

TestGates = Gates.TestCase
TestOpenGates = OpenGates.TestCase
TestGates.settings = TestOpenGates.settings = settings(
    TestGates.settings, max_examples=20, stateful_step_count=8
)
"""


SEED = "--hypothesis-seed=1"


def test_pytest_shows_reports_and_warns(tmp_path: Path) -> None:
    (tmp_path / "test_gates.py").write_text(SUITE, encoding="utf-8")
    run = run_pytest(tmp_path, "-vv", "-W", "always::UserWarning", SEED)
    assert re.search(r"2 passed, 1 warning", run.stdout), run.stdout
    assert "SimulationWarning: Gates could hardly fail: no call was accepted" in run.stdout
    assert re.search(r"^=+ simulations =+\nGates: \d+ stories", run.stdout, re.MULTILINE)
    # Where Hypothesis runs without randomness, as it does for CI, the seed counts for nothing.
    assert re.search(r"^OpenGates: \d+ stories, .* steps\n  calls: ", run.stdout, re.MULTILINE)


def test_refusals_of_the_app_are_told_from_faults() -> None:
    with simulating(Office) as state:
        state.call(Clerk, "a", "send", 1, fault="fail before effect 1")
        state.call(Clerk, "a", "send", 1, fault="fail after commit 1")
        assert (state.report.refused.total(), state.report.unanswered.total()) == (1, 1)
