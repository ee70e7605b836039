"""Doorbell: the wake-up of a thread that drains a queue, which may be rung at any time.

The loop appends to the queue, then rings. A flag "is scheduled" that the loop sets before it
submits the drain would be wrong for good if an exception fell in between, such as one that a
signal's handler raises. Here the drain alone writes that it sleeps, and the loop may ring once too
often.

Prior art: the doorbells of network cards and NVMe; sleeping consumers that look at their queue once
more after they have announced their sleep (Dekker's algorithm).
"""

from __future__ import annotations

from collections.abc import Callable

from .._eventloop.runner import Runner


class Doorbell:
    """Wakes the drain of a queue.

    Args:
        runner: Runs the drain.
        drain: Serves the queue until it is empty. It calls `answered` first and `may_sleep` last.
        has_work: True if the queue isn't empty. Called in both threads.
    """

    __slots__ = ("_drain", "_has_work", "_is_asleep", "_rung_in", "_runner", "_sleeps")

    def __init__(
        self, runner: Runner, drain: Callable[[], None], has_work: Callable[[], object]
    ) -> None:
        self._runner = runner
        self._drain = drain
        self._has_work = has_work
        # Written in the drain's thread. The number of the sleep tells a drain that was submitted
        # in this sleep from one of an earlier sleep.
        self._is_asleep = True
        self._sleeps = 0
        # Written in the loop.
        self._rung_in = -1

    def ring(self) -> None:
        """Wake the drain if it sleeps and there is work. In the loop."""
        sleeps = self._sleeps
        if self._is_asleep and self._rung_in != sleeps and self._has_work():
            self._runner.post(self._drain)
            self._rung_in = sleeps

    def answered(self) -> None:
        """The drain is awake. In its thread."""
        self._is_asleep = False

    def may_sleep(self) -> bool:
        """True if the drain may return: there is no work, and it sleeps now. In its thread."""
        self._sleeps += 1
        self._is_asleep = True
        if self._has_work():
            # It was published when the drain wasn't asleep yet, so perhaps without a ring.
            self._is_asleep = False
        return self._is_asleep
