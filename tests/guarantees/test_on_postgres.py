"""Tests of the runtime with a scripted storage, repeated with PostgreSQL behind the script.

All of them are repeated except the tests that look into a `MemoryStorage`, and those that stop the
writer in a thread of its own.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from types import ModuleType

import pytest
from support.scripted import ScriptedStorage
from support.storages import anyio_backend

from trio_durable.storage.postgres import PostgresStorage

from . import test_hibernation, test_lifecycle, test_output_gate
from .alarms import test_acknowledging, test_firing, test_setting

__all__ = ["anyio_backend"]  # a fixture

pytestmark = pytest.mark.anyio

MODULES = (
    test_output_gate,
    test_lifecycle,
    test_hibernation,
    test_setting,
    test_firing,
    test_acknowledging,
)


def _scripted(module: ModuleType) -> Iterator[tuple[str, object]]:
    for name, function in vars(module).items():
        if name.startswith("test_") and inspect.isfunction(function):
            source = inspect.getsource(function)
            if "ScriptedStorage()" in source and not any(
                word in source for word in (".memory", "threaded_runtime")
            ):
                yield name, function


for _module in MODULES:
    globals().update(_scripted(_module))


@pytest.fixture(autouse=True)
def _on_postgres(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ScriptedStorage, "backing", lambda: PostgresStorage(postgres))
    test_output_gate.forget_effects()  # what a fixture does there; the others' are shared


def test_there_are_some_of_each() -> None:
    found = [len(list(_scripted(module))) for module in MODULES]
    assert min(found) >= 2
    assert sum(found) >= 50
