"""Processes in storms of signals: ``python -m hold.stormed``.

This process imports the library once, and then forks a child for each line on its standard input,
``[PATH, BACKEND, STORM, SEED]``. The child opens a runtime on the file again and again, and has
objects called in it, while signals arrive. One line answers: ``[CODE, LINES, ERRORS]``, with the
exit code or None if the child had to be killed, its lines, and its standard error.

The lines of a child are written at once and unbuffered, so that they say what was known when it
ended:

    ? NAME              a call is about to be made; NAME is what it writes
    = NAME OBJECT N     it was acknowledged, and the object has N entries
    - NAME ERROR        it has failed
    + TOKEN             a turn that sets an alarm was acknowledged
    ! FAULT             what must not be
    ~ NOTE              what the event loop is to blame for
    end HOW             the event loop was left: ``done``, or by which exception
"""

from __future__ import annotations

import asyncio
import faulthandler
import importlib
import inspect
import json
import logging
import os
import select
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from random import Random
from types import FrameType
from typing import Any, NoReturn

import anyio
import anyio.lowlevel
import attrs
import trio

from trio_durable import (
    CallTimeout,
    DurableObject,
    DurableRuntime,
    MailboxFull,
    Retry,
    RuntimeClosed,
    StorageInUse,
    alarm,
    handler,
)

BACKENDS = ("trio", "asyncio", "uvloop")
SECONDS = 0.25
"""How long a child works, if no signal ends it."""
BOUND = 30.0
"""How long it may take, leaving included, on a busy machine."""
_OPEN_SECONDS = 0.06
"""How long a runtime is open."""
_CALLERS = 4
_LIBRARY = "/trio_durable/"
_CALL_TIMEOUT = 5.0
_CLOSE_TIMEOUT = 4.0


class Ledger(DurableObject, hibernate_after=0.01, shutdown_after=0.03, call_timeout=_CALL_TIMEOUT):
    """Each turn changes all fields, so that half a turn would show."""

    names: list[str] = attrs.field(factory=list)
    total: int = 0
    last: str = ""

    @handler
    def note(self, name: str) -> int:
        self.names.append(name)
        self.total += 1
        self.last = name
        return self.total

    @handler
    async def note_slowly(self, name: str) -> int:
        self.names.append(name)
        await anyio.lowlevel.checkpoint()
        self.total += 1
        await anyio.sleep(0.001)
        self.last = name
        return self.total

    @handler
    async def note_twice(self, name: str) -> int:
        """Two commits in one turn, each of which may be the last one."""
        self.note.function(f"{name}a")
        await self.ctx.commit()
        return self.note.function(f"{name}b")

    @handler
    async def fail(self, name: str) -> int:
        self.note.function(name)
        await anyio.lowlevel.checkpoint()
        raise ValueError(name)


class Chime(DurableObject, hibernate_after=0.01, call_timeout=_CALL_TIMEOUT):
    """An object for each token, whose alarm rings once."""

    planned: int = 0
    rung: int = 0

    @handler
    def plan(self, delay: float) -> None:
        self.planned += 1
        self.ctx.schedule_alarm("ring", after=delay)

    @alarm(retry=Retry(initial=0.01, maximum=0.05))
    async def ring(self) -> None:
        self.rung += 1
        await anyio.lowlevel.checkpoint()


class Struck(Exception):
    """What the handler of a signal raises."""


# --- storms --------------------------------------------------------------------------------------


def _exit() -> None:
    sys.exit(3)


def _raise() -> None:
    raise Struck


def _do_nothing() -> None:
    pass


@attrs.frozen
class Storm:
    """The signals of a trial."""

    number: signal.Signals
    act: Callable[[], object] | None
    """What their handler does; None for Python's own handler."""
    most: int
    """How many there are at most."""
    gap: float
    """Seconds between two of them, at most."""

    @property
    def is_own(self) -> bool:
        """They come from a timer of the child's own, not from its parent."""
        return self.number == signal.SIGALRM


