"""Runtimes that share an SQLite file in one process and event loop, in virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from trio_durable import Cluster, DurableRuntime, InlineRunner


def member(path: Path, **settings: Any) -> DurableRuntime:
    """A runtime of the cluster on a file."""
    settings.setdefault("cluster", True)
    return DurableRuntime(path, runner=InlineRunner, **settings)


@asynccontextmanager
async def members(
    path: Path, count: int = 2, **settings: Any
) -> AsyncIterator[list[DurableRuntime]]:
    """Open runtimes, the first of which has the objects."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(member(path, **settings)) for _ in range(count)]


CLIENT = Cluster(serve=False)
