"""How much goes into the next transaction, and when: the arithmetic of `group_commit`.

Callers go round: a transaction releases them, they come back with their next commit after a while
that the event loop needs for their turns. Left alone, this locks into one of two rhythms, and
each is right for a different disk.

- *In step*: everybody is in one transaction, then everybody is in the loop. Each sync serves all,
  but loop and disk wait for each other. Right when a sync takes longer than the turns.
- *In turns*: one half is in a transaction while the other half's turns run. Twice the syncs, but
  loop and disk work at the same time. Right when the turns take longer than a sync.

`BatchPolicy` nudges from one to the other. Prior art: ``commit_delay`` and ``commit_siblings`` of
PostgreSQL, ``binlog_group_commit_sync_delay`` of MySQL, which their users have to set by hand.
"""

from __future__ import annotations

import attrs

MIN_ROWS_TO_HALVE = 16
"""Below this, neither rhythm gains what the change costs."""

# What callers take to come back, guessed low: a wrong guess costs a part of the wait below.
RETURN_SECONDS = 100e-6
TURN_SECONDS = 10e-6

MAX_WAIT_SHARE = 0.25
"""How much of the last transaction's time may be spent waiting for more."""

DISCOURAGED_TRANSACTIONS = 32
"""Transactions for which not to wait again after nobody came."""


@attrs.define
class BatchPolicy:
    """The rhythm of one writer. Times in seconds."""

    last_rows: int = 0
    last_duration: float = 0.0
    _discouraged: int = 0

    def done(self, rows: int, duration: float) -> None:
        """Note that a transaction of ``rows`` took ``duration``."""
        self.last_rows = rows
        self.last_duration = duration

    def share(self, pending: int, idle_for: float) -> int:
        """How many of the pending commits to take.

        After the writer was idle for long enough, compared with a transaction, everybody is in
        step though the turns take longer than the disk: then one half, so that the other half
        follows in turns.
        """
        if pending >= MIN_ROWS_TO_HALVE and 2 * idle_for > self.last_duration > 0:
            return (pending + 1) // 2
        return pending

    def wait(self, pending: int) -> float:
        """How long to wait for the callers just released before taking what is pending.

        Nothing, unless the disk is so slow that going without them costs more.
        """
        expected = RETURN_SECONDS + self.last_rows * TURN_SECONDS
        if not pending or expected > self.last_duration * MAX_WAIT_SHARE:
            return 0.0
        if self._discouraged:
            self._discouraged -= 1
            return 0.0
        return expected

    def waited(self, came: int) -> None:
        """Note how many came during a wait."""
        if 2 * came < self.last_rows:
            self._discouraged = DISCOURAGED_TRANSACTIONS
