"""Placement: the objects that may live in this process, where other processes have the rest."""

from __future__ import annotations

from typing import Protocol

from .._keys import ObjectKey


class NotHere(Exception):
    """An object may not live in this process now. Nothing was done; it never leaves the runtime."""


class Placed(Protocol):
    """An object in memory."""

    @property
    def key(self) -> ObjectKey:
        """Its identity."""
        ...

    def retire(self) -> None:
        """Leave memory as soon as nothing runs or waits, and each commit is durable."""
        ...


class Placement(Protocol):
    """Which objects may live here. The directory asks before it makes an activation.

    So no object comes into memory in a process that doesn't own it, whatever path a call took.
    """

    def check(self, key: ObjectKey) -> None:
        """Let an object come into memory.

        Raises:
            NotHere: Another process owns it, or gets it in this moment.
        """
        ...

    def entered(self, activation: Placed) -> None:
        """An object is in memory."""
        ...

    def left(self, activation: Placed) -> None:
        """It isn't any more."""
        ...
