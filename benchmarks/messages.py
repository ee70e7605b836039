"""Messages and once-keys, beside durable calls of objects that have the same state."""

from __future__ import annotations

import gc
import random
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from datetime import timedelta
from functools import partial
from itertools import count
from pathlib import Path
from time import perf_counter
from typing import Literal, get_args

import anyio
import attrs

from trio_durable import DurableRuntime, handler

from . import loops
from .callers import Call, Period, TimedWalk, Walk, call_each, paced_latencies
from .loops import LoopName
from .measurements import Effort, Figures, Sample, percentile
from .objects import Counter, object_ids
from .workloads import WARM_UP, OnLoop, StorageName, rate_of, storage_in

Sending = Literal["send", "change and send"]
SENDINGS: tuple[Sending, ...] = get_args(Sending)
Moment = Literal["handled", "durable"]
MOMENTS: tuple[Moment, ...] = get_args(Moment)

_BACKLOG = 1_000_000
_LANES = 1_000
_LATER = timedelta(hours=1)
_handled: list[anyio.Event] = []
"""Set and taken out by a receiver's handler."""


class Receiver(Counter, hibernate_after=3600):
    """A counter that is changed by messages."""

    @handler
    def receive(self, by: int) -> None:
        """A change."""
        self.count += 1
        self.total += by
        if _handled:
            _handled.pop().set()


class Sender(Counter, hibernate_after=3600):
    """A counter with a receiver, which has the same id."""

    @handler
    def send(self, by: int) -> None:
        """A message alone."""
        self.ctx.send(Receiver.receive, self.ctx.object_id, by)

    @handler
    def change_and_send(self, by: int) -> None:
        """A message and a change."""
        self.count += 1
        self.total += by
        self.ctx.send(Receiver.receive, self.ctx.object_id, by)


_SENDINGS: dict[Sending, Callable[[Sender], Call]] = {
    "send": lambda sender: partial(sender.send, 1),
    "change and send": lambda sender: partial(sender.change_and_send, 1),
}


@attrs.frozen
class Messages(OnLoop):
    """Messages that are sent by turns and handled, both ends in memory.

    The rate counts messages whose handling is durable. Callers wait until their turn's commit is;
    the clock stops when the last message has been handled, too.
    """

    sending: Sending
    senders: int
    pairs: int
    storage: StorageName = "sqlite"

    @property
    def title(self) -> str:
        return f"{self.sending}, {self.senders} senders x {self.pairs:,} pairs, {self.loop}"

    def rate(self, folder: Path, seconds: float) -> float:
        async def main() -> float:
            storage = storage_in(folder, self.storage)
            async with DurableRuntime(storage, objects=[Sender, Receiver]) as runtime:
                sending = _SENDINGS[self.sending]
                calls = [sending(runtime.get(Sender, key)) for key in object_ids(self.pairs)]
                await call_each(calls)
                walks = [Walk(calls, number) for number in range(self.senders)]
                await Period(WARM_UP).run(walks)
                await _handled_all(runtime)
                gc.collect()
                before, began = runtime.statistics().messages_delivered, perf_counter()
                period = Period(seconds)
                await period.run(walks)
                await _handled_all(runtime)
                elapsed = perf_counter() - began
                handled = runtime.statistics().messages_delivered - before
                if handled != period.calls:
                    raise RuntimeError(f"{period.calls} were sent and {handled} handled")
                return handled / elapsed

        return loops.run(self.loop, main)


async def _handled_all(runtime: DurableRuntime) -> None:
    while (now := runtime.statistics()).messages_waiting or now.messages_in_flight:
        await anyio.sleep(0.001)


@attrs.frozen
class OnceCalls(OnLoop):
    """Durable calls, each with a once-key of its own."""

    callers: int
    objects: int
    storage: StorageName = "sqlite"

    @property
    def title(self) -> str:
        return f"{self.callers} callers x {self.objects:,} objects, {self.loop}"

    def rate(self, folder: Path, seconds: float) -> float:
        async def main() -> float:
            async with DurableRuntime(
                storage_in(folder, self.storage), objects=[Counter]
            ) as runtime:
                numbers, prefix = count(), random.getrandbits(64)

                def call(object_id: str) -> Call:
                    def add() -> Awaitable[object]:
                        key = f"{prefix}-{next(numbers)}"
                        return runtime.get(Counter, object_id, once=key).add(1)

                    return add

                calls = [call(key) for key in object_ids(self.objects)]
                await call_each(calls)
                return await rate_of([Walk(calls, n) for n in range(self.callers)], seconds)

        return loops.run(self.loop, main)


