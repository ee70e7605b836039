"""The sequence of the demo: load, kill, downtime, restart and audit.

A child process keeps a few thousand durable objects in an SQLite file and serves calls. A call
takes money from one account and sends it to another one in a message, or it sets an alarm of a
diary. The parent process sends the calls, records which of them are acknowledged, and kills the
child with SIGKILL under load.

Then the parent reads the file. The money in accounts, in messages on their way and in dead letters
must add up to what the accounts had at first, and each transfer must be in one of them. After some
downtime, in which alarms become due, the next child starts on the same file. Every acknowledged
change must be stored, any other change completely or not at all, and every alarm must fire once: at
its time, or when the next child starts.
"""

from __future__ import annotations

from pathlib import Path
from time import sleep
from typing import TYPE_CHECKING

from ..output import progress_bar, quantity
from .bank import Bank, read_bank
from .child import Worker
from .ledger import Arrivals, Audit, Ledgers, MoneyAudit, audit_alarms
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
    transfers: list[Audit] = []
    alarms: list[Audit] = []
    arrivals = Arrivals(accounts)
    money: list[MoneyAudit] = []
    with progress_bar(console) as progress:
        task = progress.add_task("starting", total=kills * (seconds + dead))
        while True:
            with Worker(path, accounts, diaries, within) as worker:
                up_at[worker.pid] = worker.found.at
                audit = ledgers.transfers.audit(worker.found.transfers)
                alarm_audit = ledgers.alarms.audit(list(map(len, worker.found.reminders)))
                if processes:
                    transfers.append(audit)
                    alarms.append(alarm_audit)
                    report_found(worker, audit, money[-1].bank, console)
                if len(processes) == kills:
                    progress.update(task, description="waiting for what is left")
                    last = worker.finish()
                    break
                processes.append(worker.pid)
                progress.update(task, description=f"load {len(processes)} of {kills}")
                load = load_and_kill(worker, ledgers, seconds, progress)
                loads.append(load)
            console.print(
                f"process {worker.pid}: killed after "
                f"{quantity(load.calls - load.alarms, 'acknowledged transfer')} "
                f"and {quantity(load.alarms, 'alarm')};"
            )
            money.append(arrivals.audit(read_bank(path, accounts)))
            report_money(money[-1].bank, console)
            progress.update(task, description=f"down for {dead:g} s")
            sleep(dead)
            progress.advance(task, dead)
    money.append(arrivals.audit(read_bank(path, accounts)))
    return Outcome(
        loads,
        transfers,
        money,
        [
            audit_alarms(last, process, up_at, lost=audit.missing)
            for process, audit in zip(processes, alarms, strict=True)
        ],
        sum(audit.surplus for audit in alarms),
    )


def report_money(bank: Bank, console: Console) -> None:
    """Print where the money is in the file that a child has left."""
    console.print(
        f"  {bank.in_accounts:,} in accounts + {bank.in_messages:,} on the way "
        f"+ {bank.in_dead_letters:,} in dead letters = {bank.total:,}"
    )


def report_found(worker: Worker, audit: Audit, bank: Bank, console: Console) -> None:
    """Print the data that a new child found, the messages it delivered, and its alarms."""
    found = worker.found
    late = [
        fired_at - reminder.due_at
        for reminder in found.all_reminders
        for process, fired_at in reminder.fired
        if process == worker.pid
    ]
    pending = sum(not reminder.fired for reminder in found.all_reminders)
    console.print(
        f"process {worker.pid}: found {quantity(audit.recovered, 'acknowledged transfer')} and "
        f"{audit.completed:,} in flight;\n"
        f"  delivered {quantity(bank.waiting - found.waiting, 'message')} that waited;\n"
        f"  fired {quantity(len(late), 'alarm')} up to {max(late, default=0.0):.1f} s overdue; "
        f"{pending:,} {'is' if pending == 1 else 'are'} still pending"
    )
