"""Output gate of turns: what a turn hands on waits until all that it may tell of is durable.

A reply waits at its object's gate. So does a call, or any other change, that a turn makes of
another object: else that object could store, and others learn, a state which this one never durably
was. The order of commits in the writer isn't enough for that, since the callee may have an earlier
pending commit, or may be served elsewhere. Prior art: Cloudflare's output gates, which hold
outgoing messages, too.

It is the one exit of a turn. Calls of read-only ``def`` handlers don't pass it: they change nothing
and hand nothing on. Those of read-only ``async def`` handlers do, since these may call others.

No deadlock comes of it: the writer waits for no turn.
"""

from __future__ import annotations

from collections.abc import Callable

from .._errors import CallTimeout
from .._eventloop.loop import Expired, Loop
from .._eventloop.timeouts import Deadlines
from .._keys import ObjectKey
from .wait_graph import Gated, base_lost_error, current_turn


class OutputGate:
    """Holds back what turns hand on.

    Args:
        loop: The event loop.
        deadlines: Where waits time out.
    """

    def __init__(self, loop: Loop, deadlines: Deadlines) -> None:
        self._loop = loop
        self._deadlines = deadlines

    async def passed(
        self, origin: Gated, key: Callable[[], ObjectKey], name: str, timeout: float | None
    ) -> float | None:
        """Wait until all that a caller knows is durable; return the rest of ``timeout``.

        Args:
            origin: The caller: a turn, which may have ended, or an object.
            key: Makes the key of the object to change.
            name: The handler, or the public method.
            timeout: The timeout of the call, in seconds.

        Raises:
            CallTimeout: A commit wasn't durable within the timeout.
            PersistenceError: It has failed, and the turn with it.
        """
        if origin.base_lost and origin.key is not None:
            raise base_lost_error(origin.key)
        ticket = origin.gate
        if ticket is None:
            return timeout
        waiter, began = self._loop.waiter(), self._loop.now()
        ticket.hold(waiter)
        if timeout is not None:
            self._deadlines.watch(waiter, began, timeout)
        try:
            await waiter.wait()
        except Expired:
            problem = f"the commit of the caller, {ticket.key}, isn't durable yet"
            raise CallTimeout(key(), name, timeout or 0, problem, False) from None
        if timeout is None:
            return None
        return max(timeout - (self._loop.now() - began), 0.0)

    async def leave_turn(
        self, key: Callable[[], ObjectKey], name: str, timeout: float | None
    ) -> float | None:
        """The same for the turn that the caller is in, if it is in one."""
        origin = current_turn.get()
        return timeout if origin is None else await self.passed(origin, key, name, timeout)
