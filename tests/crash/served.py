"""A runtime at work: what callers were told, and what has to be there then."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable

import attrs
import trio
import trio.testing

from trio_durable import (
    Alarm,
    DurableObject,
    DurableRuntime,
    InlineRunner,
    PersistenceError,
    handler,
)
from trio_durable.storage import Storage

CALLERS = 4
CALLS = 3
OBJECTS = 3
HOUR = 3600


class Notebook(DurableObject, name="Notebook", call_timeout=None):
    """Every turn changes all fields together, so that half a turn would show."""

    total: int = 0
    names: list[str] = attrs.field(factory=list)
    echoes: list[str] = attrs.field(factory=list)

    @handler
    def note(self, name: str) -> int:
        self.total += 1
        self.names.append(name)
        self.ctx.schedule_alarm(name, after=1)
        return self.total

    @handler
    async def note_in_two_commits(self, name: str) -> int:
        self.note.function(f"{name}a")
        await self.ctx.commit()
        return self.note.function(f"{name}b")

    def handle_alarm(self, alarm: Alarm) -> None:
        self.echoes.append(alarm.name)


@attrs.define
class Told:
    """What callers know."""

    acknowledged: dict[str, tuple[str, int]] = attrs.field(factory=dict)
    """By name: the object, and the place that the reply gave."""
    errors: list[PersistenceError] = attrs.field(factory=list)
    heard: Callable[[str, tuple[str, int]], object] = lambda name, place: None
    """Called with what is acknowledged."""

    def acknowledge(self, name: str, object_id: str, place: int) -> None:
        """Note a reply."""
        self.acknowledged[name] = object_id, place
        self.heard(name, (object_id, place))


async def note(runtime: DurableRuntime, object_id: str, name: str, told: Told) -> bool:
    """Call one of the handlers; whether it was acknowledged."""
    notebook = runtime.get(Notebook, object_id)
    try:
        if len(name) % 3:
            told.acknowledge(name, object_id, await notebook.note(name))
        else:
            place = await notebook.note_in_two_commits(name)
            told.acknowledge(f"{name}a", object_id, place - 1)
            told.acknowledge(f"{name}b", object_id, place)
    except PersistenceError as error:
        assert error.key.object_id == object_id  # noqa: PT017
        told.errors.append(error)
        return False
    return True


async def caller(runtime: DurableRuntime, number: int, told: Told) -> None:
    for n in range(CALLS):
        await note(runtime, f"notebook {(number + n) % OBJECTS}", f"{number}.{n}", told)


def opened(storage: Storage) -> DurableRuntime:
    """A runtime that works in the event loop, and whose hours are soon over."""
    return DurableRuntime(storage, objects=[Notebook], runner=InlineRunner, polling_interval=600)


async def stored(storage: Storage) -> dict[str, Notebook]:
    """What is there, when all alarms have gone off."""
    async with opened(storage) as runtime:
        await trio.sleep(3 * HOUR)  # what was set later than now, in virtual time, comes due too
        found = {}
        for object_id in await runtime.list_objects(Notebook):
            await runtime.ensure_started(Notebook, object_id)
            found[object_id] = await runtime.get_state(Notebook, object_id)
            assert await runtime.list_alarms(Notebook, object_id) == []
        return found


def check(found: dict[str, Notebook], told: Told) -> None:
    """Nothing acknowledged is missing, nothing is there twice or in part."""
    places = {
        name: (object_id, place)
        for object_id, notebook in found.items()
        for place, name in enumerate(notebook.names, 1)
    }
    lost = {name: told for name, told in told.acknowledged.items() if places.get(name) != told}
    assert lost == {}
    for notebook in found.values():
        assert notebook.total == len(notebook.names)
        assert max(Counter(notebook.names).values()) == 1
        # Each alarm was set with its note, and has had its effect once.
        assert sorted(notebook.echoes) == sorted(notebook.names)


def in_virtual_time(scenario: Callable[[], Awaitable[None]]) -> None:
    """Of which there is enough for whatever doesn't hang."""

    async def main() -> None:
        with trio.fail_after(100 * HOUR):
            await scenario()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


async def serve(
    storage: Storage, told: Told, *, then: Callable[[], object], wait: float = HOUR
) -> None:
    """Let callers call, and then once more when ``then`` was called."""
    async with opened(storage) as runtime:
        async with trio.open_nursery() as nursery:
            for number in range(CALLERS):
                nursery.start_soon(caller, runtime, number, told)
        then()
        # Alarms whose delivery met the fault are tried again.
        await trio.sleep(wait)
        for number in range(OBJECTS):
            for name in (f"{number}.first try", f"{number}.second try"):
                if await note(runtime, f"notebook {number}", name, told):
                    break
            else:
                raise told.errors[-1]
