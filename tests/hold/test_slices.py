"""Mailboxes share the event loop: between so many turns other objects and other tasks run."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest
from support.clock import block, settle
from support.tasks import calls

from trio_durable import DurableObject, DurableRuntime, handler
from trio_durable._activations.slices import SECONDS, TURNS

pytestmark = pytest.mark.anyio

log: list[str] = []
released: list[anyio.Event] = []


@pytest.fixture(autouse=True)
def fresh() -> None:
    log.clear()
    released.append(anyio.Event())


class Busy(DurableObject):
    count: int = 0

    @handler
    async def hold(self) -> None:
        await released[-1].wait()

    @handler
    def work(self) -> int:
        log.append(self.ctx.object_id)
        self.count += 1
        return self.count

    @handler
    def work_long(self) -> int:
        block(SECONDS)
        log.append(self.ctx.object_id)
        self.count += 1
        return self.count


def longest_run(name: str) -> int:
    """The largest number of turns of an object without another entry between them."""
    longest = run = 0
    for entry in log:
        run = run + 1 if entry == name else 0
        longest = max(longest, run)
    return longest


async def note_rounds() -> None:
    while True:
        log.append("task")
        await anyio.lowlevel.checkpoint()


@pytest.mark.parametrize("how", ["of a worker", "of the pump"])
async def test_other_tasks_run_between_slices(how: str) -> None:
    async with DurableRuntime(":memory:", call_timeout=None), calls() as group:
        if how == "of a worker":
            await Busy.work("a")
            group.start(Busy.hold, "a")
            await settle()
        outcomes = [group.start(Busy.work, "a") for _ in range(20 * TURNS)]
        if how == "of a worker":
            await settle()
        noting = group.start(note_rounds)
        released[-1].set()
        for outcome in outcomes:
            await outcome.wait()
        noting.cancel()
        assert longest_run("a") <= 4 * TURNS  # Trio runs the tasks of a round in any order
        assert len({outcome.value for outcome in outcomes}) == len(outcomes)


async def test_long_turns_are_a_slice_each() -> None:
    async with DurableRuntime(":memory:", call_timeout=None), calls() as group:
        await Busy.work("a")
        group.start(Busy.hold, "a")
        await settle()
        outcomes = [group.start(Busy.work_long, "a") for _ in range(2 * TURNS)]
        await settle()
        noting = group.start(note_rounds)
        released[-1].set()
        for outcome in outcomes:
            await outcome.wait()
        noting.cancel()
        assert longest_run("a") <= 2


async def test_an_object_with_a_full_mailbox_lets_others_have_their_turns() -> None:
    async with DurableRuntime(":memory:", call_timeout=None), calls() as group:
        many = [group.start(Busy.work, "a") for _ in range(20 * TURNS)]
        few = group.start(Busy.work, "b")
        await few.wait()
        for outcome in many:
            await outcome.wait()
        assert log.index("b") <= 2 * TURNS
