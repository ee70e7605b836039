"""What there is to do for a batch of commits, by kind."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from .._keys import AlarmKey, ObjectKey
from ._records import Commit, NewAlarm, StoredObject, TypeSummary

T = TypeVar("T")


class Stale(Exception):
    """Something in a batch is not as it was expected."""


class GroupedChanges:
    """The commits of a batch, sorted into kinds.

    To be done in the order in which they are listed here, for that is the order of the fields of
    `AlarmChanges`; the keys of different commits are distinct.
    """

    def __init__(self, batch: Iterable[Commit]) -> None:
        self.saved: list[Commit] = []
        """They have a state to save."""
        self.deleted: list[Commit] = []
        """Their objects' rows go."""
        self.unchanged: list[Commit] = []
        """They leave the row as it is, or as missing as it is, and depend on that."""
        self.acknowledged: list[tuple[AlarmKey, int]] = []
        self.cleared: list[ObjectKey] = []
        self.cancelled: list[AlarmKey] = []
        self.scheduled: list[tuple[AlarmKey, NewAlarm]] = []
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
                self.scheduled.append((key.alarm(name), new))
            elif not changes.clear:
                self.cancelled.append(key.alarm(name))


def by_tenant(items: Iterable[T], tenant_of: Callable[[T], str]) -> dict[str, list[T]]:
    """The items of each tenant."""
    groups: dict[str, list[T]] = {}
    for item in items:
        groups.setdefault(tenant_of(item), []).append(item)
    return groups


def acknowledgements(batch: Iterable[tuple[int, Commit]]) -> list[tuple[int, AlarmKey, int]]:
    """Of a batch of (number, commit), what is acknowledged, as (number, alarm, claim)."""
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
    """Load the objects of each tenant by themselves; in the order of ``keys``."""
    if not any(key.tenant for key in keys):
        return load("", keys)
    found: list[StoredObject | None] = [None] * len(keys)
    for tenant, part in by_tenant(enumerate(keys), lambda each: each[1].tenant).items():
        rows = load(tenant, [key for _, key in part])
        for (position, _), row in zip(part, rows, strict=True):
            found[position] = row
    return found


def summaries(
    objects: Mapping[str, tuple[int, int]], alarms: Mapping[str, tuple[int, int, int]]
) -> list[TypeSummary]:
    """What is kept of each type, in the order of their names.

    Args:
        objects: How many objects there are of a type, and how many bytes of state.
        alarms: How many of its alarms are pending, overdue and dead.
    """
    return [
        TypeSummary(name, *objects.get(name, (0, 0)), *alarms.get(name, (0, 0, 0)))
        for name in sorted({*objects, *alarms})
    ]
