"""Records that the runtime and a storage exchange.

Times are wall time in whole microseconds since 1970 UTC and fit in a signed 64-bit integer, as do
revisions, epochs and claims. States and payloads are JSON in UTF-8. Type names, ids, names of
alarms and errors are text without NUL and lone surrogates. A storage keeps all of them exactly.

Type names, ids and names of alarms have 1 to 512 bytes of UTF-8 each. The name of a tenant has up
to 48 characters, of lowercase ASCII letters, digits, ``_`` and ``-``, and begins with a letter or a
digit; "" stands for no tenant. The contract sets no bound for states,
payloads and errors. A runtime limits them: states to its ``max_state_size``, payloads to 64 KiB,
errors to 1000 characters.
"""

from __future__ import annotations

import enum
from typing import Literal

import attrs

from .._keys import AlarmKey, ObjectKey
from .._random_bits import random_bits
from ._messages import MessageChanges

FindingStatus = Literal["ok", "warning", "problem"]
"""Result of a check: ``"ok"``; ``"warning"`` for a risk, or a check that wasn't possible; or
``"problem"`` if runtimes fail, or data is damaged or may be lost."""


@attrs.frozen
class Finding:
    """Result of one check of a storage, see `Storage.diagnose`.

    A text for people: one or several sentences in one line, without secrets.
    """

    name: str
    """The check, in one to three lowercase words, such as "journal mode"."""
    status: FindingStatus
    text: str
    """The observation."""
    advice: str = ""
    """The remedy, for a warning or a problem; "" otherwise."""


STOPPED = "stopped"
"""As ``recurrence``: the row is no alarm, but the mark of a recurring one that was turned off. It
has no ``available_at``, and it is no dead letter."""
MOVED = "moved"
"""As ``recurrence``: a firing at a time of its own, which the schedule doesn't correct."""


class Onto(enum.IntFlag):
    """The rows that an alarm may replace."""

    NOTHING = 0
    """None: it is set if there is no row of its name."""
    STOPPED = 1
    """The mark of an alarm that was turned off."""
    OUTDATED = 2
    """A row without a claim that is neither `STOPPED` nor `MOVED`: a dead letter, or an alarm that
    is due after the time of the commit and has another ``recurrence``."""
    ANYTHING = 4
    """Any row."""
    LATE = 8
    """A row without a claim that is neither `STOPPED` nor `MOVED`, no dead letter, and due after
    both the time of the commit and that of the new one. A firing may end between the calculation of
    a time and the commit, so this is for rows that are known to be far too late."""


@attrs.define(eq=False)
class NewAlarm:
    """An alarm to set."""

    due_at: int
    """In microseconds since 1970 UTC."""
    payload: bytes | None
    """JSON in UTF-8."""
    recurrence: str | None = None
    """None for an alarm that fires once. Otherwise `STOPPED`, `MOVED`, or any other text, by which
    the runtime knows the schedule that the time comes from. Up to 64 characters."""
    onto: Onto = Onto.ANYTHING
    """Nothing changes if there is a row of its name that isn't one of these."""

    @property
    def is_conditional(self) -> bool:
        """True if it may not be set, which depends on the stored row."""
        return Onto.ANYTHING not in self.onto

    def after(self, earlier: NewAlarm | None) -> NewAlarm | None:
        """The change that has the effect of ``earlier``, which may be a cancellation, and this."""
        if not self.is_conditional:
            return self
        if earlier is None:
            return attrs.evolve(self, onto=Onto.ANYTHING)
        if earlier.is_conditional:
            # Without a row the earlier one is set. Only for the same schedule is it also what this
            # would replace a row by; else this waits until the object is loaded.
            is_same = self.recurrence == earlier.recurrence
            return attrs.evolve(earlier, onto=self.onto | earlier.onto) if is_same else earlier
        replaces = earlier.recurrence == STOPPED and Onto.STOPPED in self.onto
        return attrs.evolve(self, onto=Onto.ANYTHING) if replaces else earlier


@attrs.define(eq=False)
class AlarmChanges:
    """Changes that turns of one object made to its alarms. Applied in the order of the fields."""

    acknowledged: dict[str, int] = attrs.field(factory=dict)
    """The claim of each handled alarm, by the alarm's name: these alarms are removed. If one of the
    claims is no longer held, the commit is stale and nothing of it applies."""
    clear: bool = False
    """Remove all alarms of the object."""
    changed: dict[str, NewAlarm | None] = attrs.field(factory=dict)
    """By name: the alarm to set, which replaces an earlier one together with its claim, failures
    and error, if it may, see `NewAlarm.onto`; or None to cancel it."""

    def touches(self, name: str) -> bool:
        """True if these changes replace or remove an earlier alarm of that name that is claimed."""
        return name in self.acknowledged or self.supersedes(name)

    def supersedes(self, name: str) -> bool:
        """True if these changes set or cancel an alarm of that name, whatever is stored."""
        if self.clear:
            return True
        new = self.changed.get(name, _UNCHANGED)
        return new is None or not new.is_conditional

    def set(self, name: str, new: NewAlarm | None) -> None:
        """Add one change."""
        if new is not None and name in self.changed:
            new = new.after(self.changed[name])
        elif new is not None and new.is_conditional and self.clear:
            new = new.after(None)
        self.changed[name] = new

    def merge(self, later: AlarmChanges) -> None:
        """Add ``later``, so that applying these changes applies both."""
        for name in later.acknowledged:
            # It is there until then, with a claim, so no condition holds.
            if (earlier := self.changed.get(name)) is not None and earlier.is_conditional:
                del self.changed[name]
        self.acknowledged.update(later.acknowledged)
        if later.clear:
            self.clear = True
            self.changed.clear()
        for name, new in later.changed.items():
            self.set(name, new)

    @property
    def size(self) -> int:
        """Approximate size in bytes."""
        payloads = sum(len(new.payload) for new in self.changed.values() if new and new.payload)
        return payloads + 64 * (len(self.changed) + len(self.acknowledged))


