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
BEFORE = {"ada": 100}
AFTER = {"ada": 60, "bob": 40}


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
        objects = (bank.Account,)
        allowed = (bank.NotEnough,)

    return Bank()


def balances(bank: ModuleType, state: Simulation) -> dict[str, int]:
    return {name: account.balance for name, account in state.stored(bank.Account).items()}


FAULTS = [
    f"{what} {when} commit {number}"
    for what in ("crash", "fail")
    for when in ("before", "after")
    for number in (1, 2)
]


@pytest.mark.parametrize("fault", ["", *FAULTS])
def test_no_money_is_lost_or_doubled(bank: ModuleType, fault: str) -> None:
    state = simulation(bank)
    state.call(bank.Account, "ada", "deposit", 100)
    state.call(bank.Account, "ada", "transfer", "bob", 40, fault=fault or None)
    state.wait(DAY)
    assert state.messages == []
    # Cut off before the transfer was durable, it has no effect at all.
    assert balances(bank, state) == (BEFORE if fault.endswith("before commit 1") else AFTER)
    state.teardown()


@pytest.mark.parametrize("fault", ["", *FAULTS])
def test_a_refused_transfer_has_no_effect(bank: ModuleType, fault: str) -> None:
    state = simulation(bank)
    state.call(bank.Account, "ada", "deposit", 100)
    state.call(bank.Account, "ada", "transfer", "bob", 101, fault=fault or None)
    state.wait(DAY)
    assert balances(bank, state) == BEFORE
    state.teardown()


def test_a_transfer_to_the_same_account_changes_nothing(bank: ModuleType) -> None:
    state = simulation(bank)
    state.call(bank.Account, "ada", "deposit", 100)
    state.call(bank.Account, "ada", "transfer", "ada", 40)
    assert balances(bank, state) == BEFORE
    state.teardown()
