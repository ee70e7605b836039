"""The sequence of the demo: load, kill, downtime, restart and audit.

A child process keeps a few thousand durable objects in an SQLite file and serves calls. Each call
changes one object, and some set an alarm. The parent process sends the calls, records which of them
are acknowledged, and kills the child with SIGKILL under load. After some downtime, in which alarms
become due, it starts the next child on the same file and audits the data. Every acknowledged change
must be stored, any other change completely or not at all, and every alarm must fire once: at its
time, or when the next child starts.
"""

from __future__ import annotations

from pathlib import Path
from time import sleep
from typing import TYPE_CHECKING

from ..output import progress_bar, quantity
from .child import Worker
from .ledger import Audit, Ledgers, audit_alarms
from .load import Load, load_and_kill
from .report import Outcome

if TYPE_CHECKING:
    from rich.console import Console


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
    """Kill ``kills`` children, one after the other, and audit the data that each one leaves."""
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
                f"process {worker.pid}: killed after "
                f"{quantity(load.calls - load.alarms, 'acknowledged deposit')} "
                f"and {quantity(load.alarms, 'alarm')}"
            )
            progress.update(task, description=f"down for {dead:g} s")
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
    """Print the data that a new child found, and the alarms that it fired."""
    found = worker.found
    late = [
        fired_at - reminder.due_at
        for reminder in found.all_reminders
        for process, fired_at in reminder.fired
        if process == worker.pid
    ]
    pending = sum(not reminder.fired for reminder in found.all_reminders)
    console.print(
        f"process {worker.pid}: found {quantity(audit.recovered, 'acknowledged deposit')} and "
        f"{audit.completed:,} in flight;\n"
        f"  fired {quantity(len(late), 'alarm')} up to {max(late, default=0.0):.1f} s overdue; "
        f"{pending:,} {'is' if pending == 1 else 'are'} still pending"
    )
