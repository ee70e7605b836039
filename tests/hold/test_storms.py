"""A sample of storms of signals; ``make storms`` goes on until it is stopped."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from . import storms
from .stormed import BACKENDS, STORMS
from .storms import Outcome, Server, Trial, faults, run


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    with storms.server() as running:
        yield running


@pytest.mark.parametrize("storm", STORMS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_signal_takes_nothing_that_was_acknowledged(
    backend: str, storm: str, running: Server, tmp_path: Path
) -> None:
    wrong, outcome = run(running, Trial(backend, storm, seed=1), tmp_path)
    assert not wrong, f"{wrong}\n{outcome}"


@pytest.fixture(scope="module")
def calm(running: Server, tmp_path_factory: pytest.TempPathFactory) -> tuple[Outcome, Path]:
    """A process that no signal has ended, and its file."""
    path = tmp_path_factory.mktemp("calm") / "a.db"
    return running.run(CALM, path), path


CALM = Trial("trio", "nothing", seed=1)


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("= 1000000 ledger-0 1", "1000000 was acknowledged by ledger-0"),
        ("+ 1000000", "the alarm 1000000 was acknowledged, and isn't set"),
        ("! wedge: 1", "wedge: 1"),
        ("end SystemExit", "a signal without effect ended it"),
        ("- 1000000 RuntimeClosed", "a signal without effect failed a call"),
    ],
)
def test_what_is_wrong_is_found(line: str, fault: str, calm: tuple[Outcome, Path]) -> None:
    outcome, path = calm
    assert list(faults(CALM, outcome, path)) == []
    lines = [*outcome.lines, line]
    [found] = faults(CALM, attrs.evolve(outcome, lines=lines), path)
    assert fault in found


def test_a_hang_and_a_death_are_found(calm: tuple[Outcome, Path]) -> None:
    outcome, path = calm
    [hang] = faults(CALM, attrs.evolve(outcome, code=None), path)
    [death] = faults(CALM, attrs.evolve(outcome, code=-11), path)
    assert hang.startswith("hang")
    assert death.startswith("died of signal 11")


def test_changes_that_no_call_has_made_are_found(calm: tuple[Outcome, Path]) -> None:
    outcome, path = calm
    lines = [line for line in outcome.lines if not line.startswith(("?", "="))]
    found = list(faults(CALM, attrs.evolve(outcome, lines=lines), path))
    assert found
    assert all("and never called" in fault for fault in found)
