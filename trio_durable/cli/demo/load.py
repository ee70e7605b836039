"""The load on a child, up to its kill."""

from __future__ import annotations

import random
import threading
from time import monotonic

import attrs
from rich.progress import Progress

from .child import Worker, WorkerFailed
from .ledger import Ledgers
from .protocol import ALARM, CALLS_PER_TASK

# Requests that are under way together. Few enough that neither pipe ever fills up, so that neither
# process ever waits for the other while that waits for it.
MAX_UNDER_WAY = 1024
CALLERS = MAX_UNDER_WAY // CALLS_PER_TASK
ALARMS_PER_SECOND = 100


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
