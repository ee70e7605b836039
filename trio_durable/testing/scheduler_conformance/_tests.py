"""The base of all tests of the suite: fixtures, and the scheduler's own times."""

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
    """The scheduler under test, and a bench to run it on.

    Groups of tests inherit from this, and `SchedulerConformance` from them.
    """

    polling_interval: ClassVar[float] = 30.0
    """Seconds within which an alarm is found that another process has written."""
    claim_ttl: ClassVar[float] = 60.0
    """Seconds after which the alarms of a dead process are delivered by others."""
    lateness: ClassVar[float] = 0.25
    """Seconds by which an alarm, or the reaction to a hint, may be late."""

    def make_scheduler(self, parts: SchedulerParts) -> Scheduler:
        """Make a scheduler; a subclass overrides this method."""
        raise NotImplementedError(f"{type(self).__name__} needs a method `make_scheduler`")

    @pytest.fixture
    def storage(self) -> Storage:
        """The storage that schedulers work on, empty and not open."""
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
        """Wait for so many seconds, and for as long as an alarm may be late."""
        await anyio.sleep(seconds + self.lateness)
