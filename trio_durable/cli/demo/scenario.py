"""The demo: two banks on SQLite files, and SIGKILL while callers transfer money.

The first bank awaits two handlers for each transfer, and is killed until money is missing. The
second one sends a message. It is killed several times, with a downtime after each kill in which
timers come due. In the file that each process leaves, all money must be in accounts or in messages,
and every acknowledged change must be there. At the end all money is in accounts, and every timer
has rung once.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from time import sleep
from typing import TYPE_CHECKING

import attrs

from ..output import progress_bar
from .child import Run, run_child
from .ledger import Bank, Kill, Ledger, TimerAudit, audit_timers, read_bank

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

MAX_TRIES = 10
"""A kill that hits no transfer between its awaits is repeated so often."""


@attrs.frozen
class Pace:
    """The durations of the demo, in seconds."""

    load: float
    """From the opening of a runtime to the kill."""
    down: float
    """From the kill to the next process."""

    @property
    def within(self) -> float:
        """The longest time until a timer rings: some do before the kill, some much later."""
        return self.load + 2 * self.down


@attrs.frozen
class Outcome:
    """The bank by messages: each kill, and the end."""

    kills: list[Kill]
    restarts: list[int]
    """The milliseconds in which the runtime opened the file after each kill."""
    end: Bank
    timers: TimerAudit

    @property
    def faults(self) -> dict[str, int]:
        """The broken guarantees, by kind; empty if none is."""
        counts = {
            "acknowledged changes lost": sum(kill.lost for kill in self.kills),
            "sums off": sum(bank.missing != 0 for bank in [*self._banks, self.end]),
            "amount undelivered": self.end.in_messages,
            "timers missing": self.timers.missing,
            "timers rang twice": self.timers.twice,
            "timers rang early": self.timers.early,
        }
        return {fault: count for fault, count in counts.items() if count}

    @property
    def transfers(self) -> int:
        """The number of acknowledged transfers."""
        return sum(kill.run.transfers for kill in self.kills)

    @property
    def _banks(self) -> list[Bank]:
        return [kill.bank for kill in self.kills]


class Stage:
    """Runs processes one after the other, with a progress bar on a terminal."""

    def __init__(self, pace: Pace, console: Console) -> None:
        self._pace = pace
        self._console = console

    def kill_until_money_is_missing(self, folder: Path) -> list[Kill]:
        """Kill the bank that awaits, each time on a new file, until a kill has taken money."""
        kills: list[Kill] = []
        while len(kills) < MAX_TRIES and not (kills and kills[-1].bank.missing):
            path = folder / f"awaits-{len(kills)}.db"
            run = self._run(path, "awaits", len(kills), self._pace.load)
            kills.append(Kill(run, read_bank(path), lost=0))
        return kills

    def kill_and_restart(
        self,
        path: Path,
        kills: int,
        on_kill: Callable[[Kill], object],
        mode: str = "message",
    ) -> Outcome:
        """Kill a bank several times on one file, and let the last process finish the work."""
        ledger, audits, runs = Ledger(), list[Kill](), list[Run]()
        for number in range(kills):
            run = self._run(path, mode, number, self._pace.load)
            runs.append(run)
            audits.append(ledger.audit(run, read_bank(path)))
            on_kill(audits[-1])
            with self._progress("down", self._pace.down):
                sleep(self._pace.down)
        runs.append(self._run(path, "rest", kills, None))
        end = read_bank(path)
        restarts = [run.opened_in for run in runs[1:]]
        return Outcome(audits, restarts, end, audit_timers(end.timers, runs))

    def _run(self, path: Path, mode: str, number: int, seconds: float | None) -> Run:
        text = "delivering messages" if seconds is None else "transferring"
        with self._progress(text, seconds) as progress:
            return run_child(
                path,
                mode,
                number,
                self._pace.within,
                seconds,
                lambda elapsed: progress.update(progress.task_ids[0], completed=elapsed),
            )

    def _progress(self, text: str, seconds: float | None) -> Progress:
        progress = progress_bar(self._console)
        progress.add_task(text, total=seconds)
        return progress
