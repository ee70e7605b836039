"""A storage that does what a test tells it: wait, fail, be overtaken; and that notes what it did.

Jobs of the writer and of the reader run in the event loop, so that all is deterministic and may
run in virtual time. `SteppedRunner` keeps them back while their side is held. What must happen
while a batch is already *in the writer's hands* needs a real thread: `blocked_writer` stops
it there.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing, contextmanager
from copy import deepcopy
from typing import Any, ClassVar, TypeVar

from trio_durable import MemoryStorage, ObjectKey, Runner
from trio_durable._eventloop.loop import Loop
from trio_durable._keys import AlarmKey
from trio_durable.storage import (
    Commit,
    ObjectRow,
    Reader,
    Storage,
    StorageFault,
    StoredAlarm,
    StoredObject,
    Writer,
)
from trio_durable.testing._intercepted import InterceptedReader, InterceptedWriter

T = TypeVar("T")

_ALARM_WORK = ("claim", "renew", "postpone", "revive", "mark", "acquit", "due_alarms")


class ScriptedStorage(Storage):
    """Objects in memory, behind a writer and a reader that follow the test's script."""

    backing: ClassVar[Callable[[], Storage]] = MemoryStorage
    """What keeps them; tests may run over others."""

    def __init__(self) -> None:
        self.inner = type(self).backing()
        self.batches: list[list[Commit]] = []
        """Every batch that reached the writer, failed ones included."""
        self.loads: list[list[ObjectKey]] = []
        """The keys of every load that reached the reader."""
        self.claims: list[list[AlarmKey]] = []
        """What every claim that reached the writer asked for."""
        self.writer_busy = threading.Event()
        """Set once a blocked writer has its batch."""
        self._writer_goes = threading.Event()
        self._writer_goes.set()
        self._commit_faults: deque[Exception | None] = deque()
        self._alarm_faults: deque[Exception | None] = deque()
        self._load_faults: deque[Exception | None] = deque()
        self._drop_faults: deque[Exception | None] = deque()
        self._faults = {
            "commit": self._commit_faults,
            **dict.fromkeys(_ALARM_WORK, self._alarm_faults),
            "load": self._load_faults,
            "drop_tenant": self._drop_faults,
        }
        """By the method that they are for."""
        self._sides: dict[str, _Side] = {name: _Side() for name in ("writer", "reader", "scanner")}
        self._inner: Writer | None = None

    @property
    def memory(self) -> MemoryStorage:
        """What keeps them, for tests that look into it."""
        assert isinstance(self.inner, MemoryStorage)
        return self.inner

    @property
    def commits(self) -> int:
        """How many commits reached the writer."""
        return sum(map(len, self.batches))

    # --- the script ------------------------------------------------------------------------------

    def fail_commits(self, *faults: Exception | None) -> None:
        """Let the next batches fail with these; None lets one through."""
        self._commit_faults.extend(faults)

    def fail_alarm_work(self, *faults: Exception | None) -> None:
        """Let the next claims, renewals and postponements fail with these; None lets one through.

        Reading what is due counts as well.
        """
        self._alarm_faults.extend(faults)

    def forget_faults(self) -> None:
        """Let everything through."""
        self._commit_faults.clear()
        self._alarm_faults.clear()
        self._load_faults.clear()

    def fail_loads(self, *faults: Exception | None) -> None:
        """Let the next loads fail with these; None lets one through."""
        self._load_faults.extend(faults)

    def fail_drops(self, *faults: Exception) -> None:
        """Let the next tenants not be dropped, with these."""
        self._drop_faults.extend(faults)

    @contextmanager
    def held(self, side: str) -> Iterator[None]:
        """Keep the jobs of the "writer" or the "reader" back inside the block."""
        held = self._sides[side]
        held.is_held = True
        try:
            yield
        finally:
            held.is_held = False
            held.release()

    def release(self, side: str) -> None:
        """Let go of the jobs that are held back by now."""
        self._sides[side].release()

    @contextmanager
    def blocked_writer(self) -> Iterator[None]:
        """Stop the writer's thread with the next batch in its hands until the block ends."""
        self.writer_busy.clear()
        self._writer_goes.clear()
        try:
            yield
        finally:
            self._writer_goes.set()

    def rows(self) -> dict[str, bytes]:
        """The stored states by object id."""
        return {row.key.object_id: row.state for row in self._browse()}

    def states(self) -> dict[str, dict[str, Any]]:
        """The stored states by object id, decoded, without their declarations."""
        states = {object_id: json.loads(state) for object_id, state in self.rows().items()}
        for state in states.values():
            state.pop("$as", None)
        return states

    def revisions(self) -> dict[str, int]:
        """The stored revisions by object id."""
        return {row.key.object_id: row.revision for row in self._browse()}

    def _browse(self) -> list[ObjectRow]:
        with closing(self.inner.open_reader()) as reader:
            return reader.browse_objects(None, None, 1_000_000)

    def overwrite(self, type_name: str, object_id: str, state: bytes) -> None:
        """Store a newer state behind the runtime's back."""
        key = ObjectKey(type_name, object_id)
        if self._inner is None:
            with closing(self.inner.open_writer()) as writer:
                self._overwrite(writer, key, state)
        else:
            self._overwrite(self._inner, key, state)

    def _overwrite(self, writer: Writer, key: ObjectKey, state: bytes) -> None:
        row = next((row for row in self._browse() if row.key == key), None)
        revision, epoch = (row.revision, row.epoch) if row else (0, 0)
        assert not writer.commit([Commit(key, revision, state, epoch=epoch)], 0)

    # --- the storage -----------------------------------------------------------------------------

    @property
    def location(self) -> str:
        return ":scripted:"

    @property
    def runner(self) -> type[Runner]:
        """The runner class to open a runtime with, so that `held` works."""
        sides = self._sides

        class Stepped(SteppedRunner):
            def __init__(self, loop: Loop, name: str) -> None:
                super().__init__(loop, name)
                self.side = sides[name.rpartition(" ")[2]]

        return Stepped

    def open_writer(self) -> Writer:
        self._inner = self.inner.open_writer()
        return _ScriptedWriter(self, self._inner)

    def open_reader(self) -> Reader:
        return _ScriptedReader(self, self.inner.open_reader())

    def call(self, kind: str, work: Callable[[], T]) -> T:
        """Do what a side is asked, unless the script has a fault for it."""
        if kind == "commit":
            self.writer_busy.set()
            self._writer_goes.wait()
        faults = self._faults.get(kind)
        fault = faults.popleft() if faults else None
        if fault is not None:
            raise fault
        return work()


