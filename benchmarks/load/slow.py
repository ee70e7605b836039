"""A disk as slow as one likes: another storage, each of whose transactions and reads takes longer.

The time is slept in the thread of the storage's side, where a disk would be waited for.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from time import sleep

import attrs

from trio_durable import Storage
from trio_durable._keys import ObjectKey
from trio_durable.storage import Commit, Reader, StoredObject, Writer
from trio_durable.storage._forwarding import ForwardingReader, ForwardingWriter


@attrs.frozen(kw_only=True)
class Delays:
    """What a storage takes beyond its own time, in seconds."""

    per_commit: float = 0.0
    per_row: float = 0.0
    """For each object in a transaction: what bounds the rate, however large the transactions."""
    per_loaded: float = 0.0
    """For each object that is read."""


class SlowStorage(Storage):
    """Does what ``inner`` does, later."""

    def __init__(self, inner: Storage, delays: Delays) -> None:
        self._inner = inner
        self._delays = delays

    @property
    def location(self) -> str:
        return self._inner.location

    def open_writer(self) -> Writer:
        return _SlowWriter(self._inner.open_writer(), self._delays)

    def open_reader(self) -> Reader:
        return _SlowReader(self._inner.open_reader(), self._delays)


class _SlowWriter(ForwardingWriter):
    def __init__(self, inner: Writer, delays: Delays) -> None:
        super().__init__(inner)
        self._delays = delays

    def commit(self, batch: Sequence[Commit], now: int) -> Collection[int]:
        refused = super().commit(batch, now)
        _wait(self._delays.per_commit + len(batch) * self._delays.per_row)
        return refused


class _SlowReader(ForwardingReader):
    def __init__(self, inner: Reader, delays: Delays) -> None:
        super().__init__(inner)
        self._delays = delays

    def load(self, keys: Sequence[ObjectKey]) -> Sequence[StoredObject | None]:
        loaded = super().load(keys)
        _wait(len(keys) * self._delays.per_loaded)
        return loaded


def _wait(seconds: float) -> None:
    if seconds:
        sleep(seconds)
