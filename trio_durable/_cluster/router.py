"""Router: sends a call to the process that has the object, and knows when it may do so once more.

A request that never ran is sent again, to whichever process has the object then, until its time is
over. One whose outcome isn't known isn't, unless the handler is a ``def`` that only reads: others
may have called other objects, or changed something.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .._activations.output_gate import OutputGate
from .._activations.tenure import Tenure
from .._activations.wait_graph import current_turn
from .._errors import ArgumentError, CallTimeout, Overloaded, OwnerLost
from .._eventloop.loop import Expired, Loop, Waiter
from .._eventloop.timeouts import Deadlines
from .._eventloop.wakeup import AutoResetEvent
from .._keys import ObjectKey
from .link import MessageTooLarge
from .outcomes import ErrorReply, NoCapacity, NoReply, OutcomeUnknown, RequestFailed
from .peer import Peer
from .places import HERE, Here, Places
from .remote_errors import decode_error

MOVED = "moved"
"""The error of a request that came to a process without the object. It never ran."""
CUT_OFF = "cut off"
"""The error of a request that the end of the process has cut off. It isn't known whether it ran."""

_GRACE = 0.1
"""For how long a caller waits for the owner's account of a call that has timed out there: this part
of the timeout, and so many seconds at most."""


class Router:
    """The way to the objects of a storage that other processes have.

    Args:
        loop: The event loop.
        deadlines: Where waits time out.
        output_gate: Holds back what turns hand on.
        places: Where the objects are.
        tenure: The lease of this process, if it has one. Without it no call leaves a turn.
    """

    def __init__(
        self,
        loop: Loop,
        deadlines: Deadlines,
        output_gate: OutputGate,
        places: Places,
        tenure: Tenure | None = None,
    ) -> None:
        self._loop = loop
        self._deadlines = deadlines
        self._output_gate = output_gate
        self.forwarded: int = 0
        """How many requests were sent to other processes."""
        self.places = places
        """Where the objects are."""
        self._tenure = tenure
        places.changed = self._places_changed
        self.changed: Callable[[], object] = lambda: None
        """Called when it may be known that objects are elsewhere."""
        self._waiting: dict[Waiter, None] = {}
        """Requests that wait until it is known where the objects are."""
        self._under_way = 0
        self._ended = AutoResetEvent(loop)
        """Set whenever none is left."""
        self._closed: Callable[[], BaseException] | None = None

    def has(self, object_id: str) -> bool:
        """True if an object is in this process."""
        return self.places.find(object_id) is HERE

    def close(self, error: Callable[[], BaseException]) -> None:
        """Fail all waiting requests, and all later ones: the runtime closes."""
        self._closed = error
        self._settle()

    def _places_changed(self) -> None:
        self._settle()
        self.changed()

    def _settle(self) -> None:
        for waiter in list(self._waiting):
            waiter.settle()

    # --- requests --------------------------------------------------------------------------------

    async def quiet(self) -> None:
        """Return when all requests have ended."""
        while self._under_way:
            await self._ended.wait()

    async def forward(
        self,
        key: Callable[[], ObjectKey],
        object_id: str,
        name: str,
        body: bytes,
        timeout: float | None,
        *,
        repeatable: bool,
        peer: Peer | None = None,
    ) -> Any:
        """Make a request where the object is.

        Returns:
            The answer, a JSON value; or `HERE`, if the object is in this process by now.

        Args:
            key: Makes the object's key, for errors.
            object_id: Its id.
            name: The handler or the public method.
            body: See `Peer.request`.
            timeout: Seconds, or None.
            repeatable: It may run twice.
            peer: The process that has the object, if the caller knows it already.

        Raises:
            CallTimeout: No answer came within the timeout.
            Overloaded: The other process had no place for the request.
            ArgumentError: It is too large for the other process.
            OwnerLost: The other process has ended, and it isn't known whether the request ran; or
                the caller is in a turn that has lost its lease, and it didn't.
            RuntimeClosed: This one has closed; likewise.
            BaseException: The error of the request.
        """
        self._under_way += 1
        try:
            left = timeout
            if current_turn.get() is not None:
                left = await self._output_gate.leave_turn(key, name, timeout)
                peer = None  # it may have moved meanwhile
            began, first = self._loop.now(), left
            while True:
                place = peer or self.places.find(object_id)
                if place is None:
                    place = await self._place(object_id, key, name, timeout, left)
                    left = self._left(began, first)
                if place is HERE:
                    return HERE
                if self._tenure is not None:
                    self._tenure.check_turn(key, name)
                self.forwarded += 1
                grace = 0.0 if left is None else min(left, 1.0) * _GRACE
                try:
                    return await place.request(body, left, grace)
                except (RequestFailed, ErrorReply, MessageTooLarge) as failure:
                    may_have_run = _may_have_run(failure, place, key, name, timeout)
                peer = None
                self.places.moved(object_id, place)
                if self._closed is not None:
                    raise self._closed()
                if may_have_run and not repeatable:
                    raise OwnerLost(key(), name)
                left = self._left(began, first)
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._ended.set()

    async def locate(self, key: ObjectKey, name: str, timeout: float | None) -> Peer | Here:
        """The process that has an object, as soon as that is known.

        Raises:
            CallTimeout: It isn't known within the timeout.
            RuntimeClosed: This process has closed.
        """
        return await self._place(key.object_id, lambda: key, name, timeout, timeout)

    def _left(self, began: float, timeout: float | None) -> float | None:
        return None if timeout is None else max(began + timeout - self._loop.now(), 0.0)

    async def _place(
        self,
        object_id: str,
        key: Callable[[], ObjectKey],
        name: str,
        timeout: float | None,
        left: float | None,
    ) -> Peer | Here:
        """The process that has an object, as soon as that is known."""
        until = None if left is None else self._loop.now() + left
        while (place := self.places.find(object_id)) is None:
            if self._closed is not None:
                raise self._closed()
            waiter = self._loop.waiter()
            self._waiting[waiter] = None
            if until is not None:
                now = self._loop.now()
                self._deadlines.watch(waiter, now, max(until - now, 0.0))
            try:
                await waiter.wait()
            except Expired:
                problem = "no process of the cluster had the object"
                raise CallTimeout(key(), name, timeout or 0, problem, False) from None
            finally:
                self._waiting.pop(waiter, None)
        return place


