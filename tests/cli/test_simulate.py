"""The command that runs simulations."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .support import assert_refused, run

MODULE = """
from hypothesis import settings, strategies as st
from hypothesis.stateful import invariant
from trio_durable import DurableObject, handler
from trio_durable.testing.simulate import Simulation

class Till(DurableObject, name="cli.Till"):
    coins: int = 0

    @handler
    def put(self, coins: int) -> None:
        self.coins += coins

class Tills(Simulation):
    objects = (Till,)
    arguments = {"Till.put.coins": st.integers(1, 9)}

    @invariant()
    def holds(self):
        assert all(till.coins > 0 for till in self.stored(Till).values())

class SmallTills(Tills):
    @invariant()
    def is_small(self):
        assert all(till.coins < 12 for till in self.stored(Till).values())

class Nothing(Simulation):
    objects = (Till,)
    arguments = {"Till.put.coins": st.just("many")}
    allowed = (TypeError,)

for each in (Tills, SmallTills, Nothing):
    each.TestCase.settings = settings(each.TestCase.settings, stateful_step_count=6)
"""


@pytest.fixture(autouse=True)
def module(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (folder / "tills.py").write_text(MODULE, encoding="utf-8")
    (folder / "empty_tills.py").touch()
    monkeypatch.syspath_prepend(folder)
    yield
    for name in ("tills", "empty_tills"):
        sys.modules.pop(name, None)


def test_it_says_what_simulations_did() -> None:
    result = run("simulate", "tills:Tills", "--seconds", "0", "--seed", "5")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith("Tills: 25 stories, ")
    assert result.stdout.endswith("no story failed; the first seed was 5\n")


def test_it_prints_the_shortest_story_that_fails_and_its_seed() -> None:
    result = run("simulate", "tills:SmallTills", "--seed", "5")
    assert (result.exit_code, result.stderr) == (1, "")
    assert result.stdout.startswith("tills:SmallTills fails: AssertionError")
    steps = re.findall(r"^state\.(?!teardown).*$", result.stdout, re.MULTILINE)
    assert len(steps) == 2, result.stdout
    assert result.stdout.endswith("\n  trio-durable simulate tills:SmallTills --seed 5\n")


def test_all_of_a_module_are_run(folder: Path) -> None:
    path = folder / "tills.py"
    path.write_text(MODULE.replace("< 12", "< 12000"), encoding="utf-8")
    result = run("simulate", "tills", "--seconds", "0", "--seed", "5")
    assert re.findall(r"^(\w+): \d+ stories", result.stdout, re.MULTILINE) == [
        "Tills",
        "SmallTills",
        "Nothing",
    ]
    assert logging.getLogger("trio_durable").level == logging.NOTSET


def test_one_that_could_hardly_fail_is_a_failure() -> None:
    result = run("simulate", "tills:Nothing", "--seconds", "0", "--seed", "5")
    assert (result.exit_code, result.stderr) == (1, "")
    assert "  it could hardly fail: no call was accepted: " in result.stdout
    assert "  it could hardly fail: no invariant and no model was evaluated" in result.stdout


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("no_tills", "MODULE: there is no module no_tills; check the name"),
        ("empty_tills", "empty_tills defines no simulation; name a module"),
        ("tills:Till", "tills has no simulation 'Till'; check the name"),
        ("tills:", "tills has no simulation ''"),
        ("..", "MODULE '..': not the name of a module"),
    ],
)
def test_what_it_cannot_run_is_refused(target: str, says: str, folder: Path) -> None:
    sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
    try:
        assert_refused(folder, says, "simulate", target)
    finally:
        sys.dont_write_bytecode = before


def test_it_stops_when_the_time_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0.0, 30.0, 61.0])
    monkeypatch.setattr("trio_durable.cli.commands.simulate.time.monotonic", lambda: next(times))
    result = run("simulate", "tills:Tills", "--seed", "5")
    assert result.stdout.startswith("Tills: 50 stories, ")
