"""Batch policy: the size of the next transaction of `group_commit`, and the delay before it.

Callers move in circles: a transaction releases them, and they return with their next commit when
the event loop has run their turns. By itself this settles in one of two rhythms, each of which is
right for a different disk.

- *In step*: all callers are in one transaction, then all are in the loop. Each fsync serves all of
  them, but loop and disk wait for each other. Right if an fsync takes longer than the turns.
- *In turns*: one half of the callers is in a transaction while the turns of the other half run.
  That takes twice the fsyncs, but loop and disk work at the same time. Right if the turns take
  longer than an fsync.

`BatchPolicy` nudges from one to the other. Prior art: ``commit_delay`` and ``commit_siblings`` of
PostgreSQL, ``binlog_group_commit_sync_delay`` of MySQL, which their users have to set by hand.
"""

from __future__ import annotations

import attrs

MIN_ROWS_TO_HALVE = 16
"""Below this, a change of rhythm costs more than it gains."""

# How long callers take to return. Guessed low: a wrong guess costs a part of the wait below.
RETURN_SECONDS = 100e-6
TURN_SECONDS = 10e-6

MAX_WAIT_SHARE = 0.25
"""The share of the last transaction's duration that may be spent waiting for more commits."""

DISCOURAGED_TRANSACTIONS = 32
"""For how many transactions there is no wait after one in which few callers returned."""


@attrs.define
class BatchPolicy:
    """The rhythm of one writer. Times in seconds."""

    last_rows: int = 0
    last_duration: float = 0.0
    _discouraged: int = 0

    def done(self, rows: int, duration: float) -> None:
        """Record a transaction of ``rows``."""
        self.last_rows = rows
        self.last_duration = duration

    def share(self, pending: int, idle_for: float) -> int:
        """The number of pending commits to take.

        If the writer was idle for long, compared with a transaction, callers are in step although
        their turns take longer than the disk. Then it is one half, so that the other half follows
        in turns.
        """
        if pending >= MIN_ROWS_TO_HALVE and 2 * idle_for > self.last_duration > 0:
            return (pending + 1) // 2
        return pending

    def wait(self, pending: int) -> float:
        """The seconds to wait for the callers just released, before taking the pending commits.

        It is 0 unless the disk is so slow that a transaction without these callers costs more.
        """
        expected = RETURN_SECONDS + self.last_rows * TURN_SECONDS
        if not pending or expected > self.last_duration * MAX_WAIT_SHARE:
            return 0.0
        if self._discouraged:
            self._discouraged -= 1
            return 0.0
        return expected

    def waited(self, came: int) -> None:
        """Record the number of commits that came during a wait."""
        if 2 * came < self.last_rows:
            self._discouraged = DISCOURAGED_TRANSACTIONS
