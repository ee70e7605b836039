from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
from array import array
from collections.abc import Sequence
from pathlib import Path

import attrs
import pytest
import trio
from rich.console import Console

from trio_durable import DurableRuntime
from trio_durable.cli.demo.bank import Bank, read_bank
from trio_durable.cli.demo.child import Reminder, Report, Worker
from trio_durable.cli.demo.ledger import (
    AlarmAudit,
    Arrivals,
    Audit,
    Ledger,
    Ledgers,
    MoneyAudit,
    audit_alarms,
)
from trio_durable.cli.demo.load import load_and_kill
from trio_durable.cli.demo.protocol import AMOUNT, OPENING, account_id, payee
from trio_durable.cli.demo.report import Outcome, verdict
from trio_durable.cli.demo.worker import Account
from trio_durable.cli.output import progress_bar

from .support import assert_refused, environment, interruptible, python

SMALL = ["--kills=2", "--seconds=1", "--within=1.5", "--dead=0.2", "--objects=40"]


def test_it_passes_and_prints_plain_text_into_a_pipe(tmp_path: Path) -> None:
    # Modules in the current folder are not imported.
    (tmp_path / "random.py").write_text("raise ImportError('the wrong one')")
    code = "import sys; from trio_durable.cli import main; main()"
    demo = python("-P", "-c", code, "demo", *SMALL, cwd=tmp_path)
    assert (demo.returncode, demo.stderr) == (0, "")
    assert "\x1b" not in demo.stdout
    assert "…" not in demo.stdout, "something was cut off"
    assert max(map(len, demo.stdout.splitlines())) <= 80
    assert len(re.findall(r"fired [1-9]\d* alarms? up to \d+\.\d s overdue", demo.stdout)) == 2
    money = r"  ([\d,]+) in accounts \+ ([\d,]+) on the way \+ ([\d,]+) in dead letters = ([\d,]+)"
    found = [
        [int(each.replace(",", "")) for each in sums] for sums in re.findall(money, demo.stdout)
    ]
    assert len(found) == 2
    for in_accounts, on_the_way, dead, total in found:
        assert in_accounts + on_the_way + dead == total == 40 * OPENING
    assert any(on_the_way for _, on_the_way, _, _ in found)
    assert any(dead for _, _, dead, _ in found)
    assert re.search(r"end +40,000 +0 +0 +40,000 +0 +0", demo.stdout)
    assert demo.stdout.splitlines()[-1].startswith("PASSED: kills: 2,")


def test_control_c_takes_the_child_along(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "trio_durable", "demo", "--objects=50", "--seconds=60"]
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    with subprocess.Popen(
        command,
        env={**environment(), "TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=interruptible,
    ) as demo:
        try:
            while not list(temporary.glob("*/demo.db-wal")):
                assert demo.poll() is None, "it ended by itself"
            demo.send_signal(signal.SIGINT)
            # All of it only ends when the child has let go of the pipes, too.
            out, err = demo.communicate(timeout=60)
        finally:
            demo.kill()
    assert (demo.returncode, err.strip()) == (130, "")
    assert out.endswith("in the end.\n\n")
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--kills=0"], "0 is not in the range 1<=x<=1000"),
        (["--kills=two"], "'two' is not a valid integer"),
        (["--seconds=0"], "0.0 is not in the range"),
        (["--seconds=nan"], "'nan' is not a number"),
        (["--seconds=inf"], "inf is not in the range"),
        (["--within=-1"], "-1.0 is not in the range"),
        (["--dead=-1"], "-1.0 is not in the range"),
        (["--objects=0"], "0 is not in the range 1<=x<=1000000"),
        (["here"], "unexpected extra argument"),
    ],
)
def test_bad_input(folder: Path, args: list[str], says: str) -> None:
    assert_refused(folder, says, "demo", *args)


def test_what_is_missing_or_too_much_is_counted() -> None:
    ledger = Ledger(3)
    ledger.request([0, 0, 0, 1, 2])
    ledger.acknowledge([0, 0, 1])
    # Of object 0 one unanswered change is there, of 1 an acknowledged one isn't, of 2 one more.
    assert ledger.audit([3, 0, 2]) == Audit(
        acknowledged=3, unanswered=2, recovered=2, completed=2, missing=1, surplus=1
    )
    assert ledger.audit([3, 0, 2]) == Audit(0, 0, 0, 0, 0, 0)


def test_alarms_are_sorted_by_what_became_of_them() -> None:
    reminders = [
        Reminder(1, due_at=10.0, fired=[(1, 10.5)]),  # before the kill
        Reminder(1, due_at=10.0, fired=[(2, 21.0)]),  # overdue when 2 came
        Reminder(1, due_at=30.0, fired=[(2, 30.25)]),  # in time
        Reminder(1, due_at=30.0, fired=[]),  # never
        Reminder(1, due_at=30.0, fired=[(2, 29.0), (2, 31.0)]),  # early, and twice
        Reminder(2, due_at=30.0, fired=[]),  # of another process
    ]
    last = Report(40.0, [], 0, [reminders[:3], reminders[3:]])
    assert audit_alarms(last, 1, {1: 0.0, 2: 20.0}, lost=1) == AlarmAudit(
        before=1, while_down=[11.0], after=[0.25, -1.0], missing=2, doubled=1, early=1
    )


