"""What there is to do for a batch of commits, by kind."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from .._keys import AlarmKey, ObjectKey
from ._records import Commit, NewAlarm

T = TypeVar("T")


class Stale(Exception):
    """Something in a batch is not as it was expected."""


class Work:
    """The commits of a batch, sorted into kinds.

    To be done in the order in which they are listed here, for that is the order of the fields of
    `AlarmChanges`; the keys of different commits are distinct.
    """

    def __init__(self, batch: Iterable[Commit]) -> None:
        self.saved: list[Commit] = []
        """They have a state to save."""
        self.deleted: list[Commit] = []
        """Their objects' rows go."""
        self.untouched: list[Commit] = []
        """They leave the row as it is, or as missing as it is, and depend on that."""
        self.acknowledged: list[tuple[AlarmKey, int]] = []
        self.cleared: list[ObjectKey] = []
        self.cancelled: list[AlarmKey] = []
        self.set_anew: list[tuple[AlarmKey, NewAlarm]] = []
        for commit in batch:
            if commit.delete and commit.revision:
                self.deleted.append(commit)
            elif commit.state is not None and not commit.delete:
                self.saved.append(commit)
            elif commit.revision is not None:
                self.untouched.append(commit)
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
                self.set_anew.append((key.alarm(name), new))
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
