"""Batches of rows. Each batch is one transaction and fits into memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

R = TypeVar("R")

MAX_ROWS = 500
MAX_BYTES = 4 * 1024 * 1024


def batches(rows: Iterable[R], size_of: Callable[[R], int]) -> Iterator[list[R]]:
    """Split ``rows`` into lists, in the same order. No list is empty.

    Args:
        rows: The rows. No more are read than the next batch needs.
        size_of: Returns the approximate size of a row, in bytes.
    """
    batch: list[R] = []
    size = 0
    for row in rows:
        batch.append(row)
        size += size_of(row)
        if len(batch) >= MAX_ROWS or size >= MAX_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