STORMS = {
    "term": Storm(signal.SIGTERM, _exit, most=4, gap=0.03),
    "int": Storm(signal.SIGINT, None, most=4, gap=0.03),
    "exit": Storm(signal.SIGALRM, _exit, most=4, gap=0.03),
    "raise": Storm(signal.SIGALRM, _raise, most=10, gap=0.03),
    "nothing": Storm(signal.SIGALRM, _do_nothing, most=1000, gap=0.001),
}


def moments(storm: Storm, rng: Random) -> Iterator[float]:
    """When its signals come: the first one after a while, the others with gaps between."""
    yield rng.uniform(0.0005, SECONDS)
    for _ in range(rng.randrange(storm.most)):
        yield rng.uniform(0.0001, storm.gap)


def brew(storm: Storm, rng: Random) -> None:
    """Set the handler of a storm's signals, and the timer if they are the process's own."""
    if storm.act is None:
        signal.signal(storm.number, signal.default_int_handler)
        return
    act, gaps = storm.act, moments(storm, rng)

    def strike(_signal: int, frame: FrameType | None) -> None:
        strikes.append(_stack(frame))
        if storm.is_own:
            signal.setitimer(signal.ITIMER_REAL, next(gaps, 0))
        act()

    signal.signal(storm.number, strike)
    if storm.is_own:
        signal.setitimer(signal.ITIMER_REAL, next(gaps))


strikes: list[list[str]] = []
"""Where the signals came: the innermost functions."""


def _stack(frame: FrameType | None) -> list[str]:
    found: list[str] = []
    while frame is not None and len(found) < 12:
        found.append(f"{frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_name}")
        frame = frame.f_back
    return found


def calm(storm: Storm) -> None:
    """Ignore what is left of a storm."""
    for _ in range(storm.most):
        try:
            signal.signal(storm.number, signal.SIG_IGN)
        except BaseException:  # noqa: BLE001, S112  # of a signal that had come before
            continue
        return


# --- the child -----------------------------------------------------------------------------------


def say(*words: object) -> None:
    # One write: a line is there wholly or not at all.
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


class _Faults(logging.Handler):
    """Says which lines of the log are of faults that no signal can bring."""

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if "nothing served it" in message:
            say("!", "wedge:", message)


