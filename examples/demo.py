"""Kill a process under load, again and again, and count what is left: ``python -m examples.demo``.

A child process keeps a few thousand durable objects in an SQLite file and serves a stream of
calls, each of which changes one object; some of them set an alarm. This process sends the calls,
notes which of them were acknowledged, and kills the child with SIGKILL in the middle of it. It lets
a moment pass, in which alarms come due with nobody there. Then it starts the next child on the same
file and compares: every acknowledged change must be there, every other one wholly or not at all,
and every alarm must fire once, at its time or as soon as there is somebody again.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import subprocess
import sys
import tempfile
import threading
from array import array
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from statistics import median
from time import monotonic, sleep
from types import TracebackType
from typing import Self

import attrs
from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from .demo_worker import ALARM, AMOUNT, CALLS_PER_TASK

# Requests that are under way together. Few enough that neither pipe ever fills up, so that neither
# process ever waits for the other while that waits for it.
MAX_UNDER_WAY = 1024
ALARMS_PER_SECOND = 100


class WorkerFailed(Exception):
    """The child ended by itself, which nobody asked it to do."""


@attrs.frozen
class Reminder:
    """An alarm that was set, as the file has it."""

    set_by: int
    """The id of the process."""
    due_at: float
    fired: list[tuple[int, float]]
    """Process and time, of each time that it was handled."""


@attrs.frozen
class Report:
    """What a child found in the file, once it had let fire what was overdue."""

    at: float
    deposits: list[int]
    """By account."""
    torn: int
    """Accounts that show half a deposit."""
    reminders: list[list[Reminder]]
    """By diary."""

    @classmethod
    def of(cls, line: bytes) -> Report:
        """The report that a child wrote."""
        at, accounts, diaries = json.loads(line)
        return cls(
            at,
            [deposits for deposits, _ in accounts],
            sum(balance != deposits * AMOUNT for deposits, balance in accounts),
            [[Reminder(*each) for each in reminders] for reminders in diaries],
        )

    @property
    def all_reminders(self) -> Iterable[Reminder]:
        """Of all diaries."""
        return chain.from_iterable(self.reminders)


class Worker:
    """The child process. Starting it waits until it has reported what it found in the file."""

    def __init__(self, path: Path, accounts: int, diaries: int, within: float) -> None:
        arguments = [str(path), str(accounts), str(diaries), str(within)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"{__package__}.demo_worker", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            # Control-C is for this process, which kills the other one itself.
            start_new_session=True,
        )
        self.killed = False
        self._rest = b""
        try:
            self.found = Report.of(self._read_line())
        except BaseException:
            self.__exit__(None, None, None)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._process:  # closes the pipes and waits
            self._process.kill()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def request(self, requests: Sequence[int]) -> None:
        """Ask for deposits on accounts; or, where `ALARM` is added, for alarms of diaries."""
        assert self._process.stdin is not None
        # If it is dead, that is noticed when there is nothing more to read.
        with contextlib.suppress(OSError):
            self._process.stdin.write(array("I", requests).tobytes())

    def acknowledged(self) -> array[int]:
        """Pairs of a request and microseconds; none when the child has ended."""
        data = self._rest + self._read()
        whole = len(data) // 8 * 8
        self._rest = data[whole:]
        return array("I", data[:whole])

    def kill(self) -> None:
        """SIGKILL. What it wrote before can still be read."""
        self.killed = True
        self._process.kill()

    def finish(self) -> Report:
        """Let it wait for the last alarms, look around again, close its runtime and end."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        report = Report.of(self._read_line())
        if self._process.wait(timeout=30) != 0:
            raise WorkerFailed(f"it ended with status {self._process.returncode}")
        return report

    def _read(self) -> bytes:
        assert self._process.stdout is not None
        return self._process.stdout.read(1 << 16) or b""

    def _read_line(self) -> bytes:
        line = b""
        while not line.endswith(b"\n"):
            part = self._read()
            if not part:
                raise WorkerFailed("it ended before it had reported")
            line += part
        return line


