"""A pytest plugin: the fixture ``durable_runtime``.

pytest loads the plugin wherever the library is installed. It works with the tests that AnyIO's own
plugin runs, ``@pytest.mark.anyio``, on each of their backends.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from .._api.runtime import DurableRuntime

__all__ = ["durable_runtime"]


@pytest.fixture
async def durable_runtime(
    anyio_backend: object,  # noqa: ARG001  # AnyIO runs only fixtures that depend on it
) -> AsyncIterator[DurableRuntime]:
    """A runtime on ``:memory:``, open during the test. Each test has a new one, without objects.

    The runtime serves every imported class and is the current runtime of the test. Its time is that
    of the event loop, thus virtual if ``anyio_backend`` gives the loop a virtual clock.
    """
    # AnyIO enters and leaves the block in one task, as the runtime's task group requires.
    # No other process sets alarms in memory, and in virtual time a test may wait for months: with
    # the default interval it would poll thousands of times.
    async with DurableRuntime(":memory:", polling_interval=86400) as runtime:
        yield runtime
