"""Calls and messages with once-keys: one effect, one reply, whatever ends or fails meanwhile."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import anyio
import attrs
import pytest
from support.tasks import Outcome, calls

from trio_durable import (
    ArgumentError,
    CallCycle,
    CallTimeout,
    Clock,
    CommitRefused,
    DurableObject,
    DurableRuntime,
    InlineRunner,
    InvalidOnceKey,
    MemoryStorage,
    NotInTurn,
    ObjectKey,
    OnceKeyReused,
    OnceMessageDied,
    OnceReplyUnreadable,
    PersistenceError,
    ReplyError,
    Retry,
    handler,
)
from trio_durable.storage import Commit, OnceKey, OnceReply, Reader, StorageFault, Writer
from trio_durable.storage._forwarding import (
    ForwardingReader,
    ForwardingStorage,
    ForwardingWriter,
)

T = TypeVar("T")

pytestmark = pytest.mark.anyio


class SoldOut(Exception):
    pass


@attrs.frozen
class Seat:
    row: int
    name: str


class Concert(DurableObject, remember=timedelta(hours=1)):
    seats: list[str] = attrs.field(factory=list)
    left: int = 3

    @handler
    def book(self, name: str, count: int = 1) -> Seat:
        if count > self.left:
            raise SoldOut(name)
        self.left -= count
        self.seats = [*self.seats, name]
        return Seat(len(self.seats), name)

    @handler(retry=Retry(initial=1, attempts=1))
    async def book_slowly(self, name: str) -> int:
        await started.send(name)
        await go_on.wait()
        if name == "nobody":
            raise SoldOut(name)
        self.seats = [*self.seats, name]
        return len(self.seats)

    @handler(readonly=True)
    def names(self) -> list[str]:
        return self.seats

    @handler
    def leave(self) -> int:
        self.ctx.delete()
        return self.left

    @handler
    async def commit(self) -> None:
        await self.ctx.commit()

    @handler
    def large(self, size: int) -> str:
        self.left = 0
        return "x" * size

    @handler
    def any(self, value: Any) -> Any:
        return value

    @handler
    async def pay(self, card: str) -> str:
        key = self.ctx.once_key("charge")
        await self.ctx.runtime.get(Card, card, once=key).charge(5)
        if self.left == 3:
            raise SoldOut("later")
        return key

    @handler
    async def pay_in_doubt(self, card: str) -> None:
        await Card.charge(card, 5)

    @handler
    async def wait_for_itself(self, key: str) -> None:
        await self.ctx.runtime.get(Concert, self.ctx.object_id, once=key).book("itself")

    @handler
    def open(self, left: int) -> None:
        self.left = left


class Card(DurableObject):
    charged: int = 0

    @handler
    def charge(self, amount: int) -> int:
        self.charged += amount
        return self.charged

    @handler(readonly=True)
    def total(self) -> int:
        return self.charged


started: Any
go_on: anyio.Event


class Unsure(ForwardingStorage):
    """A storage whose commits and look-ups of once-keys fail as the test says."""

    def __init__(self) -> None:
        super().__init__(MemoryStorage())
        self.before = 0
        """So many commits fail, and are not applied."""
        self.after = 0
        """So many commits are applied, and then fail."""
        self.looks = 0
        """So many look-ups fail."""
        self.blind = 0
        """So many look-ups find nothing, since they come before the commit of another runtime."""
        self.found: list[Sequence[OnceKey]] = []

    def open_writer(self) -> Writer:
        return _Writer(self, super().open_writer())

    def open_reader(self) -> Reader:
        return _Reader(self, super().open_reader())


class _Writer(ForwardingWriter):
    def __init__(self, unsure: Unsure, writer: Writer) -> None:
        super().__init__(writer)
        self.unsure = unsure

    def commit(self, batch: Sequence[Commit], now: int) -> Any:
        if self.unsure.before:
            self.unsure.before -= 1
            raise StorageFault("on purpose")
        stale = super().commit(batch, now)
        if self.unsure.after:
            self.unsure.after -= 1
            raise StorageFault("the outcome is unknown")
        return stale


class _Reader(ForwardingReader):
    def __init__(self, unsure: Unsure, reader: Reader) -> None:
        super().__init__(reader)
        self.unsure = unsure

    def find_once(self, keys: Sequence[OnceKey], now: int) -> list[OnceReply | None]:
        self.unsure.found.append(keys)
        if self.unsure.looks:
            self.unsure.looks -= 1
            raise StorageFault("on purpose")
        found = super().find_once(keys, now)
        if self.unsure.blind:
            self.unsure.blind -= 1
            return [None] * len(found)
        return found


@pytest.fixture
def storage() -> Unsure:
    return Unsure()


@pytest.fixture
async def runtime(storage: Unsure) -> AsyncIterator[DurableRuntime]:
    global started, go_on
    started, receive = anyio.create_memory_object_stream[str](10)
    go_on = anyio.Event()
    async with DurableRuntime(storage, objects=[Concert, Card], runner=InlineRunner) as runtime:
        yield runtime
    started.close()
    receive.close()


# --- one effect ----------------------------------------------------------------------------------


async def test_a_repeated_call_has_one_effect_and_the_first_reply(runtime: DurableRuntime) -> None:
    first = await runtime.get(Concert, "jazz", once="k").book("ada")
    assert first == Seat(1, "ada")
    assert await runtime.get(Concert, "jazz", once="k").book("ada") == first
    assert await runtime.call(Concert, "jazz", "book", "ada", once="k") == first
    assert await Concert.names("jazz") == ["ada"]


async def test_keys_are_those_of_one_object(runtime: DurableRuntime) -> None:
    for object_id in ("jazz", "rock"):
        assert await runtime.get(Concert, object_id, once="k").book("ada") == Seat(1, "ada")


async def test_another_process_finds_the_reply(storage: Unsure) -> None:
    for _ in range(2):
        async with DurableRuntime(storage, objects=[Concert], runner=InlineRunner) as runtime:
            assert await runtime.get(Concert, "jazz", once="k").book("ada") == Seat(1, "ada")
            assert await Concert.names("jazz") == ["ada"]


async def ended(outcome: Outcome[T]) -> T:
    """The reply of a call beside the test."""
    await outcome.wait()
    return outcome.value


async def test_calls_at_the_same_time_join_and_each_has_a_reply_of_its_own(
    runtime: DurableRuntime, storage: Unsure
) -> None:
    async with calls() as group:
        found = [group.start(runtime.get(Concert, "jazz", once="k").any, [1]) for _ in range(10)]
    values = [each.value for each in found]
    assert values == [[1]] * 10
    assert len({id(value) for value in values}) == 10
    assert storage.found == [[OnceKey(ObjectKey("Concert", "jazz"), "k")]]


async def test_look_ups_of_calls_at_the_same_time_are_one_read(
    runtime: DurableRuntime, storage: Unsure
) -> None:
    async with calls() as group:
        for number in range(20):
            group.start(runtime.get(Concert, f"{number}", once="k").book, "ada")
    assert len(storage.found) <= 2
    assert sum(map(len, storage.found)) == 20


async def test_the_key_belongs_to_one_handler_with_its_arguments(runtime: DurableRuntime) -> None:
    await runtime.get(Concert, "jazz", once="k").book("ada")
    with pytest.raises(OnceKeyReused, match="the same handler with other arguments"):
        await runtime.get(Concert, "jazz", once="k").book("bob")
    with pytest.raises(OnceKeyReused, match="a call of book"):
        await runtime.get(Concert, "jazz", once="k").any("ada")
    assert await Concert.names("jazz") == ["ada"]


async def test_arguments_count_as_they_are_given_and_by_name(runtime: DurableRuntime) -> None:
    await runtime.get(Concert, "jazz", once="k").book("ada")
    assert await runtime.get(Concert, "jazz", once="k").book(name="ada") == Seat(1, "ada")
    with pytest.raises(OnceKeyReused):
        await runtime.get(Concert, "jazz", once="k").book("ada", 1)
    await runtime.get(Concert, "jazz", once="any").any({"a": 1, "b": 2})
    assert await runtime.get(Concert, "jazz", once="any").any({"b": 2, "a": 1}) == {"a": 1, "b": 2}


async def test_a_turn_that_raises_stores_nothing(runtime: DurableRuntime) -> None:
    for _ in range(2):
        with pytest.raises(SoldOut):
            await runtime.get(Concert, "jazz", once="k").book("ada", 4)
    await Concert.open("jazz", 9)
    assert await runtime.get(Concert, "jazz", once="k").book("ada", 4) == Seat(1, "ada")


async def test_the_key_survives_its_object(runtime: DurableRuntime) -> None:
    await Concert.open("jazz", 7)
    assert await runtime.get(Concert, "jazz", once="k").leave() == 7
    assert await runtime.get(Concert, "jazz", once="k").leave() == 7
    assert await Concert.names("jazz") == []


async def test_a_reply_without_changes_is_stored_as_well(
    runtime: DurableRuntime, storage: Unsure
) -> None:
    assert await runtime.get(Concert, "jazz", once="k").any(1) == 1
    assert len(storage.open_reader().list_once(None, 10)) == 1


# --- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["", "a\0b", "x" * 513, 7, b"k"])
async def test_keys_that_cannot_be_any(runtime: DurableRuntime, key: Any) -> None:
    with pytest.raises(InvalidOnceKey, match=r"once-key of book on Concert\('jazz'\)"):
        await runtime.get(Concert, "jazz", once=key).book("ada")
    assert await Concert.names("jazz") == []


async def test_a_readonly_handler_takes_none(runtime: DurableRuntime) -> None:
    with pytest.raises(InvalidOnceKey, match="read-only and changes nothing"):
        await runtime.get(Concert, "jazz", once="k").names()


async def test_arguments_that_do_not_fit(runtime: DurableRuntime) -> None:
    concert: Any = runtime.get(Concert, "jazz", once="k")
    with pytest.raises(ArgumentError, match="missing a required argument: 'name'"):
        await concert.book()
    with pytest.raises(ArgumentError, match="count"):
        await concert.book("ada", "two")


async def test_a_large_reply_is_refused_and_its_turn_undone(runtime: DurableRuntime) -> None:
    assert len(await runtime.get(Concert, "jazz", once="k").large(60_000)) == 60_000
    with pytest.raises(ReplyError, match=r"over the limit of 65,536 of a reply under a once-key"):
        await runtime.get(Concert, "rock", once="k").large(70_000)
    assert await Concert.names("rock") == []
    assert not await runtime.exists(Concert, "rock")


async def test_a_turn_with_a_key_cannot_commit_a_part(runtime: DurableRuntime) -> None:
    with pytest.raises(CommitRefused, match="has a once-key"):
        await runtime.get(Concert, "jazz", once="k").commit()


async def test_a_handle_with_a_key_is_for_one_call(runtime: DurableRuntime) -> None:
    concert = runtime.get(Concert, "jazz", once="k")
    assert concert != runtime.get(Concert, "jazz", once="k")
    assert len({concert, runtime.get(Concert, "jazz")}) == 2
    assert repr(concert) == "<handle of Concert('jazz') with the once-key 'k'>"
    with pytest.raises(TypeError, match="can't be pickled"):
        concert.__reduce__()


async def test_a_storage_without_messages_keeps_no_keys() -> None:
    class Without(ForwardingStorage):
        keeps_messages = False

    async with DurableRuntime(
        Without(MemoryStorage()), objects=[Concert], runner=InlineRunner
    ) as runtime:
        with pytest.raises(InvalidOnceKey, match="keeps no messages"):
            await runtime.get(Concert, "jazz", once="k").book("ada")


# --- repeats -------------------------------------------------------------------------------------


async def test_a_commit_of_unknown_outcome_is_looked_up(
    runtime: DurableRuntime, storage: Unsure
) -> None:
    storage.after = 1
    assert await runtime.get(Concert, "jazz", once="k").book("ada") == Seat(1, "ada")
    assert await Concert.names("jazz") == ["ada"]


async def test_a_commit_that_failed_is_made_again(runtime: DurableRuntime, storage: Unsure) -> None:
    storage.before = 3
    assert await runtime.get(Concert, "jazz", once="k").book("ada") == Seat(1, "ada")
    assert await Concert.names("jazz") == ["ada"]


async def test_a_failing_storage_is_tried_for_as_long_as_the_call_has(storage: Unsure) -> None:
    async with DurableRuntime(storage, objects=[Concert], runner=InlineRunner) as runtime:
        await runtime.ensure_started(Concert, "jazz")
        storage.before = 10**9
        with pytest.raises(PersistenceError, match="on purpose"):
            await runtime.get(Concert, "jazz", once="k", timeout=3).book("ada")
        assert storage.before < 10**9 - 3
        storage.before = 0


async def test_a_key_that_was_recorded_behind_the_look_is_found_by_the_next(
    storage: Unsure,
) -> None:
    async with DurableRuntime(storage, objects=[Concert], runner=InlineRunner) as runtime:
        await runtime.get(Concert, "jazz", once="k").book("ada")
    storage.blind = 1
    async with DurableRuntime(storage, objects=[Concert], runner=InlineRunner) as runtime:
        assert await runtime.get(Concert, "jazz", once="k").book("ada") == Seat(1, "ada")
        assert await Concert.names("jazz") == ["ada"]
        assert len(storage.found) == 3


# --- joining, leaving ----------------------------------------------------------------------------


async def test_the_last_caller_that_leaves_withdraws_the_call(runtime: DurableRuntime) -> None:
    async with calls() as group:
        busy = group.start(runtime.get(Concert, "jazz").book_slowly, "first")
        await anyio.wait_all_tasks_blocked()
        booked = [group.start(runtime.get(Concert, "jazz", once="k").book, "ada") for _ in "12"]
        await anyio.wait_all_tasks_blocked()
        for each in booked:
            each.cancel()
        await anyio.wait_all_tasks_blocked()
        go_on.set()
        await busy.wait()
    assert await Concert.names("jazz") == ["first"]


async def test_the_call_goes_on_while_another_caller_waits(runtime: DurableRuntime) -> None:
    async with calls() as group:
        group.start(runtime.get(Concert, "jazz").book_slowly, "first")
        await anyio.wait_all_tasks_blocked()
        first, second = [
            group.start(runtime.get(Concert, "jazz", once="k").book, "ada") for _ in "12"
        ]
        await anyio.wait_all_tasks_blocked()
        first.cancel()
        await anyio.wait_all_tasks_blocked()
        go_on.set()
        assert await ended(second) == Seat(2, "ada")


async def test_each_caller_has_its_own_timeout(runtime: DurableRuntime) -> None:
    async with calls() as group:
        slow = runtime.get(Concert, "jazz", once="k", timeout=None)
        patient = group.start(slow.book_slowly, "ada")
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(CallTimeout):
            await runtime.get(Concert, "jazz", once="k", timeout=2).book_slowly("ada")
        go_on.set()
        assert await ended(patient) == 1


async def test_each_caller_gets_the_error_of_the_turn(runtime: DurableRuntime) -> None:
    async with calls() as group:
        found = [
            group.start(runtime.get(Concert, "jazz", once="k").book_slowly, "nobody")
            for _ in range(3)
        ]
        await anyio.wait_all_tasks_blocked()
        go_on.set()
        errors = []
        for each in found:
            with pytest.raises(SoldOut) as caught:
                await ended(each)
            errors.append(caught.value)
    assert len({id(error) for error in errors}) == 3


async def test_a_join_that_closes_a_cycle_is_refused(runtime: DurableRuntime) -> None:
    with pytest.raises(CallCycle):
        await runtime.get(Concert, "jazz").wait_for_itself("k")


# --- keys of turns -------------------------------------------------------------------------------


async def test_a_turn_derives_keys_for_the_calls_that_it_makes(runtime: DurableRuntime) -> None:
    with pytest.raises(SoldOut):
        await runtime.get(Concert, "jazz", once="k").pay("c")
    await Concert.open("jazz", 2)
    key = await runtime.get(Concert, "jazz", once="k").pay("c")
    assert await Card.total("c") == 5
    await Concert.open("rock", 2)
    assert await runtime.get(Concert, "rock", once="k").pay("c") != key
    assert await Card.total("c") == 10


async def test_the_turn_of_a_message_has_keys_as_well(runtime: DurableRuntime) -> None:
    await Concert.open("jazz", 2)
    await runtime.send(Concert.pay, "jazz", "c")
    await runtime.settled(Concert, "jazz")
    assert await Card.total("c") == 5


async def test_other_turns_have_no_keys(runtime: DurableRuntime) -> None:
    with pytest.raises(NotInTurn, match="outside of a turn with a once-key or a message"):
        await Concert.pay("jazz", "c")


async def test_a_call_without_a_key_from_a_turn_with_one_is_warned_about(
    runtime: DurableRuntime, caplog: pytest.LogCaptureFixture
) -> None:
    await runtime.get(Concert, "jazz").pay_in_doubt("c")
    assert caplog.text == ""
    with caplog.at_level(logging.WARNING):
        await runtime.get(Concert, "jazz", once="k").pay_in_doubt("c")
    assert "Concert('jazz') has a once-key and calls charge on Card('c') without one" in caplog.text


# --- messages ------------------------------------------------------------------------------------


async def test_a_message_that_is_sent_again_with_its_key_is_the_same(
    runtime: DurableRuntime,
) -> None:
    ids = {await runtime.outgoing(once="k").send(Concert.book, "jazz", "ada") for _ in range(2)}
    assert len(ids) == 1
    await runtime.settled(Concert, "jazz")
    assert await runtime.outgoing(once="k").send(Concert.book, "jazz", "ada") in ids
    with pytest.raises(OnceKeyReused):
        await runtime.outgoing(once="k").send(Concert.book, "jazz", "bob")
    await runtime.settled(Concert, "jazz")
    assert await Concert.names("jazz") == ["ada"]


async def test_a_call_with_the_key_of_a_message_gets_its_result(runtime: DurableRuntime) -> None:
    await runtime.outgoing(once="k").send(Concert.book_slowly, "jazz", "ada")
    async with calls() as group:
        found = group.start(runtime.get(Concert, "jazz", once="k").book_slowly, "ada")
        await anyio.wait_all_tasks_blocked()
        assert not found.done
        go_on.set()
        assert await ended(found) == 1
    assert await runtime.get(Concert, "jazz", once="k").book_slowly("ada") == 1


async def test_a_call_with_the_key_of_a_dead_letter_says_so(runtime: DurableRuntime) -> None:
    sent = await runtime.outgoing(once="k").send(Concert.book_slowly, "jazz", "nobody")
    async with calls() as group:
        found = group.start(runtime.get(Concert, "jazz", once="k").book_slowly, "nobody")
        await anyio.wait_all_tasks_blocked()
        go_on.set()
        with pytest.raises(OnceMessageDied, match="SoldOut"):
            await ended(found)
    with pytest.raises(OnceMessageDied, match=f"retry_message\\('{sent}'\\)"):
        await runtime.get(Concert, "jazz", once="k").book_slowly("nobody")


async def test_a_message_is_refused_under_the_key_of_a_call(runtime: DurableRuntime) -> None:
    await runtime.get(Concert, "jazz", once="k").book("ada")
    with pytest.raises(OnceKeyReused, match="a call, which has run and was no message"):
        await runtime.outgoing(once="k").send(Concert.book, "jazz", "ada")


async def test_a_failed_commit_of_a_message_with_a_key_is_made_again(
    runtime: DurableRuntime, storage: Unsure
) -> None:
    for number, fault in enumerate(("before", "after")):
        setattr(storage, fault, 1)
        await runtime.outgoing(once=f"{number}").send(Concert.book, "jazz", f"{number}")
        await runtime.settled(Concert, "jazz")
    assert sorted(await Concert.names("jazz")) == ["0", "1"]


async def test_a_failed_commit_does_not_count_as_an_attempt(
    runtime: DurableRuntime, storage: Unsure
) -> None:
    await runtime.outgoing(once="k", after=5).send(Concert.book_slowly, "jazz", "ada")
    await runtime.ensure_started(Concert, "jazz")
    go_on.set()
    storage.before = 1  # its handler has one attempt
    await anyio.sleep(60)
    assert await runtime.list_dead_messages() == []
    assert await Concert.names("jazz") == ["ada"]


# --- releases ------------------------------------------------------------------------------------


async def test_a_reply_that_cannot_be_read_any_more(storage: Unsure) -> None:
    class Old(DurableObject, name="Thing"):
        @handler
        def make(self) -> str:
            return "seven"

    class New(DurableObject, name="Thing"):
        @handler
        def make(self) -> int:
            raise AssertionError

    async with DurableRuntime(storage, objects=[Old], runner=InlineRunner) as runtime:
        await runtime.get(Old, "a", once="k").make()
    async with DurableRuntime(storage, objects=[New], runner=InlineRunner) as runtime:
        with pytest.raises(OnceReplyUnreadable) as caught:
            await runtime.get(New, "a", once="k").make()
    assert caught.value.reply == '["seven"]'


async def test_arguments_of_another_release_are_not_compared(
    storage: Unsure, caplog: pytest.LogCaptureFixture
) -> None:
    class Old(DurableObject, name="Thing"):
        @handler
        def make(self, size: int) -> int:
            return size

    class New(DurableObject, name="Thing"):
        @handler
        def make(self, width: int, height: int = 1) -> int:
            raise AssertionError

    async with DurableRuntime(storage, objects=[Old], runner=InlineRunner) as runtime:
        await runtime.get(Old, "a", once="k").make(3)
    async with DurableRuntime(storage, objects=[New], runner=InlineRunner) as runtime:
        assert await runtime.get(New, "a", once="k").make(4, 5) == 3
    assert "the stored reply counts" in caplog.text


# --- expiry --------------------------------------------------------------------------------------


class Days(Clock):
    """A clock that the test moves."""

    may_jump = True

    def __init__(self) -> None:
        self.time = 10**15

    def now(self) -> int:
        return self.time


async def test_an_expired_key_counts_as_absent_and_is_removed_in_time(storage: Unsure) -> None:
    clock = Days()
    async with DurableRuntime(
        storage, objects=[Concert], clock=clock, runner=InlineRunner
    ) as runtime:
        await runtime.get(Concert, "jazz", once="k").book("ada")
        clock.time += 3600 * 10**6 - 1
        assert await runtime.get(Concert, "jazz", once="k").book("ada") == Seat(1, "ada")
        clock.time += 1
        assert await runtime.get(Concert, "jazz", once="k").book("ada") == Seat(2, "ada")
        clock.time += 3600 * 10**6
        assert len(storage.open_reader().list_once(None, 10)) == 1
        await anyio.sleep(3601)
        assert storage.open_reader().list_once(None, 10) == []