_UNCHANGED = NewAlarm(0, None, onto=Onto.NOTHING)


def new_epoch() -> int:
    """A random epoch for a new object, unique with overwhelming probability."""
    return random_bits()


@attrs.define(eq=False)
class Commit:
    """Changes by one or more turns of one object, to be applied as a whole or not at all."""

    key: ObjectKey
    revision: int | None
    """The stored revision that the changes are based on; 0 if nothing was stored. Applying a new
    state stores the next revision. None for changes to alarms and messages alone of an
    object that isn't in memory: these apply whatever revision is stored."""
    state: bytes | None = None
    """The state as JSON in UTF-8, or None to leave the stored one."""
    delete: bool = False
    """Delete the object's row. Then ``state`` is ignored, and ``revision`` isn't None. A deletion
    at revision 0 deletes nothing, and applies only if nothing is stored."""
    alarms: AlarmChanges | None = None
    epoch: int = 0
    """Identifies one life of the object, from its creation to its deletion: a number up to
    2**63 - 1 that a new object draws and its row keeps."""
    messages: MessageChanges | None = None

    @property
    def writes_anything(self) -> bool:
        """True if the commit stores an object, an alarm, a message or a once-key."""
        if self.state is not None and not self.delete:
            return True
        if self.messages is not None and self.messages.writes_anything:
            return True
        return self.alarms is not None and any(self.alarms.changed.values())

    @property
    def expects_anything(self) -> bool:
        """True if it can only apply to something stored: a row, a claimed alarm, or a message."""
        if self.messages is not None and self.messages.expects_anything:
            return True
        return bool(self.revision or (self.alarms and self.alarms.acknowledged))


@attrs.frozen
class StoredObject:
    """A stored object, as `Reader.load` returns it."""

    revision: int
    state: bytes
    epoch: int = 0


NO_TIME = -(2**63)
"""Stands for the time of an alarm whose row holds something else instead. No alarm can be set for
this time."""


@attrs.frozen
class StoredAlarm:
    """A stored alarm."""

    key: AlarmKey
    due_at: int
    """The time that it was set for, in microseconds since 1970 UTC; or `NO_TIME`."""
    payload: bytes | None
    failures: int
    """How many deliveries have failed since it was set or revived."""
    last_error: str | None
    crashes: int | None = None
    """None, unless the alarm is a suspect: its claim outlived the process that held it. For a
    suspect, how many processes in succession its deliveries didn't let live, as far as these
    began by `Writer.mark`."""
    recurrence: str | None = None
    """See `NewAlarm.recurrence`."""


@attrs.frozen
class DueAlarm:
    """An entry of the horizon feed."""

    available_at: int
    """When the alarm can be claimed: its due time, the time of its next retry, or the end of its
    current claim."""
    key: AlarmKey


@attrs.frozen
class DeadFiring:
    """The end of one firing of a recurring alarm as a dead letter, and the firing after it."""

    name: str
    """The name under which the dead letter is kept; it replaces a row of that name."""
    recurrence: str
    """That of the dead letter."""
    next: NewAlarm
    """The alarm's next firing, in the place of the one that has died."""


@attrs.frozen
class Postponement:
    """A retry of a claimed alarm, its end as a dead letter, or its return unhandled.

    Each releases the claim.
    """

    key: AlarmKey
    claim: int
    available_at: int | None
    """The time of the retry, or ``due_at`` if the alarm is given back unhandled. None makes the
    alarm a dead letter, which is kept but never due."""
    failures: int
    last_error: str | None
    """Without NUL and lone surrogates."""
    crashes: int | None = None
    """See `StoredAlarm.crashes`; None after a delivery that has ended, since it let its process
    live."""
    dead_firing: DeadFiring | None = None
    """For a recurring alarm, whose dead letter is a row of its own: then ``available_at`` is None,
    and the alarm goes on with its next firing. Both are written in the same transaction, if the
    claim is held."""


@attrs.frozen
class ObjectRow:
    """A stored object with its metadata, for tools that browse a storage."""

    key: ObjectKey
    revision: int
    updated_at: int
    """The time of its last save, in microseconds since 1970 UTC."""
    state: bytes
    epoch: int = 0


AlarmStatus = Literal["pending", "overdue", "dead", "stopped"]
"""Status of an alarm: due later; due or claimed by now, and not acknowledged; a dead letter; the
mark of a recurring alarm that was turned off, see `STOPPED`."""


@attrs.frozen
class AlarmRow:
    """A stored alarm with its status, for tools that browse a storage."""

    alarm: StoredAlarm
    available_at: int | None
    """See `DueAlarm`; None for a dead letter and for a mark."""
    status: AlarmStatus


@attrs.frozen
class TypeSummary:
    """Counts and sizes of one type's objects and alarms."""

    type_name: str
    objects: int
    state_bytes: int
    pending: int
    overdue: int
    dead: int
