"""Situations: what the runtime does when a fault comes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import anyio
import anyio.lowlevel

from .world import World, events, settled

ALARM_SECONDS = 0.3
"""How long the alarm is traced."""


class Situation(ABC):
    """What happens before the tracer is set, and while it is."""

    name: ClassVar[str]

    async def prepare(self, world: World) -> None:
        """Come to the state in which the fault is to happen."""
        await world.call("entries", "")

    @abstractmethod
    async def happen(self, world: World) -> None:
        """Let happen what is traced."""


class First(Situation):
    """The first call of an object, which is loaded."""

    name = "first"

    async def prepare(self, world: World) -> None:
        """Leave the object alone."""

    async def happen(self, world: World) -> None:
        world.begin("add", "first")
        await world.all_ended()


class FirstAsync(First):
    """The first call of an object, of an ``async def`` handler."""

    name = "first-async"

    async def happen(self, world: World) -> None:
        world.begin("add_async", "first")
        await world.all_ended()


class Open(Situation):
    """A ``def`` turn of an open object."""

    name = "open"

    async def prepare(self, world: World) -> None:
        await world.call("add", "before")

    async def happen(self, world: World) -> None:
        world.begin("add", "open")
        await world.all_ended()


class Queued(Situation):
    """Calls that wait for an ``async def`` turn."""

    name = "queued"

    async def prepare(self, world: World) -> None:
        await world.call("add", "before")
        world.begin("hold", "hold")
        await settled()

    async def happen(self, world: World) -> None:
        world.begin("add", "queued 1")
        world.begin("add_async", "queued 2")
        world.begin("add", "queued 3")
        await settled()
        events[-1].released.set()
        await world.all_ended()


class Async(Situation):
    """An ``async def`` turn of an open object that has a worker."""

    name = "async"

    async def prepare(self, world: World) -> None:
        await world.call("add_async", "before")

    async def happen(self, world: World) -> None:
        world.begin("add_async", "async")
        await world.all_ended()


class Alarm(Situation):
    """An alarm is set, falls due and is handled."""

    name = "alarm"

    async def prepare(self, world: World) -> None:
        await world.call("add", "before")

    async def happen(self, world: World) -> None:
        world.begin("plan", "plan")
        await world.all_ended()
        with anyio.move_on_after(ALARM_SECONDS):
            await events[-1].rung.wait()
            await anyio.sleep(0.02)  # for its commit


class Entering(Situation):
    """The runtime is entered."""

    name = "entering"

    async def happen(self, world: World) -> None:
        await world.apart(world.runtime.__aenter__)


class Leaving(Situation):
    """The runtime is left while one turn runs, one waits, and a commit is on its way."""

    name = "leaving"

    async def prepare(self, world: World) -> None:
        await world.call("add_async", "before")
        world.begin("add", "committing")
        world.begin("hold", "hold")
        world.begin("add", "queued")
        await anyio.lowlevel.checkpoint()

    async def happen(self, world: World) -> None:
        raise AssertionError("the trial leaves the runtime itself")


ENTERING, LEAVING, ALARM = Entering(), Leaving(), Alarm()
SITUATIONS: dict[str, Situation] = {
    each.name: each
    for each in (First(), FirstAsync(), Open(), Queued(), Async(), ALARM, ENTERING, LEAVING)
}
