"""No reply before it is durable, no write without a change, no write over a newer one."""

from __future__ import annotations

import anyio
import attrs
import pytest
from support.clock import settle
from support.runtimes import scripted_runtime, threaded_runtime
from support.scripted import ScriptedStorage
from support.tasks import Outcome, calls

from trio_durable import (
    CallTimeout,
    DurableObject,
    DurableRuntime,
    PersistenceError,
    SQLiteStorage,
    StaleObject,
    handler,
)
from trio_durable.storage import StorageFault

pytestmark = pytest.mark.anyio


class Counter(DurableObject):
    count: int = 0
    log: list[str] = attrs.field(factory=list)

    @handler
    def increment(self) -> int:
        self.count += 1
        return self.count

    @handler
    async def increment_slowly(self, seconds: float = 1) -> int:
        self.count += 1
        await anyio.sleep(seconds)
        return self.count

    @handler
    async def increment_around(self) -> int:
        self.count += 1
        await steps.wait()
        self.count += 1
        return self.count

    @handler
    async def raise_around(self) -> int:
        await steps.wait()
        raise KeyError("the handler's own")

    @handler(readonly=True)
    def read(self) -> int:
        return self.count

    @handler(readonly=True)
    async def read_slowly(self) -> int:
        await anyio.sleep(1)
        return self.count

    @handler
    def fail_with_count(self) -> None:
        raise KeyError(self.count)

    @handler
    def set_same(self) -> None:
        self.count = self.count + 1 - 1
        self.log = list(self.log)

    @handler
    async def commit_then(self, what: str) -> int:
        self.count += 1
        await self.ctx.commit()
        effects.append(self.count)
        self.count += 10
        if what == "fail":
            raise KeyError(what)
        return self.count

    @handler
    async def commit_and_swallow(self) -> int:
        self.count += 1
        try:
            await self.ctx.commit()
        except PersistenceError:
            effects.append(-1)
        self.count += 1
        return self.count

    @handler
    async def commit_unchanged(self) -> None:
        await self.ctx.commit()

    @handler
    def delete(self) -> int:
        self.ctx.delete()
        return self.count

    @handler
    async def delete_commit_then(self, what: str) -> int:
        self.ctx.delete()
        await self.ctx.commit()
        self.count = 99
        if what == "fail":
            raise KeyError(what)
        return self.count


class Watchful(DurableObject):
    """Does nothing while it is activated."""

    count: int = 7

    def after_load(self) -> None:
        self.count = 7

    @handler(readonly=True)
    def read(self) -> int:
        return self.count


effects: list[int] = []
steps = anyio.Event()


@pytest.fixture(autouse=True)
def _fresh() -> None:
    forget_effects()


def forget_effects() -> None:
    global steps
    effects.clear()
    steps = anyio.Event()


STATE_3 = b'{"count":3,"log":[],"$as":{}}'


# --- no reply before its commit ------------------------------------------------------------------


async def test_no_reply_shows_what_is_not_durable() -> None:
    storage = ScriptedStorage()
    async with scripted_runtime(storage) as runtime, calls() as group:
        counter = runtime.get(Counter, "a")
        await counter.increment()
        outcomes: list[Outcome[object]] = []
        with storage.held("writer"):
            for name in ("increment", "read", "increment_slowly", "fail_with_count", "read_slowly"):
                outcomes.append(group.start(runtime.call, Counter, "a", name))
                await settle()
            outcomes.append(group.start(runtime.get_state, Counter, "a"))
            outcomes.append(group.start(runtime.exists, Counter, "a"))
            outcomes.append(group.start(runtime.ensure_started, Counter, "a"))
            await anyio.sleep(3)
            # All the turns have run, the next ones while the commit was under way.
            assert runtime.statistics().busy == 0
            assert not any(outcome.done for outcome in outcomes)
            assert storage.revisions() == {"a": 1}
        await settle()
        assert [outcomes[place].value for place in (0, 1, 2, 4)] == [2, 2, 3, 3]
        assert isinstance(outcomes[3].error, KeyError)
        assert outcomes[3].error.args == (3,)
        state = outcomes[5].value
        assert isinstance(state, Counter)
        assert state.count == 3
        assert outcomes[6].value is True


