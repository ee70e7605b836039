"""Runtimes for tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from trio_durable import DurableRuntime, Duration, Instrument, ThreadRunner

from .scripted import ScriptedStorage


@asynccontextmanager
async def scripted_runtime(
    storage: ScriptedStorage,
    *,
    call_timeout: Duration | None = 5,
    instruments: Iterable[Instrument] = (),
) -> AsyncIterator[DurableRuntime]:
    """A runtime on ``storage`` that works in the event loop, so that sides can be held."""
    async with DurableRuntime(
        storage, runner=storage.runner, call_timeout=call_timeout, instruments=instruments
    ) as runtime:
        yield runtime


@asynccontextmanager
async def threaded_runtime(storage: ScriptedStorage) -> AsyncIterator[DurableRuntime]:
    """A runtime on ``storage`` with real threads, so that the writer can be blocked.

    Calls have no timeout: virtual time would run away while a thread works.
    """
    async with DurableRuntime(storage, runner=ThreadRunner, call_timeout=None) as runtime:
        yield runtime
