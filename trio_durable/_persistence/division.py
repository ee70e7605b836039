"""Division of a batch that a storage refuses because of a part of it.

Every batch is one transaction, so one row that is locked or violates a constraint would fail all
others in it. After a `PartialFault` the batch is divided, and the fault stays with the items that
cause it. If the storage doesn't name them, the batch is halved: between tenants first, because the
items of one tenant often have one cause in common.

Cost: one culprit among n items takes 2 log n attempts. `MAX_DIVISIONS` bounds the attempts if there
are many.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import TypeVar

from ..storage import PartialFault, StorageFault

T = TypeVar("T")
R = TypeVar("R")

MAX_DIVISIONS = 256
"""How often one batch is divided. After that a part that is refused fails as a whole."""


def in_parts(
    items: list[T],
    tenant_of: Callable[[T], str],
    attempt: Callable[[list[T]], R | StorageFault],
    divided: Callable[[PartialFault], object] = lambda fault: None,
) -> Iterator[tuple[list[T], R | StorageFault]]:
    """Call ``attempt`` with all items, and after a `PartialFault` with parts of them.

    Args:
        items: The batch.
        tenant_of: The tenant of an item.
        attempt: A transaction. It returns a fault instead of raising it.
        divided: Called after an attempt whose items are attempted again in parts.

    Yields:
        The parts, which together are ``items``, each with what ``attempt`` returned for it.
    """
    waiting = [items]
    divisions = 0
    while waiting:
        part = waiting.pop()
        outcome = attempt(part)
        if (
            isinstance(outcome, PartialFault)
            and divisions < MAX_DIVISIONS
            and (parts := _divide(part, outcome.positions, tenant_of))
        ):
            divisions += 1
            divided(outcome)
            waiting += reversed(parts)
        else:
            yield part, outcome


def _divide(
    part: list[T], positions: Collection[int], tenant_of: Callable[[T], str]
) -> tuple[list[T], list[T]] | None:
    """Two parts, of which the first has the better prospects; None for an indivisible part."""
    chosen = set(positions) if positions else _second_half(part, tenant_of)
    first = [item for position, item in enumerate(part) if position not in chosen]
    second = [item for position, item in enumerate(part) if position in chosen]
    return (first, second) if first and second else None


def _second_half(part: list[T], tenant_of: Callable[[T], str]) -> set[int]:
    tenants = sorted({tenant_of(item) for item in part})
    if len(tenants) == 1:
        return set(range((len(part) + 1) // 2, len(part)))
    chosen = set(tenants[(len(tenants) + 1) // 2 :])
    return {position for position, item in enumerate(part) if tenant_of(item) in chosen}
