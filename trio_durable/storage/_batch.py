"""Code that the backends share: grouping of batches, expired claims, and summaries.

It contains no SQL. Each backend has statements of its own, because a fast statement in one of them
isn't fast in the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from .._clock import LATEST
from .._keys import AlarmKey, ObjectKey
from ._faults import PartialFault
from ._records import STOPPED, Commit, NewAlarm, StoredObject, TypeSummary

T = TypeVar("T")


class Stale(Exception):
    """A commit of a batch is stale. The transaction must be rolled back."""


class GroupedChanges:
    """The changes of a batch, grouped by the statement that applies them.

    A backend applies the groups in the order of the attributes, which is that of the fields of
    `AlarmChanges`. Within a group the order doesn't matter, since the keys of commits are distinct.
    """

    def __init__(self, batch: Iterable[Commit]) -> None:
        self.saved: list[Commit] = []
        """Commits that save a state."""
        self.deleted: list[Commit] = []
        """Commits that delete a row."""
        self.unchanged: list[Commit] = []
        """Commits that change no row, but apply only if the stored revision is as expected."""
        self.acknowledged: list[tuple[AlarmKey, int]] = []
        """Alarms to remove, with the claims that must be held."""
        self.cleared: list[ObjectKey] = []
        """Objects whose alarms are all removed."""
        self.cancelled: list[AlarmKey] = []
        """Alarms to remove whatever their claims. Those of cleared objects are left out."""
        self.scheduled: list[tuple[AlarmKey, NewAlarm]] = []
        """Alarms to set whatever is stored."""
        self.conditional: list[tuple[AlarmKey, NewAlarm]] = []
        """Alarms to set if what is stored under their names may be replaced, see `Onto`."""
        for commit in batch:
            if commit.delete and commit.revision:
                self.deleted.append(commit)
            elif commit.state is not None and not commit.delete:
                self.saved.append(commit)
            elif commit.revision is not None:
                self.unchanged.append(commit)
            if commit.alarms is not None:
                self._sort_alarms(commit)

    def _sort_alarms(self, commit: Commit) -> None:
        key, changes = commit.key, commit.alarms
        assert changes is not None
        for name, claim in changes.acknowledged.items():
            self.acknowledged.append((key.alarm(name), claim))
        if changes.clear:
            self.cleared.append(key)
        for name, new in changes.changed.items():
            if new is not None:
                group = self.conditional if new.is_conditional else self.scheduled
                group.append((key.alarm(name), new))
            elif not changes.clear:
                self.cancelled.append(key.alarm(name))


def available_from(new: NewAlarm) -> int | None:
    """The time from which a new alarm can be claimed; None for the mark of a stopped one."""
    return None if new.recurrence == STOPPED else new.due_at


def by_tenant(items: Iterable[T], tenant_of: Callable[[T], str]) -> dict[str, list[T]]:
    """Group items by tenant, in the order in which the tenants first occur."""
    groups: dict[str, list[T]] = {}
    for item in items:
        groups.setdefault(tenant_of(item), []).append(item)
    return groups


def acknowledgements(batch: Iterable[tuple[int, Commit]]) -> list[tuple[int, AlarmKey, int]]:
    """The claims that (number, commit) pairs acknowledge, as (number, alarm, claim)."""
    return [
        (number, commit.key.alarm(name), claim)
        for number, commit in batch
        if commit.alarms
        for name, claim in commit.alarms.acknowledged.items()
    ]


def load_by_tenant(
    keys: Sequence[ObjectKey],
    load: Callable[[str, Sequence[ObjectKey]], Sequence[StoredObject | None]],
) -> Sequence[StoredObject | None]:
    """Call ``load`` once for each tenant, and return the objects in the order of ``keys``.

    Raises:
        PartialFault: Of some tenants not all can be read. If there are others, names their keys.
    """
    tenants = {key.tenant for key in keys}
    if len(tenants) == 1:
        return load(tenants.pop(), keys)
    found: list[StoredObject | None] = [None] * len(keys)
    failed: list[int] = []
    faults: list[PartialFault] = []
    for tenant, part in by_tenant(enumerate(keys), lambda each: each[1].tenant).items():
        try:
            rows = load(tenant, [key for _, key in part])
        except PartialFault as fault:
            failed += [position for position, _ in part]
            faults.append(fault)
            continue
        for (position, _), row in zip(part, rows, strict=True):
            found[position] = row
    if faults:
        # If nothing can be read, each tenant's own fault is still to be found.
        can_name = len(faults) == 1 or len(failed) < len(keys)
        raise PartialFault(str(faults[0]), sorted(failed) if can_name else ()) from faults[0]
    return found


def expired_by(now: int) -> int:
    """The latest ``available_at`` of the claims that have run out by ``now``.

    None have if ``now`` is no time of a clock but stands for any time, as when an alarm is fired.
    """
    return now if now <= LATEST else -(2**63)


def summaries(
    objects: Mapping[str, tuple[int, int]], alarms: Mapping[str, tuple[int, int, int]]
) -> list[TypeSummary]:
    """Combine the counts of objects and alarms of each type, in the order of type names.

    Args:
        objects: By type: the number of objects, and the total bytes of their states.
        alarms: By type: the number of pending, overdue and dead alarms.
    """
    return [
        TypeSummary(name, *objects.get(name, (0, 0)), *alarms.get(name, (0, 0, 0)))
        for name in sorted({*objects, *alarms})
    ]


def both_names(old: str, key: ObjectKey) -> str:
    """The problem of a type that can't be renamed: an object is there under both names."""
    return (
        f"{key} is there, and as {old!r} as well; remove one of them, with its alarms, before you "
        "rename the type"
    )
