"""A state machine over two objects of a drawn class: turns, failures, restarts, other storages.

The model of an object is a snapshot of its fields. After each step both objects are compared with
it, in memory or as they are loaded, so that the one which a step didn't name is seen as well.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import anyio
from cli.support import run
from hypothesis import assume
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from support.clock import VirtualTimeLoop

from trio_durable import DurableObject, DurableRuntime, InlineRunner

from .faults import Fault, changed, is_refused, raised
from .journey import Definition, Failed, described, do, look
from .oddities import RAN
from .property import drawn_definitions
from .raw import Uncopyable, copied, empty, mutables, wreck
from .snapshot import Snapshot, snapshot
from .storage import stored

T = TypeVar("T")
IDS = st.sampled_from("ab")
IDLE_SECONDS = 1000
"""Longer than objects stay in memory without a call."""


class Machine(RuleBasedStateMachine):
    """Objects on SQLite; a subclass may choose other storages."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = Path(tempfile.mkdtemp(prefix="td-exact-"))
        self._loop = VirtualTimeLoop()
        self._places = 0
        self._place = self.new_place()
        self._definition = Definition({}, {}, {})
        self._cls: type[DurableObject] = DurableObject
        self._runtime: DurableRuntime | None = None
        self._host: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()
        self._model: dict[str, Snapshot] = {}

    def new_place(self) -> str:
        """The path or URL of an empty storage."""
        self._places += 1
        return str(self._folder / f"{self._places}.db")

    # --- the runtime -----------------------------------------------------------------------------

    def _run(self, step: Coroutine[Any, Any, T]) -> T:
        return self._loop.run_until_complete(step)

    def _open(self) -> None:
        self._closing = asyncio.Event()
        opened = self._loop.create_future()

        async def host() -> None:
            runtime = DurableRuntime(
                self._place,
                objects=[self._cls],
                durability="normal",
                runner=InlineRunner,
                call_timeout=None,
            )
            try:
                async with runtime:
                    opened.set_result(runtime)
                    await self._closing.wait()
            except Exception as error:
                if opened.done():
                    raise
                opened.set_exception(error)

        self._host = self._loop.create_task(host())
        self._runtime = self._run(_result(opened))

    def _close(self) -> None:
        self._closing.set()
        if self._host is not None:
            self._run(_result(self._host))
        self._host = self._runtime = None

    @property
    def _is_open(self) -> bool:
        return self._runtime is not None

    @property
    def _open_runtime(self) -> DurableRuntime:
        assert self._runtime is not None
        return self._runtime

    def teardown(self) -> None:
        try:
            if self._is_open:
                self._close()
        finally:
            self._loop.close()
            shutil.rmtree(self._folder)

    # --- the model -------------------------------------------------------------------------------

    @initialize(definition=drawn_definitions())
    def begin(self, definition: Definition) -> None:
        """Other tests look at definitions that are refused, or aren't defined."""
        self._definition = definition
        try:
            self._cls = definition.define()
            self._open()
        except Exception:  # noqa: BLE001  # refused, or a fault of the definition alone
            assume(False)
        defaults = snapshot(list(definition.defaults.values()))
        self._model = dict.fromkeys("ab", defaults)

    @invariant()
    def both_are_as_in_the_model(self) -> None:
        if self._is_open:
            for object_id, wanted in self._model.items():
                self._compare(object_id, wanted)

    def _compare(self, object_id: str, wanted: Snapshot) -> None:
        RAN.clear()
        names = self._definition.fields
        try:
            found, _ = self._run(look(self._open_runtime, self._cls, object_id, names))
        except Exception as error:
            if is_refused(error):
                kind = "unreadable after acknowledged"
                raise Fault(kind, f"{self._definition.label}: {error}") from error
            raise raised("at read", error, self._definition.label) from error
        for (name, each), left, right in zip(names.items(), wanted[1], found[1], strict=True):
            if left != right:
                label = f"{name}: {described(each)} of {object_id!r}"
                raise changed("after a step", each.annotation, left, right, label)

    def _turn(self, object_id: str, job: Callable[[Any], Any]) -> bool:
        """Run a turn; False if it was refused or has failed."""
        try:
            self._run(do(self._open_runtime, self._cls, "do_the_job", object_id, job))
        except Failed:
            return False
        except Exception as error:  # a turn may raise anything
            if is_refused(error):
                return False
            raise raised("in a turn", error, self._definition.label) from error
        return True

    def _draw(self, data: st.DataObject) -> dict[str, Any]:
        values = {name: data.draw(each.values) for name, each in self._definition.fields.items()}
        try:
            return dict(copied(values))
        except Uncopyable:
            assume(False)
            raise AssertionError from None

    # --- steps -----------------------------------------------------------------------------------

    @precondition(lambda self: self._is_open)
    @rule(object_id=IDS, data=st.data(), fails=st.booleans())
    def assign(self, object_id: str, data: st.DataObject, fails: bool) -> None:
        values = self._draw(data)
        wanted = snapshot(list(values.values()))

        def assign(instance: Any) -> None:
            for name, value in values.items():
                setattr(instance, name, value)
            if fails:
                wreck(*values.values())
                raise Failed

        if self._turn(object_id, assign):
            self._model[object_id] = wanted

    @precondition(lambda self: self._is_open)
    @rule(object_id=IDS)
    def change_in_place(self, object_id: str) -> None:
        seen: list[Snapshot] = []

        def change(instance: Any) -> None:
            values = [stored(instance, name) for name in self._definition.fields]
            empty(*values)
            seen.append(snapshot(values))

        if self._turn(object_id, change):
            self._model[object_id] = seen[0]

    @precondition(lambda self: self._is_open)
    @rule(object_id=IDS)
    def fail_in_place(self, object_id: str) -> None:
        def fail(instance: Any) -> None:
            wreck(*(stored(instance, name) for name in self._definition.fields))
            raise Failed

        assert not self._turn(object_id, fail)

    @precondition(lambda self: self._is_open)
    @rule(object_id=IDS, data=st.data())
    def put(self, object_id: str, data: st.DataObject) -> None:
        values = self._draw(data)
        wanted = snapshot(list(values.values()))
        try:
            instance = self._cls()
            for name, value in values.items():
                setattr(instance, name, value)
            self._run(self._open_runtime.put_state(self._cls, object_id, instance))
        except Exception as error:  # a write may raise anything
            if not is_refused(error):
                raise raised("at write", error, self._definition.label) from error
        else:
            self._model[object_id] = wanted
        wreck(*values.values())

    @precondition(lambda self: self._is_open)
    @rule(object_id=IDS, data=st.data())
    def call(self, object_id: str, data: st.DataObject) -> None:
        """A handler changes its argument, and the caller the reply, which is the state."""
        value = next(iter(self._draw(data).values()))
        before = snapshot(value)
        name = next(iter(self._definition.fields))
        runtime, cls = self._open_runtime, self._cls
        try:
            self._run(do(runtime, cls, "reply_to_it", object_id, wreck, value))
            got = self._run(
                do(runtime, cls, "give_it", object_id, lambda instance: stored(instance, name))
            )
        except Exception as error:  # a call may raise anything
            if not is_refused(error):
                raise raised("in a call", error, self._definition.label) from error
            return
        if snapshot(value) != before and mutables(value):
            raise Fault("argument shared with the caller", self._definition.label)
        wreck(got)

    @precondition(lambda self: self._is_open)
    @rule(object_id=IDS)
    def delete(self, object_id: str) -> None:
        self._run(self._open_runtime.delete(self._cls, object_id))
        self._model[object_id] = snapshot(list(self._definition.defaults.values()))

    # --- leaving memory --------------------------------------------------------------------------

    @precondition(lambda self: self._is_open)
    @rule()
    def hibernate(self) -> None:
        self._run(_sleep(IDLE_SECONDS))
        runtime = self._open_runtime
        for object_id in self._model:
            info = runtime.whereis(self._cls, object_id)
            assert info is None or info.status == "hibernated"

    @precondition(lambda self: self._is_open)
    @rule(object_id=IDS)
    def stop(self, object_id: str) -> None:
        self._run(self._open_runtime.stop(self._cls, object_id))

    @precondition(lambda self: self._is_open)
    @rule()
    def reopen(self) -> None:
        self._close()
        self._open()

    @precondition(lambda self: self._is_open)
    @rule()
    def export_and_import(self) -> None:
        self._close()
        file = self._folder / f"{self._places}.jsonl"
        place = self.new_place()
        _command("export", "-s", self._place, str(file))
        _command("import", "-s", place, str(file))
        self._place = place
        self._open()

    @precondition(lambda self: self._is_open)
    @rule()
    def migrate(self) -> None:
        """All rows are copied to another storage."""
        self._close()
        place = self.new_place()
        _command("copy", self._place, place)
        self._place = place
        self._open()


def _command(*args: str) -> None:
    result = run(*args)
    assert result.exit_code == 0, result.output


async def _result(awaited: Any) -> Any:
    return await awaited


async def _sleep(seconds: float) -> None:
    await anyio.sleep(seconds)