@attrs.frozen
class Audit:
    """What a new child found, compared with what was promised since the last look."""

    acknowledged: int
    unanswered: int
    """Requested, and not acknowledged when the process died."""
    recovered: int
    """Acknowledged changes that are there."""
    completed: int
    """Unanswered changes that are there."""
    missing: int
    """Acknowledged changes that are gone."""
    surplus: int
    """Changes that nobody requested."""


class Ledger:
    """How many changes of one kind were requested and acknowledged, object by object."""

    def __init__(self, objects: int) -> None:
        self._before = [0] * objects
        self._requested = [0] * objects
        self._acknowledged = [0] * objects

    def request(self, objects: Iterable[int]) -> None:
        """Note requests."""
        for number in objects:
            self._requested[number] += 1

    def acknowledge(self, objects: Iterable[int]) -> None:
        """Note acknowledgements."""
        for number in objects:
            self._acknowledged[number] += 1

    def audit(self, found: Sequence[int]) -> Audit:
        """Compare with how many are ``found`` after a restart, and go on from there."""
        recovered = completed = missing = surplus = 0
        for count, before, acknowledged, requested in zip(
            found, self._before, self._acknowledged, self._requested, strict=True
        ):
            new = count - before
            recovered += max(0, min(new, acknowledged))
            completed += max(0, min(new, requested) - acknowledged)
            missing += max(0, acknowledged - new)
            surplus += max(0, new - requested)
        total_acknowledged = sum(self._acknowledged)
        unanswered = sum(self._requested) - total_acknowledged
        self._before = list(found)
        self._requested = [0] * len(found)
        self._acknowledged = [0] * len(found)
        return Audit(total_acknowledged, unanswered, recovered, completed, missing, surplus)


class Ledgers:
    """The ledgers of deposits and of alarms."""

    def __init__(self, accounts: int, diaries: int) -> None:
        self.deposits = Ledger(accounts)
        self.alarms = Ledger(diaries)

    def request(self, requests: Sequence[int]) -> None:
        """Note requests of both kinds."""
        self.deposits.request(request for request in requests if not request & ALARM)
        self.alarms.request(request ^ ALARM for request in requests if request & ALARM)

    def acknowledge(self, requests: Sequence[int]) -> int:
        """Note acknowledgements of both kinds; how many are of alarms."""
        self.deposits.acknowledge(request for request in requests if not request & ALARM)
        alarms = [request ^ ALARM for request in requests if request & ALARM]
        self.alarms.acknowledge(alarms)
        return len(alarms)


@attrs.frozen
class AlarmAudit:
    """What became of the alarms that one child has set, when all is over."""

    before: int
    """Fired before the kill."""
    while_dead: list[float]
    """How many seconds late those were that came due while nobody was there."""
    after: list[float]
    """The same of those that came due in a later child's life."""
    missing: int
    """Set, but never fired; or acknowledged, but gone."""
    doubled: int
    """Fired more than once."""
    early: int

    @property
    def fired(self) -> int:
        """All that fired."""
        return self.before + len(self.while_dead) + len(self.after)


def audit_alarms(last: Report, process: int, up_at: Mapping[int, float], lost: int) -> AlarmAudit:
    """What the last report says of the alarms that a process set.

    Args:
        last: The report.
        process: The process.
        up_at: When each process had started.
        lost: How many of the alarms that were acknowledged aren't in the file.
    """
    before = doubled = early = 0
    while_dead: list[float] = []
    after: list[float] = []
    for reminder in last.all_reminders:
        if reminder.set_by != process:
            continue
        if not reminder.fired:
            lost += 1
            continue
        doubled += len(reminder.fired) > 1
        fired_by, fired_at = reminder.fired[0]
        early += fired_at < reminder.due_at
        if fired_by == process:
            before += 1
        elif reminder.due_at < up_at[fired_by]:
            while_dead.append(fired_at - reminder.due_at)
        else:
            after.append(fired_at - reminder.due_at)
    return AlarmAudit(before, while_dead, after, lost, doubled, early)


@attrs.frozen
class Load:
    """What the calls of one child's life were like."""

    calls: int
    alarms: int
    """How many of the calls have set one."""
    seconds: float
    latencies: list[int]
    """In microseconds, sorted."""

    @property
    def calls_per_second(self) -> float:
        """All callers together."""
        return self.calls / self.seconds

    def percentile(self, percent: float) -> float:
        """The latency in milliseconds that so many of the calls stayed within."""
        if not self.latencies:
            return 0.0
        return self.latencies[int((len(self.latencies) - 1) * percent / 100)] / 1000


