"""Mailbox: the bounded queue in which requests wait for their turn, in order of arrival.

An activation has one exactly while it is busy: while something waits, is served, or has to end
first. So the one attribute that holds it is the mark, and nothing has to agree with that.

A request that finds the mailbox full stands in line for a place in it, within its caller's timeout;
it is served in order all the same, and differs only in the error of that timeout.

Once several requests wait, the durations of turns are recorded, for an estimate of the wait of the
next one.
"""

from __future__ import annotations

from collections import OrderedDict

from .._persistence.wait_estimate import WaitEstimate
from .envelope import Envelope
from .phase import Job


class Mailbox:
    """The queue of one object, and the line before it. Each operation takes constant time."""

    __slots__ = ("_line", "_queue", "_size", "job", "serving", "wait_estimate")

    def __init__(self, size: int) -> None:
        self._size = size
        # Ordered dictionaries, because callers give up in the middle as well.
        self._queue: OrderedDict[Envelope, None] = OrderedDict()
        self._line: OrderedDict[Envelope, None] | None = None
        """None until the queue is full: most mailboxes are made for one request."""
        self.wait_estimate: WaitEstimate | None = None
        """The durations of turns, once one request waits for another."""
        self.job: Job | None = None
        """The load, ``after_load`` or ``async def`` turn that the other requests wait for."""
        self.serving: Envelope | None = None
        """The request whose turn has begun and that has no reply yet."""

    def __len__(self) -> int:
        return len(self._queue) + len(self._line or ())

    def __contains__(self, envelope: Envelope) -> bool:
        return envelope in self._queue or (self._line is not None and envelope in self._line)

    def put(self, envelope: Envelope) -> None:
        """Append ``envelope``."""
        if self._queue and self.wait_estimate is None:
            self.wait_estimate = WaitEstimate(16)
        if len(self._queue) < self._size:
            self._queue[envelope] = None
        else:
            envelope.stood_in_line = True
            if self._line is None:
                self._line = OrderedDict()
            self._line[envelope] = None

    def first(self) -> Envelope | None:
        """The next request; None if there is none."""
        return next(iter(self._queue), None)

    def discard(self, envelope: Envelope) -> None:
        """Remove ``envelope``, if it is still there."""
        if envelope in self._queue:
            del self._queue[envelope]
            if self._line:
                next_in_line, _ = self._line.popitem(last=False)
                self._queue[next_in_line] = None
        elif self._line is not None:
            self._line.pop(envelope, None)

    def everything(self) -> list[Envelope]:
        """All requests, in order."""
        return [*self._queue, *(self._line or ())]
