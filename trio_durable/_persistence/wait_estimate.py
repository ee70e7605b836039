"""Wait estimate: the expected delay in a queue, by which admission control rejects calls early.

Callers have timeouts. If they arrive faster than they are served, a queue in order grows until each
caller is served just as its timeout ends: all work is done, and no caller gets its result. Prior
art: the goodput collapse of networks and servers under overload, and admission by expected delay
(CoDel, 2012, for packets; WeChat's DAGOR, 2018, by the time that requests wait).

So a call that would end when most of its timeout is over is rejected at once. Its expected delay is
the average duration of the latest jobs, times the number of jobs up to and including its own. That
is an estimate: it rejects the clear cases, and the timeouts handle the others.
"""

from __future__ import annotations

PATIENCE = 0.7
"""The share of its timeout that a call's expected delay may take. The rest is the margin for the
estimate's error."""

_MIN_SHARE = 1 / 8
"""The smallest share of a full job from which the duration of a full one is estimated."""


class WaitEstimate:
    """The delay in a queue whose jobs run one after the other. Times in seconds, of any clock.

    Args:
        last: Roughly the number of latest jobs in the average; more if their durations differ.
    """

    __slots__ = ("_average", "_began", "_last", "_noted")

    def __init__(self, last: int = 4) -> None:
        self._last = last
        self._noted = 0
        self._average = 0.0
        self._began: float | None = None

    @property
    def is_idle(self) -> bool:
        """True if no job runs."""
        return self._began is None

    def begin(self, now: float) -> None:
        """A job begins. The job before it ends, if it hasn't yet."""
        if self._began is not None:
            self._note(now - self._began)
        self._began = now

    def end(self, now: float, share: float = 1.0) -> None:
        """The running job has ended, and enters the average.

        A job that was only a ``share`` of a full one says less: a full one takes longer, at most in
        proportion. So a share that is large enough gives an upper bound. Until a full job has
        ended, the lowest of these counts, because the first may have woken a sleeping disk.
        """
        if self._began is not None:
            took = now - self._began
            if share >= 1.0:
                self._note(took)
            elif share >= _MIN_SHARE and not self._noted:
                self._average = min(took / share, self._average or took / share)
        self._began = None

    def _note(self, took: float) -> None:
        # The first jobs have equal weight, or a long first one would count for long.
        self._noted = noted = min(self._noted + 1, self._last)
        self._average += (took - self._average) / noted

    def elapsed(self, now: float) -> float:
        """How long the running job has taken so far."""
        began = self._began  # read once, because another thread may end the job
        return 0.0 if began is None else max(now - began, 0.0)

    def wait(self, ahead: int, now: float) -> float:
        """The delay until the running job and ``ahead`` more have ended; 0 if nothing is known.

        A running job that is late counts as if it ended now.
        """
        average, began = self._average, self._began
        rest = 0.0 if began is None else average - (now - began)
        return ahead * average + rest if rest > 0.0 else ahead * average

    def wait_of_late(self, ahead: int, now: float) -> float:
        """The same, if each job takes at least as long as the running one has so far."""
        return max(self.wait(ahead, now), ahead * self.elapsed(now))