def load_and_kill(worker: Worker, ledgers: Ledgers, seconds: float, progress: Progress) -> Load:
    """Send calls for so many seconds, then kill the child in the middle of them."""
    accounts = range(len(worker.found.deposits))
    diaries = range(len(worker.found.reminders))
    latencies: list[int] = []
    requested = alarms = alarms_acknowledged = 0
    [task] = progress.task_ids
    began = monotonic()
    elapsed = 0.0
    # From a thread, so that the moment of the kill has nothing to do with what was sent or read
    # last.
    killer = threading.Timer(seconds, worker.kill)
    killer.start()
    try:
        while True:
            room = MAX_UNDER_WAY - (requested - len(latencies))
            if room >= CALLS_PER_TASK and not worker.killed:
                alarms_now = min(room, int(elapsed * ALARMS_PER_SECOND) - alarms)
                chosen = [ALARM | number for number in random.choices(diaries, k=alarms_now)]
                chosen += random.choices(accounts, k=room - alarms_now)
                # Noted first, because what is in the pipe may be carried out.
                ledgers.request(chosen)
                worker.request(chosen)
                requested += room
                alarms += alarms_now
            # What the child acknowledged before it died is still in the pipe, and counts.
            pairs = worker.acknowledged()
            if not pairs:
                break
            alarms_acknowledged += ledgers.acknowledge(pairs[::2])
            latencies.extend(pairs[1::2])
            now = monotonic() - began
            progress.advance(task, now - elapsed)
            elapsed = now
    finally:
        killer.cancel()
    if not worker.killed:
        raise WorkerFailed("it ended under load")
    return Load(len(latencies), alarms_acknowledged, elapsed, sorted(latencies))


@attrs.frozen
class Outcome:
    """What there is to show in the end. One entry for each kill."""

    loads: list[Load]
    deposits: list[Audit]
    torn: list[int]
    """Accounts that showed half a deposit."""
    alarms: list[AlarmAudit]
    alarms_surplus: int
    """Alarms that nobody requested."""

    @property
    def faults(self) -> dict[str, int]:
        """Promises that were not kept."""
        return {
            "missing": sum(a.missing for a in self.deposits) + sum(a.missing for a in self.alarms),
            "never requested": sum(a.surplus for a in self.deposits) + self.alarms_surplus,
            "torn": sum(self.torn),
            "doubled": sum(audit.doubled for audit in self.alarms),
            "early": sum(audit.early for audit in self.alarms),
        }


def run(
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
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        TextColumn("{task.percentage:3.0f} %"),
        TimeElapsedColumn(),
    )
    ledgers = Ledgers(accounts, diaries)
    processes: list[int] = []
    up_at: dict[int, float] = {}
    loads: list[Load] = []
    deposits: list[Audit] = []
    alarms: list[Audit] = []
    torn: list[int] = []
    # A bar is for eyes: in a file or a pipe it would be noise.
    with Progress(
        *columns, console=console, transient=True, expand=True, disable=not console.is_terminal
    ) as progress:
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


def speed_table(loads: Sequence[Load]) -> Table:
    """How fast it was before and after each kill."""
    table = table_with("life", "calls/s", "p50", "p99")
    for number, load in enumerate(loads, 1):
        table.add_row(
            str(number),
            f"{load.calls_per_second:,.0f}",
            f"{load.percentile(50):.1f} ms",
            f"{load.percentile(99):.1f} ms",
        )
    return table


def survival_table(audits: Sequence[Audit], torn: Sequence[int]) -> Table:
    """What came through each kill."""
    table = table_with(
        "kill",
        "acknowledged",
        "found again",
        "missing",
        "in flight",
        "whole",
        "not at all",
        "half",
    )
    for number, (audit, halves) in enumerate(zip(audits, torn, strict=True), 1):
        table.add_row(
            str(number),
            f"{audit.acknowledged:,}",
            f"{audit.recovered:,}",
            number_of(audit.missing),
            f"{audit.unanswered:,}",
            f"{audit.completed:,}",
            f"{audit.unanswered - audit.completed:,}",
            number_of(halves),
        )
    return table