def latency(
    moment: Moment, loop: LoopName, storage: StorageName, folder: Path, effort: Effort
) -> Figures:
    """The p50 of a message's time from the sender's call, beside that of a durable call.

    One at a time, each when the receiver's commit of the one before is durable, for which the next
    one would wait in the writer. "handled": until the receiver's handler has run, after the
    sender's commit. "durable": until the receiver's turn is committed, after two commits one after
    the other.
    """

    async def main() -> tuple[float, float]:
        async with DurableRuntime(
            storage_in(folder, storage), objects=[Sender, Receiver]
        ) as runtime:
            sender, receiver = runtime.get(Sender, "a"), runtime.get(Receiver, "a")

            async def call() -> None:
                await receiver.add(1)

            async def message() -> None:
                event = anyio.Event()
                _handled.append(event)
                await sender.send(1)
                await event.wait()
                if moment == "durable":
                    await settled()

            async def settled() -> None:
                await runtime.settled(Receiver, "a")

            medians = []
            for each in (message, call):
                latencies: list[float] = []
                await Period(WARM_UP).run([Walk([each], 0)])
                await settled()
                gc.collect()
                await Period(effort.seconds).run([TimedWalk([each], 0, latencies, settled)])
                medians.append(percentile(latencies, 50) * 1e3)
            return medians[0], medians[1]

    rounds = [loops.run(loop, main) for _ in range(effort.rounds)]
    ours, limit = zip(*rounds, strict=True)
    return Figures(Sample(ours), Sample(limit))


def beside_backlog(asleep: bool, loop: LoopName, folder: Path, effort: Effort) -> Figures:
    """The p99 of 16 callers' changes while a million messages wait for one other object.

    Each caller changes an object of its own a hundred times a second at most. The messages wait in
    a thousand lanes, and are handled meanwhile, or sleep.
    """
    path, seconds = folder / "objects.db", 5 * effort.seconds

    async def main(objects: list[type[Counter]]) -> tuple[float, int]:
        async with DurableRuntime(path, objects=objects) as runtime:
            calls = [partial(runtime.get(Counter, str(number)).add, 1) for number in range(16)]
            latencies = await paced_latencies(calls, seconds)
            return percentile(latencies, 99) * 1e3, runtime.statistics().messages_delivered

    _store_backlog(path, asleep)
    rounds: list[tuple[float, float]] = []
    handled = 0
    for _ in range(effort.rounds):
        # A runtime leaves messages to types that it doesn't serve alone.
        alone, _ = loops.run(loop, partial(main, [Counter]))
        beside, delivered = loops.run(loop, partial(main, [Counter, Receiver]))
        rounds.append((beside, alone))
        handled += delivered
    ours, limit = zip(*rounds, strict=True)
    details = {"messages_per_second": handled / (seconds * effort.rounds)}
    return Figures(Sample(ours), Sample(limit), details=details)


def _store_backlog(path: Path, asleep: bool) -> None:
    """Make a file in which a million messages wait for one receiver: copies of a delayed one."""

    async def main() -> None:
        async with DurableRuntime(path, objects=[Receiver]) as runtime:
            await runtime.outgoing(after=_LATER).send(Receiver.receive, "the one", 1)

    loops.run("trio", main)
    with closing(sqlite3.connect(path)) as connection, connection:
        columns = "to_type, to_id, handler, arguments, sent_at, hops"
        row = connection.execute(f"SELECT {columns}, wake_at FROM durable_messages").fetchone()
        *copied, later = row
        connection.execute("DELETE FROM durable_messages")
        connection.executemany(
            f"""
            INSERT INTO durable_messages (seq, place, token, lane, wake_at, {columns})
            VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
            """,
            (
                (n, n, n, f"lane {n % _LANES}", later if asleep else None, *copied)
                for n in range(1, _BACKLOG + 1)
            ),
        )
