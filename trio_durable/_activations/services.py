"""Services: the parts of an open runtime that its activations share."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol, TypeAlias

import attrs

from .._clock import Clock
from .._errors import RuntimeClosed, TenantDropped
from .._eventloop.current import Dispatcher
from .._eventloop.loop import Loop, Waiter
from .._eventloop.tasks import OwnTasks
from .._eventloop.timeouts import Deadlines
from .._keys import ObjectKey
from .._messages.delivery import MessageDelivery
from .._messages.request import SendRequest
from .._persistence.batched_load import BatchedLoad
from .._persistence.group_commit import GroupCommit
from .._telemetry.notifier import Notifier
from .._text import error_summary
from ..storage import AlarmRow, MessageKey, NewMessage, StoredAlarm
from .await_chain import AwaitedFrame
from .eviction import ResidentSet
from .info import BusyObject
from .observation import Observation
from .output_gate import OutputGate
from .placement import Placement
from .pump import Pump
from .slices import SliceClock
from .tenure import Tenure
from .wait_graph import WaitGraph

logger = logging.getLogger("trio_durable")


class Busy(Protocol):
    """An activation with a job."""

    def busy_info(self) -> BusyObject | None:
        """A snapshot for users; None once the job has ended. For any thread."""
        ...

    def awaited(self) -> list[AwaitedFrame]:
        """The frames in which its turn waits."""
        ...


NO_MESSAGES = "the runtime's storage keeps no messages; use SQLite or PostgreSQL"
"""The problem of messages where there are none."""


class Mail(Protocol):
    """The messages of a runtime, as far as the turns of its objects need them."""

    def compose(
        self,
        request: SendRequest,
        tenant: str,
        now: int,
        sender: ObjectKey | None,
        delivery: MessageDelivery | None,
    ) -> NewMessage:
        """Make a message. See `Composer.compose`.

        Raises:
            DurableError: It can't be sent.
        """
        ...

    async def find_sent(self, sender: ObjectKey, sender_key: str) -> MessageKey | None:
        """The message that an object has waiting under a key.

        Raises:
            StorageUnavailable: The storage can't be read.
        """
        ...


StoredAlarms: TypeAlias = "tuple[list[StoredAlarm], Mapping[str, AlarmRow | None]]"
"""An object's alarms without dead letters, and rows of any status, by their names."""


@attrs.define(eq=False)
class Services:
    """The parts of a runtime that its objects use."""

    loop: Loop
    deadlines: Deadlines
    group_commit: GroupCommit
    batched_load: BatchedLoad
    resident_set: ResidentSet
    output_gate: OutputGate
    tasks: OwnTasks
    pump: Pump
    slice_clock: SliceClock
    clock: Clock
    read_alarms: Callable[[ObjectKey, Sequence[str]], Awaitable[StoredAlarms]]
    """Reads an object's alarms, and the rows of the named ones.

    Raises `StorageUnavailable`."""
    runtime_of: Callable[[str], Dispatcher]
    """The runtime as the objects of a tenant see it; opaque to the engine."""
    failed: Callable[[BaseException], object]
    """Called with a fault of the library's own, after which objects go on."""
    end: Callable[[BaseException], object]
    """Called with the exception that ends the runtime."""
    is_ending: Callable[[], bool]
    """True if a cancellation of the runtime's tasks is its own end, or its event loop's."""
    notifier: Notifier | None = None
    """Hands records to the instruments; None without any."""
    observation: Observation | None = None
    """Reports loads and turns to the instruments; None without any."""
    tenure: Tenure | None = None
    """The lease of the storage; None if the runtime can't lose it."""
    mail: Mail | None = None
    """Makes messages, and knows what was sent; None if the storage keeps none."""
    placement: Placement | None = None
    """The objects that may live here; None if all may."""
    wait_graph: WaitGraph = attrs.field(
        init=False, default=attrs.Factory(lambda self: WaitGraph(self.loop), takes_self=True)
    )
    """The waits of ``async def`` turns for other objects."""
    closing: bool = False
    """Only turns that run already may still call."""
    closed: bool = False
    failure: BaseException | None = None
    """The fault that has ended the runtime."""
    busy: dict[Busy, None] = attrs.field(factory=dict)
    """The activations that have a mailbox."""
    quiet: Waiter | None = None
    """Settled when no activation is busy."""
    dropping: set[str] = attrs.field(factory=set)
    """The tenants that are being dropped; nothing of theirs may be touched."""

    def refuse_dropped(self, key: ObjectKey) -> None:
        """Refuse the objects of a tenant that is being dropped.

        Raises:
            TenantDropped: ``key`` is of one.
        """
        if key.tenant in self.dropping:
            raise TenantDropped(key.tenant)

    def not_busy(self, activation: Busy) -> None:
        """Note that an activation has no mailbox any more."""
        self.busy.pop(activation, None)
        if not self.busy and self.quiet is not None:
            self.quiet.settle()

    def closed_error(
        self, problem: str = "the runtime closed before the call was done"
    ) -> RuntimeClosed:
        """The error of a call that the runtime's end has cut off, or that comes after it."""
        if self.failure is None:
            return RuntimeClosed(problem)
        if isinstance(self.failure, RuntimeClosed):
            return RuntimeClosed(str(self.failure))
        error = RuntimeClosed(f"the runtime has failed: {error_summary(self.failure)}")
        error.__cause__ = self.failure
        return error

    def exit(self, error: BaseException) -> None:
        """Control-C or an exit was raised in a turn that no caller waits for: end the runtime.

        It is raised where the program was started, too, if the event loop has means for that.
        """
        self.end(error)
        self.loop.interrupt(error)
