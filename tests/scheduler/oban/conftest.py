from __future__ import annotations

import os

import pytest

_LONG = {"test_conformance", "test_kills"}
"""Modules that wait in real time, for minutes in all."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if "TRIO_DURABLE_OBAN" in os.environ:
        return
    for item in items:
        if item.path.parent.name == "oban" and item.path.stem in _LONG:
            item.add_marker(pytest.mark.skip(reason="it takes minutes: make oban"))
