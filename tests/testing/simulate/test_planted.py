"""Each kind of planted bug is found, in a short story, and none in the examples."""

from __future__ import annotations

import os
import re

import pytest
from hypothesis import Phase, settings

from examples.simulations import Carts, Payments
from trio_durable.testing.simulate import Simulation, run_simulation

from . import planted
from .objects import story_of

DEEP = "TRIO_DURABLE_EXAMPLES" in os.environ
"""Set by ``make deep``, where each story is made as short as it can be."""
STORIES = 100 if DEEP else 15


FOUND: dict[type[Simulation], str] = {
    planted.DualWrite: r"state\.call\(Listing, '.', 'add', fault='(crash|fail) .* 1'\)",
    planted.CheckAfterAwait: r"state\.together\(.*'fill'\), Call\(.*'fill'\).*\)",
    planted.AlarmTwice: r"state\.wait(_for_alarm\(|\(60, ?)fault='(crash|fail) .* 1'\)",
    planted.StaleRead: r"state\.\w+\(.*'add'.*fault='replace (after commit|before effect) \d'\)",
}
"""The step that brings each bug about, which is the last one."""


@pytest.mark.parametrize("simulation", FOUND)
def test_each_kind_of_bug_is_found(
    simulation: type[Simulation], monkeypatch: pytest.MonkeyPatch
) -> None:
    if not DEEP:
        brief = settings(simulation.TestCase.settings, phases=[Phase.generate])
        monkeypatch.setattr(simulation.TestCase, "settings", brief)
    with pytest.raises(AssertionError) as raised:
        run_simulation(simulation, seed=1, stories=STORIES)
    story = story_of(raised.value)
    steps = [line for line in story if re.match(r"state\.(?!teardown)", line)]
    assert re.fullmatch(FOUND[simulation], steps[-1]), "\n".join(story)
    assert not DEEP or len(steps) <= 4


class ReplacedCarts(Carts):
    second_owners = True


class ReplacedPayments(Payments):
    second_owners = True


@pytest.mark.parametrize("simulation", [ReplacedCarts, ReplacedPayments])
def test_the_examples_stand_second_owners(simulation: type[Simulation]) -> None:
    report = run_simulation(simulation, seed=1, stories=STORIES)
    assert any(name.startswith("replace") for name in report.faults)
