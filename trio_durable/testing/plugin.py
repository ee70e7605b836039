"""A pytest plugin: the fixture ``durable_runtime``.

pytest finds it by itself where the library is installed. It works with the tests that AnyIO's own
plugin runs, ``@pytest.mark.anyio``, on every backend that they run on.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from .._api.runtime import DurableRuntime

__all__ = ["durable_runtime"]


@pytest.fixture
async def durable_runtime(
    anyio_backend: object,  # noqa: ARG001  # AnyIO runs only what depends on it
) -> AsyncIterator[DurableRuntime]:
    """A runtime on ``:memory:``, open during the test, and its own: no test sees another's objects.

    It serves every class that is imported, and is the current runtime of the test. Its time is
    that of the event loop: virtual, if ``anyio_backend`` gives that a virtual clock.
    """
    # AnyIO enters and leaves it in the task that runs the test, as the runtime's nursery needs it.
    # Nobody else sets alarms here, and in virtual time a month has very many half minutes.
    async with DurableRuntime(":memory:", polling_interval=86400) as runtime:
        yield runtime
