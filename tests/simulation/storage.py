"""A database that outlives the processes that use it, and what may go wrong on the way to it.

What is stored is kept by a storage of the library's, with the epochs that a database needs which
several may write to. Everything a process asks of it may fail, before or after
it was done; and a commit of which a process was told that it failed may be applied later still, as
where a connection breaks with a commit on its way.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING

import attrs

from trio_durable import ObjectKey
from trio_durable.storage import (
    Commit,
    DueAlarm,
    ForwardingReader,
    ForwardingWriter,
    Membership,
    Reader,
    Storage,
    StorageFault,
    StoredObject,
    Writer,
)

from .intercepted import MountedReader, MountedWriter

if TYPE_CHECKING:
    from .world import Process


class Database:
    """What is left when a process is gone.

    Args:
        storage: What keeps it. All processes share its one writer, which a crash leaves alone.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self.writer = storage.open_writer()
        self.reader = storage.open_reader()
        self._epochs: dict[ObjectKey, int] = {}

    def close(self) -> None:
        self.reader.close()
        self.writer.close()

    def give_back_claims(self) -> None:
        """What a storage does that opens for one writer at a time."""
        self.writer.close()
        self.writer = self._storage.open_writer()

    def commit(self, batch: Sequence[Commit], now: int) -> Collection[int]:
        stale = {n for n, each in enumerate(batch) if self._is_of_another(each)}
        kept = [n for n in range(len(batch)) if n not in stale]
        stale |= {kept[n] for n in self.writer.commit([batch[n] for n in kept], now)}
        for n, each in enumerate(batch):
            if n not in stale and each.delete:
                self._epochs.pop(each.key, None)
            elif n not in stale and each.state is not None:
                self._epochs[each.key] = each.epoch
        return stale

    def _is_of_another(self, commit: Commit) -> bool:
        return bool(commit.revision) and self._epochs.get(commit.key) != commit.epoch

    def load(self, keys: Sequence[ObjectKey]) -> list[StoredObject | None]:
        return [
            row and attrs.evolve(row, epoch=self._epochs[key])
            for key, row in zip(keys, self.reader.load(keys), strict=True)
        ]

    def alarms(self) -> list[DueAlarm]:
        """All that are set."""
        return self.reader.due_alarms(2**62, None, 2**31, ())


class Mounted(Storage):
    """The database as one process sees it."""

    def __init__(self, process: Process) -> None:
        self._process = process

    @property
    def location(self) -> str:
        return ":simulated:"

    def open_writer(self) -> Writer:
        return _Writer(self._process)

    def open_reader(self) -> Reader:
        return MountedReader(
            _FencedReader(self._process.world.database), self._process.call_storage
        )


class _Writer(MountedWriter):
    def __init__(self, process: Process) -> None:
        super().__init__(_FencedWriter(process.world.database), process.call_storage)
        self._process = process

    def commit(self, batch: Sequence[Commit], now: int) -> Collection[int]:
        if self._process.loses_connection():
            copies = [_copied(each) for each in batch]
            self._process.world.apply_later(copies, now)
            raise StorageFault("the connection broke")
        return super().commit(batch, now)


class _FencedWriter(ForwardingWriter):
    def __init__(self, database: Database) -> None:
        super().__init__(database.writer)
        self._database = database

    @property
    def membership(self) -> Membership | None:
        """None: all processes share the writer."""
        return None

    def commit(self, batch: Sequence[Commit], now: int) -> Collection[int]:
        return self._database.commit(batch, now)


class _FencedReader(ForwardingReader):
    def __init__(self, database: Database) -> None:
        super().__init__(database.reader)
        self._database = database

    def load(self, keys: Sequence[ObjectKey]) -> Sequence[StoredObject | None]:
        return self._database.load(keys)


def _copied(commit: Commit) -> Commit:
    return Commit(
        commit.key,
        commit.revision,
        commit.state,
        commit.delete,
        deepcopy(commit.alarms),
        commit.epoch,
    )
