"""The conformance suite over the storages that come with the library."""

from __future__ import annotations

from pathlib import Path

import pytest

from trio_durable.storage import Durability, MemoryStorage, SQLiteStorage, Storage
from trio_durable.storage.postgres import PostgresStorage
from trio_durable.testing.conformance import StorageConformance


class TestMemoryStorage(StorageConformance):
    @pytest.fixture
    def storage(self) -> Storage:
        return MemoryStorage()


@pytest.mark.parametrize("durability", ["full", "normal"])
class TestSQLiteStorage(StorageConformance):
    @pytest.fixture
    def storage(self, tmp_path: Path, durability: Durability) -> Storage:
        return SQLiteStorage(tmp_path / "objects.db", durability=durability)


class TestPostgresStorage(StorageConformance):
    # It releases the claims of a dead node, see `postgres/test_nodes.py`. A writer that was closed
    # in order has left its row, and its runtime has given its claims back.
    opens_for_one = False

    @pytest.fixture
    def storage(self, postgres: str) -> Storage:
        return PostgresStorage(postgres)
