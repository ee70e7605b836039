"""Base class of the conformance tests: fixtures, and the times of the scheduler."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import ClassVar

import anyio
import pytest

from ...scheduler import Scheduler
from ...storage import MemoryStorage, Storage
from ._bench import Bench, Node, SchedulerParts


@pytest.mark.anyio
class SchedulerTests:
    """Fixtures for the scheduler under test and the bench that runs it.

    Groups of tests inherit from this class, and `SchedulerConformance` from them.
    """

    polling_interval: ClassVar[float] = 30.0
    """Seconds within which the scheduler finds an alarm that another process has written."""
    claim_ttl: ClassVar[float] = 60.0
    """Seconds after which other runtimes take over the alarms of a dead process."""
    lateness: ClassVar[float] = 0.25
    """Seconds by which an alarm, or the reaction to a hint, may be late."""

    counts_crashes: ClassVar[bool] = True
    """True if the scheduler counts crashes, and the storage does."""

    def make_scheduler(self, parts: SchedulerParts) -> Scheduler:
        """Make a scheduler; a subclass overrides this method."""
        raise NotImplementedError(f"{type(self).__name__} needs a method `make_scheduler`")

    @pytest.fixture
    def storage(self) -> Storage:
        """The storage of all schedulers, empty and not open."""
        return MemoryStorage()

    @pytest.fixture
    async def bench(
        self,
        anyio_backend: object,  # AnyIO runs only fixtures that depend on it
        storage: Storage,
    ) -> AsyncIterator[Bench]:
        """A bench without nodes."""
        bench = Bench(storage, self.make_scheduler)
        async with bench.open():
            yield bench

    @pytest.fixture
    async def node(self, bench: Bench) -> Node:
        """A node that serves the type of most tests."""
        return await bench.node()

    async def until_late(self, seconds: float = 0.0) -> None:
        """Sleep for ``seconds``, and for as long as an alarm may be late."""
        await anyio.sleep(seconds + self.lateness)
