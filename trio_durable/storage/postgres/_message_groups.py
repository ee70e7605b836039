"""Changes of messages in a batch, grouped by the statements that apply them.

The commits of a batch count as applied one after the other, but a statement applies changes of all
of them at once. `parts` divides a batch where that would make a difference, which is rare: at the
deletion of an object to which an earlier commit sends, say, or at an acknowledgement after a
cancellation.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..._keys import ObjectKey
from .._messages import MessageChanges, MessageKey, NewMessage, OnceKey, OnceReply
from .._records import Commit

Author = tuple[str, str]
"""The identity of a commit in the part of a batch that is of its tenant."""

Numbered = tuple[int, Commit]
"""A commit with its number in the batch."""

ACKNOWLEDGED, BURIED, WITHDRAWN = range(3)


def author_of(number: int, commit: Commit) -> Author:
    """The type and the id of the object that commits.

    A commit of messages alone, of an object that isn't in memory, may share its key with others. It
    has its number instead; no object has an empty type.
    """
    if commit.messages is not None and commit.revision is None and commit.alarms is None:
        return "", str(number)
    return commit.key.type_name, commit.key.object_id


class MessageGroup:
    """The changes of messages of some commits, in the order in which statements apply them."""

    def __init__(self, batch: Sequence[Numbered]) -> None:
        self.waiting: list[tuple[Author, MessageKey, int, int | None, str | None]] = []
        """Messages that must be waiting, the kind of change, and failures and error of a burial."""
        self.sender_keys: list[tuple[Author, ObjectKey, str]] = []
        """Senders, and the keys under which what waits is removed."""
        self.deleted: list[tuple[Author, ObjectKey]] = []
        """Objects for which all that waits becomes dead."""
        self.sent: list[tuple[Author, NewMessage]] = []
        self.recorded: list[tuple[Author, OnceReply]] = []
        self.changes: dict[Author, MessageChanges] = {}
        for number, commit in batch:
            changes = commit.messages
            if changes is None and not commit.delete:
                continue
            author = author_of(number, commit)
            if commit.delete:
                self.deleted.append((author, commit.key))
            if changes is not None:
                self._add(author, commit.key, changes)

    def _add(self, author: Author, key: ObjectKey, changes: MessageChanges) -> None:
        self.changes[author] = changes
        for message in changes.acknowledged:
            self.waiting.append((author, message, ACKNOWLEDGED, None, None))
        for each in changes.buried:
            self.waiting.append((author, each.key, BURIED, each.failures, each.last_error))
        for message in changes.withdrawn:
            self.waiting.append((author, message, WITHDRAWN, None, None))
        self.sender_keys += [(author, key, name) for name in changes.sender_keys]
        self.sent += [(author, new) for new in changes.sent]
        self.recorded += [(author, reply) for reply in changes.recorded]

    @property
    def locks(self) -> int:
        """How many statements lock waiting messages."""
        return sum(map(bool, (self.waiting, self.sender_keys, self.deleted)))


class _Earlier:
    """The changes of messages by the commits of a part so far."""

    def __init__(self) -> None:
        self._used: set[MessageKey] = set()
        self._has_sender_keys = False
        self._deleted: set[ObjectKey] = set()
        self._sent_to: set[ObjectKey] = set()
        self._sent_under: set[tuple[ObjectKey | None, str | None]] = set()
        self._buried: set[tuple[ObjectKey, str]] = set()
        self._recorded: set[OnceKey] = set()

    def must_precede(self, commit: Commit) -> bool:
        """True if statements for all of them at once could apply ``commit`` otherwise."""
        if commit.delete and commit.key in self._sent_to:
            return True
        changes = commit.messages
        if changes is None:
            return False
        waiting = changes.waiting
        if waiting and (
            # It isn't known what waits under a sender key.
            self._has_sender_keys
            or any(key in self._used or key.to in self._deleted for key in waiting)
            or any((key.to, key.lane) in self._buried for key in changes.acknowledged)
        ):
            return True
        names = changes.sender_keys
        if names and (
            self._deleted or any((commit.key, name) in self._sent_under for name in names)
        ):
            return True
        return any(reply.key in self._recorded for reply in changes.recorded)

    def add(self, commit: Commit) -> None:
        """Let ``commit`` be one of them."""
        if commit.delete:
            self._deleted.add(commit.key)
        changes = commit.messages
        if changes is None:
            return
        self._used.update(changes.waiting)
        self._has_sender_keys |= bool(changes.sender_keys)
        self._sent_to.update(new.to for new in changes.sent)
        self._sent_under.update((new.sender, new.sender_key) for new in changes.sent)
        self._buried.update((each.key.to, each.key.lane) for each in changes.buried)
        self._recorded.update(reply.key for reply in changes.recorded)


def parts(batch: Sequence[Numbered]) -> list[list[Numbered]]:
    """Divide a batch into parts that are applied one after the other."""
    found: list[list[Numbered]] = [[]]
    earlier = _Earlier()
    for number, commit in batch:
        if found[-1] and earlier.must_precede(commit):
            found.append([])
            earlier = _Earlier()
        earlier.add(commit)
        found[-1].append((number, commit))
    return found
