"""Messages of a runtime on an SQLite file, whose batches are statements of their own."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from trio_durable import DurableObject, DurableRuntime, handler
from trio_durable.testing import drain_messages

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["trio", "asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Real time, since virtual time would run away while a thread works."""
    backend: str = request.param
    return backend


class Clock(DurableObject):
    ticks: int = 0

    @handler
    def tick(self, more: int, seconds: float = 0) -> None:
        self.ticks += 1
        if more:
            again = self.ctx.outgoing(after=timedelta(seconds=seconds), key="next")
            again.send(Clock.tick, self.ctx.object_id, more - 1, seconds)

    @handler
    async def stop(self) -> bool:
        return await self.ctx.cancel_message("next").taken_back()

    @handler(readonly=True)
    def count(self) -> int:
        return self.ticks


async def test_a_message_to_oneself_is_followed_by_one_under_its_key(tmp_path: Path) -> None:
    async with DurableRuntime(tmp_path / "app.db", objects=[Clock]) as runtime:
        clock = runtime.get(Clock, "wall")
        await clock.tick(2)
        drained = await drain_messages(runtime)
        assert (drained.delivered, drained.failed) == (2, 0)
        assert await clock.count() == 3


async def test_a_message_is_taken_back_before_it_is_due(tmp_path: Path) -> None:
    async with DurableRuntime(tmp_path / "app.db", objects=[Clock]) as runtime:
        clock = runtime.get(Clock, "wall")
        await clock.tick(2, seconds=3600)
        assert await clock.stop()
        assert await runtime.list_messages(Clock) == []
        assert not await clock.stop()
