"""The world of a trial: an object that tells half a turn from a whole one, and its callers."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeAlias, cast

import anyio
import anyio.lowlevel
import attrs
import trio

from trio_durable import DurableObject, DurableRuntime, Retry, alarm, handler

KEY = "a"
STORED = "stored before"
PLANNED = "ring"
RETRY = Retry(initial=0.01, maximum=0.02)


class Events:
    """The events of a trial."""

    def __init__(self) -> None:
        self.released = anyio.Event()
        """Held turns end."""
        self.rung = anyio.Event()
        """The alarm's handler has run."""


events: list[Events] = []
"""Those of the trial that runs are the last ones."""


class Ledger(DurableObject):
    """Each turn adds one entry to both lists."""

    begun: list[str] = attrs.field(factory=list)
    ended: list[str] = attrs.field(factory=list)

    @handler
    def add(self, entry: str) -> int:
        self.begun.append(entry)
        self.ended.append(entry)
        return len(self.ended)

    @handler
    async def add_async(self, entry: str) -> int:
        self.begun.append(entry)
        await anyio.lowlevel.checkpoint()
        self.ended.append(entry)
        return len(self.ended)

    @handler
    async def hold(self, entry: str) -> int:
        self.begun.append(entry)
        await events[-1].released.wait()
        self.ended.append(entry)
        return len(self.ended)

    @handler
    def plan(self, entry: str) -> int:
        self.ctx.schedule_alarm(PLANNED, after=0)
        self.begun.append(entry)
        self.ended.append(entry)
        return len(self.ended)

    @alarm(retry=RETRY)
    def ring(self) -> None:
        self.begun.append(PLANNED)
        self.ended.append(PLANNED)
        events[-1].rung.set()

    @handler(readonly=True)
    def entries(self) -> list[list[str]]:
        return [self.begun, self.ended]


ACKNOWLEDGED = "acknowledged"


@attrs.define
class Call:
    """A call, and its outcome."""

    entry: str
    outcome: str = "waiting"
    """`ACKNOWLEDGED`, or the name of the error."""
    reply: Any = None
    has_cause: bool = False
    """The error has one."""

    @property
    def is_acknowledged(self) -> bool:
        """True if it got a reply."""
        return self.outcome == ACKNOWLEDGED


Run: TypeAlias = "Callable[[], Coroutine[Any, Any, None]]"


@attrs.define
class World:
    """A runtime, the calls of one object, and the tasks that make them."""

    runtime: DurableRuntime
    start: Callable[[Run], None]
    calls: list[Call] = attrs.field(factory=list)
    cancel: Callable[[], object] | None = None
    """Cancels the task that was begun last."""
    _ends: list[anyio.Event] = attrs.field(factory=list)

    async def call(self, handler: str, entry: str) -> Call:
        """Call a handler, and note what comes of it. Raises nothing."""
        noted = Call(entry)
        self.calls.append(noted)
        return await self._await(noted, lambda: self._called(handler, entry))

    def _called(self, handler: str, entry: str) -> Awaitable[object]:
        method = getattr(self.runtime.get(Ledger, KEY), handler)
        called: Awaitable[object] = method(entry) if entry else method()
        return called

    async def _await(self, noted: Call, begin: Callable[[], Awaitable[object]]) -> Call:
        try:
            noted.reply = await begin()
        except BaseException as error:  # noqa: BLE001  # it is what is looked for
            noted.outcome = type(error).__name__
            noted.has_cause = error.__cause__ is not None
        else:
            noted.outcome = ACKNOWLEDGED
        return noted

    def begin(self, handler: str, entry: str) -> None:
        """Call in a task of its own, which `cancel` cancels."""
        noted = Call(entry)
        self.calls.append(noted)
        self._begin(noted, lambda: self._called(handler, entry))

    async def apart(self, begin: Callable[[], Awaitable[object]]) -> Call:
        """Await something in a task of its own, which `cancel` cancels."""
        noted = Call("")
        self._begin(noted, begin)
        await self.all_ended()
        return noted

    def _begin(self, noted: Call, begin: Callable[[], Awaitable[object]]) -> None:
        ended = anyio.Event()
        self._ends.append(ended)

        async def run() -> None:
            try:
                if trio.lowlevel.in_trio_task():
                    with trio.CancelScope() as scope:
                        self.cancel = scope.cancel
                        await self._await(noted, begin)
                else:
                    task = asyncio.current_task()
                    assert task is not None
                    self.cancel = task.cancel
                    await self._await(noted, begin)
            finally:
                ended.set()

        self.start(run)

    async def all_ended(self) -> None:
        """Return when all calls of `begin` have ended."""
        while self._ends:
            await self._ends.pop().wait()

    def call_within(self, entry: str) -> None:
        """Call from inside of whatever runs, as a task does that begins eagerly."""
        noted = Call(entry)
        self.calls.append(noted)
        ended = anyio.Event()
        self._ends.append(ended)
        coroutine = self._await(noted, lambda: self._called("add", entry))
        assert sys.version_info >= (3, 12)
        make = cast("Callable[..., asyncio.Task[Call]]", asyncio.Task)
        task = make(coroutine, loop=asyncio.get_running_loop(), eager_start=True)
        _eager.append(task)
        if task.done():
            ended.set()
        else:
            task.add_done_callback(lambda _: ended.set())


_eager: list[asyncio.Task[Call]] = []


@asynccontextmanager
async def tasks() -> AsyncIterator[Callable[[Run], None]]:
    """A starter of tasks, in which a cancellation of one is no matter of the others."""
    if trio.lowlevel.in_trio_task():
        async with trio.open_nursery() as nursery:
            yield nursery.start_soon
            nursery.cancel_scope.cancel()
    else:
        running: set[asyncio.Task[None]] = set()

        def start(run: Run) -> None:
            # By the loop's own task factory, which may be an eager one.
            task = asyncio.get_running_loop().create_task(run())
            running.add(task)
            task.add_done_callback(running.discard)

        yield start


async def settled() -> None:
    """Let the tasks of the loop run for a few rounds."""
    for _ in range(20):
        await anyio.lowlevel.checkpoint()
