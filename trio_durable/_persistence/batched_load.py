"""Batched loads: activations that wait while one read runs are loaded by the next one.

The counterpart of `group_commit` on the reader's connection. A read that fails because of a part of
it is divided, so that an object or a tenant that can't be read fails no other loads.

A task of the runtime hands the rows to their activations. The callback that brings them into the
loop doesn't, because an activation then runs its object's code, which needs a task.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from time import perf_counter
from typing import Protocol

from .._eventloop.loop import Loop, Waiter
from .._eventloop.runner import Runner
from .._keys import ObjectKey
from ..storage import CorruptRow, PartialFault, Reader, StorageFault, StoredObject
from .division import in_parts
from .wait_estimate import WaitEstimate

MAX_BATCH_KEYS = 1024


class Loading(Protocol):
    """The receiver of a load: an activation."""

    @property
    def key(self) -> ObjectKey:
        """The object to load."""
        ...

    def loaded(self, row: StoredObject | None) -> None:
        """The load has ended. ``row`` is None if nothing is stored."""
        ...

    def load_failed(self, fault: StorageFault) -> None:
        """The load has failed."""
        ...


class BatchedLoad:
    """Collects loads and hands them to the reader in batches."""

    def __init__(self, loop: Loop, runner: Runner, reader: Reader) -> None:
        self._loop = loop
        self._runner = runner
        self._reader = reader
        self._lock = threading.Lock()
        self._pending: list[Loading] = []
        self._scheduled = False
        self._wait_estimate = WaitEstimate()
        self.is_behind = False
        """True if more loads wait than fit into the next read."""
        self._arrived: list[tuple[list[Loading], Sequence[StoredObject | None] | StorageFault]] = []
        self._arrival: Waiter | None = None

    def expected_wait(self) -> float:
        """The estimated seconds until a load that is submitted now has ended."""
        now = perf_counter()
        whole = len(self._pending) // MAX_BATCH_KEYS
        return self._wait_estimate.wait_of_late(whole + 1, now)  # because the disk may hang

    def submit(self, loading: Loading) -> None:
        """Load the row of ``loading.key``."""
        with self._lock:
            self._pending.append(loading)
            if len(self._pending) > MAX_BATCH_KEYS:
                self.is_behind = True
            scheduled, self._scheduled = self._scheduled, True
        if not scheduled:
            # Ends when the reader's thread comes to this, which may hang in another job.
            self._wait_estimate.begin(perf_counter())
            self._runner.post(self._drain)

    async def run(self) -> None:
        """Hand loads to their activations, until cancelled."""
        while True:
            for batch, outcome in self._take_arrived():
                if isinstance(outcome, StorageFault):
                    for loading in batch:
                        loading.load_failed(outcome)
                else:
                    for loading, row in zip(batch, outcome, strict=True):
                        loading.loaded(row)
            if not self._arrived:
                self._arrival = self._loop.waiter()
                await self._arrival.wait()

    def _take_arrived(
        self,
    ) -> list[tuple[list[Loading], Sequence[StoredObject | None] | StorageFault]]:
        arrived, self._arrived = self._arrived, []
        return arrived

    # In the reader's thread.

    def _drain(self) -> None:
        self._wait_estimate.end(perf_counter(), 0.0)
        while batch := self._take():
            share = len(batch) / MAX_BATCH_KEYS
            self._wait_estimate.begin(perf_counter())
            for part, outcome in in_parts(batch, _tenant_of, self._load):
                self._loop.call_soon_threadsafe(self._arrive, part, outcome)
            self._wait_estimate.end(perf_counter(), share)

    def _load(self, batch: list[Loading]) -> Sequence[StoredObject | None] | StorageFault:
        """Run one read."""
        try:
            return self._reader.load([loading.key for loading in batch])
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
        with self._lock:
            batch, self._pending = (
                self._pending[:MAX_BATCH_KEYS],
                self._pending[MAX_BATCH_KEYS:],
            )
            self.is_behind = len(self._pending) > MAX_BATCH_KEYS
            if not batch:
                self._scheduled = False
        return batch

    # In the loop.

    def _arrive(
        self, batch: list[Loading], outcome: Sequence[StoredObject | None] | StorageFault
    ) -> None:
        self._arrived.append((batch, outcome))
        if self._arrival is not None:
            self._arrival.settle()


def _tenant_of(loading: Loading) -> str:
    return loading.key.tenant