class Deaf(Worker):
    """A child that is killed before it has acknowledged anything."""

    def __init__(self) -> None:
        self.found = Report(0.0, [0], 0, [[]])
        self.killed = False
        self._ended = threading.Event()

    def request(self, requests: Sequence[int]) -> None:
        pass

    def acknowledged(self) -> array[int]:
        assert self._ended.wait(60)
        return array("I")

    def kill(self) -> None:
        self.killed = True
        self._ended.set()


def test_a_process_that_has_acknowledged_nothing_has_a_rate() -> None:
    with progress_bar(Console(quiet=True)) as progress:
        progress.add_task("load", total=1)
        load = load_and_kill(Deaf(), Ledgers(1, 1), 0.01, progress)
    assert (load.calls, load.calls_per_second, load.percentile(99)) == (0, 0.0, 0.0)


def bank(sent: list[int], arrivals: list[int], *, in_accounts: int, in_messages: int = 0) -> Bank:
    return Bank(in_accounts, in_messages, 0, in_messages // AMOUNT, 0, sent, arrivals)


def test_a_loss_that_a_double_makes_up_for_is_counted() -> None:
    arrivals = Arrivals(3)
    to = [payee(0, number, 3) for number in (1, 2)]
    due = [to.count(account) for account in range(3)]
    first = bank([2, 0, 0], due, in_accounts=3 * OPENING - AMOUNT, in_messages=AMOUNT)
    assert arrivals.audit(first) == MoneyAudit(first, off_by=0, missing=0, doubled=0)
    # One transfer more left account 1. Its payee got nothing, and another account got something.
    lost = payee(1, 1, 3)
    due[(lost + 1) % 3] += 1
    second = bank([2, 1, 0], due, in_accounts=3 * OPENING)
    assert arrivals.audit(second) == MoneyAudit(second, off_by=0, missing=1, doubled=1)
    third = bank([2, 1, 0], due, in_accounts=3 * OPENING - AMOUNT)
    assert arrivals.audit(third).off_by == -AMOUNT


def test_the_file_has_the_money_of_accounts_messages_and_dead_letters(tmp_path: Path) -> None:
    accounts, payer = 5, 1
    number, blocked = payee(payer, 1, accounts), payee(payer, 2, accounts)
    assert blocked not in (number, payer)

    async def main() -> None:
        async with DurableRuntime(tmp_path / "demo.db", objects=[Account]) as runtime:
            await runtime.get(Account, account_id(blocked)).block(True)
            account = runtime.get(Account, account_id(payer))
            await account.transfer(accounts)
            await account.transfer_slowly(accounts)
            await runtime.settled(Account, account_id(number))
            await runtime.settled(Account, account_id(blocked))
            later = runtime.outgoing(after=3600)
            await later.send(Account.deposit, account_id(payer), 3 * AMOUNT)

    trio.run(main)
    found = read_bank(tmp_path / "demo.db", accounts)
    arrivals = [0] * accounts
    for arrived in (number, blocked, payer):
        arrivals[arrived] += 1
    assert found == Bank(
        in_accounts=accounts * OPENING - AMOUNT,
        in_messages=3 * AMOUNT,
        in_dead_letters=AMOUNT,
        waiting=1,
        torn=0,
        sent=[2 * (account == payer) for account in range(accounts)],
        arrivals=arrivals,
    )


def test_the_verdict_names_the_faults() -> None:
    alarms = AlarmAudit(3, [0.1], [], missing=0, doubled=0, early=0)
    transfers = Audit(5, 1, 5, 1, 0, 0)
    money = MoneyAudit(bank([6], [6], in_accounts=OPENING), off_by=0, missing=0, doubled=0)
    good = Outcome([], [transfers], [money, money], [alarms], 0)
    assert verdict(good).plain.startswith("PASSED: ")
    assert not any(good.faults.values())
    torn = attrs.evolve(money, bank=attrs.evolve(money.bank, torn=1), missing=1, doubled=2)
    late = attrs.evolve(money, bank=attrs.evolve(money.bank, in_messages=5), off_by=5)
    bad = Outcome([], [Audit(5, 1, 3, 1, 2, 0)], [torn, late], [AlarmAudit(3, [], [], 1, 4, 0)], 6)
    assert verdict(bad).plain.endswith(
        "; 4 missing, 6 never requested, 1 torn, 6 duplicated, 1 sums off, 5 undelivered"
    )