def _may_have_run(
    failure: RequestFailed | ErrorReply | MessageTooLarge,
    peer: Peer,
    key: Callable[[], ObjectKey],
    name: str,
    timeout: float | None,
) -> bool:
    """True if a request may have run in a process that doesn't have the object, or has ended.

    Raises:
        Exception: The request failed in another way. See `Router.forward`.
    """
    match failure:
        case ErrorReply(value=value) if value not in (MOVED, CUT_OFF):
            raise _of_caller(decode_error(value), key, name, timeout) from None
        case NoCapacity():
            problem = f"process {peer.them.node_id} has as many calls as it takes"
            raise Overloaded(key(), name, timeout or 0, problem) from None
        case NoReply():
            was_sent = failure.was_sent
            activity = "it was sent" if was_sent else "it waited to be sent"
            problem = f"{activity} to process {peer.them.node_id}"
            raise CallTimeout(key(), name, timeout or 0, problem, was_sent) from None
        case MessageTooLarge():
            raise ArgumentError(key(), name, f"{failure}; raise max_frame") from None
    return isinstance(failure, OutcomeUnknown) or (
        isinstance(failure, ErrorReply) and failure.value == CUT_OFF
    )


def _of_caller(
    error: Exception, key: Callable[[], ObjectKey], name: str, timeout: float | None
) -> Exception:
    """The error of a call, with the caller's timeout: the owner had what was left of it."""
    if isinstance(error, (CallTimeout, Overloaded)) and (error.key, error.handler) == (key(), name):
        error.timeout = timeout or 0
    return error
