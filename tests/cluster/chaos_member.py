"""A process of the chaos: calls objects until it dies, and writes what it did to a file.

Each line is JSON, and one write, so that a kill leaves it wholly or not at all:
``[NUMBER, OBJECT, NAME, [ARGUMENT, …], TIME]`` before an operation, and
``[NUMBER, KNOWN, RESULT, TIME]`` behind it. Times are those of ``CLOCK_MONOTONIC``, which all
processes of a machine share. `chaos_history` reads them.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import random
import signal
import time
import warnings
from collections.abc import Awaitable, Callable
from itertools import count
from pathlib import Path
from typing import Any, NoReturn

import anyio
import attrs

from trio_durable import (
    CallTimeout,
    DurableRuntime,
    ObjectNotRunning,
    Overloaded,
    OwnerLost,
    PersistenceError,
    RuntimeClosed,
    StaleObject,
    StorageInUse,
    StorageUnavailable,
)

from .chaos_storage import Place
from .ledgers import Counter, Ledger, Refused, Register
from .members import options_of

CALL_TIMEOUT = 3.0
FORK_SECONDS = 1.5

_UNKNOWN = (OwnerLost, CallTimeout, RuntimeClosed, PersistenceError)


@attrs.frozen
class Job:
    """A process to start."""

    place: Place
    log: Path
    seed: int
    until: float


class Log:
    """The file that the operations are written to."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._numbers = count()

    def begin(self, *operations: tuple[str, str, list[Any]]) -> list[int]:
        """Note that operations begin: each an object, a name and arguments."""
        numbers = [next(self._numbers) for _ in operations]
        now = time.monotonic()
        self._write(
            *([n, *operation, now] for n, operation in zip(numbers, operations, strict=True))
        )
        return numbers

    def end(self, *outcomes: tuple[int, str, Any]) -> None:
        """Note their outcomes: a number, what is known, and a result."""
        now = time.monotonic()
        self._write(*([*outcome, now] for outcome in outcomes))

    def fault(self, error: BaseException) -> None:
        """Note an error that no caller should ever get."""
        self._write(["fault", repr(error)[:2000]])

    def _write(self, *lines: list[Any]) -> None:
        os.write(self._fd, b"".join(json.dumps(line).encode() + b"\n" for line in lines))


