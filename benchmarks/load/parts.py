"""Classes that the parts share: their results, the object under load, and a slow disk."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from time import sleep

import anyio
import attrs
from anyio.lowlevel import checkpoint

from trio_durable import ObjectKey, Storage, alarm, handler
from trio_durable.storage import Commit, Reader, StoredObject, Writer
from trio_durable.storage._forwarding import ForwardingReader, ForwardingWriter

from ..measurements import Panel
from ..objects import Counter


@attrs.frozen
class Table:
    """Figures in rows."""

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]


@attrs.frozen
class Verdict:
    """A bound with the figure that was found."""

    text: str
    holds: bool


@attrs.frozen(kw_only=True)
class Result:
    """One part, done."""

    title: str
    tables: Sequence[Table]
    verdicts: Sequence[Verdict]
    panels: Sequence[Panel]
    raw: dict[str, object] = attrs.field(factory=dict)
    """Figures that are written down besides."""


class Cell(Counter, hibernate_after=2):
    """A small object with all kinds of handlers, which hibernates soon."""

    rings: int = 0

    @handler
    def fail(self) -> None:
        """A change that is rolled back."""
        self.count += 1
        raise ZeroDivisionError("as it was asked to")

    @handler
    async def linger(self) -> int:
        """A change with a checkpoint in it."""
        self.count += 1
        await checkpoint()
        return self.count

    @handler
    async def take(self, seconds: float) -> int:
        """A change that takes ``seconds``."""
        self.count += 1
        await anyio.sleep(seconds)
        return self.count

    @handler
    def remind(self, after: float) -> None:
        """A change, and another one by an alarm."""
        self.count += 1
        self.ctx.schedule_alarm("ring", after=after)

    @alarm
    def ring(self) -> None:
        self.rings += 1


@attrs.frozen(kw_only=True)
class Delays:
    """The time of a storage beyond its own, in seconds."""

    per_commit: float = 0.0
    per_row: float = 0.0
    """For each object in a transaction, which bounds the rate of transactions of any size."""
    per_loaded: float = 0.0
    """For each object that is read."""


class SlowStorage(Storage):
    """``inner`` with delays, slept in the thread that would wait for a disk."""

    def __init__(self, inner: Storage, delays: Delays) -> None:
        self._inner = inner
        self._delays = delays

    @property
    def location(self) -> str:
        return self._inner.location

    def open_writer(self) -> Writer:
        delays = self._delays

        class SlowWriter(ForwardingWriter):
            def commit(self, batch: Sequence[Commit], now: int) -> Collection[int]:
                refused = super().commit(batch, now)
                _wait(delays.per_commit + len(batch) * delays.per_row)
                return refused

        return SlowWriter(self._inner.open_writer())

    def open_reader(self) -> Reader:
        delays = self._delays

        class SlowReader(ForwardingReader):
            def load(self, keys: Sequence[ObjectKey]) -> Sequence[StoredObject | None]:
                loaded = super().load(keys)
                _wait(len(keys) * delays.per_loaded)
                return loaded

        return SlowReader(self._inner.open_reader())


def _wait(seconds: float) -> None:
    if seconds:
        sleep(seconds)


def size_of(path: Path) -> int:
    """The bytes of a file; 0 if it isn't there."""
    return path.stat().st_size if path.exists() else 0
