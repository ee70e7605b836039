from __future__ import annotations

import os
import zlib

import pytest

RUN = os.environ.get("TRIO_DURABLE_OBAN")
"""``all`` runs all tests, as does ``make oban``; ``part`` leaves most of the conformance suite out,
as does ``make test``. Without it none runs: they need another Python than the other tests may have,
so they have a run of their own."""
RATE = 4
"""Of the conformance suite, ``part`` runs one in so many tests, by their names."""


def _is_left_out(item: pytest.Item) -> bool:
    if item.path.parent.name != "oban":
        return False
    if RUN != "part" or item.path.stem != "test_conformance":
        return RUN is None
    return bool(zlib.crc32(item.name.encode()) % RATE)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    left_out = {item for item in items if _is_left_out(item)}
    if left_out:
        config.hook.pytest_deselected(items=list(left_out))
        items[:] = [item for item in items if item not in left_out]
