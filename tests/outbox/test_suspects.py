"""Suspects: a message that kills its process is found out, and no other is counted for it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from time import time_ns
from typing import Any

import anyio
import attrs
import pytest

from trio_durable import (
    DurableObject,
    DurableRuntime,
    InlineRunner,
    ObjectKey,
    Retry,
    SQLiteStorage,
    handler,
)
from trio_durable._outbox import suspects
from trio_durable.storage import (
    Commit,
    Deferral,
    ForwardingStorage,
    ForwardingWriter,
    MessageChanges,
    MessageKey,
    NewMessage,
    StorageFault,
    StoredMessage,
    Writer,
    lane_of,
    new_token,
)

pytestmark = pytest.mark.anyio


class Desk(DurableObject):
    seen: list[str] = attrs.field(factory=list)

    @handler
    def note(self, text: str) -> None:
        self.seen = [*self.seen, text]

    @handler(readonly=True)
    def read(self) -> list[str]:
        return self.seen

    @handler
    async def work(self, seconds: float) -> None:
        await life[-1].work(seconds)
        self.seen = [*self.seen, f"{seconds:g}"]

    @handler(retry=Retry(initial=100, factor=1, maximum=100, crashes=2))
    async def die(self) -> None:
        life[-1].die()
        await anyio.sleep_forever()


class Life:
    """One process, until it dies."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.next_folder = folder.with_name(f"{folder.name}'")
        self.died = anyio.Event()
        self.running = 0
        self.most = 0
        self.began: list[float] = []

    def die(self) -> None:
        """What is on the disk now is what a dead process would leave."""
        shutil.copytree(self.folder, self.next_folder)
        self.died.set()

    async def work(self, seconds: float) -> None:
        self.began.append(anyio.current_time())
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await anyio.sleep(seconds)
        finally:
            self.running -= 1


life: list[Life] = []


