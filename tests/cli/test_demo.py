from __future__ import annotations

import inspect
import re
from collections import Counter
from pathlib import Path

import attrs
import orjson
import pytest
import trio
from rich.console import Console

from trio_durable import DurableRuntime
from trio_durable.cli.demo import bank, report
from trio_durable.cli.demo.bank import Account, Timer, transfer_by_awaits
from trio_durable.cli.demo.child import Run, WorkerFailed, run_child
from trio_durable.cli.demo.ledger import (
    TOTAL,
    Bank,
    Kill,
    Ledger,
    Ring,
    TimerAudit,
    audit_timers,
    read_bank,
)
from trio_durable.cli.demo.scenario import Outcome, Pace, Stage
from trio_durable.cli.demo.worker import account_id

from .support import assert_refused, command_process, interrupted, python, run

SMALL = ["--kills=2", "--seconds=0.5", "--down=0.2"]
CODE = "import sys; from trio_durable.cli import main; main()"


def test_it_passes_and_prints_one_screen_into_a_pipe(tmp_path: Path) -> None:
    # Modules in the current folder are not imported.
    (tmp_path / "random.py").write_text("raise ImportError('the wrong one')")
    demo = python("-P", "-c", CODE, "demo", *SMALL, "--keep=bank.db", cwd=tmp_path)
    assert (demo.returncode, demo.stderr) == (0, "")
    assert "\x1b" not in demo.stdout
    lines = demo.stdout.splitlines()
    # The last lines are a path and a command to be copied, which may be long.
    assert len(lines) <= 30
    assert max(map(len, lines[:-2])) <= 80
    [(left, gone)] = re.findall(r"transfers  ([\d,]+) of 50,000: ([\d,]+) gone", demo.stdout)
    assert number(left) + number(gone) == TOTAL
    sums = r"transfers  ([\d,]+) in accounts \+ ([\d,]+) on the way = ([\d,]+)\n"
    found = re.findall(sums, demo.stdout)
    assert len(found) == 2
    for in_accounts, on_the_way, total in found:
        assert number(in_accounts) + number(on_the_way) == number(total) == TOTAL
    assert re.search(r"the end +[\d,]+ transfers  50,000 in accounts = 50,000\n", demo.stdout)
    assert "PASSED: not a cent is missing." in lines
    # What it says can be done.
    count = len(inspect.getsource(bank).splitlines())
    assert lines[-2] == f"The bank has {count} lines: {bank.__file__}"
    assert lines[-1].endswith("trio-durable ls -s bank.db Account")
    listed = run("ls", "-s", str(tmp_path / "bank.db"), "Account")
    assert "account-0" in listed.output


def number(text: str) -> int:
    return int(text.replace(",", ""))


def test_programs_get_json(tmp_path: Path) -> None:
    demo = python("-c", CODE, "demo", *SMALL, "--json", cwd=tmp_path)
    assert (demo.returncode, demo.stderr) == (0, "")
    found = orjson.loads(demo.stdout)
    assert found["passed"] is True
    assert found["awaits"][-1]["missing"] > 0
    assert [kill["missing"] for kill in found["message"]["kills"]] == [0, 0]
    assert found["message"]["end"] == {"in_accounts": TOTAL, "in_messages": 0, "missing": 0}
    assert found["message"]["timers"]["started"] > 0
    assert list(tmp_path.iterdir()) == []


def test_a_bank_that_loses_money_fails(tmp_path: Path) -> None:
    stage = Stage(Pace(load=0.3, down=0), Console(quiet=True))
    outcome = stage.kill_and_restart(tmp_path / "bank.db", 4, lambda _kill: None, mode="awaits")
    assert outcome.faults["sums off"] >= 1
    assert outcome.faults["acknowledged changes lost"] > 0, "that bank doesn't count payments"


def test_control_c_takes_the_child_along(tmp_path: Path) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    with command_process("demo", "--seconds=60", env={"TMPDIR": str(temporary)}) as demo:
        while not list(temporary.glob("*/awaits-0.db-wal")):
            assert demo.poll() is None, "it ended by itself"
        # All of it only ends when the child has let go of the pipes, too.
        _, err = interrupted(demo)
    assert err.strip() == ""
    assert list(temporary.iterdir()) == []