async def test_no_reply_before_the_commit_of_after_load() -> None:
    class Stamped(DurableObject):
        stamp: int = 0

        def after_load(self) -> None:
            self.stamp += 1

        @handler(readonly=True)
        def read(self) -> int:
            return self.stamp

    storage = ScriptedStorage()
    async with scripted_runtime(storage) as runtime, calls() as group:
        with storage.held("writer"):
            outcome = group.start(runtime.get(Stamped, "a").read)
            await settle()
            assert not outcome.done
        await settle()
        assert outcome.value == 1


async def test_a_caller_may_give_up_waiting_for_the_commit() -> None:
    storage = ScriptedStorage()
    async with scripted_runtime(storage) as runtime, calls() as group:
        counter = runtime.get(Counter, "a")
        await counter.read()
        with storage.held("writer"):
            with pytest.raises(CallTimeout, match="its commit isn't durable yet"):
                await counter.increment()
            outcome = group.start(counter.increment)
            await settle()
            outcome.cancel()
            await settle()
            assert outcome.done
        assert await counter.read() == 2


async def test_the_next_turns_run_while_a_batch_is_in_the_writers_hands() -> None:
    storage = ScriptedStorage()
    async with threaded_runtime(storage) as runtime, calls() as group:
        counter = runtime.get(Counter, "a")
        await counter.read()
        with storage.blocked_writer():
            first = group.start(counter.increment)
            await settle()
            storage.writer_busy.wait()
            second = group.start(counter.increment)
            third = group.start(counter.increment)
            await settle()
            assert not any(outcome.done for outcome in (first, second, third))
    assert {first.value, second.value, third.value} == {1, 2, 3}
    # The turns behind the first one came while it was written, and are one row.
    assert [[(c.revision, c.state) for c in batch] for batch in storage.batches] == [
        [(0, b'{"count":1,"log":[],"$as":{}}')],
        [(1, STATE_3)],
    ]


# --- batches -------------------------------------------------------------------------------------


async def test_turns_of_one_object_are_one_row() -> None:
    storage = ScriptedStorage()
    async with scripted_runtime(storage) as runtime, calls() as group:
        counter = runtime.get(Counter, "a")
        await counter.read()
        with storage.held("writer"):
            outcomes = [group.start(counter.increment) for _ in range(100)]
            await settle()
        await settle()
        assert sorted(outcome.value for outcome in outcomes) == list(range(1, 101))
        assert [len(batch) for batch in storage.batches] == [1]
        assert storage.revisions() == {"a": 1}
        assert runtime.statistics().transactions == 1
        assert runtime.statistics().commits == 1


async def test_turns_of_different_objects_are_one_batch() -> None:
    storage = ScriptedStorage()
    async with scripted_runtime(storage) as runtime, calls() as group:
        with storage.held("writer"):
            for name in "abcdefgh":
                group.start(runtime.get(Counter, name).increment)
            await settle()
        await settle()
        assert [len(batch) for batch in storage.batches] == [8]
        assert storage.revisions() == dict.fromkeys("abcdefgh", 1)


async def test_a_deletion_is_one_row_with_what_precedes_it_and_not_with_what_follows() -> None:
    storage = ScriptedStorage()
    async with scripted_runtime(storage) as runtime, calls() as group:
        counter = runtime.get(Counter, "a")
        await counter.increment()
        with storage.held("writer"):
            outcomes = []
            for call in (counter.increment, counter.delete, counter.increment):
                outcomes.append(group.start(call))
                await settle()
        await settle()
        assert [outcome.value for outcome in outcomes] == [2, 2, 1]
        assert storage.rows() == {"a": b'{"count":1,"log":[],"$as":{}}'}
        assert len(storage.batches) == 3


# --- commits that fail ---------------------------------------------------------------------------


