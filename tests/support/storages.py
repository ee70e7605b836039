"""Storages for tests that run over several: each kind in turn, or PostgreSQL in place of memory."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from trio.testing import MockClock

from trio_durable import DurableRuntime, InlineRunner, MemoryStorage, SQLiteStorage, Storage
from trio_durable.storage.postgres import PostgresStorage


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """Each kind of storage in turn."""
    match request.param:
        case "memory":
            return MemoryStorage()
        case "sqlite":
            return SQLiteStorage(tmp_path / "a.db")
        case _:
            return PostgresStorage(request.getfixturevalue("postgres"))


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """One of the two loops; what they have in common is tested in memory."""
    return "trio", {"clock": MockClock(autojump_threshold=0)}


def put_on_postgres(monkeypatch: pytest.MonkeyPatch, module: ModuleType, location: str) -> None:
    """Let the tests of a module open PostgreSQL where they say `MemoryStorage`."""
    # While a thread works, virtual time would run away.
    inline = partial(DurableRuntime, runner=InlineRunner)
    monkeypatch.setattr(module, "DurableRuntime", inline)
    monkeypatch.setattr(module, "MemoryStorage", lambda: PostgresStorage(location))
