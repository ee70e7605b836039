"""Runs of a simulation, from its first story to its report."""

from __future__ import annotations

import warnings
from typing import Any

import hypothesis
from hypothesis import settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    get_state_machine_test,
    run_state_machine_as_test,
)

from ._report import SimulationReport, SimulationWarning, counted_in

REPORT = "durable_simulation_report"
"""Attribute of a `TestCase` that has run: its report, which the pytest plugin shows."""


def run_simulation(
    simulation: type[RuleBasedStateMachine], *, seed: int | None = None, stories: int | None = None
) -> SimulationReport:
    """Search for a story that fails, outside of a test runner.

    Args:
        simulation: A `Simulation`, whose ``TestCase.settings`` apply.
        seed: The same seed gives the same stories. Without one, they are new each time, and those
            that have failed before come first.
        stories: How many stories to try; by default those of the settings, 100.

    Returns:
        The report, if no story fails. A simulation that could hardly fail is warned of.

    Raises:
        Exception: The error of the shortest story that fails; the story is in its notes.
    """
    chosen = simulation.TestCase.settings
    if stories is not None:
        chosen = settings(chosen, max_examples=stories)
    if seed is not None:
        chosen = settings(chosen, database=None, derandomize=False, print_blob=False)
    test = get_state_machine_test(simulation, settings=chosen)
    if seed is not None:
        test = hypothesis.seed(seed)(test)
    report = SimulationReport(simulation.__qualname__)
    with counted_in(report):
        test()
    _warn(report)
    return report


def report_of_test_case(simulation: type[RuleBasedStateMachine]) -> None:
    """Let the ``TestCase`` of a simulation keep the report of its run, and warn by it."""
    test_case: Any = simulation.TestCase

    def run(self: Any) -> None:
        report = SimulationReport(simulation.__qualname__)
        setattr(type(self), REPORT, report)
        with counted_in(report):
            run_state_machine_as_test(simulation, settings=self.settings)
        _warn(report)

    for name, value in vars(test_case.runTest).items():
        setattr(run, name, value)  # by which Hypothesis and pytest know it
    test_case.runTest = run


def _warn(report: SimulationReport) -> None:
    if report.doubts:
        text = f"{report.simulation} could hardly fail: {'; '.join(report.doubts)}"
        warnings.warn(SimulationWarning(text), stacklevel=3)