async def test_every_call_behind_a_failed_commit_fails() -> None:
    storage = ScriptedStorage()
    async with scripted_runtime(storage) as runtime, calls() as group:
        counter = runtime.get(Counter, "a")
        await counter.increment()
        storage.fail_commits(StorageFault("disk full"))
        outcomes: list[Outcome[object]] = []
        with storage.held("writer"):
            for name in (
                "increment",
                "read",
                "fail_with_count",
                "increment",
                "delete",
                "increment",
            ):
                outcomes.append(group.start(runtime.call, Counter, "a", name))
                await settle()
            outcomes.append(group.start(runtime.get_state, Counter, "a"))
            await settle()
        await settle()
        for outcome in outcomes:
            assert type(outcome.error) is PersistenceError
            assert outcome.error.action == "save"
            assert "disk full" in str(outcome.error)
            assert isinstance(outcome.error.__cause__, StorageFault)
        # Each its own: what one caller does to its error is not seen by another.
        assert len({id(outcome.error) for outcome in outcomes}) == len(outcomes)
        # The next call starts from what is stored.
        loads = len(storage.loads)
        assert await counter.increment() == 2
        assert len(storage.loads) == loads + 1
        assert storage.rows() == {"a": b'{"count":2,"log":[],"$as":{}}'}


async def test_any_error_of_the_storage_is_a_failed_commit() -> None:
    storage = ScriptedStorage()
    async with scripted_runtime(storage) as runtime:
        storage.fail_commits(ZeroDivisionError("a bug in the storage"))
        with pytest.raises(PersistenceError, match="a bug in the storage"):
            await runtime.get(Counter, "a").increment()
        assert await runtime.get(Counter, "a").increment() == 1


async def test_a_failed_batch_fails_all_its_objects_and_then_service_resumes() -> None:
    storage = ScriptedStorage()
    async with scripted_runtime(storage) as runtime, calls() as group:
        storage.fail_commits(None, StorageFault("gone"), StorageFault("still gone"))
        counters = [runtime.get(Counter, name) for name in "abc"]
        with storage.held("writer"):
            first = [group.start(counter.increment) for counter in counters]
            await settle()
        await settle()
        assert [outcome.value for outcome in first] == [1, 1, 1]
        for _ in range(2):
            with storage.held("writer"):
                failed = [group.start(counter.increment) for counter in counters]
                await settle()
            await settle()
            assert all(type(outcome.error) is PersistenceError for outcome in failed)
        assert [await counter.increment() for counter in counters] == [2, 2, 2]
        assert storage.revisions() == {"a": 2, "b": 2, "c": 2}


async def test_commits_behind_a_failed_one_fail_with_it_even_in_the_writers_hands() -> None:
    storage = ScriptedStorage()
    storage.fail_commits(StorageFault("the first"))
    async with threaded_runtime(storage) as runtime, calls() as group:
        counter = runtime.get(Counter, "a")
        await counter.read()
        with storage.blocked_writer():
            first = group.start(counter.increment)
            await settle()
            storage.writer_busy.wait()
            second = group.start(counter.increment)
            await settle()
        # The second one's batch is based on a revision that was never stored.
        await first.wait()
        assert await counter.read() == 0
        assert type(first.error) is PersistenceError
        assert type(second.error) is PersistenceError
        assert await counter.increment() == 1
    assert storage.revisions() == {"a": 1}


async def test_an_async_turn_that_builds_on_a_failed_commit_fails() -> None:
    storage = ScriptedStorage()
    async with scripted_runtime(storage) as runtime, calls() as group:
        counter = runtime.get(Counter, "a")
        await counter.increment()
        storage.fail_commits(StorageFault("disk full"))
        with storage.held("writer"):
            first = group.start(counter.increment)
            await settle()
            running = group.start(counter.increment_around)
            await settle()
            queued = group.start(counter.read)
            await settle()
        await settle()
        assert type(first.error) is PersistenceError
        assert not running.done
        steps.set()
        await settle()
        assert type(running.error) is PersistenceError
        assert queued.value == 1  # it began on what is stored
        assert storage.revisions() == {"a": 1}
        assert await counter.increment() == 2