def test_a_child_that_ends_by_itself_fails(tmp_path: Path) -> None:
    folder = tmp_path / "bank.db"
    folder.mkdir()
    with pytest.raises(WorkerFailed, match="before its runtime was open"):
        run_child(folder, "message", 0, 1, 60, lambda _elapsed: None)


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--kills=0"], "0 is not in the range 1<=x<=1000"),
        (["--kills=two"], "'two' is not a valid integer"),
        (["--seconds=0"], "0.0 is not in the range"),
        (["--seconds=nan"], "'nan' is not a number"),
        (["--seconds=inf"], "inf is not in the range"),
        (["--down=-1"], "-1.0 is not in the range"),
        (["--keep=missing/bank.db"], "there is no folder missing"),
        (["--keep=."], "it already exists"),
        (["here"], "unexpected extra argument"),
    ],
)
def test_bad_input(folder: Path, args: list[str], says: str) -> None:
    assert_refused(folder, says, "demo", *args)


# --- the audit -----------------------------------------------------------------------------------


def a_run(transfers: dict[int, int], timers: int = 0, at: float = 0, until: float = 0) -> Run:
    return Run(at, 30, until, Counter(transfers), timers)


def a_bank(payments: dict[int, int], *, missing: int = 0, timers: int = 0) -> Bank:
    return Bank(TOTAL - missing, 0, Counter(payments), [Ring(1.0, [1.5])] * timers)


def test_acknowledged_changes_that_are_not_stored_are_counted() -> None:
    ledger = Ledger()
    assert ledger.audit(a_run({0: 2, 1: 1}, 1), a_bank({0: 3, 1: 1}, timers=1)).lost == 0
    # Account 0 lost one of 2, account 2 has one more than was acknowledged, and a timer is lost.
    assert ledger.audit(a_run({0: 2, 2: 1}, 1), a_bank({0: 4, 1: 1, 2: 2}, timers=1)).lost == 2


def test_timers_are_sorted_by_what_became_of_them() -> None:
    runs = [a_run({}, at=0, until=10), a_run({}, at=20, until=30)]
    timers = [
        Ring(5, [5.1]),  # in time
        Ring(15, [20.5]),  # while the process was down
        Ring(25, []),  # never
        Ring(25, [25.1, 26]),  # twice
        Ring(25, [24]),  # early
    ]
    assert audit_timers(timers, runs) == TimerAudit(
        started=5, while_down=1, missing=1, twice=1, early=1
    )


def test_the_verdict_names_the_faults() -> None:
    timers = TimerAudit(3, 1, missing=0, twice=0, early=0)
    kill = Kill(a_run({0: 5}), a_bank({0: 5}), lost=0)
    good = Outcome([kill], [30], a_bank({0: 5}), timers)
    assert good.faults == {}
    assert report.verdict(good).plain == "PASSED: not a cent is missing."
    cent = Outcome([kill], [30], a_bank({}, missing=1), timers)
    assert report.verdict(cent).plain == "FAILED: sums off: 1"
    bad = Outcome(
        [Kill(a_run({0: 5}), a_bank({0: 5}, missing=-2), lost=3)],
        [30],
        attrs.evolve(a_bank({0: 5}), in_messages=4, in_accounts=TOTAL - 4),
        TimerAudit(3, 1, missing=5, twice=6, early=7),
    )
    assert report.verdict(bad).plain == (
        "FAILED: acknowledged changes lost: 3, sums off: 1, amount undelivered: 4, "
        "timers missing: 5, timers rang twice: 6, timers rang early: 7"
    )


def test_the_file_has_the_money_of_accounts_and_messages(tmp_path: Path) -> None:
    async def main() -> None:
        async with DurableRuntime(tmp_path / "bank.db", objects=[Account, Timer]) as runtime:
            await runtime.get(Account, account_id(3)).transfer(account_id(4), 10)
            await runtime.settled(Account, account_id(4))
            await transfer_by_awaits(account_id(5), account_id(6), 7)
            later = runtime.outgoing(after=3600)
            await later.send(Account.deposit, account_id(4), 25)
            await Timer.start("timer-0-0", 3600)

    trio.run(main)
    found = read_bank(tmp_path / "bank.db")
    assert (found.in_accounts, found.in_messages, found.missing) == (TOTAL, 25, -25)
    assert +found.payments == Counter({3: 1})
    assert [timer.rang for timer in found.timers] == [[]]


def test_the_screen_shows_the_source_of_the_bank() -> None:
    assert report.source_of("transfer_by_awaits").startswith(
        "await Account.withdraw(payer, amount)"
    )
    assert report.source_of("transfer").startswith("self.balance -= amount\n")
    with pytest.raises(LookupError):
        report.source_of("rob")
