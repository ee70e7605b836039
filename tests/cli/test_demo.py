from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from trio_durable.cli.demo.child import Reminder, Report
from trio_durable.cli.demo.ledger import AlarmAudit, Audit, Ledger, audit_alarms
from trio_durable.cli.demo.report import Outcome, verdict

from .support import assert_refused, environment, interruptible, python

SMALL = ["--kills=2", "--seconds=0.3", "--within=1.5", "--dead=0.2", "--objects=200"]


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
    assert out.endswith("4 times.\n\n")
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


def test_the_verdict_names_the_faults() -> None:
    fine = AlarmAudit(3, [0.1], [], missing=0, doubled=0, early=0)
    good = Outcome([], [Audit(5, 1, 5, 1, 0, 0)], [0], [fine], 0)
    assert verdict(good).plain.startswith("PASSED: ")
    assert not any(good.faults.values())
    bad = Outcome([], [Audit(5, 1, 3, 1, 2, 0)], [1], [AlarmAudit(3, [], [], 1, 4, 0)], 6)
    assert verdict(bad).plain.endswith("; 3 missing, 6 never requested, 1 torn, 4 duplicated")
