"""A process that dies, or whose storage fails, at each call of its storage: no message is lost.

A story of messages is told once for each call that the storage gets: writing or reading, in order.
There the process dies before or after the call is done, or the call alone fails, before or after.
A dead process can do nothing any more, and another one opens the storage. Then the history of each
lane is looked at: each message had its effect once or is a dead letter, in the order in which they
were sent. Sums alone would hide a loss that makes up for a double.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeVar

import anyio
import attrs
import pytest

from trio_durable import (
    DurableError,
    DurableObject,
    DurableRuntime,
    InlineRunner,
    MemoryStorage,
    Retry,
    SendFailed,
    handler,
)
from trio_durable.storage import (
    Commit,
    Deferral,
    ForwardingReader,
    ForwardingStorage,
    ForwardingWriter,
    MessageKey,
    Reader,
    RetriedMessage,
    StorageFault,
    Writer,
)

pytestmark = pytest.mark.anyio

T = TypeVar("T")

EVERY = int(os.environ.get("TRIO_DURABLE_FAULT_EVERY", "15"))
"""Faults come at one call of so many."""
MODES = ("die before", "die after", "fail before", "fail after")
LANES = ("s", "t")
EACH = 5
"""Messages of each sender."""
FAILS, DIES = 2, 3
"""The number of the message that fails at its first attempt, and of the one that is buried."""


class Doomed(Exception):
    pass


class Receiver(DurableObject, name="CrashReceiver"):
    received: dict[str, list[int]] = attrs.field(factory=dict)
    reminders: list[str] = attrs.field(factory=list)
    is_mended: bool = False

    @handler(retry=Retry(initial=1, attempts=9), expected=(Doomed,))
    def receive(self, sender: str, number: int) -> int:
        message = self.ctx.message
        assert message is not None
        if number == FAILS and message.attempt == 1:
            raise ValueError("not at the first attempt")
        if number == DIES and not self.is_mended:
            raise Doomed
        self.received = {**self.received, sender: [*self.received.get(sender, []), number]}
        return number

    @handler
    def remember(self, sender: str) -> None:
        self.reminders = [*self.reminders, sender]

    @handler
    def mend(self) -> None:
        self.is_mended = True


class Sender(DurableObject, name="CrashSender"):
    sent: int = 0
    reminders: int = 0
    replies: list[int] = attrs.field(factory=list)
    refused: list[str] = attrs.field(factory=list)

    @handler
    def send(self) -> None:
        self.sent += 1
        outgoing = self.ctx.outgoing(reply=Sender.replied, failed=Sender.failed)
        outgoing.send(Receiver.receive, "r", self.ctx.object_id, self.sent)

    @handler
    def remind(self) -> None:
        self.reminders += 1
        self.ctx.outgoing(after=20).send(Receiver.remember, "r", self.ctx.object_id)

    @handler
    def replied(self, number: int) -> None:
        self.replies = [*self.replies, number]

    @handler
    def failed(self, failure: SendFailed) -> None:
        self.refused = [*self.refused, failure.id]


class Machine(ForwardingStorage):
    """A storage at one of whose calls something happens, once."""

    def __init__(self) -> None:
        super().__init__(MemoryStorage())
        self.calls: list[str] = []
        self.at = -1
        self.mode = ""
        self.is_dead = False
        self.scope = anyio.CancelScope()

    def open_writer(self) -> Writer:
        return _Writer(self, super().open_writer())

    def open_reader(self) -> Reader:
        return _Reader(self, super().open_reader())

    def begin(self, at: int = -1, mode: str = "") -> None:
        """Start a process."""
        self.calls.clear()
        self.at, self.mode, self.is_dead = at, mode, False
        self.scope = anyio.CancelScope()

    def call(self, kind: str, work: Callable[[], T]) -> T:
        if self.is_dead:
            raise StorageFault("the process is dead")
        number = len(self.calls)
        self.calls.append(kind)
        if number != self.at:
            return work()
        what, when = self.mode.split()
        if when == "after":
            work()
        if what == "die":
            self.is_dead = True
            self.scope.cancel()
        raise StorageFault(f"at {kind}: {self.mode}")


class _Writer(ForwardingWriter):
    def __init__(self, machine: Machine, writer: Writer) -> None:
        super().__init__(writer)
        self.machine = machine

    def commit(self, batch: Sequence[Commit], now: int) -> Collection[int]:
        return self.machine.call("commit", lambda: self.inner.commit(batch, now))

    def defer_messages(self, deferrals: Sequence[Deferral]) -> None:
        self.machine.call("defer_messages", lambda: self.inner.defer_messages(deferrals))

    def mark_message(self, message: MessageKey) -> bool:
        return self.machine.call("mark_message", lambda: self.inner.mark_message(message))

    def retry_messages(self, tokens: Sequence[int], tenant: str = "") -> list[RetriedMessage]:
        return self.machine.call(
            "retry_messages", lambda: self.inner.retry_messages(tokens, tenant)
        )


class _Reader(ForwardingReader):
    def __init__(self, machine: Machine, reader: Reader) -> None:
        super().__init__(reader)
        self.machine = machine

    def load(self, keys: Any) -> Any:
        return self.machine.call("load", lambda: self.inner.load(keys))

    def list_receivers(self, after: Any, limit: int, tenant: str = "") -> Any:
        return self.machine.call(
            "list_receivers", lambda: self.inner.list_receivers(after, limit, tenant)
        )

    def read_mail(self, to: Any, after: Any, lanes: int, limit: int) -> Any:
        return self.machine.call("read_mail", lambda: self.inner.read_mail(to, after, lanes, limit))

    def read_lane(self, to: Any, lane: str, after: int, limit: int) -> Any:
        return self.machine.call("read_lane", lambda: self.inner.read_lane(to, lane, after, limit))

    def load_messages(self, keys: Any) -> Any:
        return self.machine.call("load_messages", lambda: self.inner.load_messages(keys))

    def due_messages(
        self, before: int, after: Any, limit: int, except_types: Any, tenant: str = ""
    ) -> Any:
        return self.machine.call(
            "due_messages",
            lambda: self.inner.due_messages(before, after, limit, except_types, tenant),
        )


@asynccontextmanager
async def process(machine: Machine, at: int = -1, mode: str = "") -> AsyncIterator[DurableRuntime]:
    """A process in which something happens at one call of the storage."""
    machine.begin(at, mode)
    with machine.scope:
        async with DurableRuntime(
            machine, objects=[Receiver, Sender], runner=InlineRunner, grace_period=0
        ) as runtime:
            yield runtime


async def tell(runtime: DurableRuntime) -> None:
    """The story. A call that fails is none of it."""
    mend = runtime.get(Receiver, "r").mend
    steps: list[Callable[[], Awaitable[object]]] = [
        *(partial(runtime.get(Sender, lane).send) for _ in range(EACH) for lane in LANES),
        *(runtime.get(Sender, lane).remind for lane in LANES),
        partial(anyio.sleep, 5),
        mend,
        partial(retry_all, runtime),
        *(runtime.get(Sender, lane).send for lane in LANES),
        partial(anyio.sleep, 30),
    ]
    for step in steps:
        for _ in range(3 if step == mend else 1):  # or the retried message would die once more
            try:
                await step()
                break
            except DurableError:
                await anyio.sleep(0.1)


async def retry_all(runtime: DurableRuntime) -> None:
    for dead in await runtime.list_dead_messages():
        await runtime.retry_message(dead.id)


async def check(runtime: DurableRuntime, context: str) -> None:
    """The history of each lane is that of the sends which are stored."""
    for object_type, object_id in ((Receiver, "r"), *((Sender, lane) for lane in LANES)):
        await runtime.settled(object_type, object_id)
        await runtime.ensure_started(object_type, object_id)
    assert await runtime.list_messages() == [], context
    receiver = await runtime.get_state(Receiver, "r")
    dead = await runtime.list_dead_messages()
    for lane in LANES:
        sender = await runtime.get_state(Sender, lane)
        received = receiver.received.get(lane, [])
        buried = [
            each.arguments["number"]  # type: ignore[index]
            for each in dead
            if each.sender is not None and each.sender.object_id == lane
        ]
        assert sorted([*received, *buried]) == list(range(1, sender.sent + 1)), context
        assert set(buried) <= {DIES}, context
        in_order = [number for number in received if number != DIES]
        assert in_order == sorted(in_order), f"{context}: {received}"
        assert sender.replies == received, context
        assert len(set(sender.refused)) == len(sender.refused) == (sender.sent >= DIES), context
        assert receiver.reminders.count(lane) == sender.reminders, context


async def test_the_story_has_all_kinds_of_calls() -> None:
    machine = Machine()
    async with process(machine) as runtime:
        await tell(runtime)
        kinds = set(machine.calls)
        assert kinds >= {"commit", "defer_messages", "retry_messages", "load", "list_receivers"}
        assert kinds >= {"due_messages", "load_messages"}
        await check(runtime, "without a fault")
        receiver = await runtime.get_state(Receiver, "r")
        assert receiver.received["s"] == [1, 2, 4, 5, DIES, 6]
        assert await runtime.list_dead_messages() == []


@pytest.mark.parametrize("mode", MODES)
async def test_a_fault_at_each_call_loses_doubles_and_reorders_nothing(mode: str) -> None:
    machine = Machine()
    async with process(machine) as runtime:
        await tell(runtime)
        count = len(machine.calls)
    first = MODES.index(mode) % EVERY
    for at in range(first, count, EVERY):
        machine = Machine()
        async with process(machine, at, mode) as runtime:
            await tell(runtime)
            if mode.startswith("fail"):  # the process goes on
                await anyio.sleep(400)
                await check(runtime, f"{mode} call {at}, {machine.calls[at : at + 1]}")
        happened = machine.calls[at : at + 1]
        async with process(machine) as runtime:
            await anyio.sleep(400)
            await check(runtime, f"{mode} call {at}, {happened}, and then a restart")
