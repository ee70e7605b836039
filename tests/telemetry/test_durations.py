"""Durations: real ones, by a clock that is finer than any turn, on every event loop."""

from __future__ import annotations

from typing import Any

import anyio

from trio_durable import DurableObject, DurableRuntime, handler
from trio_durable.telemetry import Instrument, Timed, Turn


class Adder(DurableObject):
    total: int = 0

    @handler
    def add(self) -> None:
        self.total += sum(range(1_000))


class Durations(Instrument):
    def __init__(self) -> None:
        self.of_turns: list[float] = []

    def on_stop(self, event: Timed, duration: float) -> None:
        if isinstance(event, Turn):
            self.of_turns.append(duration)


def test_short_turns_have_durations(real_backend: tuple[str, dict[str, Any]]) -> None:
    durations = Durations()

    async def main() -> None:
        async with DurableRuntime(":memory:", instruments=[durations]):
            for _ in range(100):
                await Adder.add("a")

    backend, options = real_backend
    anyio.run(main, backend=backend, backend_options=options)
    assert len(durations.of_turns) == 100
    assert all(duration > 0 for duration in durations.of_turns)
    assert len(set(durations.of_turns)) > 10
