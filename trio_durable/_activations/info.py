"""Snapshot of an activation for users."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import attrs

from .._keys import ObjectKey

if TYPE_CHECKING:
    pass

Status = Literal["loading", "active", "hibernated"]


@attrs.frozen
class ActivationInfo:
    """What there is to know about a running object."""

    key: ObjectKey
    status: Status
    """``"loading"``, ``"active"``, or ``"hibernated"``: idle, with only its bytes in memory."""
    mailbox_depth: int
    """Calls that wait for their turn."""
    revision: int
    """The object's commit number as stored; 0 if nothing is."""
