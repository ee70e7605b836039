"""Encoded fields of an object, as they are kept in memory between turns.

The row of an object is known without another read: by the digest that `Foreign` and `Unsaved`
keep, or from the fields themselves, which then are those of the row.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from typing import TypeAlias

import attrs


def row_digest(row: bytes) -> str:
    """A digest of a stored state, which tells it from all other states of its object."""
    return blake2b(row, digest_size=16).hexdigest()


@attrs.frozen(eq=False)
class Loaded:
    """The state of a row, before an instance was made of it."""

    state: bytes

    def written_again(
        self, fields: bytes, stored: Callable[[bytes], bytes], has_unsaved: bool
    ) -> bytes | Foreign | Unsaved:
        """The fields of the instance that was made of it.

        Args:
            fields: The fields, as this class writes them.
            stored: Returns the row in which fields would be stored.
            has_unsaved: The row lacked a default that can't be made again.
        """
        if has_unsaved:
            return Unsaved(fields, row_digest(self.state))
        return fields if stored(fields) == self.state else Foreign(fields, row_digest(self.state))


@attrs.frozen(eq=False)
class Foreign:
    """The fields of a row that this class would write in another way. No turn has to save them."""

    fields: bytes
    digest: str
    """The digest of the row."""

    def __eq__(self, other: object) -> bool:
        return self.fields == other

    __hash__: None = None  # type: ignore[assignment]


@attrs.frozen(eq=False)
class Unsaved:
    """Encoded fields with a default that isn't stored and can't be made again, such as a uuid4.

    They differ from any bytes, so the first turn saves them: callers may see such a default.
    """

    fields: bytes
    digest: str | None
    """The digest of the row that lacks the default; None if nothing is stored."""


Encoded: TypeAlias = "bytes | Foreign | Unsaved | Loaded | None"


def fields_of(encoded: Encoded) -> bytes | None:
    """The fields; None if there are none yet, or the row wasn't read."""
    if isinstance(encoded, Foreign | Unsaved):
        return encoded.fields
    return encoded if isinstance(encoded, bytes) else None


def digest_of_row(encoded: Encoded, stored: Callable[[bytes], bytes]) -> str | None:
    """The digest of the row of an object that has no commit on its way; None if it isn't known."""
    if isinstance(encoded, Foreign | Unsaved):
        return encoded.digest
    if encoded is None:
        return None
    return row_digest(encoded.state if isinstance(encoded, Loaded) else stored(encoded))