class Callers:
    """The callers of all runtimes of a child."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._numbers = count()

    async def run(self, runtime: DurableRuntime, until: float) -> None:
        """Make one call after the other."""
        while time.monotonic() < until:
            name = str(next(self._numbers))
            say("?", name)
            try:
                await self._call(runtime, name)
            except CallTimeout as error:
                if not isinstance(error, MailboxFull):
                    mark = "~" if await _has_lost_tasks() else "!"
                    say(mark, "wedge:", name, type(error).__name__, error)
                return
            except RuntimeClosed:
                say("-", name, "RuntimeClosed")
                return
            except Exception as error:  # noqa: BLE001  # as servers do with each request
                say("-", name, type(error).__name__)

    async def _call(self, runtime: DurableRuntime, name: str) -> None:
        object_id = f"ledger-{self._rng.randrange(3)}"
        ledger = runtime.get(Ledger, object_id)
        match self._rng.randrange(6):
            case 0 | 1:
                say("=", name, object_id, await ledger.note(name))
            case 2:
                say("=", name, object_id, await ledger.note_slowly(name))
            case 3:
                total = await ledger.note_twice(name)
                say("=", f"{name}a", object_id, total - 1)
                say("=", f"{name}b", object_id, total)
            case 4:
                await runtime.get(Chime, name).plan(self._rng.choice([0, 0.001, 0.01, 60]))
                say("+", name)
            case _:
                await ledger.fail(name)


async def live(path: str, rng: Random) -> None:
    """Enter and leave runtimes; an exception ends only the one that it comes from."""
    _note_callbacks()
    callers = Callers(rng)
    until = time.monotonic() + SECONDS
    in_use_until = float("inf")
    while time.monotonic() < until:
        try:
            async with (
                DurableRuntime(
                    path,
                    objects=[Ledger, Chime],
                    durability="normal",
                    polling_interval=0.5,
                    claim_ttl=1.0,
                    grace_period=0.1,
                    close_timeout=_CLOSE_TIMEOUT,
                ) as runtime,
                anyio.create_task_group() as tasks,
            ):
                in_use_until = float("inf")
                closes_at = time.monotonic() + _OPEN_SECONDS
                for _ in range(_CALLERS):
                    tasks.start_soon(callers.run, runtime, closes_at)
        except StorageInUse as error:
            # The thread of the runtime before closes it within its timeout.
            in_use_until = min(in_use_until, time.monotonic() + 2 * _CLOSE_TIMEOUT)
            if time.monotonic() > in_use_until:
                say("!", "lock kept:", error)
                return
            until = max(until, time.monotonic() + 0.05)
            await anyio.sleep(0.01)
        except Exception as error:  # noqa: BLE001
            say("-", "runtime", "".join(traceback.format_exception_only(error)).split("\n")[0])


async def _has_lost_tasks() -> bool:
    """True if asyncio has forgotten a task.

    Its loop catches an exception that is raised around a callback, and drops the callback. If that
    was to resume a task, nothing will.
    """
    if trio.lowlevel.in_trio_task():
        return False
    await anyio.sleep(0.05)
    return any(map(_is_lost, asyncio.all_tasks()))


def _is_lost(task: asyncio.Task[Any]) -> bool:
    waiter = task._fut_waiter  # type: ignore[attr-defined]
    if waiter is not None and waiter.done():
        return True
    return any("asyncio/tasks.py" in each and each.endswith(" sleep") for each in _awaited(task))


def _awaited(task: asyncio.Task[Any]) -> Iterator[str]:
    """The lines where a task and what it awaits are suspended."""
    coroutine: object = task.get_coro()
    while inspect.iscoroutine(coroutine):
        frame = coroutine.cr_frame
        if frame is not None:
            yield f"{frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_name}"
        coroutine = coroutine.cr_await


def _note_callbacks() -> None:
    """Say what leaves callbacks and tasks of the library's in asyncio."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return

    def note(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        text = repr(context)
        # A task whose coroutine is done was cut off between its making and its start.
        was_cut_off = "pending!" in text or "cannot reuse already awaited coroutine" in text
        is_ours = "trio_durable" in text and not was_cut_off
        say("!" if is_ours else "~", "left a callback or task:", text[:1000])

    loop.set_exception_handler(note)


def _say_tasks(_signal: int, _frame: FrameType | None) -> None:
    """Say which tasks there are, when the process hangs."""
    loop = asyncio._get_running_loop()
    if loop is None:
        return
    waits = {task: list(_awaited(task)) for task in asyncio.all_tasks(loop)}
    for task, lines in waits.items():
        say("~", "lost" if _is_lost(task) else "waits", task.get_name(), lines)
    if _LIBRARY not in repr(waits.values()):
        say("~", "lost", "a callback of others: no task waits for the library")
    say("~", "struck at", strikes)


def run_on(backend: str, path: str, rng: Random) -> None:
    """Run `live` on one of `BACKENDS`."""
    if backend == "trio":
        anyio.run(live, path, rng, backend="trio")
        return
    new_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    if backend == "uvloop":
        import uvloop

        new_loop = uvloop.new_event_loop
    anyio.run(live, path, rng, backend="asyncio", backend_options={"loop_factory": new_loop})


def child(path: str, backend: str, name: str, seed: int) -> NoReturn:
    """Work in a storm, and exit as any program does."""
    rng = Random(f"{seed} child")
    storm = STORMS[name]
    logger = logging.getLogger("trio_durable")
    logger.propagate = False
    logger.addHandler(_Faults(logging.ERROR))
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    signal.signal(signal.SIGUSR2, _say_tasks)
    how = "done"
    try:
        try:
            brew(storm, Random(f"{seed} storm"))
            say("begun")
            run_on(backend, path, rng)
        finally:
            calm(storm)
    except BaseException as error:  # noqa: BLE001  # it is what is looked for
        how = described(error)
    say("end", how)
    sys.exit(0)


def described(error: BaseException) -> str:
    """Which exception has left the event loop, and by whose fault if that is not a signal's."""
    signalled = (Struck, SystemExit, KeyboardInterrupt)
    text = repr("".join(traceback.format_exception(error)))
    if isinstance(error, trio.TrioInternalError):
        causes = list(_leaves(error.__cause__))
        if any(isinstance(each, signalled) for each in causes):
            is_ours = any(map(_is_in_library, causes))
        else:  # it comes of what was cut off
            is_ours = all(_LIBRARY in repr(each) for each in strikes)
        if not is_ours:
            return "TrioInternalError of Trio alone"  # the signal came within its own loop
        say("!", "internal error of Trio:", text)
        say("~", "struck at", strikes)
    elif not any(isinstance(each, signalled) for each in _leaves_of_all(error)):
        say("!", "left by another exception than the signal's:", text)
        say("~", "struck at", strikes)
    return type(error).__name__


def _leaves_of_all(error: BaseException) -> Iterator[BaseException]:
    """The leaves of an exception and of those in whose handling it was raised."""
    each: BaseException | None = error
    while each is not None:
        yield from _leaves(each)
        each = each.__context__


def _leaves(error: BaseException | None) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _leaves(each)
    elif error is not None:
        yield error


def _is_in_library(error: BaseException) -> bool:
    frames = traceback.extract_tb(error.__traceback__)
    return any(_LIBRARY in frame.filename for frame in frames)


# --- the server ----------------------------------------------------------------------------------


def _import_all(folder: str) -> None:
    """Import all that a child would import, for signals to hit its work and no imports."""
    for backend in BACKENDS:
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            run_on(backend, f"{folder}/{backend}.db", Random(0))
            os.write(writing, json.dumps(sorted(sys.modules)).encode())
            os._exit(0)
        os.close(writing)
        with open(reading) as pipe:
            names = json.load(pipe)
        os.waitpid(pid, 0)
        for name in names:
            with suppress(ImportError):
                importlib.import_module(name)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        _import_all(folder)
    for line in sys.stdin:
        path, backend, name, seed = json.loads(line)
        (reading, writing), (errors, to_errors) = os.pipe(), os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            os.close(errors)
            os.dup2(writing, 1)
            os.dup2(to_errors, 2)
            child(path, backend, name, seed)
        os.close(writing)
        os.close(to_errors)
        answer = _watch(pid, reading, errors, STORMS[name], Random(f"{seed} storm"))
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _watch(
    pid: int, reading: int, errors: int, storm: Storm, rng: Random
) -> tuple[int | None, list[str], str]:
    """Send a child its signals, read what it says, and see it end."""
    said = {reading: bytearray(), errors: bytearray()}
    open_pipes = {reading, errors}
    deadline = time.monotonic() + BOUND
    signals = iter(()) if storm.is_own else moments(storm, rng)
    due = float("inf")
    is_hung = False
    while open_pipes:
        now = time.monotonic()
        if due == float("inf") and said[reading]:
            due = now + next(signals, float("inf"))
        if now >= due:
            os.kill(pid, storm.number)
            due = float("inf")
            continue
        if now > deadline and not is_hung:
            is_hung = True
            os.kill(pid, signal.SIGUSR1)  # where it hangs
            os.kill(pid, signal.SIGUSR2)
            time.sleep(0.5)
            os.kill(pid, signal.SIGKILL)
        ready, _, _ = select.select(list(open_pipes), [], [], max(0, min(due - now, 1.0)))
        for pipe in ready:
            part = os.read(pipe, 65536)
            said[pipe] += part
            if not part:
                open_pipes.discard(pipe)
                os.close(pipe)
    code = _code(pid, deadline)
    lines = said[reading].decode().splitlines()
    return None if is_hung else code, lines, said[errors].decode(errors="replace")


def _code(pid: int, deadline: float) -> int | None:
    """The exit code of a child that has closed its pipes; None if it doesn't end."""
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return None
        time.sleep(0.001)


if __name__ == "__main__":
    main()
