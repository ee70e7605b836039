"""Requests over a link, in both directions.

    ["c", id, seconds left or null, …]   request; the rest belongs to the layer above
    ["r", id, value]                     its reply
    ["e", id, value]                     its error; null stands for a fault of the peer
    ["x", id]                            cancellation: the caller was cancelled or timed out

Invariants:

- The ids of a link ascend, and none is used twice. A request that was withdrawn leaves a gap.
- Flow control by credit: the peer announces `max_calls`, the number of requests that it has places
  for. Each request that was sent is answered exactly once, a cancelled one too, and keeps its place
  until then. So requests in memory are bounded, however many are cancelled.
- On the side that answers, a request keeps its place until the answer is handed to the connection.
  So the answers that wait for a peer that never reads are bounded, too.
- A request ends in one of these ways: its value, `ErrorReply`, `NeverRan`, `OutcomeUnknown`,
  `NoCapacity`, `NoReply`, `MessageTooLarge`, or the cancellation of its task.
"""

from __future__ import annotations

import logging
from collections import OrderedDict, deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final

from .._eventloop.loop import Expired, Loop, Waiter
from .._eventloop.timeouts import Deadlines
from .._text import short_repr
from .frames import Message, ProtocolError
from .handshake import Connection, Introduction
from .incoming import Incoming
from .link import EndKind, Link, LinkClosed, LinkEnd, MessageTooLarge
from .outcomes import ErrorReply, NeverRan, NoCapacity, NoReply, OutcomeUnknown, RequestFailed

logger = logging.getLogger("trio_durable.cluster")

MAX_UNSENT: Final = 4 * 1024 * 1024
"""Bytes in the queue of a link, above which requests wait."""

_OVERHEAD = 64
"""Bytes of a request besides its body, at most."""


class _Ended(Exception):
    """Raised in the tasks of all requests when the link ends."""

    def __init__(self, end: LinkEnd) -> None:
        super().__init__(end)
        self.end = end


class _Queued:
    """A request that waits for a place.

    When there is one, `Peer` sends it on its behalf: its task wakes once, with the answer.
    """

    __slots__ = ("body", "deadline", "id", "number", "waiter")

    def __init__(self, waiter: Waiter, body: bytes, deadline: float | None) -> None:
        self.waiter = waiter
        self.body = body
        self.deadline = deadline
        self.id = self.number = 0


