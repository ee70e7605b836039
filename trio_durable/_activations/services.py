"""Services: the parts of an open runtime that its activations share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import attrs

from .._clock import Clock
from .._errors import TenantDropped
from .._eventloop.current import Dispatcher
from .._eventloop.loop import Loop, Waiter
from .._keys import ObjectKey
from .._persistence.batched_load import BatchedLoad
from .._persistence.group_commit import GroupCommit
from .._telemetry.notifier import Notifier
from .eviction import ResidentSet
from .info import BusyObject
from .observation import Observation
from .wait_graph import WaitGraph
from .worker import StartTask


class Busy(Protocol):
    """An activation with a job."""

    def busy_info(self) -> BusyObject | None:
        """A snapshot for users; None once the job has ended. For any thread."""
        ...


@attrs.define(eq=False)
class Services:
    """The parts of a runtime that its objects use."""

    loop: Loop
    group_commit: GroupCommit
    batched_load: BatchedLoad
    resident_set: ResidentSet
    start_task: StartTask
    clock: Clock
    runtime_of: Callable[[str], Dispatcher]
    """The runtime as the objects of a tenant see it; opaque to the engine."""
    notifier: Notifier | None = None
    """Hands records to the instruments; None without any."""
    observation: Observation | None = None
    """Reports loads and turns to the instruments; None without any."""
    wait_graph: WaitGraph = attrs.field(init=False)
    """The waits of ``async def`` turns for other objects."""
    closing: bool = False
    """Only turns that run already may still call."""
    closed: bool = False
    busy: set[Busy] = attrs.field(factory=set)
    """The activations that have a job."""
    quiet: Waiter | None = None
    """Settled when the last job ends."""
    dropping: set[str] = attrs.field(factory=set)
    """The tenants that are being dropped; nothing of theirs may be touched."""

    def __attrs_post_init__(self) -> None:
        """Begin with no waits."""
        self.wait_graph = WaitGraph(self.loop)

    def refuse_dropped(self, key: ObjectKey) -> None:
        """Refuse the objects of a tenant that is being dropped.

        Raises:
            TenantDropped: ``key`` is of one.
        """
        if key.tenant in self.dropping:
            raise TenantDropped(key.tenant)

    def ended(self, activation: Busy) -> None:
        """Note that an activation's job has ended."""
        self.busy.discard(activation)
        if not self.busy and self.quiet is not None:
            self.quiet.settle()
