"""Objects in a dictionary: the same contract, gone with the process.

For tests and tools. The contents live as long as the `MemoryStorage`, so that a test can close a
runtime and open the next one on what the first left behind.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence

from .._errors import StorageInUse
from .._keys import ObjectKey
from ._contract import Commit, Reader, Storage, StoredObject, Writer


class MemoryStorage(Storage):
    """Keeps objects in memory."""

    def __init__(self) -> None:
        self._rows: dict[ObjectKey, StoredObject] = {}
        self._writer: Writer | None = None

    @property
    def location(self) -> str:
        """Always ``:memory:``."""
        return ":memory:"

    def open_writer(self) -> Writer:
        """See `Storage.open_writer`."""
        if self._writer is not None:
            raise StorageInUse(self.location, "another runtime holds it", os.getpid())
        self._writer = _MemoryWriter(self, self._rows)
        return self._writer

    def open_reader(self) -> Reader:
        """See `Storage.open_reader`."""
        return _MemoryReader(self._rows)

    def _release(self) -> None:
        self._writer = None


class _MemoryWriter(Writer):
    def __init__(self, storage: MemoryStorage, rows: dict[ObjectKey, StoredObject]) -> None:
        self._storage = storage
        self._rows = rows

    def commit(self, batch: Sequence[Commit], now: int) -> Collection[int]:
        stale = []
        for position, commit in enumerate(batch):
            row = self._rows.get(commit.key)
            if (row.revision if row else 0) != commit.revision:
                stale.append(position)
            elif commit.delete:
                self._rows.pop(commit.key, None)
            elif commit.state is not None:
                self._rows[commit.key] = StoredObject(commit.revision + 1, commit.state)
        return stale

    def close(self) -> None:
        self._storage._release()


class _MemoryReader(Reader):
    def __init__(self, rows: dict[ObjectKey, StoredObject]) -> None:
        self._rows = rows

    def load(self, keys: Sequence[ObjectKey]) -> Sequence[StoredObject | None]:
        return [self._rows.get(key) for key in keys]

    def list_ids(self, type_name: str, after: str | None, limit: int) -> list[str]:
        # list(): the writer's thread may add a row meanwhile.
        ids = [key.object_id for key in list(self._rows) if key.type_name == type_name]
        ids.sort(key=str.encode)
        if after is not None:
            ids = [object_id for object_id in ids if object_id.encode() > after.encode()]
        return ids[:limit]

    def close(self) -> None:
        pass
