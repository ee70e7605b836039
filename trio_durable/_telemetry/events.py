"""What a runtime tells about its work, the events, and who is told, the instruments.

Prior art: trio's `Instrument`, an object with hooks that the scheduler calls, detached when it
raises; the spans of Elixir's telemetry, with a start and then either a stop or an exception.

Instruments are given to a runtime when it is made. Where an event begins, the code asks
``if notifier is None``, and without instruments it runs the work as it is.

Invariants:

- Every event that starts ends exactly once, by a stop or an exception, however its work ends, and
  it is the very same record then. Points come once.
- Events are compared by identity: two of a kind are two, and one can be a key.
- Instruments are told in the event loop's thread only, never in a storage's.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Literal, TypeAlias

import attrs

from .._keys import ObjectKey

# --- what takes time -----------------------------------------------------------------------------


@attrs.frozen(eq=False)
class Call:
    """A call of a handler, or something like ``get_state``, until its caller has the outcome."""

    key: ObjectKey
    handler: str
    """What is called: a handler, or the name of a method of the runtime's."""
    mailbox_depth: int
    """How many calls and alarms it found waiting in the object's mailbox."""


@attrs.frozen(eq=False)
class AlarmDelivery:
    """An alarm from when it is handed to its object until what became of it is durable."""

    key: ObjectKey
    name: str
    due_at: datetime
    """When it was set for, in UTC."""
    lateness: float
    """Seconds from ``due_at`` to now. It grows with each attempt, and is negative if a test fires
    an alarm before its time."""
    attempt: int
    """Which delivery this is, from 1."""


@attrs.frozen(eq=False)
class Turn:
    """A turn of an object, until what it changed is on its way to the storage."""

    key: ObjectKey
    handler: str
    """What runs: a handler, an alarm's handler, ``after_load``, or what a `Call` names."""
    readonly: bool
    function: Callable[..., object] | None
    """The handler's function; None for what a runtime does to an object by itself."""
    request: Call | AlarmDelivery | None
    """Whose turn it is. None for ``after_load``, for which all wait who have called."""


@attrs.frozen(eq=False)
class Load:
    """Reading what is stored of an object, until the object has it."""

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
    """A change in a `Commit` to an object's alarms alone."""

    key: ObjectKey
    turns: tuple[Turn, ...]
    """The turns that it makes durable; none if the alarms are changed from outside."""


@attrs.frozen(eq=False)
class Commit:
    """A transaction. Its duration is the storage's own time."""

    changes: tuple[Save | Delete | AlarmUpdate, ...]
    """One for each object in it. They start and end together with it; a stale one ends with an
    exception while the transaction goes on without it."""
    size: int
    """Bytes that go to the storage, roughly."""


# --- points --------------------------------------------------------------------------------------


@attrs.frozen(eq=False)
class Entered:
    """An object comes into memory."""

    key: ObjectKey


@attrs.frozen(eq=False)
class Activated:
    """An object is loaded and its ``after_load`` has run."""

    key: ObjectKey
    was_stored: bool
    """False if it started from its defaults."""


@attrs.frozen(eq=False)
class Hibernated:
    """An object was idle, and only its encoded state stays in memory."""

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
    """``"idle"``: for as long as ``shutdown_after`` says. ``"evicted"``: to make room for others.
    ``"closed"``: the runtime closes. ``"ended"``: all else, be that ``stop``, a deletion, a failed
    load, ``after_load`` or commit, or because it was there for a change from outside only."""


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
    """An alarm has used up its attempts."""

    key: ObjectKey
    name: str
    attempts: int


Timed: TypeAlias = Call | Turn | Load | Save | Delete | AlarmUpdate | Commit | AlarmDelivery
"""Events that have a start, and then a stop or an exception."""
