"""A bank whose accounts transfer by messages, on a storage that fails before and after commits."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Sequence
from functools import partial

import anyio
import attrs
import pytest

from trio_durable import (
    DurableError,
    DurableObject,
    DurableRuntime,
    InlineRunner,
    MemoryStorage,
    handler,
)
from trio_durable.storage import (
    Commit,
    Deferral,
    ForwardingStorage,
    ForwardingWriter,
    Storage,
    StorageFault,
    Writer,
)

pytestmark = pytest.mark.anyio

ACCOUNTS = 6
BALANCE = 1_000


class Account(DurableObject):
    balance: int = BALANCE
    sent: dict[str, int] = attrs.field(factory=dict)
    """The number of the last transfer to each other account."""
    received: dict[str, list[int]] = attrs.field(factory=dict)
    """The numbers of the transfers from each other account, in the order of their effects."""

    @handler
    def transfer(self, to: str, amount: int) -> None:
        self.balance -= amount
        self.sent[to] = number = self.sent.get(to, 0) + 1
        self.ctx.send(Account.receive, to, self.ctx.object_id, number, amount)

    @handler
    def receive(self, sender: str, number: int, amount: int) -> None:
        if self.balance % 7 == 0 and self.ctx.message is not None and self.ctx.message.attempt == 1:
            raise ValueError("not at the first attempt")
        self.balance += amount
        self.received.setdefault(sender, []).append(number)


class FaultyWriter(ForwardingWriter):
    def __init__(self, inner: Writer, rng: random.Random) -> None:
        super().__init__(inner)
        self.rng = rng
        self.rate = 0.0

    def commit(self, batch: Sequence[Commit], now: int) -> Collection[int]:
        if self.rng.random() < self.rate:
            raise StorageFault("before")
        stale = super().commit(batch, now)
        if self.rng.random() < self.rate:
            raise StorageFault("after; the outcome is unknown")
        return stale

    def defer_messages(self, deferrals: Sequence[Deferral]) -> None:
        if self.rng.random() < self.rate:
            raise StorageFault("deferring")
        super().defer_messages(deferrals)


class FaultyStorage(ForwardingStorage):
    """Its writer fails as often as it is set to, before a commit is applied or after that."""

    backing: Callable[[], Storage] = MemoryStorage

    def __init__(self, seed: int) -> None:
        super().__init__(FaultyStorage.backing())
        self.rng = random.Random(seed)
        self.writer: FaultyWriter | None = None

    def open_writer(self) -> Writer:
        self.writer = FaultyWriter(super().open_writer(), self.rng)
        return self.writer

    def fail(self, rate: float) -> None:
        assert self.writer is not None
        self.writer.rate = rate


def names() -> list[str]:
    return [f"a{number}" for number in range(ACCOUNTS)]


async def transfers(runtime: DurableRuntime, rng: random.Random, count: int) -> None:
    for _ in range(count):
        sender, to = rng.sample(names(), 2)
        try:
            await runtime.get(Account, sender).transfer(to, rng.randint(1, 50))
        except DurableError:
            await anyio.sleep(rng.random() * 2)


async def check(runtime: DurableRuntime) -> None:
    accounts = {}
    for name in names():
        await runtime.ensure_started(Account, name)
        accounts[name] = await runtime.get_state(Account, name)
    for name, account in accounts.items():
        for other, numbers in account.received.items():
            sent = accounts[other].sent[name]
            assert numbers == list(range(1, sent + 1)), f"{other} to {name}: {sent}, {numbers}"
    assert sum(account.balance for account in accounts.values()) == ACCOUNTS * BALANCE


@pytest.mark.parametrize("seed", range(6))
async def test_each_transfer_happens_once_and_in_order(seed: int) -> None:
    storage = FaultyStorage(seed)
    rng = random.Random(seed + 1000)
    for rate in (0.15, 0.05, 0.0):
        async with DurableRuntime(storage, objects=[Account], runner=InlineRunner) as runtime:
            storage.fail(rate)
            async with anyio.create_task_group() as tasks:
                for _ in range(8):
                    tasks.start_soon(partial(transfers, runtime, rng, 20))
            storage.fail(0.0)
    async with DurableRuntime(storage, objects=[Account], runner=InlineRunner) as runtime:
        await anyio.sleep(600)
        for name in names():
            await runtime.settled(Account, name)
        await check(runtime)


async def test_a_lane_longer_than_memory_is_delivered_in_order() -> None:
    storage = FaultyStorage(0)
    async with DurableRuntime(storage, objects=[Account], runner=InlineRunner) as runtime:
        for _ in range(200):
            await runtime.get(Account, "a0").transfer("a1", 1)
        await anyio.sleep(600)
        await runtime.settled(Account, "a1")
        account = await runtime.get_state(Account, "a1")
        assert account.received == {"a0": list(range(1, 201))}
