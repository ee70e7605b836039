"""Restoring of exported objects and messages.

An object is saved with the time of its last change, and starts with revision 1, or continues from
the object that it replaces.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import attrs

from ..._keys import ObjectKey
from ..._persistence.restoring import each_part
from ...storage import (
    Commit,
    DeadMessage,
    ObjectRow,
    OnceReply,
    StorageFault,
    StoredMessage,
    StoredObject,
    Writer,
    new_epoch,
)


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


@attrs.define
class Mail:
    """Messages, dead letters and once-keys of one tenant."""

    waiting: list[StoredMessage] = attrs.field(factory=list)
    dead: list[DeadMessage] = attrs.field(factory=list)
    once: list[OnceReply] = attrs.field(factory=list)

    def __len__(self) -> int:
        return len(self.waiting) + len(self.dead) + len(self.once)

    def add(self, row: StoredMessage | DeadMessage | OnceReply) -> None:
        """Add a row behind those of its kind."""
        if isinstance(row, StoredMessage):
            self.waiting.append(row)
        elif isinstance(row, DeadMessage):
            self.dead.append(row)
        else:
            self.once.append(row)


def restore_mail(writer: Writer, mail: Mail, now: int) -> Mail:
    """Store messages and once-keys under new numbers, in their order.

    Returns:
        Those that were there already, and were left as they are there.

    Raises:
        StorageFault: One can't be written.
    """
    refused_tokens, refused_keys = writer.restore_messages(mail.waiting, mail.dead, mail.once, now)
    tokens, keys = set(refused_tokens), set(refused_keys)
    return Mail(
        [each for each in mail.waiting if each.key.token in tokens],
        [each for each in mail.dead if each.message.key.token in tokens],
        [each for each in mail.once if each.key in keys],
    )
