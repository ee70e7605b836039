"""Deliveries whose turns have ended, and whose commits are on their way."""

from __future__ import annotations

import anyio
import attrs
import pytest
from anyio.lowlevel import checkpoint
from support.runtimes import scripted_runtime
from support.scripted import ScriptedStorage

from trio_durable import DurableObject, PersistenceError, handler
from trio_durable._outbox import deliverer
from trio_durable._persistence import other_commits
from trio_durable.storage import StorageFault

pytestmark = pytest.mark.anyio


class Scripted(ScriptedStorage):
    keeps_messages = True


gates: list[anyio.Event] = []
"""Those of the turns that wait, in the order in which they began."""


class Notes(DurableObject):
    texts: list[str] = attrs.field(factory=list)

    @handler
    def note(self, text: str) -> None:
        self.texts = [*self.texts, text]

    @handler
    async def hold(self) -> None:
        gate = anyio.Event()
        gates.append(gate)
        await gate.wait()

    @handler(readonly=True)
    def read(self) -> list[str]:
        return self.texts


class Author(DurableObject):
    @handler
    def write(self, *texts: str) -> None:
        for text in texts:
            self.ctx.send(Notes.note, "n", text)


class Empty(Exception):
    pass


class Shelf(DurableObject):
    @handler(expected=(Empty,))
    def take(self, count: int) -> None:
        raise Empty(count)


class Buyer(DurableObject):
    @handler
    def ask(self, count: int) -> None:
        self.ctx.send(Shelf.take, "s", count)


async def began(turns: int) -> None:
    while len(gates) < turns:
        await checkpoint()


async def test_a_message_in_the_mailbox_waits_until_the_one_before_is_stored() -> None:
    gates.clear()
    storage = Scripted()
    async with scripted_runtime(storage) as runtime, anyio.create_task_group() as tasks:
        notes = runtime.get(Notes, "n")

        async def hold(fails: bool) -> None:
            if fails:
                with pytest.raises(PersistenceError):
                    await notes.hold()
            else:
                await notes.hold()

        tasks.start_soon(hold, False)
        await began(1)
        await runtime.get(Author, "a").write("one", "two")
        while not runtime.statistics().messages_in_flight:  # "one" is behind the turn that waits
            await checkpoint()
        tasks.start_soon(hold, True)
        await anyio.sleep(0.1)
        storage.fail_commits(StorageFault("on purpose"))
        with storage.held("writer"):
            gates[0].set()
            await began(2)  # the turn of "one" has ended before this one began
            while runtime.statistics().messages_in_flight < 2:
                await checkpoint()
        await anyio.sleep(0.1)
        gates[1].set()
        await anyio.sleep(5)
        await runtime.settled(Notes, "n")
        assert await notes.read() == ["one", "two"]


async def while_commits_wait() -> tuple[int, int]:
    """Send seven messages of a call, and let no commit of theirs through for a while.

    Returns:
        The messages that were in flight and waiting then. All are handled afterwards, in order.
    """
    storage = Scripted()
    async with scripted_runtime(storage) as runtime:
        await runtime.get(Author, "a").write()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(runtime.get(Author, "a").write, *"1234567")
            with storage.held("writer"):
                await anyio.sleep(0.1)
                storage.release("writer")  # the commit that sends, which is a call's
                await anyio.sleep(0.1)
                statistics = runtime.statistics()
        await runtime.settled(Notes, "n")
        assert await runtime.get(Notes, "n").read() == list("1234567")
    return statistics.messages_in_flight, statistics.messages_waiting


async def test_no_more_deliveries_begin_than_may_wait_for_their_commits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(deliverer, "MAX_IN_FLIGHT", 3)
    assert await while_commits_wait() == (3, 4)


@pytest.mark.parametrize(("expected", "in_flight"), [(1000, 2), (-1, 7)])
async def test_a_crowd_of_messages_to_one_object_gives_way_to_calls(
    monkeypatch: pytest.MonkeyPatch, expected: float, in_flight: int
) -> None:
    monkeypatch.setattr(deliverer, "MAX_OF_ONE_BESIDE_CALLS", 2)
    monkeypatch.setattr(other_commits, "EXPECTED_SECONDS", expected)
    assert (await while_commits_wait())[0] == in_flight


async def test_dead_letters_that_die_again_are_retried_once() -> None:
    async with scripted_runtime(Scripted()) as runtime:
        order = runtime.get(Buyer, "b")
        for count in range(3):
            await order.ask(count)
        await runtime.settled(Shelf, "s")
        assert await runtime.retry_messages(Shelf) == 3
        await runtime.settled(Shelf, "s")
        assert len(await runtime.list_dead_messages(Shelf)) == 3
