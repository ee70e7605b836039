"""Objects that count, hibernate soon or late, and note how they were loaded."""

from __future__ import annotations

import gc
from datetime import timedelta

import anyio
import pytest

from trio_durable import DurableObject, DurableRuntime, handler
from trio_durable._activations.activation import Activation


class Counter(DurableObject, hibernate_after=10):
    count: int = 0

    @handler
    def increment(self) -> int:
        self.count += 1
        return self.count

    @handler
    async def increment_slowly(self, seconds: float = 1) -> int:
        await anyio.sleep(seconds)
        self.count += 1
        return self.count

    @handler(readonly=True)
    def read(self) -> int:
        return self.count

    @handler(readonly=True)
    async def nap(self, seconds: float = 1) -> int:
        await anyio.sleep(seconds)
        return self.count

    @handler
    def fail(self) -> None:
        raise KeyError


class Brief(Counter, hibernate_after=10, shutdown_after=timedelta(seconds=30)):
    pass


runs: list[str] = []
problems: list[Exception] = []


@pytest.fixture(autouse=True)
def fresh_counters() -> None:
    runs.clear()
    problems.clear()


def status(runtime: DurableRuntime, cls: type[DurableObject], object_id: str = "a") -> str | None:
    info = runtime.whereis(cls, object_id)
    return None if info is None else info.status


def activations() -> int:
    gc.collect()
    # By type: isinstance would run a __getattribute__ of whatever else is in memory.
    return sum(issubclass(type(thing), Activation) for thing in gc.get_objects())
