"""The records that cross the line between the runtime and a storage."""

from __future__ import annotations

import secrets
from typing import Literal

import attrs

from .._keys import AlarmKey, ObjectKey


@attrs.define(eq=False)
class NewAlarm:
    """An alarm as it is set."""

    due_at: int
    """In microseconds since 1970 UTC."""
    payload: bytes | None
    """JSON."""


@attrs.define(eq=False)
class AlarmChanges:
    """What turns of one object did to its alarms. Applied in the order of the fields."""

    acknowledged: dict[str, int] = attrs.field(factory=dict)
    """The names of alarms that were handled, and the claims under which they were: these alarms
    go. The claims must still be held, or the commit does not apply."""
    clear: bool = False
    """All alarms go."""
    changed: dict[str, NewAlarm | None] = attrs.field(factory=dict)
    """By name: set anew, with no trace of one that was there; or, if None, cancelled."""

    def touches(self, name: str) -> bool:
        """Whether an alarm of that name, known from before, is no longer what it was."""
        return self.clear or name in self.changed or name in self.acknowledged

    def merge(self, later: AlarmChanges) -> None:
        """Make these and then ``later`` one."""
        self.acknowledged.update(later.acknowledged)
        if later.clear:
            self.clear = True
            self.changed.clear()
        self.changed.update(later.changed)

    @property
    def size(self) -> int:
        """The bytes that they take, roughly."""
        payloads = sum(len(new.payload) for new in self.changed.values() if new and new.payload)
        return payloads + 64 * (len(self.changed) + len(self.acknowledged))


def new_epoch() -> int:
    """An epoch for an object that begins, which no other ever had."""
    return secrets.randbits(62)


@attrs.define(eq=False)
class Commit:
    """What one or more turns of one object changed, to be applied as a whole."""

    key: ObjectKey
    revision: int | None
    """The revision this is based on; 0 if nothing was stored. Applying a new state stores the next
    one. None for changes to alarms alone that come from outside of the object."""
    state: bytes | None = None
    """The encoded state, or None if the turn left it as it was."""
    delete: bool = False
    """Remove the object's row. ``state`` then has no meaning, and ``revision`` isn't None."""
    alarms: AlarmChanges | None = None
    epoch: int = 0
    """Which of the objects that were ever stored under this key it is about: a number that a new
    one is given, up to 2**63 - 1, and that its row keeps."""

    @property
    def writes_anything(self) -> bool:
        """Whether there is something afterwards that there may not have been before."""
        if self.state is not None and not self.delete:
            return True
        return self.alarms is not None and any(self.alarms.changed.values())

    @property
    def expects_anything(self) -> bool:
        """Whether it is stale where nothing is stored."""
        return bool(self.revision or (self.alarms and self.alarms.acknowledged))


@attrs.frozen
class StoredObject:
    """A row as it was read."""

    revision: int
    state: bytes
    epoch: int = 0


NO_TIME = -(2**63)
"""Stands for the time of an alarm whose row has something else in its place. Not a time that an
alarm can be set for."""


@attrs.frozen
class StoredAlarm:
    """An alarm as it was read."""

    key: AlarmKey
    due_at: int
    """When it was set for, in microseconds since 1970 UTC; or `NO_TIME`."""
    payload: bytes | None
    failures: int
    """How often it was handled in vain."""
    last_error: str | None


@attrs.frozen
class DueAlarm:
    """An entry of the horizon feed."""

    available_at: int
    """From when on it can be claimed: due, or due again after a failure, or its claim runs out."""
    key: AlarmKey


@attrs.frozen
class Postponement:
    """What becomes of a claimed alarm that was not acknowledged. The claim is given back."""

    key: AlarmKey
    claim: int
    available_at: int | None
    """When it is due again; None makes it a dead letter, which is kept but never due."""
    failures: int
    last_error: str | None
    """Without NUL and lone surrogates."""


@attrs.frozen
class ObjectRow:
    """An object as it is kept, for those who look through a storage."""

    key: ObjectKey
    revision: int
    updated_at: int
    """When it was last written, in microseconds since 1970 UTC."""
    state: bytes
    epoch: int = 0


AlarmStatus = Literal["pending", "overdue", "dead"]
"""Of an alarm: due later; due or claimed by now, and not acknowledged; a dead letter."""


@attrs.frozen
class AlarmRow:
    """An alarm as it is kept, for those who look through a storage."""

    alarm: StoredAlarm
    available_at: int | None
    """See `DueAlarm`; None for a dead letter."""
    status: AlarmStatus


@attrs.frozen
class TypeSummary:
    """What is kept of a type."""

    type_name: str
    objects: int
    state_bytes: int
    pending: int
    overdue: int
    dead: int
