"""Rows are split into batches of one transaction each."""

from __future__ import annotations

from trio_durable.cli.storage.batches import batches


def test_a_batch_ends_where_there_are_many_rows_or_large_ones() -> None:
    assert [len(batch) for batch in batches(range(1201), lambda _: 1)] == [500, 500, 201]
    assert [len(batch) for batch in batches(range(5), lambda _: 3_000_000)] == [2, 2, 1]
    assert list(batches([], len)) == []


def test_rows_are_read_no_further_than_a_batch_goes() -> None:
    rows = iter(range(1000))
    next(batches(rows, lambda _: 1))
    assert next(rows) == 500
