"""Batched loads on their own."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import anyio
import pytest

from trio_durable import ObjectKey
from trio_durable._eventloop.running import running_loop
from trio_durable._eventloop.wakeup import AutoResetEvent
from trio_durable._persistence import batched_load
from trio_durable._persistence.batched_load import BatchedLoad
from trio_durable.storage import (
    AlarmRow,
    Commit,
    MemoryStorage,
    PartialFault,
    StorageFault,
    StoredObject,
)
from trio_durable.storage._forwarding import ForwardingReader

from .bench import FAULT, SteppedRunner, Stopwatch, do_nothing


class ScriptedReader(ForwardingReader):
    """Reads from memory; ``script`` is called in the middle of each read."""

    def __init__(self, storage: MemoryStorage) -> None:
        super().__init__(storage.open_reader())
        self.script: deque[Callable[[], object]] = deque()
        self.batches: list[list[str]] = []

    def load(self, keys: Sequence[ObjectKey]) -> Sequence[StoredObject | None]:
        self.batches.append([key.object_id for key in keys])
        if self.script:
            self.script.popleft()()
        return super().load(keys)

    def list_ids(
        self, type_name: str, after: str | None, limit: int, tenant: str = ""
    ) -> list[str]:
        raise AssertionError

    def close(self) -> None:
        raise AssertionError


class FakeLoading:
    def __init__(self, object_id: str) -> None:
        self.key = ObjectKey("T", object_id)
        self.outcomes: list[StoredObject | StorageFault | None] = []
        self.then: Callable[[], object] = do_nothing

    recurring_alarms = ()

    def loaded(self, row: StoredObject | None, alarms: Sequence[AlarmRow | None]) -> None:
        self.outcomes.append(row)
        self.then()

    def load_failed(self, fault: StorageFault) -> None:
        self.outcomes.append(fault)
        self.then()


def loading_with(
    backend: str, scenario: Callable[[BatchedLoad, ScriptedReader, SteppedRunner], None]
) -> None:
    """Run ``scenario``, deliver what it brought about, then stop."""

    async def main() -> None:
        storage = MemoryStorage()
        storage.open_writer().commit(
            [Commit(ObjectKey("T", f"{n}"), 0, str(n).encode()) for n in range(5)], 0
        )
        loop = running_loop()
        runner = SteppedRunner(loop)
        reader = ScriptedReader(storage)
        arrived = AutoResetEvent(loop)
        load = BatchedLoad(loop, runner, reader, arrived.set, lambda: 0)

        async def deliver() -> None:
            while True:
                await arrived.wait()
                load.deliver()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(deliver)
            await anyio.wait_all_tasks_blocked()
            scenario(load, reader, runner)
            await anyio.wait_all_tasks_blocked()
            while runner.jobs:
                runner.step()
                await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()

    anyio.run(main, backend=backend)


backends = pytest.mark.parametrize("backend", ["trio", "asyncio"])


@backends
def test_loads_that_wait_go_into_one_read(backend: str) -> None:
    loadings = [FakeLoading(f"{n}") for n in range(7)]

    def scenario(load: BatchedLoad, reader: ScriptedReader, runner: SteppedRunner) -> None:
        for loading in loadings[:3]:
            load.submit(loading)
        assert len(runner.jobs) == 1

        def more() -> None:
            for loading in loadings[3:]:
                load.submit(loading)

        reader.script.append(more)
        runner.step()
        assert reader.batches == [["0", "1", "2"], ["3", "4", "5", "6"]]
        assert all(loading.outcomes == [] for loading in loadings)

    loading_with(backend, scenario)
    assert [loading.outcomes for loading in loadings] == [
        *([StoredObject(1, str(n).encode())] for n in range(5)),
        [None],
        [None],
    ]


@backends
@pytest.mark.parametrize("error", [FAULT, RuntimeError("boom"), ValueError()])
def test_a_read_that_fails_fails_its_loads_only(backend: str, error: Exception) -> None:
    first, second = FakeLoading("0"), FakeLoading("1")

    def scenario(load: BatchedLoad, reader: ScriptedReader, runner: SteppedRunner) -> None:
        def fail() -> None:
            load.submit(second)
            raise error

        reader.script.append(fail)
        load.submit(first)
        runner.step()

    loading_with(backend, scenario)
    (fault,) = first.outcomes
    assert isinstance(fault, StorageFault)
    assert str(fault) == (str(error) or type(error).__name__)
    assert second.outcomes == [StoredObject(1, b"1")]


@backends
@pytest.mark.parametrize("named", [True, False])
def test_a_part_that_cant_be_read_fails_no_others(backend: str, named: bool) -> None:
    loadings = [FakeLoading(f"{n}") for n in range(5)]

    def scenario(load: BatchedLoad, reader: ScriptedReader, runner: SteppedRunner) -> None:
        def refuse() -> None:
            if "3" in reader.batches[-1]:
                reader.script.append(refuse)
                at = reader.batches[-1].index("3")
                raise PartialFault("no grant", [at] if named else ())
            reader.script.append(refuse)

        reader.script.append(refuse)
        for loading in loadings:
            load.submit(loading)
        runner.step()

    loading_with(backend, scenario)
    for n, loading in enumerate(loadings):
        if n == 3:
            (fault,) = loading.outcomes
            assert isinstance(fault, PartialFault)
            assert str(fault) == "no grant"
        else:
            assert loading.outcomes == [StoredObject(1, str(n).encode())]


@backends
def test_reads_are_bounded(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batched_load, "MAX_BATCH_KEYS", 2)
    loadings = [FakeLoading(f"{n}") for n in range(5)]
    batches: list[list[str]] = []

    def scenario(load: BatchedLoad, reader: ScriptedReader, runner: SteppedRunner) -> None:
        for loading in loadings:
            load.submit(loading)
        runner.step()
        batches.extend(reader.batches)

    loading_with(backend, scenario)
    assert batches == [["0", "1"], ["2", "3"], ["4"]]
    assert [len(loading.outcomes) for loading in loadings] == [1] * 5


@backends
def test_loads_that_wait_are_expected_to_take_as_long_as_the_last_full_reads(
    backend: str, monkeypatch: pytest.MonkeyPatch, stopwatch: Stopwatch
) -> None:
    monkeypatch.setattr(batched_load, "MAX_BATCH_KEYS", 2)
    monkeypatch.setattr(batched_load, "perf_counter", lambda: stopwatch.time)
    expected: list[tuple[bool, float]] = []

    def scenario(load: BatchedLoad, reader: ScriptedReader, runner: SteppedRunner) -> None:
        def slowly() -> None:
            stopwatch.time += 1
            expected.append((load.is_behind, load.expected_wait()))
            stopwatch.time += 2

        reader.script.extend([slowly] * 4)
        for number in range(7):
            load.submit(FakeLoading(f"{number}"))
        runner.step()
        assert not load.is_behind

    loading_with(backend, scenario)
    # At first only how long one has been under way is known.
    assert expected == [(True, 3), (True, 2 + 2 * 3), (False, 2 + 3), (False, 2 + 3)]


@backends
def test_loads_behind_a_hanging_reader_are_expected_to_take_long_and_only_then(
    backend: str, monkeypatch: pytest.MonkeyPatch, stopwatch: Stopwatch
) -> None:
    monkeypatch.setattr(batched_load, "MAX_BATCH_KEYS", 2)
    monkeypatch.setattr(batched_load, "perf_counter", lambda: stopwatch.time)

    def scenario(load: BatchedLoad, reader: ScriptedReader, runner: SteppedRunner) -> None:
        for number in range(3):
            load.submit(FakeLoading(f"{number}"))
        stopwatch.time += 3  # while the reader's thread does something else
        assert load.expected_wait() == 2 * 3
        runner.step()
        assert load.expected_wait() == 0

    loading_with(backend, scenario)


@backends
def test_a_load_asked_for_while_one_is_handed_over(backend: str) -> None:
    first, second = FakeLoading("0"), FakeLoading("1")

    def scenario(load: BatchedLoad, reader: ScriptedReader, runner: SteppedRunner) -> None:
        first.then = lambda: load.submit(second)
        load.submit(first)
        runner.step()

    loading_with(backend, scenario)
    assert first.outcomes == [StoredObject(1, b"0")]
    assert second.outcomes == [StoredObject(1, b"1")]
