"""Kill a process under load, again and again, and count what is left: ``python -m examples.demo``.

A child process keeps a few thousand durable objects in an SQLite file and serves a stream of
calls, each of which changes one object. This process sends the calls, notes which of them were
acknowledged, and kills the child with SIGKILL in the middle of it. Then it starts the next child
on the same file and compares: every acknowledged change must be there, every other one wholly or
not at all.
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
from collections.abc import Sequence
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Self

import attrs
from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from .demo_worker import AMOUNT, CALLS_PER_TASK

# Requests that are under way together. Few enough that neither pipe ever fills up, so that neither
# process ever waits for the other while that waits for it.
MAX_UNDER_WAY = 1024


class WorkerFailed(Exception):
    """The child ended by itself, which nobody asked it to do."""


class Worker:
    """The child process. Starting it waits until it has reported what it found in the file."""

    def __init__(self, path: Path, accounts: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"{__package__}.demo_worker", str(path), str(accounts)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            # Control-C is for this process, which kills the other one itself.
            start_new_session=True,
        )
        self.killed = False
        self._rest = b""
        try:
            self.found: list[tuple[int, int]] = json.loads(self._read_line())
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

    def request(self, accounts: Sequence[int]) -> None:
        """Ask for a deposit on each of these accounts."""
        assert self._process.stdin is not None
        # If it is dead, that is noticed when there is nothing more to read.
        with contextlib.suppress(OSError):
            self._process.stdin.write(array("I", accounts).tobytes())

    def acknowledged(self) -> array[int]:
        """Pairs of account and microseconds; none when the child has ended."""
        data = self._rest + self._read()
        whole = len(data) // 8 * 8
        self._rest = data[whole:]
        return array("I", data[:whole])

    def kill(self) -> None:
        """SIGKILL. What it wrote before can still be read."""
        self.killed = True
        self._process.kill()

    def finish(self) -> None:
        """Let it close its runtime and end."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        if self._process.wait(timeout=30) != 0:
            raise WorkerFailed(f"it ended with status {self._process.returncode}")

    def _read(self) -> bytes:
        assert self._process.stdout is not None
        return self._process.stdout.read(1 << 16) or b""

    def _read_line(self) -> bytes:
        line = b""
        while not line.endswith(b"\n"):
            part = self._read()
            if not part:
                raise WorkerFailed("it ended before it was ready")
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
    """Unanswered changes that are there, wholly; the others are not at all."""
    missing: int
    """Acknowledged changes that are gone."""
    surplus: int
    """Changes that nobody requested."""
    torn: int
    """Objects that show half a change."""

    @property
    def is_clean(self) -> bool:
        """Whether the promise was kept."""
        return not (self.missing or self.surplus or self.torn)


class Ledger:
    """How many deposits were requested and acknowledged, account by account."""

    def __init__(self, accounts: int) -> None:
        self._before = [0] * accounts
        self._requested = [0] * accounts
        self._acknowledged = [0] * accounts

    def request(self, accounts: Sequence[int]) -> None:
        """Note requests."""
        for account in accounts:
            self._requested[account] += 1

    def acknowledge(self, accounts: Sequence[int]) -> None:
        """Note acknowledgements."""
        for account in accounts:
            self._acknowledged[account] += 1

    def audit(self, found: Sequence[tuple[int, int]]) -> Audit:
        """Compare with what is ``found`` after a restart, and go on from there."""
        recovered = completed = missing = surplus = torn = 0
        for (deposits, balance), before, acknowledged, requested in zip(
            found, self._before, self._acknowledged, self._requested, strict=True
        ):
            new = deposits - before
            recovered += max(0, min(new, acknowledged))
            completed += max(0, min(new, requested) - acknowledged)
            missing += max(0, acknowledged - new)
            surplus += max(0, new - requested)
            torn += balance != deposits * AMOUNT
        total_acknowledged = sum(self._acknowledged)
        unanswered = sum(self._requested) - total_acknowledged
        self._before = [deposits for deposits, _ in found]
        self._requested = [0] * len(found)
        self._acknowledged = [0] * len(found)
        return Audit(total_acknowledged, unanswered, recovered, completed, missing, surplus, torn)


@attrs.frozen
class Load:
    """What the calls of one child's life were like."""

    calls: int
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