class Marks(ForwardingStorage):
    """A storage that counts marks, and fails some."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        super().__init__(SQLiteStorage(folder / "objects.db"))
        self.marked: list[MessageKey] = []
        self.deferred: list[Deferral] = []
        self.faults: list[StorageFault] = []

    def open_writer(self) -> Writer:
        return _MarkingWriter(self.inner.open_writer(), self)


class _MarkingWriter(ForwardingWriter):
    def __init__(self, inner: Writer, marks: Marks) -> None:
        super().__init__(inner)
        self._marks = marks

    def mark_message(self, message: MessageKey) -> bool:
        if self._marks.faults:
            raise self._marks.faults.pop()
        self._marks.marked.append(message)
        return super().mark_message(message)

    def defer_messages(self, deferrals: Sequence[Deferral]) -> None:
        self._marks.deferred += deferrals
        super().defer_messages(deferrals)


@pytest.fixture
def marks(tmp_path: Path) -> Marks:
    life[:] = [Life(tmp_path / "life")]
    return Marks(tmp_path / "life")


def message(to: str, name: str, arguments: bytes, sender: str | None) -> NewMessage:
    key = ObjectKey("Desk", to)
    of = None if sender is None else ObjectKey("Desk", sender)
    lane = "" if of is None else lane_of(of)
    return NewMessage(key, lane, new_token(), name, arguments, time_ns() // 1000, sender=of)


def store(marks: Marks, *new: NewMessage) -> list[MessageKey]:
    """Messages that wait before the runtime opens."""
    writer = marks.inner.open_writer()
    try:
        for each in new:
            commit = Commit(each.to, None, messages=MessageChanges(sent=[each]))
            assert not writer.commit([commit], 1)
    finally:
        writer.close()
    return [each.key for each in new]


def stored(marks: Marks, keys: Sequence[MessageKey]) -> list[StoredMessage | None]:
    with closing(marks.inner.open_reader()) as reader:
        return list(reader.load_messages(keys))


def opened(storage: Marks) -> DurableRuntime:
    return DurableRuntime(storage, objects=[Desk], runner=InlineRunner)


async def settled(runtime: DurableRuntime, *ids: str) -> None:
    for each in ids:
        await runtime.settled(Desk, each)


async def seen(runtime: DurableRuntime, object_id: str) -> list[str]:
    return await runtime.get(Desk, object_id).read()


async def test_a_message_that_kills_its_process_is_a_dead_letter_and_no_other_is_counted(
    marks: Marks,
) -> None:
    innocents = [message(f"d{n}", "note", b'[{"text":"x"}]', f"s{n}") for n in range(3)]
    outside = message("poisoned", "note", b'[{"text":"x"}]', None)
    poison = message("poisoned", "die", b"[{}]", "s")
    behind = message("poisoned", "note", b'[{"text":"behind"}]', "s")
    store(marks, innocents[0], poison, behind, outside, *innocents[1:])
    for _ in range(2):
        async with anyio.create_task_group() as tasks, opened(marks) as runtime:
            await life[-1].died.wait()
            assert await runtime.list_dead_messages(Desk) == []
            tasks.cancel_scope.cancel()
        marks = Marks(life[-1].next_folder)
        life.append(Life(life[-1].next_folder))
    async with opened(marks) as runtime:
        await settled(runtime, "poisoned", "d0", "d1", "d2")
        (dead,) = await runtime.list_dead_messages(Desk)
        assert dead.handler == "die"
        assert dead.last_error == "the process died in each of its last 2 deliveries"
        assert sorted(await seen(runtime, "poisoned")) == ["behind", "x"]
        assert [await seen(runtime, f"d{n}") for n in range(3)] == [["x"]] * 3


async def test_what_waited_is_delivered_one_at_a_time_beside_what_is_sent_now(
    marks: Marks,
) -> None:
    work = [message(f"d{n}", "work", b'[{"seconds":3}]', f"s{n}") for n in range(4)]
    keys = store(marks, *work)
    async with opened(marks) as runtime:
        await anyio.sleep(0.1)  # until it is known what has waited
        for n in range(4):
            await runtime.send(Desk.work, f"e{n}", 1)
        await settled(runtime, *(f"e{n}" for n in range(4)))
        assert life[-1].most == 5
        life[-1].most = 0
        await settled(runtime, *(f"d{n}" for n in range(4)))
        assert life[-1].most == 1
        # Only what had waited was marked, and its end was the end of the mark.
        assert set(marks.marked) == set(keys)
        assert marks.deferred == []


async def test_of_each_lane_the_first_one_is_a_suspect(marks: Marks) -> None:
    named = [message("d", "note", b'[{"text":"x"}]', "s") for _ in range(40)]
    outside = [message("d", "note", b'[{"text":"y"}]', None) for _ in range(3)]
    keys = store(marks, *named, *outside)
    async with opened(marks) as runtime:
        await settled(runtime, "d")
        assert set(marks.marked) == {keys[0], *keys[40:]}
        assert len(await seen(runtime, "d")) == 43


async def test_a_message_with_a_counted_crash_is_a_suspect_wherever_it_waits(marks: Marks) -> None:
    keys = store(marks, *(message("d", "note", b'[{"text":"x"}]', "s") for _ in range(5)))
    with closing(marks.inner.open_writer()) as writer:
        assert writer.mark_message(keys[3])
    async with opened(marks) as runtime:
        await settled(runtime, "d")
        assert marks.marked == [keys[0], keys[3]]


async def test_a_delayed_message_that_was_due_is_a_suspect(marks: Marks) -> None:
    due, later = (message("d", "note", b'[{"text":"x"}]', None) for _ in range(2))
    due.wake_at = 1
    keys = store(marks, due)
    async with opened(marks) as runtime:
        await settled(runtime, "d")
        later.wake_at = 1
        while len(marks.marked) < 1:
            await anyio.sleep(1)
        assert marks.marked == keys
        await runtime.outgoing(after=5).send(Desk.note, "d", "later")
        await anyio.sleep(10)
        assert marks.marked == keys
        assert await seen(runtime, "d") == ["x", "later"]


async def test_a_long_delivery_is_acquitted(marks: Marks) -> None:
    keys = store(
        marks,
        message("a", "work", b'[{"seconds":30}]', "s"),
        message("b", "work", b'[{"seconds":1}]', "s"),
    )
    async with opened(marks) as runtime:
        began = anyio.current_time()
        await settled(runtime, "b")
        # Of the two, the second could begin when half of the minute, or its probation, was over.
        waited = life[-1].began[1] - life[-1].began[0]
        assert waited == pytest.approx(suspects.PROBATION_SECONDS)
        assert [each.key for each in marks.deferred] == keys[:1]
        await settled(runtime, "a")
        assert anyio.current_time() - began == pytest.approx(30)


async def test_a_runtime_that_closes_acquits_what_it_delivers(marks: Marks) -> None:
    keys = store(marks, message("a", "work", b'[{"seconds":5}]', "s"))
    async with anyio.create_task_group() as tasks, opened(marks):
        while not life[-1].running:
            await anyio.sleep(0.1)
        tasks.cancel_scope.cancel()
    assert marks.marked == keys
    again = Marks(life[-1].folder)
    async with DurableRuntime(again, objects=[]):
        pass  # counts the crashes
    (message_,) = stored(again, keys)
    assert message_ is not None
    assert message_.crashes == 0


async def test_what_has_not_begun_within_a_minute_is_no_suspect(
    marks: Marks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suspects, "ALL_BEGIN_WITHIN_SECONDS", 20)
    work = [message(f"d{n}", "work", b'[{"seconds":9}]', f"s{n}") for n in range(30)]
    store(marks, *work)
    async with opened(marks) as runtime:
        await settled(runtime, *(f"d{n}" for n in range(30)))
    assert 3 <= len(marks.marked) < 30
    assert life[-1].most > 1
    assert life[-1].began[-1] - life[-1].began[0] <= 21


async def test_a_message_that_waits_because_of_a_crash_delays_no_other_without_a_lane(
    marks: Marks,
) -> None:
    keys = store(
        marks,
        *(message("d", name, b"[{}]", None) for name in ("die",)),
        message("d", "note", b'[{"text":"x"}]', None),
    )
    with closing(marks.inner.open_writer()) as writer:
        writer.mark_message(keys[0])
    async with anyio.create_task_group() as tasks, opened(marks) as runtime:  # counts one
        began = anyio.current_time()
        while not marks.marked:
            await anyio.sleep(0.5)
        await anyio.sleep(1)
        assert await seen(runtime, "d") == ["x"]
        assert anyio.current_time() - began < 3
        await life[-1].died.wait()
        assert 50 <= anyio.current_time() - began <= 101
        tasks.cancel_scope.cancel()


async def test_a_mark_that_can_not_be_written_is_tried_again(marks: Marks) -> None:
    store(marks, message("d", "note", b'[{"text":"x"}]', "s"))
    marks.faults = [StorageFault("no space"), StorageFault("no space")]
    async with opened(marks) as runtime:
        began = anyio.current_time()
        await settled(runtime, "d")
        assert await seen(runtime, "d") == ["x"]
        assert anyio.current_time() - began == pytest.approx(2 * suspects.RETRY_SECONDS)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda runtime: runtime.delete(Desk, "d"), id="deleted"),
        pytest.param(lambda runtime: runtime.get(Desk, "d").note("call"), id="called"),
    ],
)
async def test_a_receiver_may_change_while_a_suspect_of_it_waits(
    marks: Marks, change: Callable[[DurableRuntime], Any]
) -> None:
    store(
        marks,
        message("c", "work", b'[{"seconds":5}]', "s"),
        message("d", "work", b'[{"seconds":1}]', "s"),
        message("d", "note", b'[{"text":"behind"}]', "s"),
    )
    async with opened(marks) as runtime:
        while not life[-1].running:
            await anyio.sleep(0.1)
        await change(runtime)
        await runtime.send(Desk.note, "d", "later")
        await settled(runtime, "c", "d")
        dead = [each.handler for each in await runtime.list_dead_messages(Desk)]
        expected = ["later"] if dead else ["1", "behind", "call", "later"]
        assert sorted(await seen(runtime, "d")) == expected
        assert dead in ([], ["work", "note"])


async def test_what_this_release_can_not_handle_is_not_marked(marks: Marks) -> None:
    store(marks, message("d", "gone", b"[{}]", "s"))
    async with opened(marks) as runtime:
        await anyio.sleep(1)
        assert marks.marked == []
        assert len(marks.deferred) == 1
        assert await runtime.list_dead_messages(Desk) == []
