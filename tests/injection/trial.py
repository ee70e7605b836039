"""Trial: one run of one situation with one fault, in this process."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

import anyio
import attrs

from trio_durable import DurableRuntime

from .faults import Injected, Point, Tracer
from .situations import ALARM, ENTERING, LEAVING, Situation
from .world import ACKNOWLEDGED, PLANNED, Call, Events, Ledger, World, events, tasks

CALL_TIMEOUT = 1.0
GRACE_PERIOD = 0.1
CLOSE_TIMEOUT = 2.0
ALARM_WITHIN = 5.0
"""A fault in a delivery is followed by pauses of a second."""


@attrs.define
class Report:
    """What a trial has seen."""

    points: list[Point] = attrs.field(factory=list)
    """The lines that ran, if there was no fault."""
    is_reached: bool = False
    calls: list[Call] = attrs.field(factory=list)
    entered: str = ""
    """`ACKNOWLEDGED`, or the error of entering the runtime."""
    left: str = ""
    """The same of leaving it."""
    leaving_took: float = 0.0
    memory: list[list[str]] | None = None
    """The object's entries, by a call at the end."""
    ended: bool = False
    """The runtime has ended with an error."""
    alarm_is_late: bool = False
    unserved: list[str] = attrs.field(factory=list)
    escaped: str = ""
    """The exception that left the event loop."""
    from_callbacks: list[str] = attrs.field(factory=list)
    """Exceptions that asyncio has caught."""
    logged: list[str] = attrs.field(factory=list)
    reopened: str = ""
    """`ACKNOWLEDGED`, or the error of a runtime opened afterwards."""


class _Noting(logging.Handler):
    def __init__(self, lines: list[str]) -> None:
        super().__init__(logging.ERROR)
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(f"{record.levelname} {record.getMessage()}"[:200])


def perform(
    backend: str, situation: Situation, action: str, point: Point | None, path: str, report: Report
) -> None:
    """Run a trial, and leave its results in ``report``."""
    logger = logging.getLogger("trio_durable")
    logger.propagate = False
    logger.addHandler(_Noting(report.logged))
    world: list[World] = []
    tracer = Tracer(point, lambda: _act(action, world[0]))
    try:
        run_on(backend, _live, situation, tracer, path, world, report)
    except BaseException as error:  # noqa: BLE001  # it is what is looked for
        report.escaped = type(error).__name__
    report.is_reached = tracer.is_reached
    report.points = tracer.points
    if world:
        report.calls = world[0].calls
    if report.left or report.entered != ACKNOWLEDGED:
        run_on(backend, _reopen, path, report)


def _act(action: str, world: World) -> None:
    if action == "exception":
        raise Injected
    if action == "memory":
        raise MemoryError
    if action == "exit":
        raise SystemExit
    if action == "cancel":
        if world.cancel is not None:
            world.cancel()
    else:
        world.call_within("within")


def run_on(backend: str, function: Callable[..., Any], *arguments: object) -> None:
    """Run an async function on one of `BACKENDS`."""
    if backend == "trio":
        anyio.run(function, *arguments, backend="trio")
        return
    new_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    if backend == "uvloop":
        import uvloop

        new_loop = uvloop.new_event_loop
    elif backend == "eager":

        def new_loop() -> asyncio.AbstractEventLoop:
            loop = asyncio.new_event_loop()
            loop.set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined,unused-ignore]
            return loop

    options = {"loop_factory": new_loop}
    anyio.run(function, *arguments, backend="asyncio", backend_options=options)


async def _live(
    situation: Situation, tracer: Tracer, path: str, worlds: list[World], report: Report
) -> None:
    _watch_callbacks(report)
    events.append(Events())
    runtime = DurableRuntime(
        path,
        objects=[Ledger],
        call_timeout=CALL_TIMEOUT,
        grace_period=GRACE_PERIOD,
        close_timeout=CLOSE_TIMEOUT,
        polling_interval=0.5,
        claim_ttl=1.0,
    )
    async with tasks() as start:
        world = World(runtime, start)
        worlds.append(world)
        report.entered = (await _traced(tracer, situation is ENTERING, world, "__aenter__")).outcome
        if report.entered != ACKNOWLEDGED:
            return
        await situation.prepare(world)
        if situation is not ENTERING and situation is not LEAVING:
            with tracer.tracing():
                await situation.happen(world)
        if situation is not LEAVING:
            await _examine(world, report)
            if situation is ALARM and not report.ended:
                await _await_alarm(world, report)
        began = time.monotonic()
        left = await _traced(tracer, situation is LEAVING, world, "__aexit__", None, None, None)
        report.leaving_took = time.monotonic() - began
        report.left = left.outcome


async def _traced(
    tracer: Tracer, is_traced: bool, world: World, method: str, *arguments: object
) -> Call:
    def begin() -> Any:
        return getattr(world.runtime, method)(*arguments)

    if not is_traced:
        return await world.apart(begin)
    with tracer.tracing():
        return await world.apart(begin)


async def _examine(world: World, report: Report) -> None:
    """Call the object; each handler has two attempts."""
    for handler in ("add", "add_async", "entries"):
        for attempt in (1, 2):
            entry = "" if handler == "entries" else f"{handler} {attempt}"
            call = await world.call(handler, entry)
            if call.is_acknowledged:
                break
            if call.outcome == "RuntimeClosed":
                report.ended = True
                return
        else:
            report.unserved.append(f"{handler}: {call.outcome}")
        if handler == "entries" and call.is_acknowledged:
            report.memory = call.reply


async def _await_alarm(world: World, report: Report) -> None:
    """Wait for the alarm, if it was set."""
    deadline = time.monotonic() + ALARM_WITHIN
    while report.memory is not None and "plan" in report.memory[1]:
        if PLANNED in report.memory[1]:
            return
        if time.monotonic() > deadline:
            report.alarm_is_late = True
            return
        await anyio.sleep(0.02)
        call = await world.call("entries", "")
        if call.is_acknowledged:
            report.memory = call.reply


async def _reopen(path: str, report: Report) -> None:
    deadline = time.monotonic() + 2 * CLOSE_TIMEOUT
    events.append(Events())
    while True:
        try:
            async with DurableRuntime(path, objects=[Ledger]) as runtime:
                await runtime.get(Ledger, "another").entries()
        except Exception as error:  # noqa: BLE001  # noted
            report.reopened = type(error).__name__
            if time.monotonic() > deadline:
                return
            await anyio.sleep(0.05)
        else:
            report.reopened = ACKNOWLEDGED
            return


def _watch_callbacks(report: Report) -> None:
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return

    def note(_loop: object, context: dict[str, Any]) -> None:
        report.from_callbacks.append(f"{context['message']}: {context.get('exception')!r}"[:200])

    loop.set_exception_handler(note)
