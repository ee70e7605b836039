"""A second owner that takes over, and a server that is restored from a backup."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from datetime import datetime
from typing import ClassVar

import pytest
from hypothesis.stateful import invariant, precondition

from trio_durable import DurableObject, handler
from trio_durable.testing.simulate import Simulation, outside, run_simulation
from trio_durable.testing.simulate._rules import _faults

from .objects import Account, Accounts, Clerk, Office
from .test_steps import balances, simulating


class Noted(DurableObject, name="simulate.Noted"):
    """Reads the time that a runtime knows."""

    at: datetime | None = None

    @handler
    def note(self) -> None:
        self.at = self.ctx.now()


# --- a second owner ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "mails", "sent"),
    [
        # The second owner sends one, and then the first one does what it was about to.
        ("replace before effect 1", 2, 1),
        ("replace after effect 1", 2, 1),
        ("replace before commit 1", 2, 1),
        # Its commit is written, and so the second owner has seen it.
        ("replace after commit 1", 2, 2),
        ("replace before commit 2", 1, 1),
    ],
)
def test_who_was_replaced_acts_outside_but_stores_nothing(
    fault: str, mails: int, sent: int
) -> None:
    with simulating(Office) as state:
        call = state.call(Clerk, "a", "send", 1, fault=fault)
        assert len(state.mails) == mails
        assert state.stored(Clerk)["a"].sent == sent
        assert call.has_ended == fault.endswith("2")
        assert state.call(Clerk, "a", "send", 1).result == sent + 1
        assert threading.active_count() < 4


def test_who_was_replaced_acts_after_the_second_owner() -> None:
    acts: list[tuple[str, int]] = []

    class Watched(Office):
        @outside(sys.modules[Office.__module__], "send_mail", fails_with=OSError)
        async def send_mail(self, to: str) -> None:
            acts.append((to, sum(clerk.sent for clerk in self.stored(Clerk).values())))

    with simulating(Watched) as state:
        state.call(Clerk, "a", "send", 1, fault="replace before effect 1")
    assert acts == [("a", 0), ("a", 1)]


def test_an_alarm_in_the_hands_of_who_is_replaced_fires_again() -> None:
    with simulating(Office) as state:
        state.call(Clerk, "a", "later", 60)
        state.wait(100, fault="replace after claim 1")
        assert state.mails == ["a", "a"]
        assert state.stored(Clerk)["a"].sent == 1
        assert not state.has_alarms


def test_a_process_can_be_replaced_while_it_starts() -> None:
    with simulating(Office) as state:
        state.call(Clerk, "a", "later", 60)
        state.crash(down_for=3600, fault="replace after claim 1")
        assert state.mails == ["a"]  # it had no state in memory, and can load none
        assert not state.has_alarms
        assert state.call(Clerk, "a", "send").result == 2


def test_models_know_both_owners() -> None:
    with simulating(Accounts) as state:
        for fault in ("replace before commit 1", "replace after commit 1"):
            state.call(Account, "a", "deposit", 5, fault=fault)
        assert balances(state) == {"a": 15}
        assert state.report.faults == {"replace before commit": 1, "replace after commit": 1}


def test_trouble_of_the_second_owner_fails_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    with simulating(Office) as state:
        state.call(Clerk, "a", "send", 1)

        def broken() -> None:
            raise ZeroDivisionError

        monkeypatch.setattr(state._machine, "_start", broken)
        with pytest.raises(ZeroDivisionError):
            state.call(Clerk, "a", "send", 1, fault="replace before commit 1")


def test_only_who_wants_them_has_second_owners() -> None:
    def verbs(second_owners: bool) -> set[str]:
        return {fault.verb for fault in _faults(second_owners) if fault is not None}

    assert verbs(True) - verbs(False) == {"replace"}


class ReplacedOffice(Office):
    second_owners = True
    left_out = ("Clerk.cling", "Clerk.dawdle")

    @invariant()
    def each_is_sent(self) -> None:
        assert sum(clerk.sent for clerk in self.stored(Clerk).values()) <= len(self.mails)


def test_second_owners_come_at_every_point() -> None:
    report = run_simulation(ReplacedOffice, seed=2, stories=15)
    assert {name for name in report.faults if name.startswith("replace")} == {
        "replace before commit",
        "replace after commit",
        "replace after claim",
        "replace before effect",
        "replace after effect",
    }


class ReplacedAccounts(Accounts):
    second_owners = backups = True


def test_accounts_stand_second_owners_and_backups() -> None:
    report = run_simulation(ReplacedAccounts, seed=1, stories=10)
    assert report.restores
    assert report.faults["replace before commit"]


# --- a backup ------------------------------------------------------------------------------------


class Restored(Accounts):
    backups = True


def test_what_came_after_a_backup_is_gone() -> None:
    with simulating(Restored) as state:
        state.call(Account, "a", "deposit", 5)
        state.call(Account, "a", "pay_interest")
        state.back_up()
        state.call(Account, "a", "deposit", 1)
        state.call(Account, "b", "deposit", 1)
        state.wait(60)
        state.restore_backup()
        assert balances(state) == {"a": 6}  # its alarm was due
        assert state.call(Account, "a", "deposit", 1).result == 7
        state.restore_backup()
        assert state.call(Account, "b", "deposit", 3).result == 3
        assert state.report.restores == 2


def test_without_a_backup_the_database_is_empty() -> None:
    with simulating(Restored) as state:
        state.call(Account, "a", "deposit", 5)
        state.restore_backup()
        assert state.stored(Account) == {}
        assert state.call(Account, "a", "deposit", 1).result == 1


class Mailed(Office):
    """What is outside outlives the database, and an invariant can leave that out."""

    backups = True
    left_out: ClassVar = tuple(f"Clerk.{name}" for name in ("cling", "dawdle", "print", "later"))

    @precondition(lambda self: not self.report.restores)
    @invariant()
    def what_is_counted_was_sent(self) -> None:
        sent = Counter(self.mails)
        assert all(clerk.sent <= sent[name] for name, clerk in self.stored(Clerk).items())


def test_the_outside_outlives_the_database() -> None:
    with simulating(Mailed) as state:
        state.call(Clerk, "a", "send", 1)
        state.restore_backup()
        assert (state.mails, state.stored(Clerk)) == (["a"], {})
        state.mails.clear()
        state.call(Clerk, "a", "send", 2)
        assert state.report.invariants == {"what_is_counted_was_sent": 1}


# --- time ----------------------------------------------------------------------------------------


def test_the_time_of_handlers_is_virtual() -> None:
    class Notes(Simulation):
        objects = (Noted,)

    with simulating(Notes) as state:
        state.wait(86400)
        state.call(Noted, "a", "note")
        assert state.stored(Noted)["a"].at == state.now
        assert state.now.year == 2030
