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

PATIENCE = 0.8
"""The share of its timeout that a call may be expected to take. The rest is for what the estimate
is off by."""

_WEIGHT = 0.25
"""Of the last one, in the average."""


class Backlog:
    """What is done one after the other. Times in seconds, of whatever clock."""

    __slots__ = ("_average", "_began")

    def __init__(self) -> None:
        self._average = 0.0
        self._began: float | None = None

    def begin(self, now: float) -> None:
        """One begins; the one before it, if that hasn't ended yet, ends."""
        if self._began is not None:
            self.end(now)
        self._began = now

    def end(self, now: float, *, counts: bool = True) -> None:
        """The one that began has ended; it goes into the average, if it ``counts``."""
        if counts and self._began is not None:
            took = now - self._began
            change = took - self._average
            self._average += change * _WEIGHT if self._average else change
        self._began = None

    def elapsed(self, now: float) -> float:
        """For how long one has been under way."""
        began = self._began  # once: another thread may end it
        return 0.0 if began is None else max(now - began, 0.0)

    def wait(self, ahead: int, now: float) -> float:
        """How long until the one under way and ``ahead`` more have ended; 0 if nothing is known."""
        rest = max(self._average - self.elapsed(now), 0.0) if self._began is not None else 0.0
        return rest + ahead * self._average
