"""Upgrade of all stored states of a class, in place.

No progress is stored: each state has the number of its schema, and a state with the current schema
is skipped. A batch is one transaction, and each save in it is conditional on the revision that was
read. So an upgrade can be killed at any moment, and run again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import attrs

from ..._api.durable_object import ObjectDefinition
from ..._api.registry import state_codec
from ..._clock import SystemClock
from ..._errors import StateDecodeError, StateEncodeError
from ..._keys import ObjectKey
from ...storage import Commit, Reader
from .batches import batches
from .formatting import schema_of
from .owner import Owner
from .paging import iter_objects


@attrs.frozen
class FailedUpgrade:
    """A state that could not be upgraded, and is unchanged."""

    key: ObjectKey
    problem: str


class StateUpgrade:
    """Upgrades and counts the states of a class.

    Args:
        definition: The definition of the class.

    Raises:
        DefinitionError: A field has a type that state can't have.
    """

    def __init__(self, definition: ObjectDefinition) -> None:
        self.definition = definition
        self.upgraded: int = 0
        self.current: int = 0
        """The number of states that had the schema of the class before."""
        self.failed: int = 0
        self._codec = state_codec(definition)

    def run(
        self, reader: Reader, owner: Owner | None, tenant: str, advance: Callable[[], None]
    ) -> Iterator[FailedUpgrade]:
        """Upgrade the states of a tenant, and yield the ones that can't be upgraded.

        Args:
            reader: The reader of the storage.
            owner: The way to change the storage; None to count only.
            tenant: The tenant.
            advance: Called once for each state.

        Raises:
            StorageFault: The storage can't be read or written.
        """
        for batch in batches(self._upgrades(reader, tenant, advance), _size_of):
            yield from (each for each in batch if isinstance(each, FailedUpgrade))
            yield from self._save(owner, [each for each in batch if isinstance(each, Commit)])

    def _upgrades(
        self, reader: Reader, tenant: str, advance: Callable[[], None]
    ) -> Iterator[Commit | FailedUpgrade]:
        for row in iter_objects(reader, self.definition.name, tenant):
            advance()
            if schema_of(row.state) == self.definition.schema:
                self.current += 1
                continue
            try:
                state = self._codec.encode(row.key, self._codec.decode(row.key, row.state))
            except (StateDecodeError, StateEncodeError) as error:
                self.failed += 1
                yield FailedUpgrade(row.key, str(error))
            else:
                yield Commit(row.key, row.revision, state, epoch=row.epoch)

    def _save(self, owner: Owner | None, batch: list[Commit]) -> Iterator[FailedUpgrade]:
        stale = owner.commit(batch, SystemClock().now()) if owner else ()
        self.upgraded += len(batch) - len(stale)
        self.failed += len(stale)
        for position in stale:
            key = batch[position].key
            yield FailedUpgrade(
                key, f"{key} was changed by another writer meanwhile; run this again"
            )


def _size_of(each: Commit | FailedUpgrade) -> int:
    return len(each.state or b"") if isinstance(each, Commit) else 0
