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

import secrets
from typing import Literal

import attrs

from .._keys import AlarmKey, ObjectKey
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


@attrs.define(eq=False)
class NewAlarm:
    """An alarm to set."""

    due_at: int
    """In microseconds since 1970 UTC."""
    payload: bytes | None
    """JSON in UTF-8."""


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
    and error; or None to cancel it."""

    def touches(self, name: str) -> bool:
        """True if these changes replace or remove an earlier alarm of that name."""
        return self.clear or name in self.changed or name in self.acknowledged

    def merge(self, later: AlarmChanges) -> None:
        """Add ``later``, so that applying these changes applies both."""
        self.acknowledged.update(later.acknowledged)
        if later.clear:
            self.clear = True
            self.changed.clear()
        self.changed.update(later.changed)

    @property
    def size(self) -> int:
        """Approximate size in bytes."""
        payloads = sum(len(new.payload) for new in self.changed.values() if new and new.payload)
        return payloads + 64 * (len(self.changed) + len(self.acknowledged))


def new_epoch() -> int:
    """A random epoch for a new object, unique with overwhelming probability."""
    return secrets.randbits(62)


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


@attrs.frozen
class DueAlarm:
    """An entry of the horizon feed."""

    available_at: int
    """When the alarm can be claimed: its due time, the time of its next retry, or the end of its
    current claim."""
    key: AlarmKey


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


@attrs.frozen
class ObjectRow:
    """A stored object with its metadata, for tools that browse a storage."""

    key: ObjectKey
    revision: int
    updated_at: int
    """The time of its last save, in microseconds since 1970 UTC."""
    state: bytes
    epoch: int = 0


AlarmStatus = Literal["pending", "overdue", "dead"]
"""Status of an alarm: due later; due or claimed by now, and not acknowledged; a dead letter."""


@attrs.frozen
class AlarmRow:
    """A stored alarm with its status, for tools that browse a storage."""

    alarm: StoredAlarm
    available_at: int | None
    """See `DueAlarm`; None for a dead letter."""
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
