from __future__ import annotations

import os
import zlib

import pytest

EVERY = int(os.environ.get("TRIO_DURABLE_CONFORMANCE_EVERY", "4"))
"""Of the conformance suite on storages that differ little from another one: each how many-th test
is run. All of them, with 1."""


def _is_sampled(item: pytest.Item) -> bool:
    """True if a storage that differs little from this one runs the same test."""
    if not isinstance(item, pytest.Function) or item.cls is None:
        return False
    name = item.cls.__name__
    if name == "TestSQLiteStorage":
        return item.callspec.params.get("durability") == "normal"
    return bool(name == "TestMemberOfPostgresStorage")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    left_out = [
        item for item in items if _is_sampled(item) and zlib.crc32(item.name.encode()) % EVERY
    ]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        gone = set(left_out)
        items[:] = [item for item in items if item not in gone]
