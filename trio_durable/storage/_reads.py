"""What the reading sides of all storages do alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from .._keys import ObjectKey
from ._batch import by_tenant
from ._records import StoredObject, TypeSummary


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
