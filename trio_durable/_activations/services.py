"""What the activations of one runtime share."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

import attrs

from .._clock import Clock
from .._errors import TenantDropped
from .._eventloop.loop import Loop, Waiter
from .._keys import ObjectKey
from .._persistence.batched_load import BatchedLoad
from .._persistence.group_commit import GroupCommit
from .eviction import Residency

if TYPE_CHECKING:
    from .._api.runtime import DurableRuntime

StartTask = Callable[[Callable[[], Coroutine[Any, Any, None]], str], None]
"""Starts a named task in the runtime's nursery."""


@attrs.define(eq=False)
class Services:
    """The parts of a runtime that its objects use."""

    runtime: DurableRuntime
    loop: Loop
    group_commit: GroupCommit
    batched_load: BatchedLoad
    residency: Residency
    start_task: StartTask
    clock: Clock
    closing: bool = False
    """Only turns under way may still call."""
    closed: bool = False
    busy: int = 0
    quiet: Waiter | None = None
    """Settled when ``busy`` falls to 0."""
    dropping: set[str] = attrs.field(factory=set)
    """The tenants that are being dropped; what is theirs may not be touched."""

    def refuse_dropped(self, key: ObjectKey) -> None:
        """Refuse what is of a tenant that is being dropped.

        Raises:
            TenantDropped: It is.
        """
        if key.tenant in self.dropping:
            raise TenantDropped(key.tenant)

    def began(self) -> None:
        """One more object is busy."""
        self.busy += 1

    def ended(self) -> None:
        """One less."""
        self.busy -= 1
        if not self.busy and self.quiet is not None:
            self.quiet.settle()