class _Side:
    """The jobs of a runner that are held back."""

    def __init__(self) -> None:
        self.is_held = False
        self.jobs: list[tuple[Loop, Callable[[], object]]] = []

    def release(self) -> None:
        for loop, job in self.jobs:
            loop.call_soon_threadsafe(job)
        self.jobs.clear()


class SteppedRunner(Runner):
    """Runs jobs in the event loop, unless its side is held."""

    def __init__(self, loop: Loop, name: str) -> None:
        super().__init__(loop, name)
        self.side = _Side()

    def post(self, job: Callable[[], object]) -> None:
        if self.side.is_held:
            self.side.jobs.append((self._loop, job))
        else:
            self._loop.call_soon_threadsafe(job)

    def stop(self) -> None:
        pass


class _ScriptedWriter(InterceptedWriter):
    def __init__(self, script: ScriptedStorage, inner: Writer) -> None:
        super().__init__(inner, script.call)
        self._script = script
        self._closed = False

    def commit(self, batch: Sequence[Commit], now: int) -> Collection[int]:
        if self._closed:
            raise StorageFault("commit after close")
        self._script.batches.append(
            [Commit(c.key, c.revision, c.state, c.delete, deepcopy(c.alarms)) for c in batch]
        )
        return super().commit(batch, now)

    def claim(
        self, alarms: Sequence[AlarmKey], claim: int, now: int, until: int
    ) -> list[StoredAlarm]:
        self._script.claims.append(list(alarms))
        return super().claim(alarms, claim, now, until)

    def close(self) -> None:
        self._closed = True
        super().close()


class _ScriptedReader(InterceptedReader):
    def __init__(self, script: ScriptedStorage, inner: Reader) -> None:
        super().__init__(inner, script.call)
        self._script = script

    def load(self, keys: Sequence[ObjectKey]) -> Sequence[StoredObject | None]:
        self._script.loads.append(list(keys))
        return super().load(keys)