async def test_an_async_turn_that_raises_on_lost_ground_fails_with_it() -> None:
    storage = ScriptedStorage()
    async with scripted_runtime(storage) as runtime, calls() as group:
        counter = runtime.get(Counter, "a")
        await counter.read()
        storage.fail_commits(StorageFault("disk full"))
        with storage.held("writer"):
            group.start(counter.increment)
            await settle()
            running = group.start(counter.raise_around)
            await settle()
        await settle()
        steps.set()
        await settle()
        # What it raised may come from state that never was.
        assert type(running.error) is PersistenceError
        assert isinstance(running.error.__cause__, KeyError)


# --- no write without a change -------------------------------------------------------------------


async def test_nothing_is_written_without_a_change() -> None:
    storage = ScriptedStorage()
    async with scripted_runtime(storage) as runtime:
        counter = runtime.get(Counter, "a")
        assert await counter.read() == 0
        await counter.set_same()
        await counter.commit_unchanged()
        await runtime.ensure_started(Counter, "c")
        assert await runtime.get(Watchful, "d").read() == 7
        await runtime.stop(Counter, "c")
        assert storage.batches == []
        await counter.increment()
        await counter.set_same()
        await counter.read()
        await counter.read_slowly()
        await runtime.put_state(Counter, "a", Counter(count=1))
        assert storage.commits == 1
        assert await runtime.exists(Counter, "a")
        assert not await runtime.exists(Counter, "c")


async def test_a_state_equal_to_the_defaults_is_stored_when_it_is_put() -> None:
    storage = ScriptedStorage()
    async with scripted_runtime(storage) as runtime:
        await runtime.put_state(Counter, "a", Counter())
        assert storage.revisions() == {"a": 1}
        await runtime.get(Counter, "b").read()
        await runtime.put_state(Counter, "b", Counter())
        assert storage.revisions() == {"a": 1, "b": 1}


# --- fenced --------------------------------------------------------------------------------------


async def test_a_stale_object_alone_is_refused() -> None:
    storage = ScriptedStorage()
    async with scripted_runtime(storage) as runtime, calls() as group:
        counters = [runtime.get(Counter, name) for name in "abc"]
        for counter in counters:
            await counter.increment()
        storage.overwrite("Counter", "b", b'{"count":40,"log":[]}')
        with storage.held("writer"):
            outcomes = [group.start(counter.increment) for counter in counters]
            await settle()
            behind = group.start(counters[1].read)
            await settle()
        await settle()
        assert len(storage.batches[-1]) == 3
        assert (outcomes[0].value, outcomes[2].value) == (2, 2)
        for outcome in (outcomes[1], behind):
            assert isinstance(outcome.error, StaleObject)
            assert (outcome.error.key.object_id, outcome.error.revision) == ("b", 1)
        assert await counters[1].read() == 40
        assert await counters[1].increment() == 41


async def test_a_row_that_appeared_or_went_is_not_overwritten() -> None:
    storage = ScriptedStorage()
    async with scripted_runtime(storage) as runtime:
        counter = runtime.get(Counter, "a")
        await counter.read()
        storage.overwrite("Counter", "a", STATE_3)
        with pytest.raises(StaleObject):
            await counter.increment()
        assert await counter.increment() == 4
        storage.memory._contents.rows.clear()
        with pytest.raises(StaleObject):
            await counter.increment()
        assert storage.rows() == {}
        assert await counter.increment() == 1


async def test_a_stale_deletion_is_refused() -> None:
    storage = ScriptedStorage()
    async with scripted_runtime(storage) as runtime:
        counter = runtime.get(Counter, "a")
        await counter.increment()
        storage.overwrite("Counter", "a", STATE_3)
        with pytest.raises(StaleObject):
            await counter.delete()
        assert await counter.read() == 3


