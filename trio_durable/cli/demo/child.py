"""A child process of the demo, from the parent's side."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from time import monotonic, time
from typing import TYPE_CHECKING, cast

import attrs

from .worker import TIMER_STARTED

if TYPE_CHECKING:
    from io import BufferedReader

# Python's option -m puts the current folder first in sys.path. The child runs in the folder that
# this library was imported from, so that no module of the user's folder hides another.
_HOME = Path(__file__).parents[3]


class WorkerFailed(Exception):
    """The child process ended on its own."""


@attrs.frozen
class Run:
    """The life of a child process."""

    opened_at: float
    """The time at which its runtime was open, in seconds since the epoch."""
    opened_in: int
    """The milliseconds that opening the runtime took."""
    ended_at: float
    payments: Counter[int]
    """The acknowledged transfers, by the number of the account that paid."""
    timers: int
    """The number of timers whose start was acknowledged."""

    @property
    def transfers(self) -> int:
        """The number of acknowledged transfers."""
        return self.payments.total()


def run_child(
    path: Path,
    mode: str,
    number: int,
    within: float,
    kill_after: float | None,
    report: Callable[[float], object],
) -> Run:
    """Run a child, and kill it with SIGKILL some time after its runtime has opened.

    Args:
        path: The SQLite file.
        mode: See `worker`.
        number: The number of the process, part of the ids of its timers.
        within: The longest time until a timer rings, in seconds.
        kill_after: Seconds until the kill; None to let the child end on its own.
        report: Called with the seconds of the child's life so far, many times.

    Raises:
        WorkerFailed: The child ended before the kill, or with an error.
    """
    arguments = [str(path.absolute()), mode, str(number), str(within)]
    child = subprocess.Popen(  # noqa: S603  # this interpreter, no shell
        [sys.executable, "-m", f"{__package__}.worker", *arguments],
        cwd=_HOME,
        stdout=subprocess.PIPE,
        # Control-C interrupts this process only, which then kills the child.
        start_new_session=True,
    )
    killed = threading.Event()

    def kill() -> None:
        killed.set()
        child.kill()

    with child:
        try:
            output = cast("BufferedReader", child.stdout)
            opened_in = output.readline()
            if not opened_in:
                raise WorkerFailed("the child process ended before its runtime was open")
            opened_at, began = time(), monotonic()
            # In a thread, so that the moment of the kill is independent of the bytes read here.
            killer = threading.Timer(kill_after or 0, kill)
            if kill_after is not None:
                killer.start()
            changes: Counter[int] = Counter()
            # Acknowledgements from before the kill are still in the pipe, and count.
            while data := output.read1():
                changes.update(data)
                report(monotonic() - began)
            killer.cancel()
            status = child.wait()
        finally:
            child.kill()
    if killed.is_set() != (kill_after is not None) or (kill_after is None and status):
        raise WorkerFailed(f"the child process ended with status {status}")
    timers = changes.pop(TIMER_STARTED, 0)
    return Run(opened_at, int(opened_in), time(), changes, timers)