class Peer:
    """The node at the other end of a link.

    It expires requests itself, by the runtime's `Deadlines`, so the layer above needs no cancel
    scope for a timeout.

    Args:
        loop: The event loop.
        connection: The connection after its handshake.
        deadlines: Expires requests; the owner runs it.
        ttl: See `Link`.
        serve: Called with each request of the peer, from the task that reads: it starts the work
            and returns. If it raises, the peer gets an error with the value null.
        ended: Called when the link has ended, after all requests have failed. Its exceptions are
            logged.
    """

    def __init__(
        self,
        loop: Loop,
        connection: Connection,
        deadlines: Deadlines,
        *,
        ttl: float,
        serve: Callable[[Incoming], object],
        ended: Callable[[LinkEnd], object] | None = None,
    ) -> None:
        self.them: Introduction = connection.them
        """The peer's introduction: its name, release, limits and info."""
        self._loop = loop
        self._deadlines = deadlines
        self._serve = serve
        self._on_end = ended
        self._followers: list[Callable[[], object]] = []
        self._free = connection.them.max_calls
        self._issued = 0
        self._timeout: float | None = None
        self._seconds = b"null"
        self._waiting: dict[int, Waiter] = {}
        """Requests without an answer. The waiter of a cancelled one has ended."""
        self._queue: OrderedDict[Waiter, _Queued] = OrderedDict()
        self._max_calls = connection.me.max_calls
        self._accepts = True
        self._accepted = 0
        self._open: dict[int, Incoming] = {}
        self._unsent_answers: deque[int] = deque()
        """Numbers of the messages with answers; those of the first may have been sent."""
        self._link = Link(
            loop,
            connection.stream,
            connection.decoder,
            name=connection.them.node_id,
            max_frame=connection.them.max_frame,
            ttl=ttl,
            kinds={
                "r": self._answered,
                "e": self._answered,
                "c": self._requested,
                "x": self._withdrawn,
            },
            wrote=self._wrote,
            ended=self._ended,
        )

    @property
    def end(self) -> LinkEnd | None:
        """The end of the link; None while it is open."""
        return self._link.end

    @property
    def in_flight(self) -> int:
        """Requests that take a place at the peer."""
        return len(self._waiting)

    def when_ended(self, call: Callable[[], object]) -> None:
        """Have a function called when the link has ended, or now if it has."""
        if self._link.end is None:
            self._followers.append(call)
        else:
            call()

    async def run(self) -> None:
        """Serve the link until it ends. See `Link.run`."""
        await self._link.run()

    def close(self, reason: str) -> None:
        """Send a goodbye after the answers given so far, and end.

        Requests that arrive from now on aren't accepted: for the peer they end with `NeverRan`.
        Its open requests end with `OutcomeUnknown`, so the owner waits for them first.
        """
        self._accepts = False
        self._link.close(reason, self._accepted)

    def abort(self, reason: str) -> None:
        """End at once, without a goodbye."""
        self._link.finish(LinkEnd(EndKind.CLOSED, reason))

    def forked(self) -> None:
        """Close the copy of the connection in a forked process; the parent's stays open."""
        self._link.forked()

    # --- requests of this node -------------------------------------------------------------------

    async def request(self, body: bytes, timeout: float | None, grace: float = 0.0) -> Any:
        """Send a request and wait for its answer.

        Cancelling the caller withdraws a request that wasn't sent yet; the peer learns of a
        cancellation of one that was.

        Args:
            body: The elements of the message behind the time left, joined by commas.
            timeout: Seconds; None is for ever. The peer gets what is left of it when the request
                is sent.
            grace: Seconds after the timeout in which the answer may still come: the peer ends the
                request at its timeout, and says how far it was.

        Raises:
            ErrorReply: The peer answered with an error.
            NeverRan: The link has ended, and the peer didn't accept it.
            OutcomeUnknown: The link has ended, and it may have.
            NoCapacity: The peer had no place for it in time. It never ran.
            NoReply: No answer came in time.
            MessageTooLarge: The peer doesn't accept its size. It never ran.
        """
        link = self._link
        waiter = self._loop.waiter()
        if self._free <= 0 or link.unsent > MAX_UNSENT:
            return await self._request_later(waiter, body, timeout, grace)
        if timeout is not None:
            self._deadlines.watch(waiter, self._loop.now(), timeout + grace)
        request_id = self._issued + 1
        number = self._send(request_id, waiter, body, timeout)
        try:
            return await waiter.wait()
        except ErrorReply:
            raise
        except Expired:
            raise NoReply(was_sent=not self._abandon(request_id, number)) from None
        except _Ended as ended:
            raise self._outcome(ended.end, request_id, number) from None
        except BaseException:  # a cancellation
            self._abandon(request_id, number)
            raise

    async def _request_later(
        self, waiter: Waiter, body: bytes, timeout: float | None, grace: float
    ) -> Any:
        """`request` while the peer has no place, or the queue of the link is full."""
        link = self._link
        if len(body) + _OVERHEAD > link.max_message:
            raise MessageTooLarge(len(body) + _OVERHEAD, link.max_message)
        if link.closing is not None:
            raise NeverRan(link.closing)
        deadline = None
        if timeout is not None:
            now = self._loop.now()
            deadline = now + timeout
            self._deadlines.watch(waiter, now, timeout + grace)
        queued = self._queue[waiter] = _Queued(waiter, body, deadline)
        try:
            return await waiter.wait()
        except ErrorReply:
            raise
        except Expired:
            if self._leave_queue(queued):
                raise NoCapacity from None
            raise NoReply(was_sent=not self._abandon(queued.id, queued.number)) from None
        except _Ended as ended:
            raise self._outcome(ended.end, queued.id, queued.number) from None
        except BaseException:  # a cancellation
            if not self._leave_queue(queued):
                self._abandon(queued.id, queued.number)
            raise

    def _send(self, request_id: int, waiter: Waiter, body: bytes, timeout: float | None) -> int:
        """Send a request that there is a place for.

        Returns:
            The number of its message.

        Raises:
            MessageTooLarge: See `request`.
            NeverRan: See `request`.
        """
        if timeout != self._timeout:  # most requests have the same
            self._timeout = timeout
            self._seconds = b"null" if timeout is None else b"%.9g" % timeout
        self._issued = request_id
        self._waiting[request_id] = waiter
        self._free -= 1
        try:
            return self._link.send(b'["c",%d,%b,%b]' % (request_id, self._seconds, body))
        except BaseException as error:
            del self._waiting[request_id]
            self._free += 1
            if isinstance(error, LinkClosed):
                raise NeverRan(error.end) from None
            raise

    def _admit(self) -> None:
        """Send waiting requests while there are places."""
        queue, link = self._queue, self._link
        while queue and self._free > 0 and link.unsent <= MAX_UNSENT and link.closing is None:
            waiter = next(iter(queue))
            queued = queue[waiter]
            if not waiter.ended and not queued.id:
                left = None
                if queued.deadline is not None:
                    left = max(0.0, queued.deadline - self._loop.now())
                queued.id = self._issued + 1
                queued.number = self._send(queued.id, waiter, queued.body, left)
            del queue[waiter]

    def _leave_queue(self, queued: _Queued) -> bool:
        """True if the request was waiting for a place."""
        return self._queue.pop(queued.waiter, None) is not None and not queued.id

    def _abandon(self, request_id: int, number: int) -> bool:
        """Withdraw a request or cancel it at the peer. Returns True if it is never sent."""
        if request_id not in self._waiting:
            return False  # it was answered at the same moment
        if self._link.withdraw(number):
            del self._waiting[request_id]
            self._free += 1
            self._admit()
            return True
        with suppress(LinkClosed):
            self._link.send(b'["x",%d]' % request_id)
        return False

    def _outcome(self, end: LinkEnd, request_id: int, number: int) -> RequestFailed:
        """The error of a request whose link has ended."""
        refused = end.last is not None and request_id > end.last
        if not request_id or refused or not self._link.was_taken(number):
            return NeverRan(end)
        return OutcomeUnknown(end)

    # --- requests of the peer --------------------------------------------------------------------

    def _answer(self, request_id: int, message: bytes) -> None:
        """Send the answer to an open request."""
        try:
            number = self._link.send(message)
        except LinkClosed:
            pass
        else:
            self._unsent_answers.append(number)
        self._open.pop(request_id, None)  # one that is answered at once isn't in there

    def _has_place(self) -> bool:
        """True if the peer may have one more request open."""
        answers, link = self._unsent_answers, self._link
        # The frame that is being written counts as sent: the peer may have read it already.
        while answers and link.was_taken(answers[0]):
            answers.popleft()
        return len(self._open) + len(answers) < self._max_calls

    def _drop_open(self) -> None:
        """Withdraw all open requests of the peer, which can't be answered any more."""
        requests = list(self._open.values())
        self._open.clear()
        for incoming in requests:
            incoming.detach()
            self._withdraw(incoming)

    def _fault(self, error: BaseException) -> None:
        """Log an exception of the layer above in the task that reads; pass on Control-C."""
        logger.error("a callback of the link to %s has failed", self._link.name, exc_info=error)
        if not isinstance(error, Exception):
            self._loop.interrupt(error)

    def _withdraw(self, incoming: Incoming) -> None:
        try:
            incoming.withdraw()
        except BaseException as error:  # noqa: BLE001  # it must not end the link
            self._fault(error)

    # --- callbacks of the link --------------------------------------------------------------------

    def _answered(self, message: Message) -> None:
        kind, request_id, value = message[:3]
        waiter = self._waiting.pop(request_id, None)
        if waiter is None:
            self._check_issued(request_id)
        else:
            self._free += 1
            if kind == "r":
                waiter.settle(value)
            else:
                waiter.fail(ErrorReply(value))
            if self._queue:
                self._admit()

    def _check_issued(self, request_id: object) -> None:
        """Raise unless there was a request with this id."""
        if type(request_id) is not int or not 0 < request_id <= self._issued:
            raise ProtocolError(f"an answer came to {short_repr(request_id)}, which wasn't asked")

    def _requested(self, message: Message) -> None:
        request_id, seconds = message[1], message[2]
        if type(request_id) is not int or request_id <= self._accepted:
            raise ProtocolError(
                f"a request has the id {short_repr(request_id)}; the last was {self._accepted}"
            )
        if seconds is not None and (type(seconds) not in (float, int) or seconds < 0):
            raise ProtocolError(f"a request has {short_repr(seconds)} as the seconds left")
        if not self._accepts:
            return
        if len(self._open) + len(self._unsent_answers) >= self._max_calls and not self._has_place():
            raise ProtocolError(f"more than {self._max_calls} requests were open")
        self._accepted = request_id
        incoming = Incoming(self._answer, message, self)
        try:
            self._serve(incoming)
        except BaseException as error:  # noqa: BLE001  # it must not end the link
            self._fault(error)
            incoming.fail(b"null")
        if not incoming.is_answered:
            self._open[request_id] = incoming
            if self._link.end is not None:
                self._drop_open()

    def _withdrawn(self, message: Message) -> None:
        request_id = message[1]
        incoming = self._open.get(request_id)
        if incoming is not None:
            self._withdraw(incoming)
        elif type(request_id) is not int or (self._accepts and request_id > self._accepted):
            raise ProtocolError(f"{short_repr(request_id)} was cancelled, which wasn't asked")

    def _wrote(self) -> None:
        if self._queue:
            self._admit()

    def _ended(self, end: LinkEnd) -> None:
        self._accepts = False
        waiters = [*self._waiting.values(), *self._queue]
        self._waiting.clear()
        self._queue.clear()
        for waiter in waiters:
            waiter.fail(_Ended(end))
        self._drop_open()
        followers, self._followers = self._followers, []
        if self._on_end is not None:
            followers.append(partial(self._on_end, end))
        for call in followers:
            try:
                call()
            except BaseException as error:  # noqa: BLE001  # the link still has to be closed
                self._fault(error)
