"""Tenure: the lease under which a runtime serves its objects, where it can lose them.

Everything observable of an object passes `check_lease` on its way out: values and
exceptions, gated or not, and calls that a turn makes. The check comes after the outcome was
produced, and is about the lease under which the call began, not a later one of the same runtime.

A runtime whose storage is its own until it is closed has no tenure, and its calls aren't checked.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from .._clock import boot_time
from .._errors import CallTimeout, OwnerLost, RuntimeClosed
from .._eventloop.loop import Expired, Loop, Waiter
from .._eventloop.timeouts import Deadlines
from .._keys import ObjectKey
from ..storage import Lease
from .wait_graph import base_lost_error, current_turn

T = TypeVar("T")

_LOST = "this process lost its lease of the storage"


def check_lease(lease: Lease, key: ObjectKey, name: str) -> None:
    """Let the outcome of a call leave, if the lease under which it began is still valid.

    Raises:
        OwnerLost: It isn't.
    """
    if boot_time() >= lease.valid_until:
        raise OwnerLost(key, name, _LOST) from None


class Tenure:
    """The current lease, and the calls that wait for the next one.

    Args:
        loop: The event loop.
        deadlines: Where waits time out.
        lease: The first lease.
    """

    def __init__(self, loop: Loop, deadlines: Deadlines, lease: Lease) -> None:
        self.lease: Lease = lease
        self._loop = loop
        self._deadlines = deadlines
        self._waiting: dict[Waiter, None] = {}

    def begin(self, lease: Lease) -> None:
        """There is a new lease."""
        self.lease = lease
        waiting, self._waiting = self._waiting, {}
        for waiter in waiting:
            waiter.settle()

    def close(self, error: Callable[[], BaseException]) -> None:
        """Fail all calls that wait: the runtime closes."""
        waiting, self._waiting = self._waiting, {}
        for waiter in waiting:
            waiter.fail(error())

    def check_turn(self, key: Callable[[], ObjectKey], name: str) -> None:
        """Let something leave the turn that the caller is in, if it is in one.

        Args:
            key: Makes the key of the object that gets it.
            name: The handler, or the public method.

        Raises:
            OwnerLost: The turn has lost its lease.
            PersistenceError: It builds on a lost change.
        """
        origin = current_turn.get()
        if origin is None:
            return
        if origin.base_lost and origin.key is not None:
            raise base_lost_error(origin.key)
        check_lease(self.lease, key(), name)

    async def enter(
        self, key: Callable[[], ObjectKey], name: str, timeout: float | None
    ) -> float | None:
        """Begin a call under a valid lease, for which it may wait; return the rest of ``timeout``.

        A call that a turn makes doesn't wait: without its lease, or after the loss of its base,
        nothing of the turn may leave.

        Args:
            key: Makes the object's key.
            name: The handler, or the public method.
            timeout: Seconds, or None.

        Raises:
            OwnerLost: The caller is in a turn that has lost its lease.
            PersistenceError: The caller is in a turn that builds on a lost change.
            CallTimeout: There was no lease within the timeout.
        """
        self.check_turn(key, name)
        if self.lease.is_valid():
            return timeout
        began = self._loop.now()
        while not self.lease.is_valid():
            waiter = self._loop.waiter()
            self._waiting[waiter] = None
            if timeout is not None:
                self._deadlines.watch(waiter, began, timeout)
            try:
                await waiter.wait()
            except Expired:
                problem = f"{_LOST}, and has no new one yet"
                raise CallTimeout(key(), name, timeout or 0, problem, False) from None
            finally:
                self._waiting.pop(waiter, None)
        return None if timeout is None else max(0.0, timeout - (self._loop.now() - began))

    async def guard(
        self,
        key: Callable[[], ObjectKey],
        name: str,
        timeout: float | None,
        make: Callable[[float | None], Awaitable[T]],
    ) -> T:
        """Make a request under one lease; its outcome leaves if that is still valid.

        Args:
            key: Makes the object's key.
            name: The public method.
            timeout: Seconds, or None.
            make: Makes the request, within the rest of the timeout.

        Raises:
            OwnerLost: The lease is over.
            Exception: See `enter`, and the request's own.
        """
        left = await self.enter(key, name, timeout)
        lease = self.lease
        try:
            outcome = await make(left)
        except Exception as error:
            if not isinstance(error, RuntimeClosed):
                check_lease(lease, key(), name)
            raise
        check_lease(lease, key(), name)
        return outcome
