"""The runtime of a test of pytest-asyncio, in the event loop of the test.

That loop is the test's own, or one that a class, module, package or session shares. A fixture has
one loop, so there is a fixture for each.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from .._api.runtime import DurableRuntime
from ._new_runtime import new_runtime


@pytest_asyncio.fixture(loop_scope="function")
async def _durable_runtime_of_function() -> AsyncIterator[DurableRuntime]:
    async for runtime in new_runtime():
        yield runtime


@pytest_asyncio.fixture(loop_scope="class")
async def _durable_runtime_of_class() -> AsyncIterator[DurableRuntime]:
    async for runtime in new_runtime():
        yield runtime


@pytest_asyncio.fixture(loop_scope="module")
async def _durable_runtime_of_module() -> AsyncIterator[DurableRuntime]:
    async for runtime in new_runtime():
        yield runtime


@pytest_asyncio.fixture(loop_scope="package")
async def _durable_runtime_of_package() -> AsyncIterator[DurableRuntime]:
    async for runtime in new_runtime():
        yield runtime


@pytest_asyncio.fixture(loop_scope="session")
async def _durable_runtime_of_session() -> AsyncIterator[DurableRuntime]:
    async for runtime in new_runtime():
        yield runtime