class Caller:
    """Calls one object after the other."""

    def __init__(
        self, place: Place, runtime: DurableRuntime, log: Log, draw: random.Random, name: str
    ) -> None:
        self._place = place
        self._runtime = runtime
        self._log = log
        self._draw = draw
        self._names = (f"{name}.{n}" for n in count())
        self._is_over = False

    async def run(self) -> None:
        while not self._is_over:
            epoch = int(time.monotonic() / self._place.epoch)
            n = int(self._place.objects * self._draw.random() ** 2)  # some often, some seldom
            [step] = self._draw.choices(_STEPS, _WEIGHTS)
            # Turns call the next object, and never in a circle.
            await step(self, f"{epoch}-{n}", f"{epoch}-{n + 1}")

    async def _one(
        self,
        kind: str,
        object_id: str,
        operation: str,
        args: list[Any],
        calling: Awaitable[Any],
        result: Callable[[Any], Any] = lambda reply: reply,
    ) -> None:
        """An operation on one object: what the checker is to think of it, and the call."""
        [number] = self._log.begin((f"{kind} {object_id}", operation, args))
        known, value = "unknown", None
        try:
            value = result(await calling)
            known = "ok"
        except Refused as error:
            known, value = "ok", error.args[0]
        except (Overloaded, ObjectNotRunning):
            known = "never"
        except _UNKNOWN as error:
            value = self._unknown(error)
        except Exception as error:  # noqa: BLE001  # found by the driver
            self._log.fault(error)
        self._log.end((number, known, value))

    # --- the steps -------------------------------------------------------------------------------

    async def _append(self, object_id: str, _: str) -> None:
        name = next(self._names)
        ledger = self._runtime.get(Ledger, object_id)
        await self._one("ledger", object_id, "append", [name], ledger.append(name))

    async def _append_slowly(self, object_id: str, _: str) -> None:
        name = next(self._names)
        calling = self._runtime.get(Ledger, object_id).append_slowly(name, self._seconds())
        await self._one("ledger", object_id, "append", [name], calling)

    async def _read(self, object_id: str, _: str) -> None:
        calling = self._runtime.get(Ledger, object_id).read()
        await self._one("ledger", object_id, "read", [], calling)

    async def _read_slowly(self, object_id: str, _: str) -> None:
        calling = self._runtime.get(Ledger, object_id).read_slowly(0.001)
        await self._one("ledger", object_id, "read", [], calling)

    async def _refuse(self, object_id: str, _: str) -> None:
        calling = self._runtime.get(Ledger, object_id).refuse(next(self._names))
        await self._one("ledger", object_id, "peek", [], calling)

    async def _refuse_slowly(self, object_id: str, _: str) -> None:
        ledger = self._runtime.get(Ledger, object_id)
        calling = ledger.refuse_slowly(next(self._names), self._seconds())
        await self._one("ledger", object_id, "peek", [], calling)

    async def _arm(self, object_id: str, _: str) -> None:
        """An alarm's effect has no caller: it may come at any time from now on."""
        name, where = next(self._names), f"ledger {object_id}"
        alarm, arming = self._log.begin((where, "append", [name]), (where, "arm", [name]))
        known, problem = "unknown", None
        try:
            await self._runtime.get(Ledger, object_id).arm(name, self._seconds())
            known = "ok"
        except (*_UNKNOWN, Overloaded) as error:
            problem = self._unknown(error)
        except Exception as error:  # noqa: BLE001  # found by the driver
            self._log.fault(error)
        del alarm  # nothing is ever known of it
        self._log.end((arming, known, problem))

    async def _relay(self, object_id: str, other_id: str) -> None:
        name = next(self._names)
        here, there = self._log.begin(
            (f"ledger {object_id}", "append", [name]), (f"ledger {other_id}", "append", [name])
        )
        known = "unknown"
        replies: tuple[Any, Any] = (None, None)
        try:
            replies = await self._runtime.get(Ledger, object_id).relay(name, other_id)
            known = "ok"
        except (*_UNKNOWN, Overloaded) as error:
            replies = self._unknown(error), None
        except Exception as error:  # noqa: BLE001  # found by the driver
            self._log.fault(error)
        self._log.end((here, known, replies[0]), (there, known, replies[1]))

    async def _write(self, object_id: str, _: str) -> None:
        name = next(self._names)
        calling = self._runtime.get(Register, object_id).write(name)
        await self._one("register", object_id, "write", [name], calling)

    async def _write_slowly(self, object_id: str, _: str) -> None:
        name = next(self._names)
        calling = self._runtime.get(Register, object_id).write_slowly(name, self._seconds())
        await self._one("register", object_id, "write", [name], calling)

    async def _put(self, object_id: str, _: str) -> None:
        name = next(self._names)
        putting = self._runtime.put_state(Register, object_id, Register(value=name))
        await self._one("register", object_id, "put", [name], putting)

    async def _look(self, object_id: str, _: str) -> None:
        calling = self._runtime.get(Register, object_id).read()
        await self._one("register", object_id, "read", [], calling)

    async def _look_slowly(self, object_id: str, _: str) -> None:
        calling = self._runtime.get(Register, object_id).read_slowly(0.001)
        await self._one("register", object_id, "read", [], calling)

    async def _refuse_to_write(self, object_id: str, _: str) -> None:
        calling = self._runtime.get(Register, object_id).refuse(next(self._names))
        await self._one("register", object_id, "read", [], calling)

    async def _get(self, object_id: str, _: str) -> None:
        getting = self._runtime.get_state(Register, object_id)
        await self._one("register", object_id, "read", [], getting, lambda found: found.value)

    async def _stop(self, object_id: str, _: str) -> None:
        """Let objects leave memory, which changes nothing."""
        number = self._draw.randrange(1, 2**40)

        async def stop_and_add() -> int:
            await self._runtime.stop(Counter, object_id)
            return await self._runtime.get(Counter, object_id).add(number)

        await self._one("counter", object_id, "add", [number], stop_and_add())

    async def _give_up(self, object_id: str, _: str) -> None:
        """Cancel a call, which may have run."""
        name = next(self._names)
        self._log.begin((f"ledger {object_id}", "append", [name]))
        with anyio.move_on_after(self._seconds()), contextlib.suppress(*_UNKNOWN, Overloaded):
            await self._runtime.get(Ledger, object_id).append_slowly(name, self._seconds())

    async def _add(self, object_id: str, _: str) -> None:
        number = self._draw.randrange(1, 2**40)
        calling = self._runtime.get(Counter, object_id).add(number)
        await self._one("counter", object_id, "add", [number], calling)

    async def _add_slowly(self, object_id: str, _: str) -> None:
        number = self._draw.randrange(1, 2**40)
        calling = self._runtime.get(Counter, object_id).add_slowly(number, self._seconds())
        await self._one("counter", object_id, "add", [number], calling)

    async def _count(self, object_id: str, _: str) -> None:
        calling = self._runtime.get(Counter, object_id).read()
        await self._one("counter", object_id, "read", [], calling)

    async def _refuse_to_add(self, object_id: str, _: str) -> None:
        calling = self._runtime.get(Counter, object_id).refuse(self._draw.randrange(1, 2**40))
        await self._one("counter", object_id, "read", [], calling)

    def _unknown(self, error: Exception) -> str:
        self._is_over = isinstance(error, RuntimeClosed)
        if isinstance(error, StaleObject):
            self._log.fault(error)  # there was another instance
        return f"{type(error).__name__}: {error}"[:500]

    def _seconds(self) -> float:
        return self._draw.choice([0.0, 0.001, 0.01])


