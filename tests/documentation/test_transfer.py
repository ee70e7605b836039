"""The transfer between two accounts in docs/coming-from/orleans.md, cut off at every commit."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
from cli.support import ROOT

from trio_durable.testing.simulate import Simulation

PAGE = ROOT / "docs" / "coming-from" / "orleans.md"
DAY = 86_400


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    [code] = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    folder: Path = tmp_path_factory.mktemp("bank")
    text = code.replace("trio.run(main)\n", "")
    (folder / "documented_bank.py").write_text(text, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        module = importlib.import_module("documented_bank")
    sys.modules.pop("documented_bank")
    return module


def simulation(bank: ModuleType) -> Simulation:
    class Bank(Simulation):
        objects = (bank.Account, bank.Transfer)
        allowed = (bank.NotEnough,)

    return Bank()


def balances(bank: ModuleType, state: Simulation) -> dict[str, int]:
    return {name: account.balance for name, account in state.stored(bank.Account).items()}


FAULTS = [
    f"{what} {when} commit {number}"
    for what in ("crash", "fail")
    for when in ("before", "after")
    for number in range(1, 6)
]


@pytest.mark.parametrize("fault", ["", *FAULTS])
@pytest.mark.parametrize("repeats", [False, True])
def test_no_money_is_lost_or_doubled(bank: ModuleType, fault: str, repeats: bool) -> None:
    state = simulation(bank)
    state.call(bank.Account, "ada", "deposit", 100)
    state.call(bank.Transfer, "t", "make", "1", "ada", "bob", 40, fault=fault or None)
    if repeats:
        state.call(bank.Transfer, "t", "make", "1", "ada", "bob", 40)
    state.wait(DAY)
    # Cut off before the intention was durable, and not repeated, it has no effect at all.
    effect = {"ada": 60, "bob": 40}
    never_began = fault.endswith("before commit 1") and not repeats
    assert balances(bank, state) == ({"ada": 100} if never_began else effect)
    state.call(bank.Transfer, "t", "make", "1", "ada", "bob", 40)
    assert balances(bank, state) == effect
    state.teardown()


@pytest.mark.parametrize("fault", ["", *FAULTS])
def test_a_refused_transfer_has_no_effect(bank: ModuleType, fault: str) -> None:
    state = simulation(bank)
    state.call(bank.Account, "ada", "deposit", 10)
    state.call(bank.Transfer, "t", "make", "1", "ada", "bob", 40, fault=fault or None)
    if fault:  # it wasn't answered, and is tried again by its alarm
        state.wait(DAY)
    state.call(bank.Account, "ada", "deposit", 100)
    state.wait(DAY)
    assert balances(bank, state) == {"ada": 110}
    state.teardown()


def test_a_transfer_to_the_same_account_changes_nothing(bank: ModuleType) -> None:
    state = simulation(bank)
    state.call(bank.Account, "ada", "deposit", 100)
    state.call(bank.Transfer, "t", "make", "1", "ada", "ada", 40)
    assert balances(bank, state) == {"ada": 100}
    state.teardown()
