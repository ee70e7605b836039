"""Batched loads: activations that wait while one read runs are loaded by the next one.

The counterpart of `group_commit` on the reader's connection. A read that fails because of a part of
it is divided, so that an object or a tenant that can't be read fails no other loads.

The callback that says in the loop that rows have arrived doesn't hand them over: `deliver` does, in
a task.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Sequence
from itertools import islice
from time import perf_counter
from typing import Protocol, TypeAlias

from .._eventloop.loop import Loop
from .._eventloop.runner import Runner
from .._keys import ObjectKey
from ..storage import AlarmRow, CorruptRow, PartialFault, Reader, StorageFault, StoredObject
from .division import in_parts
from .doorbell import Doorbell
from .wait_estimate import WaitEstimate

MAX_BATCH_KEYS = 1024


class Loading(Protocol):
    """The receiver of a load: an activation."""

    @property
    def key(self) -> ObjectKey:
        """The object to load."""
        ...

    @property
    def recurring_alarms(self) -> Collection[str]:
        """The names of the alarms to load with it."""
        ...

    def loaded(self, row: StoredObject | None, alarms: Sequence[AlarmRow | None]) -> None:
        """The load has ended. ``row`` is None if nothing is stored; so are rows of alarms."""
        ...

    def load_failed(self, fault: StorageFault) -> None:
        """The load has failed."""
        ...


class LoadListener(Protocol):
    """Observer of loads, told of each in the event loop before its receiver is."""

    def loaded(self, key: ObjectKey, row: StoredObject | None) -> None:
        """The row of an object was read; None if nothing is stored."""
        ...


Loads: TypeAlias = "Sequence[tuple[StoredObject | None, Sequence[AlarmRow | None]]]"
Arrival: TypeAlias = "tuple[list[Loading], Loads | StorageFault]"


class BatchedLoad:
    """Collects loads and hands them to the reader in batches.

    Args:
        loop: The event loop.
        runner: The reader's.
        reader: The side of the storage that loads.
        arrived: Called in the loop when `deliver` has something to hand over.
        wall_time: The time, in microseconds since 1970 UTC; called in the reader's thread.
    """

    def __init__(
        self,
        loop: Loop,
        runner: Runner,
        reader: Reader,
        arrived: Callable[[], object],
        wall_time: Callable[[], int],
    ) -> None:
        self._loop = loop
        self._reader = reader
        self._pending: deque[Loading] = deque()
        self._doorbell = Doorbell(runner, self._drain, lambda: self._pending)
        self._wait_estimate = WaitEstimate()
        self.is_behind: bool = False
        """True if more loads wait than fit into the next read."""
        self._arrivals: deque[Arrival] = deque()
        self._arrived = arrived
        self._wall_time = wall_time
        self.listener: LoadListener | None = None

    def expected_wait(self) -> float:
        """The estimated seconds until a load that is submitted now has ended."""
        now = perf_counter()
        whole = len(self._pending) // MAX_BATCH_KEYS
        return self._wait_estimate.wait_of_late(whole + 1, now)  # because the disk may hang

    def submit(self, loading: Loading) -> None:
        """Load the row of ``loading.key``."""
        self._pending.append(loading)
        if len(self._pending) > MAX_BATCH_KEYS:
            self.is_behind = True
        self.wake()

    def wake(self) -> None:
        """Wake the reader if it sleeps and there is work. May be repeated."""
        if self._wait_estimate.is_idle and self._pending:
            # Ends when the reader's thread comes to this, which may hang in another job.
            self._wait_estimate.begin(perf_counter())
        self._doorbell.ring()

    def deliver(self) -> None:
        """Hand the loads that have ended to their receivers. In a task, not in a callback."""
        arrivals = self._arrivals
        while arrivals:
            batch, outcome = arrivals[0]
            if isinstance(outcome, StorageFault):
                for loading in batch:
                    loading.load_failed(outcome)
            else:
                for loading, (row, alarms) in zip(batch, outcome, strict=True):
                    if self.listener is not None:
                        self.listener.loaded(loading.key, row)
                    loading.loaded(row, alarms)
            arrivals.popleft()

    # In the reader's thread.

    def _drain(self) -> None:
        self._doorbell.answered()
        self._wait_estimate.end(perf_counter(), 0.0)
        while batch := self._take():
            share = len(batch) / MAX_BATCH_KEYS
            self._wait_estimate.begin(perf_counter())
            for part, outcome in in_parts(batch, _tenant_of, self._load):
                self._arrivals.append((part, outcome))
                self._loop.call_soon_threadsafe(self._arrived)
            self._wait_estimate.end(perf_counter(), share)

    def _load(self, batch: list[Loading]) -> Loads | StorageFault:
        """Run one read, and one of the alarms of objects with recurring ones."""
        try:
            rows = self._reader.load([loading.key for loading in batch])
            names = [
                loading.key.alarm(name) for loading in batch for name in loading.recurring_alarms
            ]
            if not names:
                return [(row, ()) for row in rows]
            alarms = iter(self._reader.load_alarms(names, self._wall_time()))
            return [
                (row, list(islice(alarms, len(loading.recurring_alarms))))
                for loading, row in zip(batch, rows, strict=True)
            ]
        except CorruptRow as fault:
            corrupt = [at for at, loading in enumerate(batch) if loading.key == fault.key]
            if not corrupt:
                return fault
            partial = PartialFault(str(fault), corrupt)
            partial.__cause__ = fault
            return partial
        except Exception as error:  # noqa: BLE001  # storages may raise anything
            return error if isinstance(error, StorageFault) else StorageFault.of(error)

    def _take(self) -> list[Loading]:
        pending = self._pending
        while True:
            batch = [pending.popleft() for _ in range(min(len(pending), MAX_BATCH_KEYS))]
            self.is_behind = len(pending) > MAX_BATCH_KEYS
            if batch or self._doorbell.may_sleep():
                return batch


def _tenant_of(loading: Loading) -> str:
    return loading.key.tenant