def alarm_table(audits: Sequence[AlarmAudit]) -> Table:
    """What became of the alarms that were set before each kill."""
    table = table_with(
        "kill", "set", "before", "while dead", "late by", "after", "late by", "missing", "doubled"
    )
    for number, audit in enumerate(audits, 1):
        table.add_row(
            str(number),
            f"{audit.fired + audit.missing:,}",
            f"{audit.before:,}",
            f"{len(audit.while_dead):,}",
            f"{min(audit.while_dead, default=0.0):.1f}-{max(audit.while_dead, default=0.0):.1f} s",
            f"{len(audit.after):,}",
            f"{median(audit.after or [0.0]) * 1000:.1f} ms",
            number_of(audit.missing),
            number_of(audit.doubled),
        )
    return table


def table_with(*headings: str) -> Table:
    """An empty table of numbers."""
    table = Table(box=box.SIMPLE_HEAD, collapse_padding=True)
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def number_of(faults: int) -> Text:
    """A count that should be 0."""
    return Text(f"{faults:,}", style="green" if faults == 0 else "bold red")


def verdict_on(outcome: Outcome) -> Text:
    """The last line."""
    counted = (
        f"kills: {len(outcome.loads)}, "
        f"deposits: {sum(audit.acknowledged for audit in outcome.deposits):,}, "
        f"alarms: {sum(audit.fired for audit in outcome.alarms):,}"
    )
    faults = ", ".join(f"{count:,} {fault}" for fault, count in outcome.faults.items() if count)
    if not faults:
        return Text(f"PASSED: {counted}; none lost, doubled or torn.", style="bold green")
    return Text(f"FAILED: {counted}; of these {faults}", style="bold red")


def main() -> int:
    """Run the demo; 0 if every promise was kept."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.demo", description=(__doc__ or "").partition("\n\n")[2]
    )
    parser.add_argument("--kills", type=int, default=4, help="how many (default 4)")
    parser.add_argument(
        "--seconds", type=float, default=3.0, help="of load before each kill (default 3)"
    )
    parser.add_argument(
        "--within", type=float, default=3.0, help="how many seconds alarms are due (default 3)"
    )
    parser.add_argument(
        "--dead", type=float, default=1.0, help="how many seconds nobody is there (default 1)"
    )
    parser.add_argument(
        "--objects", type=int, default=3000, help="how many accounts (default 3,000)"
    )
    options = parser.parse_args()
    diaries = max(1, options.objects // 10)
    console = Console(highlight=False)
    console.print(
        f"{options.objects:,} accounts and {diaries:,} diaries are durable objects in one SQLite "
        "file, every commit synced to disk. "
        f"{MAX_UNDER_WAY // CALLS_PER_TASK} callers make deposits on accounts and let diaries set "
        f"alarms that are due within {options.within:g} s. {options.kills} times, after "
        f"{options.seconds:g} s of this, SIGKILL ends the process; then nobody is there for "
        f"{options.dead:g} s, and alarms come due meanwhile.\n"
    )
    try:
        with tempfile.TemporaryDirectory(prefix="trio_durable-demo-") as folder:
            outcome = run(
                Path(folder, "demo.db"),
                options.objects,
                diaries,
                options.kills,
                options.seconds,
                options.within,
                options.dead,
                console,
            )
    except WorkerFailed as failure:
        console.print(f"FAILED: the child process went wrong: {failure}", style="bold red")
        return 1
    except KeyboardInterrupt:
        console.print("interrupted")
        return 130
    console.print(speed_table(outcome.loads))
    console.print(survival_table(outcome.deposits, outcome.torn))
    console.print(
        "In flight: requested, but not acknowledged when the process died. Each of these\n"
        "changes may be there wholly or not at all. Half: objects that show part of one."
    )
    console.print(alarm_table(outcome.alarms))
    console.print(
        "Alarms that were set. Before: they fired before the kill. While dead: they came\n"
        "due when nobody was there, so the next process fired them when it started.\n"
        "After: they came due later and fired at their time, in the median late by this.\n"
    )
    console.print(verdict_on(outcome))
    return 1 if any(outcome.faults.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
