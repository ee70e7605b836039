"""Failing tenants: those with damaged tables, and the pauses until they are tried again.

The others go on meanwhile. A pause is twice as long as the one before, up to a bound.
"""

from __future__ import annotations

import logging
import math

import attrs

from .._eventloop.loop import Loop
from ..storage import PartialFault

logger = logging.getLogger("trio_durable.messages")

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds."""


@attrs.define
class _Failure:
    pause: float
    retry_at: float


class FailingTenants:
    """The tenants that one task can't read, or write.

    Args:
        loop: The event loop.
        problem: What the task could not do, for the log.
    """

    def __init__(self, loop: Loop, problem: str) -> None:
        self._loop = loop
        self._problem = problem
        self._failures: dict[str, _Failure] = {}

    def failed(self, tenant: str, fault: PartialFault) -> None:
        """A tenant was refused. Only the first failure is logged."""
        earlier = self._failures.get(tenant)
        if earlier is None:
            whose = f" of tenant {tenant!r}" if tenant else ""
            logger.warning("%s%s, and tries again: %s", self._problem, whose, fault)
        pause = FIRST_PAUSE if earlier is None else min(2 * earlier.pause, LONGEST_PAUSE)
        self._failures[tenant] = _Failure(pause, self._loop.now() + pause)

    def ended(self, tenant: str) -> None:
        """A tenant was served."""
        self._failures.pop(tenant, None)

    def pause(self, tenant: str) -> float:
        """The seconds until a tenant may be tried again."""
        failure = self._failures.get(tenant)
        return 0.0 if failure is None else max(0.0, failure.retry_at - self._loop.now())

    def must_wait(self, tenant: str) -> bool:
        """True if a tenant may not be tried yet."""
        return self.pause(tenant) > 0

    def first_pause(self, tenants: set[str]) -> float:
        """The seconds until the first of some tenants may be tried."""
        return min(map(self.pause, tenants), default=math.inf)
