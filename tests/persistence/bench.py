"""Group commit and batched loads on a bench.

A stepped runner keeps posted jobs until the test runs them, a stepped loop keeps callbacks of the
writer's thread, and the writer follows the script of the test, calling back into it in the middle
of a transaction. So every interleaving of loop and thread can be laid out by hand.
"""

from __future__ import annotations

import types
from collections import deque
from collections.abc import Callable, Collection, Coroutine, Generator, Sequence
from contextvars import Context
from copy import deepcopy
from typing import TypeVar, TypeVarTuple

from trio_durable import ObjectKey, PersistenceError
from trio_durable._eventloop.loop import Loop, Waiter
from trio_durable._eventloop.runner import Runner
from trio_durable._keys import AlarmKey
from trio_durable._persistence.group_commit import GroupCommit
from trio_durable._persistence.ticket import Ticket
from trio_durable._telemetry.events import Turn
from trio_durable.storage import (
    AlarmChanges,
    Commit,
    MemoryStorage,
    MessageChanges,
    NewMessage,
    StorageFault,
)
from trio_durable.storage._forwarding import ForwardingWriter
from trio_durable.testing.conformance._builders import changes as changed

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
Job = Callable[[], object]


class Held(Waiter):
    """A reply that is held back; it notes when it was released."""

    def __init__(self, log: list[str], name: str, value: object = None) -> None:
        self.ended = False
        self.value = value
        self.error = None
        self.log = log
        self.name = name

    def release(self) -> None:
        if not self.ended:
            self.ended = True
            self.log.append(self.name)

    async def wait(self) -> object:
        raise AssertionError


def told(held: Held) -> object:
    """The result of the caller."""
    assert held.ended
    assert held.error is None
    return held.value


def failure(held: Held) -> PersistenceError:
    """The error raised in the caller."""
    assert held.ended
    assert isinstance(held.error, PersistenceError)
    return held.error


@types.coroutine
def _park() -> Generator[None, None, None]:
    yield


class Parked(Waiter):
    """Parks a coroutine that the test itself drives, `Performed`."""

    def __init__(self) -> None:
        self.ended = False
        self.value = self.error = None

    def release(self) -> None:
        self.ended = True

    async def wait(self) -> object:
        await _park()
        assert self.ended
        if self.error is not None:
            raise self.error
        return self.value


class SteppedLoop(Loop):
    """Keeps callbacks until `step`."""

    def __init__(self) -> None:
        super().__init__()
        self.callbacks: deque[Callable[[], object]] = deque()
        self.waiter = Parked

    def is_current(self) -> bool:
        return True

    def call_soon_threadsafe(self, callback: Callable[[*Ts], object], *args: *Ts) -> None:
        self.callbacks.append(lambda: callback(*args))

    def spawn(
        self, run: Callable[[], Coroutine[object, object, None]], name: str, context: Context
    ) -> None:
        raise AssertionError

    def current_task(self) -> object:
        raise AssertionError

    def cancel_probe(self, task: object) -> Callable[[], object]:
        raise AssertionError

    def interrupt(self, error: BaseException) -> None:
        raise AssertionError

    def waits_for_me(self, task: object) -> bool:
        raise AssertionError

    def step(self) -> None:
        """Run what has come in so far."""
        for _ in range(len(self.callbacks)):
            self.callbacks.popleft()()


class SteppedRunner(Runner):
    """Keeps jobs until `step`."""

    def __init__(self, loop: Loop, name: str = "") -> None:
        self.jobs: deque[Job] = deque()

    def post(self, job: Job) -> None:
        self.jobs.append(job)

    async def run(self, job: Callable[[], T]) -> T:
        raise AssertionError

    def stop(self) -> None:
        raise AssertionError

    def step(self) -> None:
        """Run the jobs posted so far."""
        for _ in range(len(self.jobs)):
            self.jobs.popleft()()


class ScriptedWriter(ForwardingWriter):
    """Commits to memory; what ``script`` yields is called in the middle of each transaction."""

    def __init__(self) -> None:
        self.storage = MemoryStorage()
        super().__init__(self.storage.open_writer())
        self.script: deque[Callable[[], object]] = deque()
        self.batches: list[list[Commit]] = []
        self.times: list[int] = []
        self.maintenance: Callable[[], object] = do_nothing

    def maintain(self) -> None:
        self.maintenance()

    def then(self, *steps: Callable[[], object] | Exception | None) -> None:
        for step in steps:
            self.script.append(_raiser(step) if isinstance(step, Exception) else step or do_nothing)

    def commit(self, batch: Sequence[Commit], now: int) -> Collection[int]:
        # As they are now, since nothing may change a commit once the writer has it.
        before = [(c.key, c.revision, c.state, c.delete) for c in batch]
        alarms = [deepcopy(c.alarms) for c in batch]
        self.batches.append(
            [
                Commit(*fields, its, c.epoch)
                for c, fields, its in zip(batch, before, alarms, strict=True)
            ]
        )
        self.times.append(now)
        if self.script:
            self.script.popleft()()
        assert [(c.key, c.revision, c.state, c.delete) for c in batch] == before
        assert [fields_of(c.alarms) for c in batch] == [fields_of(its) for its in alarms]
        return super().commit(batch, now)

    def close(self) -> None:
        raise AssertionError

    def stored(self, owner: FakeOwner) -> tuple[int, bytes] | None:
        (row,) = self.storage.open_reader().load([owner.key])
        return None if row is None else (row.revision, row.state)

    def commits_of(self, object_id: str) -> list[Commit]:
        return [c for batch in self.batches for c in batch if c.key.object_id == object_id]

    def alarms(self, owner: FakeOwner) -> dict[str, int]:
        """The times of an owner's alarms."""
        found = self.storage.open_reader().list_alarms(owner.key)
        return {alarm.key.name: alarm.due_at for alarm in found}

    def claim_alarm(self, owner: FakeOwner, name: str, claim: int) -> None:
        """Set an alarm and claim it, as it is before its turn."""
        key = AlarmKey(owner.key.type_name, owner.key.object_id, name)
        self.inner.commit([Commit(owner.key, None, alarms=changed({name: 0}))], 0)
        assert self.inner.claim([key], claim, 0, 2**62)


