"""The load on a child process until it is killed."""

from __future__ import annotations

import random
import threading
from time import monotonic
from typing import TYPE_CHECKING

import attrs

from .child import Worker, WorkerFailed
from .ledger import Ledgers
from .protocol import ALARM, CALLS_PER_TASK

if TYPE_CHECKING:
    from rich.progress import Progress

MAX_IN_FLIGHT = 1024
"""The number of concurrent requests. So few never fill a pipe, so the processes can't deadlock."""
CALLERS = MAX_IN_FLIGHT // CALLS_PER_TASK
ALARMS_PER_SECOND = 100


@attrs.frozen
class Load:
    """Statistics of the calls to one child process."""

    calls: int
    alarms: int
    """The number of calls that set an alarm."""
    seconds: float
    latencies: list[int]
    """In microseconds, ascending."""

    @property
    def calls_per_second(self) -> float:
        """The rate of all callers together."""
        return self.calls / self.seconds

    def percentile(self, percent: float) -> float:
        """A percentile of the latencies, in milliseconds."""
        if not self.latencies:
            return 0.0
        return self.latencies[int((len(self.latencies) - 1) * percent / 100)] / 1000


def load_and_kill(worker: Worker, ledgers: Ledgers, seconds: float, progress: Progress) -> Load:
    """Send calls for ``seconds``, then kill the child while calls are in flight."""
    accounts = range(len(worker.found.transfers))
    diaries = range(len(worker.found.reminders))
    latencies: list[int] = []
    requested = alarms = alarms_acknowledged = 0
    [task] = progress.task_ids
    began = monotonic()
    elapsed = 0.0
    # In a thread, so that the moment of the kill is independent of the requests sent and read here.
    killer = threading.Timer(seconds, worker.kill)
    killer.start()
    try:
        while True:
            room = MAX_IN_FLIGHT - (requested - len(latencies))
            if room >= CALLS_PER_TASK and not worker.killed:
                alarms_now = min(room, int(elapsed * ALARMS_PER_SECOND) - alarms)
                chosen = [ALARM | number for number in random.choices(diaries, k=alarms_now)]
                chosen += random.choices(accounts, k=room - alarms_now)
                # Recorded first, because the child may carry out any request in the pipe.
                ledgers.request(chosen)
                worker.request(chosen)
                requested += room
                alarms += alarms_now
            # Acknowledgements from before the kill are still in the pipe, and count.
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
        raise WorkerFailed("the child process ended under load")
    # A slow machine may have acknowledged nothing until the kill.
    return Load(len(latencies), alarms_acknowledged, elapsed or seconds, sorted(latencies))
