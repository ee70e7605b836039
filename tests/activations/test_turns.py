"""Turns: one at a time, in order, all or nothing, by value."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Iterator
from typing import Any

import anyio
import anyio.lowlevel
import attrs
import pytest
from support.clock import settle
from support.runtimes import scripted_runtime
from support.scripted import ScriptedStorage
from support.tasks import calls

from trio_durable import (
    ArgumentError,
    Context,
    DurableObject,
    DurableRuntime,
    HandlerCancelled,
    NotInTurn,
    ReadonlyViolation,
    ReplyError,
    StateEncodeError,
    StateTooLarge,
    UnknownHandler,
    handler,
)

pytestmark = pytest.mark.anyio

person: contextvars.ContextVar[str] = contextvars.ContextVar("person", default="nobody")


class Uncopyable:
    def __deepcopy__(self, memo: object) -> Uncopyable:
        raise RuntimeError("there is one of me")


class Notebook(DurableObject):
    """An object with nested mutable state and every way to fail."""

    count: int = 0
    lines: list[str] = attrs.field(factory=list)
    pages: dict[str, list[int]] = attrs.field(factory=dict)

    @handler
    def add(self, line: str) -> int:
        self.lines.append(line)
        return len(self.lines)

    @handler
    async def add_slowly(self, line: str, seconds: float = 1) -> int:
        before = list(self.lines)
        await anyio.sleep(seconds)
        assert self.lines == before, "another turn ran meanwhile"
        self.lines.append(line)
        return len(self.lines)

    @handler(readonly=True)
    def read(self) -> list[str]:
        return self.lines

    @handler
    def write_page(self, name: str, numbers: list[int]) -> dict[str, list[int]]:
        self.pages[name] = numbers
        return self.pages

    @handler(readonly=True)
    def read_pages(self) -> dict[str, list[int]]:
        return self.pages

    def spoil(self) -> None:
        self.count = -1
        self.lines.append("spoilt")
        self.pages.setdefault("spoilt", []).append(1)

    @handler
    def fail(self) -> None:
        self.spoil()
        raise KeyError("as raised")

    @handler
    async def fail_at_once(self) -> None:
        self.spoil()
        raise KeyError("as raised")

    @handler
    async def fail_later(self) -> None:
        self.spoil()
        await anyio.sleep(1)
        self.spoil()
        raise KeyError("as raised")

    @handler
    def fail_with_cause(self) -> None:
        raise ValueError("outer") from KeyError("inner")

    @handler
    def fail_in_except(self) -> None:
        try:
            raise KeyError("inner")
        except KeyError:
            raise ValueError("outer")  # noqa: B904 — the implicit context is the point

    @handler
    def type_error_inside(self) -> None:
        self.spoil()
        len(1)  # type: ignore[arg-type]

    @handler
    async def type_error_inside_async(self) -> None:
        self.spoil()
        len(1)  # type: ignore[arg-type]

    @handler
    def unencodable(self) -> None:
        self.spoil()
        self.count = "many"  # type: ignore[assignment]

    @handler
    async def unencodable_async(self) -> None:
        self.spoil()
        await anyio.sleep(1)
        self.count = "many"  # type: ignore[assignment]

    @handler
    def too_large(self) -> None:
        self.lines.append("x" * 100_000)

    @handler
    def uncopyable(self) -> object:
        self.spoil()
        return Uncopyable()

    @handler
    async def uncopyable_async(self) -> object:
        self.spoil()
        return [Uncopyable()]

    @handler
    def generator(self) -> Iterator[str]:
        self.spoil()
        return (line for line in self.lines)

    @handler
    def hand_itself_out(self) -> object:
        self.spoil()
        return self

    @handler(readonly=True)
    def readonly_change(self) -> None:
        self.spoil()

    @handler(readonly=True)
    async def readonly_change_async(self) -> None:
        self.spoil()
        await anyio.sleep(1)

    @handler(readonly=True)
    def readonly_delete(self) -> None:
        self.ctx.delete()

    @handler(readonly=True)
    async def readonly_commit(self) -> None:
        self.spoil()
        await self.ctx.commit()

    @handler
    def take_two(self, first: int, second: int = 2, *, third: int = 3) -> int:
        self.count += 1
        return first + second + third

    @handler
    async def take_two_async(self, first: int, second: int = 2, *, third: int = 3) -> int:
        self.count += 1
        return first + second + third

    @handler
    def greet(self) -> str:
        return person.get()

    @handler
    async def greet_later(self) -> str:
        await anyio.sleep(1)
        return person.get()

    @handler
    async def await_cancelled_future(self) -> None:
        self.spoil()
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    @handler
    async def cancel_own_task(self) -> None:
        self.spoil()
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await anyio.sleep(1)

    @handler
    def result_of_cancelled_future(self) -> None:
        self.spoil()
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        future.result()

    @handler
    async def call_itself_as_method(self) -> int:
        await self.add("by the way")
        return self.add.function("directly")


FAILURES: list[tuple[str, type[Exception]]] = [
    ("fail", KeyError),
    ("fail_at_once", KeyError),
    ("fail_later", KeyError),
    ("type_error_inside", TypeError),
    ("type_error_inside_async", TypeError),
    ("unencodable", StateEncodeError),
    ("unencodable_async", StateEncodeError),
    ("uncopyable", ReplyError),
    ("uncopyable_async", ReplyError),
    ("generator", ReplyError),
    ("hand_itself_out", ReplyError),
    ("readonly_change", ReadonlyViolation),
    ("readonly_change_async", ReadonlyViolation),
    ("readonly_commit", ReadonlyViolation),
    ("readonly_delete", ReadonlyViolation),
]


# --- one at a time, in order ---------------------------------------------------------------------


async def test_turns_run_in_arrival_order_whatever_their_kind() -> None:
    async with DurableRuntime(":memory:") as runtime, calls() as group:
        notebook = runtime.get(Notebook, "a")
        outcomes = []
        for number in range(9):
            kind = notebook.add_slowly if number % 3 == 0 else notebook.add
            outcomes.append(group.start(kind, str(number)))
            await settle()
        await anyio.sleep(10)
        assert [outcome.value for outcome in outcomes] == list(range(1, 10))
        assert await notebook.read() == [str(number) for number in range(9)]


async def test_turns_of_different_objects_run_side_by_side() -> None:
    async with DurableRuntime(":memory:") as runtime, calls() as group:
        start = anyio.current_time()
        for name in "abc":
            group.start(runtime.get(Notebook, name).add_slowly, "line", 3)
        await anyio.lowlevel.checkpoint()
        await settle()
        assert runtime.statistics().busy == 3
        await runtime.get(Notebook, "a").add("behind")
        assert anyio.current_time() - start == pytest.approx(3, abs=0.1)


async def test_a_turn_runs_to_its_end_though_its_caller_is_cancelled() -> None:
    storage = ScriptedStorage()
    async with scripted_runtime(storage) as runtime, calls() as group:
        notebook = runtime.get(Notebook, "a")
        outcome = group.start(notebook.add_slowly, "kept", 2)
        await anyio.sleep(1)
        outcome.cancel()
        await settle()
        assert outcome.done
        assert storage.rows() == {}
        assert await notebook.read() == ["kept"]
        assert storage.rows() == {"a": b'{"count":0,"lines":["kept"],"pages":{},"$as":{}}'}


@pytest.mark.parametrize("kind", ["add", "add_slowly"])
async def test_a_call_that_is_cancelled_while_queued_never_runs(kind: str) -> None:
    async with DurableRuntime(":memory:") as runtime, calls() as group:
        notebook = runtime.get(Notebook, "a")
        group.start(notebook.add_slowly, "first", 2)
        await anyio.sleep(1)
        queued = group.start(runtime.call, Notebook, "a", kind, "cancelled")
        last = group.start(notebook.add, "last")
        await settle()
        queued.cancel()
        await settle()
        info = runtime.whereis(Notebook, "a")
        assert info is not None
        assert info.mailbox_depth == 1
        await anyio.sleep(5)
        assert last.value == 2
        assert await notebook.read() == ["first", "last"]


async def test_a_call_that_is_cancelled_while_its_object_loads_never_runs() -> None:
    storage = ScriptedStorage()
    async with scripted_runtime(storage) as runtime, calls() as group:
        notebook = runtime.get(Notebook, "a")
        with storage.held("reader"):
            outcome = group.start(notebook.add, "cancelled")
            await settle()
            outcome.cancel()
            await settle()
        assert await notebook.read() == []


# --- all or nothing ------------------------------------------------------------------------------


@pytest.mark.parametrize(("failing", "error"), FAILURES)
@pytest.mark.parametrize("queued", [False, True], ids=["idle", "queued"])
async def test_a_failed_turn_changes_nothing(
    failing: str, error: type[Exception], queued: bool
) -> None:
    storage = ScriptedStorage()
    async with scripted_runtime(storage) as runtime, calls() as group:
        notebook = runtime.get(Notebook, "a")
        await notebook.add("kept")
        await notebook.write_page("kept", [1])
        commits = storage.commits
        if queued:
            group.start(runtime.get(Notebook, "a").add_slowly, "first")
            await settle()
            commits += 1
        with pytest.raises(error) as caught:
            await runtime.call(Notebook, "a", failing)
        assert type(caught.value) is error
        assert await notebook.read_pages() == {"kept": [1]}
        assert await notebook.read() == (["kept", "first"] if queued else ["kept"])
        assert (await runtime.get_state(Notebook, "a")).count == 0
        assert storage.commits == commits
        assert await notebook.add("serves on") == (3 if queued else 2)


@pytest.mark.parametrize("failing", ["fail", "fail_at_once", "fail_later"])
async def test_the_exception_arrives_as_it_was_raised_with_a_note(failing: str) -> None:
    async with DurableRuntime(":memory:") as runtime:
        with pytest.raises(KeyError) as caught:
            await runtime.call(Notebook, "a", failing)
        assert caught.value.args == ("as raised",)
        (note,) = caught.value.__notes__
        assert failing in note
        assert "Notebook('a')" in note
        assert "rolled back" in note


async def test_a_cause_stays_with_its_exception() -> None:
    async with DurableRuntime(":memory:") as runtime:
        notebook = runtime.get(Notebook, "a")
        for _ in range(2):  # first queued behind the load, then on the spot
            with pytest.raises(ValueError, match="outer") as caught:
                await notebook.fail_with_cause()
            assert isinstance(caught.value.__cause__, KeyError)


async def test_an_implicit_context_stays_visible() -> None:
    async with DurableRuntime(":memory:") as runtime:
        with pytest.raises(ValueError, match="outer") as caught:
            await runtime.get(Notebook, "a").fail_in_except()
        assert isinstance(caught.value.__context__, KeyError)
        assert not caught.value.__suppress_context__


BAD_CALLS: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((), {}),
    ((1, 2, 3), {}),
    ((1,), {"unknown": 1}),
    ((1,), {"first": 1}),
]


@pytest.mark.parametrize(("args", "kwargs"), BAD_CALLS)
@pytest.mark.parametrize("name", ["take_two", "take_two_async"])
async def test_wrong_arguments_are_told_and_nothing_ran(
    name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    async with DurableRuntime(":memory:") as runtime:
        for _ in range(2):
            with pytest.raises(ArgumentError) as caught:
                await runtime.call(Notebook, "a", name, *args, **kwargs)
            assert (caught.value.handler, caught.value.key.object_id) == (name, "a")
            assert "first" in str(caught.value)
        assert (await runtime.get_state(Notebook, "a")).count == 0
        assert await runtime.call(Notebook, "a", name, 1, third=1) == 4


async def test_an_argument_that_cannot_be_copied_is_told() -> None:
    async with DurableRuntime(":memory:") as runtime:
        for argument in (Uncopyable(), [Uncopyable()], (n for n in "abc")):
            with pytest.raises(ArgumentError, match="by value"):
                await runtime.call(Notebook, "a", "add", argument)
        with pytest.raises(ArgumentError, match="by value"):
            await runtime.call(Notebook, "a", "add", line=Uncopyable())
        assert await runtime.get(Notebook, "a").read() == []


async def test_state_that_is_too_large_is_rolled_back() -> None:
    async with DurableRuntime(":memory:", max_state_size=1000) as runtime:
        notebook = runtime.get(Notebook, "a")
        await notebook.add("kept")
        with pytest.raises(StateTooLarge) as caught:
            await notebook.too_large()
        assert caught.value.limit == 1000
        assert caught.value.size > 100_000
        assert await notebook.read() == ["kept"]


async def test_an_instance_that_failed_is_detached() -> None:
    leaked: list[Escaping] = []

    class Escaping(DurableObject):
        count: int = 0

        @handler
        def escape(self) -> None:
            leaked.append(self)
            raise KeyError

        @handler
        def increment(self) -> int:
            self.count += 1
            return self.count

    async with DurableRuntime(":memory:") as runtime:
        escaping = runtime.get(Escaping, "a")
        with pytest.raises(KeyError):
            await escaping.escape()
        leaked[0].count = 17
        assert await escaping.increment() == 1
        with pytest.raises(NotInTurn):
            _ = leaked[0].ctx


async def test_a_context_that_was_kept_is_of_no_use_in_another_turn() -> None:
    kept: list[Context] = []

    class Keeper(DurableObject):
        count: int = 0

        @handler
        def keep(self) -> None:
            kept.append(self.ctx)

        @handler
        async def fail_later(self) -> None:
            self.count = 17
            await anyio.sleep(1)
            raise KeyError

    async with DurableRuntime(":memory:") as runtime, calls() as group:
        keeper = runtime.get(Keeper, "a")
        await keeper.keep()
        outcome = group.start(keeper.fail_later)
        await settle()
        with pytest.raises(NotInTurn):
            await kept[0].commit()
        await outcome.wait()
        assert (await runtime.get_state(Keeper, "a")).count == 0


async def test_unknown_handlers_are_told() -> None:
    async with DurableRuntime(":memory:") as runtime:
        for name in ("nothing", "count", "spoil", "after_load", "__init__"):
            with pytest.raises(UnknownHandler) as caught:
                await runtime.call(Notebook, "a", name)
            assert "add" in caught.value.known
        assert runtime.count_objects() == 0


async def test_a_handler_may_use_another_as_a_method() -> None:
    async with DurableRuntime(":memory:") as runtime:
        notebook = runtime.get(Notebook, "a")
        assert await notebook.call_itself_as_method() == 2
        assert await notebook.read() == ["by the way", "directly"]


# --- cancelled from within -----------------------------------------------------------------------


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
@pytest.mark.parametrize("name", ["await_cancelled_future", "cancel_own_task"])
async def test_a_cancellation_inside_a_handler_stays_inside(name: str) -> None:
    reached = False
    async with DurableRuntime(":memory:", call_timeout=None) as runtime, calls() as group:
        notebook = runtime.get(Notebook, "a")
        await notebook.add("kept")
        outcome = group.start(runtime.call, Notebook, "a", name)
        behind = group.start(notebook.add, "behind")
        await settle()
        assert isinstance(outcome.error, HandlerCancelled)
        assert behind.value == 2
        # The object's worker lives on, and isn't in any way half cancelled.
        assert await notebook.add_slowly("later", 0.01) == 3
        reached = True
    assert reached, "the runtime ended without an error"


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
@pytest.mark.parametrize(
    "state",
    [
        "idle",
        "loading",
        "busy",
    ],
)
async def test_a_def_handler_that_raises_a_cancellation_harms_nobody(state: str) -> None:
    reached = False
    with anyio.fail_after(1):
        async with DurableRuntime(":memory:", call_timeout=None) as runtime, calls() as group:
            notebook = runtime.get(Notebook, "a")
            if state != "loading":
                await notebook.add("kept")
            if state == "busy":
                group.start(notebook.add_slowly, "first", 0.01)
                await settle()
            outcome = group.start(notebook.result_of_cancelled_future)
            await anyio.sleep(0.1)
            assert isinstance(outcome.error, HandlerCancelled)
            # Neither a load nor another turn of the same object is out of order.
            assert await runtime.get(Notebook, "b").add("line") == 1
            assert "spoilt" not in await notebook.read()
            reached = True
    assert reached, "the runtime ended without an error"


# --- by value ------------------------------------------------------------------------------------


async def test_arguments_are_copied() -> None:
    async with DurableRuntime(":memory:") as runtime:
        notebook = runtime.get(Notebook, "a")
        for numbers in ([1, 2], [3, 4]):  # behind the load, and on the spot
            await notebook.write_page("page", numbers)
            numbers.append(99)
            assert await notebook.read_pages() == {"page": numbers[:2]}


async def test_arguments_are_copied_when_the_call_is_made_not_when_it_runs() -> None:
    async with DurableRuntime(":memory:") as runtime, calls() as group:
        notebook = runtime.get(Notebook, "a")
        group.start(notebook.add_slowly, "first", 2)
        await settle()
        numbers = [1]
        group.start(notebook.write_page, "page", numbers=numbers)
        await settle()
        numbers.append(99)
        await anyio.sleep(3)
        assert await notebook.read_pages() == {"page": [1]}


async def test_replies_are_copied() -> None:
    async with DurableRuntime(":memory:") as runtime:
        notebook = runtime.get(Notebook, "a")
        for number in range(2):
            reply = await notebook.write_page("page", [number])
            reply["page"].append(99)
            reply["other"] = []
            assert await notebook.read_pages() == {"page": [number]}
            (await notebook.read_pages())["page"].clear()
            assert await notebook.read_pages() == {"page": [number]}


async def test_states_are_copied_in_and_out() -> None:
    async with DurableRuntime(":memory:") as runtime:
        notebook = runtime.get(Notebook, "a")
        given = Notebook(lines=["one"], pages={"page": [1]})
        await runtime.put_state(Notebook, "a", given)
        given.lines.append("two")
        given.pages["page"].append(2)
        assert await notebook.read_pages() == {"page": [1]}
        taken = await runtime.get_state(Notebook, "a")
        taken.pages["page"].append(3)
        taken.count = 17
        assert await notebook.read_pages() == {"page": [1]}
        assert (await runtime.get_state(Notebook, "a")).count == 0


async def test_a_state_put_while_queued_is_as_it_was_given() -> None:
    async with DurableRuntime(":memory:") as runtime, calls() as group:
        notebook = runtime.get(Notebook, "a")
        group.start(notebook.add_slowly, "first", 2)
        await settle()
        given = Notebook(lines=["given"])
        group.start(runtime.put_state, Notebook, "a", given)
        await settle()
        given.lines.append("later")
        await anyio.sleep(3)
        assert await notebook.read() == ["given"]


# --- context variables ---------------------------------------------------------------------------


async def test_handlers_see_their_callers_context_variables() -> None:
    async with DurableRuntime(":memory:") as runtime, calls() as group:
        notebook = runtime.get(Notebook, "a")
        outcomes = []
        for name in ("ann", "bob", "cid"):
            token = person.set(name)
            outcomes.append(group.start(notebook.greet_later))
            outcomes.append(group.start(notebook.greet))
            person.reset(token)
        await anyio.sleep(5)
        assert [outcome.value for outcome in outcomes] == ["ann", "ann", "bob", "bob", "cid", "cid"]
        assert await notebook.greet() == "nobody"