_SHARES: dict[Callable[[Caller, str, str], Awaitable[None]], int] = {
    Caller._append: 30,
    Caller._append_slowly: 5,
    Caller._read: 6,
    Caller._read_slowly: 3,
    Caller._refuse: 4,
    Caller._refuse_slowly: 2,
    Caller._arm: 4,
    Caller._relay: 5,
    Caller._write: 30,
    Caller._write_slowly: 4,
    Caller._put: 2,
    Caller._look: 8,
    Caller._look_slowly: 3,
    Caller._refuse_to_write: 4,
    Caller._add: 30,
    Caller._add_slowly: 4,
    Caller._count: 6,
    Caller._refuse_to_add: 4,
    Caller._get: 3,
    Caller._stop: 2,
    Caller._give_up: 3,
}
_STEPS, _WEIGHTS = list(_SHARES), list(_SHARES.values())


async def work(job: Job, log: Log) -> None:
    """Open a runtime and call until the end, or SIGTERM. SIGUSR1 forks."""
    draw = random.Random(job.seed)
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGUSR1) as signals:
        async with anyio.create_task_group() as outside:
            with anyio.move_on_after(job.until - time.monotonic()) as scope:

                async def hear() -> None:
                    async for number in signals:
                        if number == signal.SIGUSR1:
                            fork()
                        else:
                            scope.cancel()

                outside.start_soon(hear)
                await open_and_call(job, log, draw)
            outside.cancel_scope.cancel()


async def open_and_call(job: Job, log: Log, draw: random.Random) -> None:
    while True:
        runtime = DurableRuntime(
            job.place.location,
            objects=[Ledger, Register, Counter],
            cluster=job.place.cluster,
            call_timeout=CALL_TIMEOUT,
            grace_period=0.3,
        )
        try:
            await runtime.__aenter__()
        except (StorageInUse, StorageUnavailable):
            # The owner is stopped, or there is none.
            await anyio.sleep(0.1)
            continue
        break
    # Callers go on while the runtime closes, and hear of it.
    async with anyio.create_task_group() as calling:
        try:
            for n in range(job.place.callers):
                name, own_draw = f"{job.seed}.{n}", random.Random(draw.random())
                caller = Caller(job.place, runtime, log, own_draw, name)
                calling.start_soon(caller.run)
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await runtime.__aexit__(None, None, None)
            calling.cancel_scope.cancel()


def fork() -> None:
    """Fork a process that lives for a moment, as those of ``multiprocessing`` do."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of threads, which the child doesn't have
        pid = os.fork()
    if not pid:
        time.sleep(FORK_SECONDS)
        os._exit(0)


def main(job: Job) -> NoReturn:
    """Do a job in a process that was just forked. Never returns."""
    code, log = 1, Log(job.log)
    try:
        logging.basicConfig(
            filename=job.log.with_name("chaos.log"),
            format=f"%(asctime)s {os.getpid()} %(levelname)s %(name)s %(message)s",
        )
        logging.getLogger("trio_durable.cluster").setLevel(logging.INFO)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver's
        backend, options = options_of(job.place.backend)
        anyio.run(work, job, log, backend=backend, backend_options=options)
        code = 0
    except BaseException as error:
        with contextlib.suppress(BaseException):
            logging.exception("the process ends")  # noqa: LOG015
            log.fault(error)
    finally:
        os._exit(code)