def load_and_kill(worker: Worker, ledger: Ledger, seconds: float, progress: Progress) -> Load:
    """Send calls for so many seconds, then kill the child in the middle of them."""
    accounts = range(len(worker.found))
    latencies: list[int] = []
    requested = 0
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
                chosen = random.choices(accounts, k=room)
                # Noted first, because what is in the pipe may be carried out.
                ledger.request(chosen)
                worker.request(chosen)
                requested += room
            # What the child acknowledged before it died is still in the pipe, and counts.
            pairs = worker.acknowledged()
            if not pairs:
                break
            ledger.acknowledge(pairs[::2])
            latencies.extend(pairs[1::2])
            now = monotonic() - began
            progress.advance(task, now - elapsed)
            elapsed = now
    finally:
        killer.cancel()
    if not worker.killed:
        raise WorkerFailed("it ended under load")
    return Load(len(latencies), elapsed, sorted(latencies))


def run(
    path: Path, objects: int, kills: int, seconds: float, console: Console
) -> list[tuple[Load, Audit]]:
    """Let ``kills`` children die, one after the other, and audit what each has left behind."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        TextColumn("{task.percentage:3.0f} %"),
        TimeElapsedColumn(),
    )
    ledger = Ledger(objects)
    rounds: list[tuple[Load, Audit]] = []
    # A bar is for eyes: in a file or a pipe it would be noise.
    with Progress(
        *columns, console=console, transient=True, expand=True, disable=not console.is_terminal
    ) as progress:
        task = progress.add_task("starting", total=kills * seconds)
        load = None
        while True:
            with Worker(path, objects) as worker:
                audit = ledger.audit(worker.found)
                if load is not None:
                    rounds.append((load, audit))
                    console.print(
                        f"process {worker.pid} found {audit.recovered:,} of them, and "
                        f"{audit.completed:,} that were not answered"
                    )
                if len(rounds) == kills:
                    worker.finish()
                    return rounds
                progress.update(task, description=f"load {len(rounds) + 1} of {kills}")
                load = load_and_kill(worker, ledger, seconds, progress)
                console.print(f"process {worker.pid} killed after {load.calls:,} acknowledgements")


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


def survival_table(audits: Sequence[Audit]) -> Table:
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
    for number, audit in enumerate(audits, 1):
        table.add_row(
            str(number),
            f"{audit.acknowledged:,}",
            f"{audit.recovered:,}",
            number_of(audit.missing),
            f"{audit.unanswered:,}",
            f"{audit.completed:,}",
            f"{audit.unanswered - audit.completed:,}",
            number_of(audit.torn),
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


def verdict_on(audits: Sequence[Audit]) -> Text:
    """The last line."""
    acknowledged = sum(audit.acknowledged for audit in audits)
    faults = {
        "missing": sum(audit.missing for audit in audits),
        "never requested": sum(audit.surplus for audit in audits),
        "torn": sum(audit.torn for audit in audits),
    }
    if not any(faults.values()):
        return Text(
            f"PASSED: kills: {len(audits)}, acknowledged changes: {acknowledged:,}; "
            "none missing, doubled or torn.",
            style="bold green",
        )
    counted = ", ".join(f"{count:,} {fault}" for fault, count in faults.items() if count)
    return Text(f"FAILED: of {acknowledged:,} acknowledged changes: {counted}", style="bold red")


def main() -> int:
    """Run the demo; 0 if every promise was kept."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.demo", description=(__doc__ or "").partition("\n\n")[2]
    )
    parser.add_argument("--kills", type=int, default=4, help="how many (default 4)")
    parser.add_argument(
        "--seconds", type=float, default=3.5, help="of load before each kill (default 3.5)"
    )
    parser.add_argument("--objects", type=int, default=3000, help="how many (default 3,000)")
    options = parser.parse_args()
    console = Console(highlight=False)
    console.print(
        f"{options.objects:,} durable objects in one SQLite file, every commit synced to disk.\n"
        f"{MAX_UNDER_WAY // CALLS_PER_TASK} callers; {options.kills} times {options.seconds:g} s "
        "of load, each ended by SIGKILL.\n"
    )
    try:
        with tempfile.TemporaryDirectory(prefix="trio_durable-demo-") as folder:
            rounds = run(
                Path(folder, "demo.db"), options.objects, options.kills, options.seconds, console
            )
    except WorkerFailed as failure:
        console.print(f"FAILED: the child process went wrong: {failure}", style="bold red")
        return 1
    except KeyboardInterrupt:
        console.print("interrupted")
        return 130
    audits = [audit for _, audit in rounds]
    console.print(speed_table([load for load, _ in rounds]))
    console.print(survival_table(audits))
    console.print(
        "In flight: requested, but not acknowledged when the process died. Each of these\n"
        "changes may be there wholly or not at all. Half: objects that show part of one.\n"
    )
    console.print(verdict_on(audits))
    return 0 if all(audit.is_clean for audit in audits) else 1


if __name__ == "__main__":
    sys.exit(main())
