"""Restoring of exported objects.

An object is saved with the time of its last change, and starts with revision 1, or continues from
the object that it replaces.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from ..._keys import ObjectKey
from ..._persistence.restoring import each_part
from ...storage import Commit, ObjectRow, StorageFault, StoredObject, Writer, new_epoch


def restore_objects(
    writer: Writer, rows: Sequence[ObjectRow], stored: Mapping[ObjectKey, StoredObject]
) -> None:
    """Save objects.

    Args:
        writer: The writer of the storage.
        rows: Rows of distinct objects.
        stored: The stored objects among them.

    Raises:
        StorageFault: An object can't be written.
    """
    batches: dict[int, list[Commit]] = defaultdict(list)
    for row in rows:
        batches[row.updated_at].append(restoring_commit(row, stored.get(row.key)))
    for updated_at, batch in batches.items():
        _commit(writer, batch, updated_at)


def restoring_commit(row: ObjectRow, stored: StoredObject | None) -> Commit:
    """The commit that saves an object in place of the stored one, if there is one."""
    revision, epoch = (stored.revision, stored.epoch) if stored else (0, new_epoch())
    return Commit(row.key, revision, row.state, epoch=epoch)


def _commit(writer: Writer, batch: list[Commit], now: int) -> None:
    for part, stale in each_part(
        batch, lambda commit: commit.key.tenant, lambda part: writer.commit(part, now)
    ):
        if stale:
            raise changed_meanwhile(part[min(stale)].key)


def changed_meanwhile(key: ObjectKey) -> StorageFault:
    """The fault of an object that was saved since it was read."""
    return StorageFault(f"{key} was changed by another writer meanwhile")
