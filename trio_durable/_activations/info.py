"""Snapshots of an activation for users."""

from __future__ import annotations

from typing import Literal

import attrs

from .._keys import ObjectKey

Status = Literal["loading", "active", "hibernated"]


@attrs.frozen
class ActivationInfo:
    """A snapshot of an object in memory."""

    key: ObjectKey
    status: Status
    """``"loading"``, ``"active"``, or ``"hibernated"``: idle, with only its bytes in memory."""
    mailbox_depth: int
    """Calls in the mailbox, and in the line before it."""
    revision: int
    """The stored revision, which counts the object's commits; 0 if nothing is stored."""


@attrs.frozen
class BusyObject:
    """A snapshot of an object that loads or runs an ``async def`` turn."""

    key: ObjectKey
    doing: str
    """The name of the handler, ``after_load``, or ``loading``."""
    seconds: float
    """The time since that began."""
    waiting: int
    """Calls and alarms in the mailbox, and in the line before it."""
    cancelled: float | None = None
    """The time since the turn was cancelled, in seconds; None if it wasn't.

    The object is busy until the handler lets the cancellation through.
    """

    def __str__(self) -> str:
        return f"{self.key}: {self.doing} for {duration(self)}, {self.waiting:,} waiting"


def duration(busy: BusyObject) -> str:
    """The time since the job began, and since its turn was cancelled, as text."""
    cancelled = "" if busy.cancelled is None else f" (cancelled {busy.cancelled:.3g} s ago)"
    return f"{busy.seconds:.3g} s{cancelled}"
