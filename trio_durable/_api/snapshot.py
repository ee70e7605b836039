"""Snapshots: stored states, each of one object at one revision, and pages of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Generic, TypeVar, cast

import attrs

from .._activations.encoded import row_digest
from .._activations.object_type import ObjectType
from .._errors import StateConflict, StateDecodeError
from .._keys import ObjectKey
from .._text import short_repr
from ..storage import Reader
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
        """The stored text, with its declaration; None if nothing is stored.

        Raises:
            StateDecodeError: It isn't UTF-8. Another program has written it.
        """
        try:
            return None if self._row is None else self._row.decode()
        except UnicodeDecodeError as error:
            place = f"byte {error.start}"
            raise StateDecodeError(self.key, "", place, f"not UTF-8 ({error.reason})") from error

    @property
    def digest(self) -> str | None:
        """A digest of the stored text; None if nothing is stored.

        Together with the revision it tells this state from all others of the object, those before
        a deletion and of other backups as well. `Objects.put_state` takes the two as ``expected``.
        """
        return None if self._row is None else row_digest(self._row)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Snapshot):
            return NotImplemented
        mine = (self.key, self.revision, self._row)
        return mine == (other.key, other.revision, other._row)

    def __hash__(self) -> int:
        return hash((self.key, self.revision, self._row))

    def __repr__(self) -> str:
        return f"<snapshot of {self.key} at revision {self.revision}>"


def checked_expected(expected: tuple[int, str | None]) -> tuple[int, str | None]:
    """The ``expected`` of `Objects.put_state`, checked.

    Raises:
        TypeError: It is no pair of a revision and a digest.
    """
    match expected:
        case (0, None) if type(expected[0]) is int:
            return expected
        case (int(revision), str()) if type(revision) is int and revision > 0:
            return expected
    raise TypeError(
        f"expected={short_repr(expected)} is no pair of a revision and a digest: pass "
        "(snapshot.revision, snapshot.digest), or (0, None) if nothing may be stored"
    )


def conflict(key: ObjectKey, expected: int, revision: int, row: bytes | None) -> StateConflict:
    """The error of a `Objects.put_state` that expected another state than the stored one."""
    digest = None if row is None else row_digest(row)
    text = None if row is None else row.decode(errors="replace")
    return StateConflict(key, "put_state", expected, revision, digest, text)


@attrs.frozen
class StatesPage(Generic[T_co]):
    """A page of the stored states of a type, in the order of their ids. It can be iterated over."""

    states: tuple[Snapshot[T_co], ...]
    next: str | None
    """The ``after`` of the next page; None if there is none."""

    def __iter__(self) -> Iterator[Snapshot[T_co]]:
        return iter(self.states)

    def __len__(self) -> int:
        return len(self.states)


_FIRST_ROWS = 16
"""Rows that are read before their size is known."""


def read_page(
    reader: Reader,
    object_type: ObjectType,
    after: str | None,
    limit: int,
    tenant: str,
    most_bytes: int,
) -> StatesPage[Any]:
    """A page of states, from a storage. Several short reads, so that its size is bounded.

    Args:
        reader: The storage.
        object_type: The type.
        after: Only ids after this one.
        limit: The most states.
        tenant: The tenant's name.
        most_bytes: The size of the states from which on no more are read.
    """
    found: list[Snapshot[Any]] = []
    size, rows = 0, _FIRST_ROWS
    last = None if not after else ObjectKey(object_type.name, after, tenant)
    while True:
        asked = min(rows, limit - len(found))
        read = reader.browse_objects(object_type.name, last, asked, tenant)
        for row in read:
            size += len(row.state)
            last = row.key
            found.append(Snapshot(object_type, row.key, row.revision, row.state))
        if len(read) < asked:
            return StatesPage(tuple(found), None)
        if len(found) >= limit or size >= most_bytes:
            assert last is not None
            return StatesPage(tuple(found), last.object_id)
        # As many as fit, if they are as large as those so far.
        rows = max(1, (most_bytes - size) * len(found) // max(size, 1))
