"""Places: where the objects of a storage are, as far as this process knows."""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection
from typing import Final, Protocol

from .._activations.directory import Directory
from .peer import Peer


class Here(enum.Enum):
    """The type of `HERE`."""

    HERE = enum.auto()


HERE: Final = Here.HERE
"""The place of an object that lives in this process."""


class Places(Protocol):
    """The places of objects, by their ids."""

    changed: Callable[[], object]
    """Called after each change. The router sets it."""

    @property
    def are_all_here(self) -> bool:
        """True if all objects are in this process until the runtime closes."""
        ...

    @property
    def moving(self) -> Collection[int]:
        """The shards that this process is giving away. While there are none, each object that is in
        its memory lives here.
        """
        ...

    def is_here(self, directory: Directory, address: str) -> bool:
        """True if a call of the object at an address can be made in this process."""
        ...

    def find(self, object_id: str) -> Peer | Here | None:
        """The place of an object; None while it isn't known, or isn't connected yet."""
        ...

    def tenure(self, object_id: str) -> object | None:
        """A value that is equal for as long as an object is here without interruption.

        None while it isn't here, or this process has no valid lease.
        """
        ...

    def moved(self, object_id: str, peer: Peer) -> None:
        """``peer`` doesn't have the object, or has ended."""
        ...

    def decide(self, object_id: str, decided: Callable[[bool], object]) -> None:
        """Decide whether another process is right that an object is here.

        Args:
            object_id: The object.
            decided: Called with True if it is; now, or when this process knows.
        """
        ...


class OnePlace:
    """All objects in one process, this or another one."""

    def __init__(self) -> None:
        self.changed: Callable[[], object] = lambda: None
        self.is_owner = False
        """True while the objects are here."""
        self._peer: Peer | None = None
        self.moving: Collection[int] = ()
        """See `Places.moving`."""

    @property
    def are_all_here(self) -> bool:
        """See `Places.are_all_here`."""
        return self.is_owner

    def is_here(self, directory: Directory, address: str) -> bool:
        """See `Places.is_here`."""
        return self.is_owner

    def find(self, object_id: str) -> Peer | Here | None:
        """See `Places.find`."""
        return HERE if self.is_owner else self._peer

    def tenure(self, object_id: str) -> object | None:
        """See `Places.tenure`."""
        return HERE if self.is_owner else None

    def moved(self, object_id: str, peer: Peer) -> None:
        """See `Places.moved`."""
        self.lost(peer)

    def decide(self, object_id: str, decided: Callable[[bool], object]) -> None:
        """See `Places.decide`."""
        decided(self.is_owner)

    def found(self, peer: Peer) -> None:
        """Another process has the objects."""
        self._peer = peer
        self.changed()

    def lost(self, peer: Peer) -> None:
        """It doesn't have them any more, or doesn't serve them."""
        if self._peer is peer:
            self._peer = None

    def acquired(self) -> None:
        """The objects are in this process from now on."""
        self.is_owner, self._peer = True, None
        self.changed()
