"""Lease of a node, by the boot-time clock of its machine.

A lease is valid for a part of the time after which others may remove the node. That time is counted
from before its renewal was sent; others count theirs from after they have seen it. So it is over
before anyone may remove the node, whatever the clocks of the machines show.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from uuid import UUID

from ..._clock import boot_time
from .._membership import Lease

VALID_PART = 0.8
"""The part of the TTL for which a lease is valid."""
_OVER = -math.inf


class NodeLease(Lease):
    """The lease of one node.

    Args:
        node_id: The node.
        server: The incarnation of the server that it has joined.
        until: The end of the lease, in seconds of `boot_time`.
    """

    __slots__ = ("_lock", "is_reported", "node_id", "server")

    def __init__(self, node_id: UUID, server: str, until: float) -> None:
        self.node_id: UUID = node_id
        self.server: str = server
        self.valid_until: float = until
        self._lock = threading.Lock()
        self.is_reported: bool = False
        """`CurrentLease.lose` was called for it."""

    @property
    def holder(self) -> str:
        """See `Lease.holder`."""
        return str(self.node_id)

    @property
    def left(self) -> float:
        """The seconds that are left."""
        return max(0.0, self.valid_until - boot_time())

    def extend(self, until: float) -> bool:
        """Extend it, unless it is over. Returns whether it is valid."""
        with self._lock:
            # Some thread may have found that it is over, so that it has to stay so.
            self.valid_until = until if self.is_valid() else _OVER
        return self.is_valid()

    def end(self) -> None:
        """It is over."""
        with self._lock:
            self.valid_until = _OVER


class CurrentLease:
    """The lease under which the sides of a storage work; none without a writer."""

    def __init__(self) -> None:
        self.lease: NodeLease | None = None
        self._lock = threading.Lock()
        self._lost: Callable[[NodeLease, str], object] | None = None
        self._is_taken = False

    def take(self) -> bool:
        """Take it for a writer, until `close`. False if another writer has it."""
        with self._lock:
            is_free, self._is_taken = not self._is_taken, True
            return is_free

    def call_on_loss(self, lost: Callable[[NodeLease, str], object]) -> None:
        """Call ``lost``, in any thread, once for each lease that ends; also for one that has."""
        with self._lock:
            self._lost = lost
            lease = self.lease
            is_over = lease is not None and lease.is_reported
        if is_over and lease is not None:
            lost(lease, "it ended while the runtime opened")

    def close(self) -> None:
        """There is no lease any more."""
        with self._lock:
            self.lease, self._lost = None, None
            self._is_taken = False

    def lose(self, lease: NodeLease | None, problem: str) -> None:
        """A lease is over, for a reason."""
        if lease is None:
            return
        lease.end()
        with self._lock:
            if lease.is_reported:
                return
            lease.is_reported = True
            lost = self._lost
        if lost is not None:
            lost(lease, problem)
