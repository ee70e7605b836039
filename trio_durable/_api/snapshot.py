"""Snapshot: the stored state of one object at one revision."""

from __future__ import annotations

from typing import Generic, TypeVar, cast

from .._activations.object_type import ObjectType
from .._keys import ObjectKey
from .durable_object import DurableObject

T_co = TypeVar("T_co", bound=DurableObject, covariant=True)


class Snapshot(Generic[T_co]):
    """The durable state of an object at one revision. It never changes.

    The state is decoded when it is asked for, so a row that this release can't read raises there
    and nowhere else. Two snapshots are equal if they have the same object, revision and JSON.
    """

    __slots__ = ("_object_type", "_row", "key", "revision")

    key: ObjectKey
    """The object."""
    revision: int
    """The number of the commit that stored it; 0 if nothing is stored. A deletion starts over."""

    def __init__(
        self, object_type: ObjectType, key: ObjectKey, revision: int, row: bytes | None
    ) -> None:
        self._object_type = object_type
        self._row = row
        self.key = key
        self.revision = revision

    @property
    def state(self) -> T_co:
        """A detached copy of the object, another one each time; the defaults if nothing is stored.

        Raises:
            StateDecodeError: The stored state can't be decoded.
            StateEncodeError: Nothing is stored, and a default can't be.
        """
        codec = self._object_type.codec
        if self._row is not None:
            return cast("T_co", codec.decode(self.key, self._row))
        return cast("T_co", codec.decode_fields(self.key, codec.new_fields(self.key)))

    @property
    def json(self) -> str | None:
        """The stored text, with its declaration; None if nothing is stored."""
        return None if self._row is None else self._row.decode()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Snapshot):
            return NotImplemented
        mine = (self.key, self.revision, self._row)
        return mine == (other.key, other.revision, other._row)

    def __hash__(self) -> int:
        return hash((self.key, self.revision, self._row))

    def __repr__(self) -> str:
        return f"<snapshot of {self.key} at revision {self.revision}>"
