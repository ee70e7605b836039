"""Processes of a cluster, for tests: they obey a socket, and die at a given point.

    python -m cluster.members

Starting Python and importing the library takes longer than a test, so this process does that once,
and forks a member for each line on its standard input, the JSON of a `Spec`. It answers with the
member's pid.

A member connects to the socket of its test, opens a runtime, and then takes requests, each a line
``[NUMBER, NAME, ARGUMENT, …]``, and serves them concurrently. The answers are
``[NUMBER, "reply", VALUE]`` and ``[NUMBER, "error", CLASS, TEXT]``. SIGTERM closes the runtime.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import time
import warnings
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any, NoReturn

import anyio
import attrs
import uvloop
from anyio.abc import SocketAttribute, SocketStream, TaskGroup

from trio_durable import Cluster, DurableRuntime
from trio_durable._cluster import file_endpoint, service
from trio_durable._cluster.file_cluster import FileCluster
from trio_durable._cluster.peer import Peer
from trio_durable._cluster.places import OnePlace
from trio_durable.storage.sqlite._lock import FileLock
from trio_durable.storage.sqlite._storage import SQLiteStorage
from trio_durable.storage.sqlite._writer import SQLiteWriter

from .ledgers import Counter, Ledger, Register

BACKENDS = ("trio", "asyncio", "asyncio+uvloop")


@attrs.frozen
class Spec:
    """A process to start."""

    path: str
    """The database."""
    control: str
    """The socket of its test."""
    backend: str = "trio"
    die_at: str = ""
    """A key of `POINTS`."""
    settings: dict[str, Any] = attrs.field(factory=dict)
    """Of the `Cluster`."""
    runtime: dict[str, Any] = attrs.field(factory=dict)
    """Of the runtime."""


POINTS: dict[str, tuple[Any, str]] = {
    "lock taken": (FileLock, "__init__"),
    "storage opened": (SQLiteStorage, "open_writer"),
    "listening": (file_endpoint, "listen"),
    "note written": (file_endpoint, "write_note"),
    "serving": (OnePlace, "acquired"),
    "first member connected": (FileCluster, "_accepted"),
    "first request taken": (service.Service, "serve"),
    "first change committed": (SQLiteWriter, "commit"),
    "note removed": (file_endpoint, "remove_note"),
    "goodbye begun": (Peer, "close"),
    "lock released": (FileLock, "release"),
}
"""Functions behind which a process may die, in the order in which an owner calls them."""


def die_behind(point: str) -> None:
    """Have this process kill itself behind the function of a point."""
    place, name = POINTS[point]
    function = getattr(place, name)

    @wraps(function)
    def dying(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        if hasattr(result, "__await__"):
            return awaited(result)
        die()
        return result

    async def awaited(result: Awaitable[object]) -> None:
        await result
        die()

    setattr(place, name, dying)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Member:
    """One process."""

    control: SocketStream

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.closing = anyio.CancelScope()
        self.sending = anyio.Lock()

    async def run(self) -> None:
        settings = Cluster(**self.spec.settings)
        async with (
            await anyio.connect_unix(self.spec.control) as control,
            anyio.create_task_group() as tasks,
        ):
            self.control = control
            tasks.start_soon(self.closed_by_signal, tasks)
            runtime = DurableRuntime(
                self.spec.path,
                objects=[Ledger, Register, Counter],
                cluster=settings,
                **self.spec.runtime,
            )
            try:
                async with runtime:
                    await self.say(0, "reply", os.getpid())
                    await self.take_requests(runtime, tasks)
            except Exception as error:
                await self.say(0, "error", type(error).__name__, str(error))
                raise
            tasks.cancel_scope.cancel()

    async def say(self, *words: object) -> None:
        async with self.sending:
            await self.control.send(json.dumps(words).encode() + b"\n")

    async def closed_by_signal(self, tasks: TaskGroup) -> None:
        with anyio.open_signal_receiver(signal.SIGTERM) as signals:
            async for _ in signals:
                self.closing.cancel()

    async def take_requests(self, runtime: DurableRuntime, tasks: TaskGroup) -> None:
        buffered = b""
        with self.closing:
            while True:
                buffered += await self.control.receive()
                *lines, buffered = buffered.split(b"\n")
                for line in lines:
                    tasks.start_soon(self.take, runtime, *json.loads(line))

    async def take(self, runtime: DurableRuntime, number: int, name: str, *args: Any) -> None:
        try:
            reply = await self.do(runtime, name, *args)
        except Exception as error:  # noqa: BLE001  # the test judges it
            await self.say(number, "error", type(error).__name__, str(error))
        else:
            await self.say(number, "reply", reply)

    async def do(self, runtime: DurableRuntime, name: str, *args: Any) -> Any:
        match name:
            case "call":
                handler, object_id, *arguments = args
                return await runtime.call(Ledger, object_id, handler, *arguments)
            case "call many":
                return await self.call_many(runtime, *args)
            case "put":
                await runtime.put_state(Ledger, args[0], Ledger(names=args[1]))
            case "nodes":
                return [[node.pid, node.shards] for node in await runtime.list_nodes()]
            case "hold back":
                hold_back(args[0])
            case "nothing":
                pass
            case "fork":
                return fork_sleeper(args[0], self.control)
            case _:
                raise ValueError(name)
        return None

    async def call_many(
        self,
        runtime: DurableRuntime,
        handler: str,
        prefix: str,
        callers: int,
        each: int,
        *rest: Any,
    ) -> list[Any]:
        """Call from several tasks; return ``[NAME, REPLY or error's name, seconds]`` of each."""
        outcomes: list[Any] = []

        async def caller(number: int) -> None:
            for n in range(each):
                name, began = f"{prefix}.{number}.{n}", time.monotonic()
                try:
                    outcome = await runtime.call(Ledger, f"{number % 4}", handler, name, *rest)
                except Exception as error:  # noqa: BLE001  # the test judges it
                    outcome = type(error).__name__
                outcomes.append([name, outcome, time.monotonic() - began])

        async with anyio.create_task_group() as tasks:
            for number in range(callers):
                tasks.start_soon(caller, number)
        return outcomes


def hold_back(is_held: bool) -> None:
    """Let this process take the lock, or not."""
    if is_held:
        _held["become_owner"] = FileCluster._become_owner
        setattr(FileCluster, "_become_owner", _not_now)  # noqa: B010
    else:
        setattr(FileCluster, "_become_owner", _held.pop("become_owner"))  # noqa: B010


_held: dict[str, Callable[[FileCluster], Any]] = {}


async def _not_now(_: FileCluster) -> bool:
    return False


def fork_sleeper(seconds: float, control: SocketStream) -> int:
    """Fork a process that sleeps with all that it inherits; return its pid."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of threads, which the child doesn't have
        pid = os.fork()
    if not pid:
        os.close(control.extra(SocketAttribute.raw_socket).fileno())  # noqa: S610  # not Django's
        time.sleep(seconds)
        os._exit(0)
    return pid


async def run(spec: Spec) -> None:
    await Member(spec).run()


def member(spec: Spec) -> NoReturn:
    code = 1
    try:
        logging.basicConfig(
            filename=f"{spec.path}.log", format=f"%(asctime)s {os.getpid()} %(message)s"
        )
        logging.getLogger("trio_durable.cluster").setLevel(logging.DEBUG)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.alarm(120)  # of a test that has failed
        if spec.die_at:
            die_behind(spec.die_at)
        backend, options = options_of(spec.backend)
        anyio.run(run, spec, backend=backend, backend_options=options)
        code = 0
    except BaseException:
        logging.exception("the process ends")  # noqa: LOG015
    finally:
        os._exit(code)


def options_of(name: str) -> tuple[str, dict[str, Any]]:
    """The backend of AnyIO and its options."""
    if name == "asyncio+uvloop":
        return "asyncio", {"loop_factory": uvloop.new_event_loop}
    return name, {}


def main() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nothing waits for them
    for line in sys.stdin:
        spec = Spec(**json.loads(line))
        pid = os.fork()
        if not pid:
            os.close(0)
            os.open(os.devnull, os.O_RDONLY)
            member(spec)
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