Fields = tuple[dict[str, int], bool, dict[str, tuple[int, bytes | None] | None]]


def fields_of(changes: AlarmChanges | None) -> Fields | None:
    """The content of ``changes``, for comparison by value."""
    if changes is None:
        return None
    news = {
        name: None if new is None else (new.due_at, new.payload)
        for name, new in changes.changed.items()
    }
    return dict(changes.acknowledged), changes.clear, news


def do_nothing() -> None:
    pass


def _raiser(error: Exception) -> Callable[[], object]:
    def fail() -> None:
        raise error

    return fail


class FakeOwner:
    """Does with its tickets what an activation does."""

    def __init__(self, bench: Bench, object_id: str) -> None:
        self.bench = bench
        self.key = ObjectKey("T", object_id)
        self.revision: int | None = 0
        self.epoch = 0
        self.gate: Ticket | None = None
        self.turn_event: Turn | None = None
        self.failures = 0
        self.commits = 0

    def committed(self, ticket: Ticket) -> None:
        self.commits += 1
        self.bench.log.append(f"{self.key.object_id} committed")

    def commit_failed(self) -> None:
        self.failures += 1
        self.bench.log.append(f"{self.key.object_id} failed")

    def save(self, state: bytes) -> Held:
        return self._submit(state, False)

    def delete(self) -> Held:
        return self._submit(None, True)

    def change(
        self, alarms: AlarmChanges, state: bytes | None = None, *, delete: bool = False
    ) -> Held:
        """A change of alarms, by a turn or by a call from outside a turn."""
        return self._submit(state, delete, alarms)

    def send(self, new: NewMessage) -> Held:
        """A turn that sends a message, and changes nothing."""
        return self._submit(None, False, messages=MessageChanges(sent=[new]))

    def read(self, value: object = None) -> Held:
        """A turn without a change, which waits for the gate all the same."""
        assert self.gate is not None
        held = Held(self.bench.log, f"{self.key.object_id} read", value)
        self.gate.hold(held)
        return held

    def _submit(
        self,
        state: bytes | None,
        delete: bool,
        alarms: AlarmChanges | None = None,
        messages: MessageChanges | None = None,
    ) -> Held:
        what = "delete" if delete else "alarms" if state is None else state.decode()
        name = f"{self.key.object_id} {what}"
        ticket = self.bench.group_commit.submit(self, state, delete, alarms, messages=messages)
        assert self.gate is ticket
        held = Held(self.bench.log, name, name)
        ticket.hold(held)
        return held

    def reload(self) -> None:
        stored = self.bench.writer.stored(self)
        self.revision = 0 if stored is None else stored[0]


class Bench:
    """The group commit under test, with its runner, loop, writer and owners."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.time = 1000
        self.loop = SteppedLoop()
        self.runner = SteppedRunner(self.loop)
        self.writer = ScriptedWriter()
        self.told: list[tuple[ObjectKey, Fields | None]] = []
        """Durable changes of alarms, as passed to the listener."""
        self.group_commit = GroupCommit(
            self.loop, self.runner, self.writer, lambda: self.time, (self,)
        )

    def committed(self, key: ObjectKey, changes: AlarmChanges) -> None:
        self.told.append((key, fields_of(changes)))
        self.log.append(f"{key.object_id} told")

    def unsure(self, key: ObjectKey, changes: AlarmChanges) -> None:
        self.log.append(f"{key.object_id} unsure {fields_of(changes)}")

    def owner(self, object_id: str) -> FakeOwner:
        return FakeOwner(self, object_id)

    def owners(self, count: int) -> list[FakeOwner]:
        return [self.owner(f"{n:05}") for n in range(count)]

    def finish(self) -> None:
        """Run jobs and callbacks until neither side has any left."""
        while self.runner.jobs or self.loop.callbacks:
            self.runner.step()
            self.loop.step()
        assert self.group_commit.is_drained


class Stopwatch:
    """The clock of the writer's thread, which stands still unless the test moves it."""

    def __init__(self) -> None:
        self.time = 0.0
        self.sleeps: list[float] = []
        self.asleep: Callable[[], object] = do_nothing

    def sleep(self, duration: float) -> None:
        self.time += duration
        self.sleeps.append(duration)
        self.asleep()


FAULT = StorageFault("disk is full")


def raise_after(step: Callable[[], object]) -> Callable[[], object]:
    def run() -> None:
        step()
        raise FAULT

    return run


def like(owner: FakeOwner, revision: int, state: bytes) -> _Like:
    return _Like(owner.key, revision, state)


class _Like:
    """A value equal to a save of these fields, as commits themselves compare by identity."""

    def __init__(self, key: ObjectKey, revision: int, state: bytes) -> None:
        self.fields = (key, revision, state, False)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Commit) and self.fields == (
            other.key,
            other.revision,
            other.state,
            other.delete,
        )

    def __repr__(self) -> str:
        return f"Commit{self.fields}"

    __hash__ = None  # type: ignore[assignment]
