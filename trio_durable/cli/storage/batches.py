"""Rows in batches, each of which is one transaction, and fits into memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

R = TypeVar("R")

_ROWS = 500
_BYTES = 4 * 1024 * 1024


def batches(rows: Iterable[R], size_of: Callable[[R], int]) -> Iterator[list[R]]:
    """The same rows in the same order, and none of the lists empty.

    Args:
        rows: Is read no further than the batch goes.
        size_of: How many bytes a row takes, roughly.
    """
    batch: list[R] = []
    size = 0
    for row in rows:
        batch.append(row)
        size += size_of(row)
        if len(batch) >= _ROWS or size >= _BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
