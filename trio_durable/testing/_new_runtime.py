"""The runtime of a test, which the fixtures for each pytest plugin open."""

from __future__ import annotations

from collections.abc import AsyncIterator

from .._api.runtime import DurableRuntime


async def new_runtime() -> AsyncIterator[DurableRuntime]:
    """Open a runtime for a test."""
    # No other process sets alarms in memory, and in virtual time a test may wait for months: with
    # the default interval it would poll thousands of times.
    async with DurableRuntime(":memory:", polling_interval=86400) as runtime:
        yield runtime