async def test_a_row_changed_in_an_sqlite_file_is_not_overwritten(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    import sqlite3

    path = tmp_path_factory.mktemp("fence") / "app.db"
    async with DurableRuntime(SQLiteStorage(path), call_timeout=None) as runtime:
        counters = {name: runtime.get(Counter, name) for name in "ab"}
        for counter in counters.values():
            await counter.increment()
        connection = sqlite3.connect(path)
        with connection:
            connection.execute(
                "UPDATE durable_objects SET revision = 9, state = ? WHERE object_id = 'a'",
                (STATE_3.decode(),),
            )
        connection.close()
        with pytest.raises(StaleObject):
            await counters["a"].increment()
        assert await counters["b"].increment() == 2
        assert await counters["a"].increment() == 4
        info = runtime.whereis(Counter, "a")
        assert info is not None
        assert info.revision == 10


# --- ctx.commit() and ctx.delete() ---------------------------------------------------------------


async def test_commit_is_durable_before_the_turn_goes_on() -> None:
    storage = ScriptedStorage()
    async with scripted_runtime(storage) as runtime, calls() as group:
        counter = runtime.get(Counter, "a")
        with storage.held("writer"):
            outcome = group.start(counter.commit_then, "return")
            await settle()
            assert effects == []
        await settle()
        assert effects == [1]
        assert outcome.value == 11
        assert storage.revisions() == {"a": 2}


async def test_what_was_committed_is_not_rolled_back() -> None:
    async with DurableRuntime(":memory:") as runtime:
        counter = runtime.get(Counter, "a")
        with pytest.raises(KeyError):
            await counter.commit_then("fail")
        assert await counter.read() == 1
        assert await counter.increment() == 2


@pytest.mark.parametrize("name", ["commit_then", "commit_and_swallow"])
async def test_a_turn_whose_commit_failed_fails_whatever_it_does_next(name: str) -> None:
    storage = ScriptedStorage()
    async with scripted_runtime(storage) as runtime:
        counter = runtime.get(Counter, "a")
        await counter.increment()
        storage.fail_commits(StorageFault("disk full"))
        args = ("return",) if name == "commit_then" else ()
        with pytest.raises(PersistenceError):
            await runtime.call(Counter, "a", name, *args)
        assert effects == ([] if name == "commit_then" else [-1])
        assert storage.revisions() == {"a": 1}
        assert await counter.increment() == 2


async def test_delete_takes_effect_with_the_turn() -> None:
    storage = ScriptedStorage()
    async with scripted_runtime(storage) as runtime, calls() as group:
        counter = runtime.get(Counter, "a")
        await counter.increment()
        with storage.held("writer"):
            deleted = group.start(counter.delete)
            await settle()
            assert not deleted.done
        await settle()
        assert deleted.value == 1
        assert storage.rows() == {}
        assert not await runtime.exists(Counter, "a")
        assert await counter.read() == 0
        assert await counter.increment() == 1
        assert storage.revisions() == {"a": 1}


@pytest.mark.parametrize("what", ["return", "fail"])
async def test_a_committed_deletion_stands_and_the_rest_of_the_turn_counts_for_nothing(
    what: str,
) -> None:
    storage = ScriptedStorage()
    async with scripted_runtime(storage) as runtime:
        counter = runtime.get(Counter, "a")
        await counter.increment()
        if what == "fail":
            with pytest.raises(KeyError):
                await counter.delete_commit_then(what)
        else:
            await counter.delete_commit_then(what)
        assert storage.rows() == {}
        assert await counter.read() == 0
        assert await counter.increment() == 1


async def test_a_deletion_that_fails_leaves_the_object() -> None:
    storage = ScriptedStorage()
    async with scripted_runtime(storage) as runtime:
        counter = runtime.get(Counter, "a")
        await counter.increment()
        for delete in (counter.delete, lambda: runtime.delete(Counter, "a")):
            storage.fail_commits(StorageFault("disk full"))
            with pytest.raises(PersistenceError):
                await delete()
            assert await counter.read() == 1
