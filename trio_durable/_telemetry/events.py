"""Telemetry events: the records that a runtime passes to its instruments.

An event either takes time, with a start and an end, or is a point in time. Instruments are given
when a runtime is made. A runtime without instruments has no notifier and makes no records, so
telemetry costs it only a check for None.

Prior art: Trio's `Instrument`, an object with hooks that the scheduler calls, detached when it
raises; the spans of Elixir's telemetry, with a start and then either a stop or an exception.

Invariants:

- Every event that starts ends exactly once, by a stop or an exception, with the same record.
  Points come once.
- Events are compared by identity, so that a record can be a key in a dictionary.
- Instruments are called in the event loop's thread only, never in a storage's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Literal, TypeAlias

import attrs

from .._keys import ObjectKey

# --- events that take time -----------------------------------------------------------------------


@attrs.frozen(eq=False)
class Call:
    """A call of a handler, or a method such as ``get_state``, until the caller has the outcome."""

    key: ObjectKey
    handler: str
    """The name of the handler, or of the runtime's method."""
    mailbox_depth: int
    """The number of calls and alarms in the object's mailbox before it."""
    expected: tuple[type[Exception], ...] = ()
    """The exceptions that the handler declares as answers to its callers."""


@attrs.frozen(eq=False)
class AlarmDelivery:
    """The delivery of an alarm to its object, until its outcome is durable."""

    key: ObjectKey
    name: str
    due_at: datetime
    """The alarm's due time, in UTC."""
    lateness: float
    """Seconds from ``due_at`` to the start of the delivery. It grows with each attempt, and is
    negative if a test fires an alarm before its due time."""
    attempt: int
    """The number of the delivery, from 1."""


@attrs.frozen(eq=False)
class MessageDelivery:
    """The delivery of a message to its receiver, until its outcome is durable, or it has failed."""

    key: ObjectKey
    """The receiver."""
    handler: str
    id: str
    """The message's id, which is that of its `MessageSent`, maybe in another process."""
    sender: ObjectKey | None
    """The object whose turn sent it; None if it came from outside of turns."""
    lateness: float
    """Seconds to the start of the delivery from when the message was sent, or from when it was to
    be delivered if it was delayed or had failed."""
    attempt: int
    """The number of the delivery, from 1."""
    expected: tuple[type[Exception], ...] = ()
    """The exceptions that the handler declares. A message that ends so is a dead letter at once."""


@attrs.frozen(eq=False)
class Turn:
    """A turn of an object, until its changes are submitted to the storage."""

    key: ObjectKey
    handler: str
    """The name of the handler (of a call, an alarm or a message), ``after_load``, or the method in
    `Call`."""
    readonly: bool
    function: Callable[..., object] | None
    """The handler's function; None for a method of the runtime."""
    request: Call | AlarmDelivery | MessageDelivery | None
    """The call or delivery that the turn serves. None for ``after_load``."""
    expected: tuple[type[Exception], ...] = ()
    """The exceptions that the handler declares as answers to its callers."""


@attrs.frozen(eq=False)
class Load:
    """Reading an object's stored state, until the object has it."""

    key: ObjectKey


@attrs.frozen(eq=False)
class Save:
    """A new state of an object in a `Commit`, which may hold the changes of many turns."""

    key: ObjectKey
    revision: int
    """The object's commit number once this is durable."""
    size: int
    """Bytes of encoded state."""
    turns: tuple[Turn, ...]
    """The turns that it makes durable."""


@attrs.frozen(eq=False)
class Delete:
    """The deletion of an object in a `Commit`."""

    key: ObjectKey
    turns: tuple[Turn, ...]
    """The turns that it makes durable."""


@attrs.frozen(eq=False)
class AlarmUpdate:
    """A change in a `Commit` to an object's alarms or messages alone."""

    key: ObjectKey
    turns: tuple[Turn, ...]
    """The turns that it makes durable; none if no turn made the change."""


@attrs.frozen(eq=False)
class Commit:
    """A transaction. Its duration is the storage's own time."""

    changes: tuple[Save | Delete | AlarmUpdate, ...]
    """One record per object. They start and end with the commit. A stale one ends with an exception
    instead, and the transaction is applied without it. If the storage refuses a part of the
    transaction, the commit fails, and its changes end with the commits of smaller parts."""
    size: int
    """Approximate number of bytes written to the storage."""


# --- points --------------------------------------------------------------------------------------


@attrs.frozen(eq=False)
class Entered:
    """An object comes into memory."""

    key: ObjectKey


@attrs.frozen(eq=False)
class Activated:
    """An object is loaded, and its ``after_load`` has run."""

    key: ObjectKey
    was_stored: bool
    """False if the object started from its defaults."""


@attrs.frozen(eq=False)
class Hibernated:
    """An idle object keeps only its encoded state in memory."""

    key: ObjectKey


@attrs.frozen(eq=False)
class Woken:
    """A hibernated object is needed again."""

    key: ObjectKey


LeavingReason: TypeAlias = Literal["idle", "evicted", "ended", "closed"]


@attrs.frozen(eq=False)
class Left:
    """An object leaves memory."""

    key: ObjectKey
    reason: Literal["idle", "evicted", "ended", "closed"]
    """``"idle"``: idle for ``shutdown_after``. ``"evicted"``: to make room for other objects.
    ``"closed"``: the runtime closes. ``"ended"``: any other reason, such as ``stop``, a deletion, a
    failed load, ``after_load`` or commit, or the end of a change of alarms from outside a turn."""


@attrs.frozen(eq=False)
class Stale:
    """The storage refused a commit: another owner wrote the object, or took the alarm it handled.

    The object starts over.
    """

    key: ObjectKey
    revision: int
    """The revision on which the object was based."""


@attrs.frozen(eq=False)
class DeadLettered:
    """An alarm has used up its attempts, or has killed too many processes."""

    key: ObjectKey
    name: str
    attempts: int
    """Attempts that failed, and deliveries in which the process died."""


@attrs.frozen(eq=False)
class MessageSent:
    """A message was committed by its sender."""

    key: ObjectKey
    """The receiver."""
    handler: str
    id: str
    sender: ObjectKey | None
    """The object whose turn sent it; None if it comes from outside of turns."""
    delay: float
    """Seconds until it may be delivered; 0.0 for at once."""
    trace: Mapping[str, str]
    """The value that the instruments' ``inject`` has given in the context of the turn that sent
    it."""


@attrs.frozen(eq=False)
class MessageBuried:
    """A message has become a dead letter."""

    key: ObjectKey
    """The receiver."""
    handler: str
    id: str
    attempts: int
    """Deliveries that failed."""


AuditedAction: TypeAlias = Literal["edit", "retry", "drop"]


@attrs.frozen(eq=False)
class Audited:
    """A user of the inspector has changed an object, or has tried to."""

    key: ObjectKey
    who: str
    """The user, as the app's ``authorize`` has named it."""
    action: Literal["edit", "retry", "drop"]
    """``"edit"`` of a state, or ``"retry"`` or ``"drop"`` of a dead letter."""
    name: str
    """The name of the alarm or the id of the message; "" for an edit."""
    before: int | None
    """The revision that an edit was based on; None for a dead letter."""
    after: int | None
    """The revision that an edit has stored; None without one."""
    outcome: str
    """``"done"``, ``"conflict"``, ``"gone"``, ``"refused"``, or the class of an error."""


Timed: TypeAlias = (
    Call | Turn | Load | Save | Delete | AlarmUpdate | Commit | AlarmDelivery | MessageDelivery
)
"""Events that take time: they have a start, and then a stop or an exception."""
