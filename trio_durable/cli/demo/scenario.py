"""The demo itself: what happens, one thing after the other.

A child process keeps a few thousand durable objects in an SQLite file and serves a stream of
calls, each of which changes one object; some of them set an alarm. This process sends the calls,
notes which of them were acknowledged, and kills the child with SIGKILL in the middle of it. It lets
a moment pass, in which alarms come due with nobody there. Then it starts the next child on the same
file and compares: every acknowledged change must be there, every other one wholly or not at all,
and every alarm must fire once, at its time or as soon as there is somebody again.
"""

from __future__ import annotations

from pathlib import Path
from time import sleep

from rich.console import Console

from ..output import progress_bar
from .child import Worker
from .ledger import Audit, Ledgers, audit_alarms
from .load import Load, load_and_kill
from .report import Outcome


def run_scenario(
    path: Path,
    accounts: int,
    diaries: int,
    kills: int,
    seconds: float,
    within: float,
    dead: float,
    console: Console,
) -> Outcome:
    """Let ``kills`` children die, one after the other, and audit what each has left behind."""
    ledgers = Ledgers(accounts, diaries)
    processes: list[int] = []
    up_at: dict[int, float] = {}
    loads: list[Load] = []
    deposits: list[Audit] = []
    alarms: list[Audit] = []
    torn: list[int] = []
    with progress_bar(console) as progress:
        task = progress.add_task("starting", total=kills * (seconds + dead))
        while True:
            with Worker(path, accounts, diaries, within) as worker:
                up_at[worker.pid] = worker.found.at
                audit = ledgers.deposits.audit(worker.found.deposits)
                alarm_audit = ledgers.alarms.audit(list(map(len, worker.found.reminders)))
                if processes:
                    deposits.append(audit)
                    alarms.append(alarm_audit)
                    torn.append(worker.found.torn)
                    report_found(worker, audit, console)
                if len(processes) == kills:
                    progress.update(task, description="waiting for the last alarms")
                    last = worker.finish()
                    break
                processes.append(worker.pid)
                progress.update(task, description=f"load {len(processes)} of {kills}")
                load = load_and_kill(worker, ledgers, seconds, progress)
                loads.append(load)
            console.print(
                f"process {worker.pid} killed after {load.calls - load.alarms:,} deposits and "
                f"{load.alarms:,} alarms were acknowledged"
            )
            progress.update(task, description=f"nobody there for {dead:g} s")
            sleep(dead)
            progress.advance(task, dead)
    return Outcome(
        loads,
        deposits,
        torn,
        [
            audit_alarms(last, process, up_at, lost=audit.missing)
            for process, audit in zip(processes, alarms, strict=True)
        ],
        sum(audit.surplus for audit in alarms),
    )


def report_found(worker: Worker, audit: Audit, console: Console) -> None:
    """Say what a new child found, and which alarms it let fire."""
    found = worker.found
    late = [
        fired_at - reminder.due_at
        for reminder in found.all_reminders
        for process, fired_at in reminder.fired
        if process == worker.pid
    ]
    to_come = sum(not reminder.fired for reminder in found.all_reminders)
    console.print(
        f"process {worker.pid} found {audit.recovered:,} deposits, and "
        f"{audit.completed:,} that were not answered; it has\n"
        f"  fired {len(late):,} alarms that were up to {max(late, default=0.0):.1f} s overdue, "
        f"and {to_come:,} are to come"
    )
