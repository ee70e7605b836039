"""How long those who wait in a line will wait, so that it is told at its end and not in vain.

Callers wait for a while and then are gone. If more come than can be served, then in a line that is
served in order all wait until just before that: each is served when it is about to give up, and
nobody gets an answer any more though everybody is worked for. Prior art: the goodput collapse of
networks and of servers under overload, and admission by expected delay (CoDel, 2012, for packets;
WeChat's DAGOR, 2018, by the time that requests wait).

So who would be done when nearly all its time is over isn't let in. What is expected is the time
that all before it need, and it itself, if each takes what the last ones took on the average. It is
no more than an estimate: it refuses the clear cases, and the timeouts remain.
"""

from __future__ import annotations

PATIENCE = 0.7
"""The share of its timeout that a call may be expected to take. The rest is for what the estimate
is off by."""

_MIN_SHARE = 1 / 8
"""The least share of a whole one that tells how long a whole one takes."""


class WaitEstimate:
    """What is done one after the other. Times in seconds, of whatever clock.

    Args:
        last: Over about how many the average goes; more where they are of different lengths.
    """

    __slots__ = ("_average", "_began", "_last", "_noted")

    def __init__(self, last: int = 4) -> None:
        self._last = last
        self._noted = 0
        self._average = 0.0
        self._began: float | None = None

    def begin(self, now: float) -> None:
        """One begins; the one before it, if that hasn't ended yet, ends."""
        if self._began is not None:
            self._note(now - self._began)
        self._began = now

    def end(self, now: float, share: float = 1.0) -> None:
        """The one that began has ended; it goes into the average.

        If it was less than a whole one, a ``share`` of it, a whole one would have taken longer, but
        who knows by how much: at most in proportion. So, if it was large enough, it is a guess, the
        lowest of which counts until a whole one has ended: one that woke a sleeping disk says
        nothing of those after it.
        """
        if self._began is not None:
            took = now - self._began
            if share >= 1.0:
                self._note(took)
            elif share >= _MIN_SHARE and not self._noted:
                self._average = min(took / share, self._average or took / share)
        self._began = None

    def _note(self, took: float) -> None:
        # All alike at first, or a first one that was long would count for long.
        self._noted = noted = min(self._noted + 1, self._last)
        self._average += (took - self._average) / noted

    def elapsed(self, now: float) -> float:
        """For how long one has been under way."""
        began = self._began  # once: another thread may end it
        return 0.0 if began is None else max(now - began, 0.0)

    def wait(self, ahead: int, now: float) -> float:
        """How long until the one under way and ``ahead`` more have ended; 0 if nothing is known.

        Whether the one under way takes longer than the others doesn't matter.
        """
        average, began = self._average, self._began
        rest = 0.0 if began is None else average - (now - began)
        return ahead * average + rest if rest > 0.0 else ahead * average

    def wait_of_late(self, ahead: int, now: float) -> float:
        """The same, if each takes as long at least as the one under way already has."""
        return max(self.wait(ahead, now), ahead * self.elapsed(now))
