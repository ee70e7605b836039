"""The journey of a value: every way in which state is written, read, copied and rolled back.

`Journey.go` takes a definition and values of its fields, and raises a `Fault` unless each step is
exact, or refused by an error of the library.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

import attrs

from trio_durable import DurableObject, DurableRuntime, Objects, handler

from .drawn_types import Typed
from .faults import Fault, changed, is_refused, raised, show
from .oddities import RAN
from .raw import copied, empty, mutables, wreck
from .snapshot import Sharing, Snapshot, sharing, snapshot
from .storage import stored
from .workbench import Workbench, durable, single, workbench

JOBS: dict[int, Callable[[Any], Any]] = {}
"""Functions that turns run, by number: a number is all that a call has to copy."""
_numbers = itertools.count()


class Failed(Exception):
    """Raised by a turn, to be rolled back."""


class Worker(DurableObject):
    """Handlers for drawn classes: their names must not be those of drawn fields."""

    @handler
    def do_the_job(self, number: int) -> None:
        JOBS[number](self)

    @handler(readonly=True)
    def look_at_it(self, number: int) -> None:
        JOBS[number](self)

    @handler
    def reply_to_it(self, number: int, value: object) -> object:
        return JOBS[number](value)

    @handler(readonly=True)
    def give_it(self, number: int) -> object:
        return JOBS[number](self)


@attrs.define
class Definition:
    """Fields of a durable class, their defaults, and values."""

    fields: dict[str, Typed]
    defaults: dict[str, Any]
    values: dict[str, Any]
    label: str = ""

    def __attrs_post_init__(self) -> None:
        self.label = ", ".join(f"{name}: {described(each)}" for name, each in self.fields.items())

    def define(self, name: str = "") -> type[DurableObject]:
        """The class.

        Raises:
            DurableError: It is refused.
        """
        fields: Mapping[str, tuple[Any, Callable[[], object]]] = {
            field: (each.annotation, self._default(field)) for field, each in self.fields.items()
        }
        return durable(fields, bases=(Worker,), name=name)

    def _default(self, field: str) -> Callable[[], object]:
        default = self.defaults[field]
        return lambda: copied(default)


def described(each: Typed) -> str:
    """A type as text, with the oddities of a class."""
    annotation = each.annotation
    text = annotation.__name__ if type(annotation) is type else repr(annotation)
    for module in ("tests.exactness.", "exactness.", "definitions.", "drawn_types.", "typing."):
        text = text.replace(module, "")
    note = f" ({each.note})" if each.note else ""
    return f"{text}{note}"[:300]


def stored_fields(instance: Any, definition: Definition) -> dict[str, Any]:
    """The values in the storage of a durable object."""
    return {name: stored(instance, name) for name in definition.fields}


class Journey:
    """The steps with one definition, over one runtime."""

    def __init__(self, definition: Definition, cls: type[DurableObject], bench: Workbench) -> None:
        self._definition = definition
        self._cls = cls
        self._bench = bench
        self.faults: list[Fault] = []

    @property
    def _runtime(self) -> DurableRuntime:
        return self._bench.runtime

    @classmethod
    async def go(cls, definition: Definition) -> str:
        """Take all steps; the result says how far they led.

        Raises:
            Fault: A step was neither exact nor refused.
        """
        kind = define(definition)
        if isinstance(kind, str):
            return f"refused at definition: {kind}"
        try:
            async with workbench(None, kind, call_timeout=None) as bench:
                journey = cls(definition, kind, bench)
                try:
                    return await journey.steps()
                except Fault as fault:
                    fault.others = journey.faults[1:]
                    raise
        except Exception as error:
            if isinstance(error, Fault):
                raise
            if is_refused(error):
                return f"refused at definition: {single(error)}"
            raise raised("at opening", error, definition.label) from error

    async def steps(self) -> str:
        """Take all steps."""
        values = self._definition.values
        wanted = snapshot(list(values.values()))
        await self._step(self.defaults)
        written = False
        try:
            written = await self.put(wanted)
        except Fault as fault:
            self.faults.append(fault)
        if written:
            await self._steps(wanted)
        elif not self.faults:
            await self._step(self.refused_turn)
        if self.faults:
            raise self.faults[0]
        return "exact" if written else "refused at write"

    async def _steps(self, wanted: Snapshot) -> None:
        values = self._definition.values.values()
        found = len(self.faults)
        await self._step(self.same_after, wanted, "after put_state and a load", "a")
        if snapshot(list(values)) != wanted:
            self.faults.append(Fault("value changed while it was written", self._shown(wanted)))
        if len(self.faults) > found:
            return  # all other steps would find it again
        await self._step(self.turn, wanted)
        await self._step(self.failed_turn, wanted)
        await self._step(self.readers, wanted)
        await self._step(self.calls)
        await self._step(self.gifts, wanted)
        wreck(*values)  # from here on the values are others
        where = "after a change by the writer"
        await self._step(self.same_after, wanted, where, "a", "mutated by the writer")

    async def _step(self, step: Callable[..., Awaitable[None]], *arguments: Any) -> None:
        try:
            await step(*arguments)
        except Fault as fault:
            self.faults.append(fault)

    def _shown(self, wanted: Snapshot) -> str:
        return f"{self._definition.label} = {show(wanted[1])}"

    # --- writing and reading ---------------------------------------------------------------------

    async def put(self, wanted: Snapshot) -> bool:
        """Write the values with put_state; False if they are refused."""
        try:
            # Field by field: attrs ignores the argument of a field that is called NOTHING.
            instance = self._cls()
            for name, value in self._definition.values.items():
                setattr(instance, name, value)
        except Exception as error:  # an assignment may be refused
            if is_refused(error):
                return False
            raise raised("at construction", error, self._shown(wanted)) from error
        try:
            await self._runtime.put_state(self._cls, "a", instance)
        except Exception as error:  # a write may raise anything
            if is_refused(error):
                return False
            raise raised("at write", error, self._shown(wanted)) from error
        return True

    async def same_after(
        self, wanted: Snapshot, where: str, object_id: str, kind: str = ""
    ) -> None:
        """Compare the state in memory, and as it is loaded, with ``wanted``."""
        for loads in (False, True):
            if loads:
                await self._runtime.stop(self._cls, object_id)
            RAN.clear()
            try:
                await self._runtime.ensure_started(self._cls, object_id)
                got = await self._runtime.get_state(self._cls, object_id)
            except Exception as error:  # a read may raise anything
                if is_refused(error):
                    raise Fault(
                        "unreadable after acknowledged", f"{self._shown(wanted)}: {error}"
                    ) from error
                raise raised("at read", error, self._shown(wanted)) from error
            found = snapshot(list(stored_fields(got, self._definition).values()))
            if found == wanted:
                continue
            if kind:
                raise Fault(kind, f"{self._shown(wanted)} {where}")
            raise self._changed(where, wanted, found)

    def _changed(self, where: str, wanted: Snapshot, found: Snapshot) -> Fault:
        for (name, each), left, right in zip(
            self._definition.fields.items(), wanted[1], found[1], strict=True
        ):
            if left != right:
                label = f"{name}: {described(each)}"
                return changed(where, each.annotation, left, right, label)
        raise AssertionError

    async def _look(self, object_id: str) -> tuple[Snapshot, Sharing]:
        """The state of the live instance, and the sharing in it."""
        return await look(self._runtime, self._cls, object_id, self._definition.fields)

    async def _do(
        self, name: str, object_id: str, job: Callable[[Any], Any], *arguments: Any
    ) -> Any:
        return await do(self._runtime, self._cls, name, object_id, job, *arguments)

    # --- turns -----------------------------------------------------------------------------------

    async def turn(self, wanted: Snapshot) -> None:
        """A turn that assigns the values to another object."""
        values = copied(self._definition.values)

        def assign(instance: Any) -> None:
            for name, value in values.items():
                setattr(instance, name, value)

        try:
            await self._do("do_the_job", "b", assign)
        except Exception as error:
            if is_refused(error):
                raise Fault(
                    "put_state takes what a turn refuses", f"{self._shown(wanted)}: {error}"
                ) from error
            raise raised("in a turn", error, self._shown(wanted)) from error
        live, shared = await self._look("b")
        if live != wanted:
            raise self._changed("after a turn, in memory", wanted, live)
        await self._runtime.stop(self._cls, "b")
        loaded, apart = await self._look("b")
        if loaded != wanted:
            raise self._changed("after a turn and a load", wanted, loaded)
        if shared != apart:
            raise Fault(
                "shared reference split",
                f"{self._shown(wanted)}: shared in memory {sorted(shared)[:2]}, loaded "
                f"{sorted(apart)[:2]}",
            )
        if apart:
            raise Fault("shared reference kept", self._shown(wanted))

    async def refused_turn(self) -> None:
        """A turn that assigns values which put_state refused: it leaves no trace."""
        before, _ = await self._look("b")

        def assign(instance: Any) -> None:
            for name, value in self._definition.values.items():
                setattr(instance, name, value)

        try:
            await self._do("do_the_job", "b", assign)
        except Exception as error:  # a turn may raise anything
            if not is_refused(error):
                raise raised("in a turn", error, self._definition.label) from error
        else:
            raise Fault("a turn takes what put_state refuses", self._definition.label)
        after, _ = await self._look("b")
        if after != before:
            raise self._changed("after a refused turn", before, after)

    async def failed_turn(self, wanted: Snapshot) -> None:
        """A turn that changes everything in place, and raises."""
        await self._fail("a")
        found, _ = await self._look("a")
        if found != wanted:
            raise Fault("failed turn left changes", self._shown(wanted))
        await self.same_after(wanted, "after a failed turn", "a")

    async def _fail(self, object_id: str) -> None:
        def fail(instance: Any) -> None:
            wreck(*stored_fields(instance, self._definition).values())
            raise Failed

        try:
            await self._do("do_the_job", object_id, fail)
        except Failed:
            return
        except Exception as error:
            if is_refused(error):
                raise Fault("refused what was acknowledged", f"{self._definition.label}") from error
            raise raised("in a turn", error, self._definition.label) from error

    # --- objects apart ---------------------------------------------------------------------------

    async def defaults(self) -> None:
        """New objects have their defaults, whatever is done with another one."""
        wanted = snapshot(list(self._definition.defaults.values()))
        first, _ = await self._look("c")
        if first != wanted:
            raise self._changed("as a default", wanted, first)
        await self._fail("c")

        def clear(instance: Any) -> None:
            empty(*stored_fields(instance, self._definition).values())

        try:
            await self._do("do_the_job", "d", clear)
        except Exception as error:  # the type may not hold an empty one
            if not is_refused(error):
                raise raised("in a turn", error, self._definition.label) from error
        for object_id in "ce":
            found, _ = await self._look(object_id)
            if found != wanted:
                raise Fault("default shared", f"{self._definition.label} in {object_id!r}")

    async def readers(self, wanted: Snapshot) -> None:
        """The result of get_state shares nothing with the state."""
        await self._runtime.ensure_started(self._cls, "a")
        got = await self._runtime.get_state(self._cls, "a")
        wreck(*stored_fields(got, self._definition).values())
        await self.same_after(wanted, "after a change by a reader", "a", "mutated by a reader")

    # --- calls -----------------------------------------------------------------------------------

    async def calls(self) -> None:
        """Arguments and replies are copies: exact, and sharing nothing."""
        for name, value in self._definition.values.items():
            seen: list[Any] = []

            def reply(argument: Any, seen: list[Any] = seen) -> Any:
                seen.append(argument)
                return argument

            label = f"{name}: {described(self._definition.fields[name])}"
            before = snapshot(value)
            annotation = self._definition.fields[name].annotation
            RAN.clear()
            try:
                got = await self._do("reply_to_it", "a", reply, value)
            except Exception as error:  # a call may raise anything
                if is_refused(error):
                    continue
                raise raised("in a call", error, label) from error
            for where, found in (("argument", seen[0]), ("reply", got)):
                if snapshot(found) != before:
                    fault = changed(f"as {where}", annotation, before, snapshot(found), label)
                    raise Fault(f"{where} changed by its copy: {fault.kind}", fault.detail)
            if mutables(value).keys() & mutables(seen[0]).keys():
                raise Fault("argument shared with the caller", label)
            if mutables(got).keys() & mutables(seen[0]).keys():
                raise Fault("reply shared with the object", label)

    async def gifts(self, wanted: Snapshot) -> None:
        """A reply that is the state itself."""
        for name, each in self._definition.fields.items():
            live: list[Any] = []

            def give(instance: Any, name: str = name, live: list[Any] = live) -> Any:
                live.append(stored(instance, name))
                return live[0]

            label = f"{name}: {described(each)}"
            try:
                got = await self._do("give_it", "a", give)
            except Exception as error:  # a call may raise anything
                if is_refused(error):
                    continue
                raise raised("in a call", error, label) from error
            if mutables(got).keys() & mutables(live[0]).keys():
                raise Fault("reply shares state", label)
            wreck(got)
        found, _ = await self._look("a")
        if found != wanted:
            raise Fault("reply shares state", self._shown(wanted))


async def do(
    runtime: Objects,
    cls: type[DurableObject],
    name: str,
    object_id: str,
    job: Callable[[Any], Any],
    *arguments: Any,
) -> Any:
    """Let a handler of `Worker` run a function."""
    number = next(_numbers)
    JOBS[number] = job
    try:
        return await runtime.call(cls, object_id, name, number, *arguments)
    finally:
        del JOBS[number]


async def look(
    runtime: Objects, cls: type[DurableObject], object_id: str, names: Iterable[str]
) -> tuple[Snapshot, Sharing]:
    """The fields of a live instance, and the sharing in them, seen by a readonly turn."""
    found: list[Any] = []

    def read(instance: Any) -> None:
        values = [stored(instance, name) for name in names]
        found.extend((snapshot(values), sharing(values)))

    await do(runtime, cls, "look_at_it", object_id, read)
    return found[0], found[1]


def define(definition: Definition) -> type[DurableObject] | str:
    """The class; the reason if it is refused, and refused again, and its name is free.

    Raises:
        Fault: It isn't refused by name, or leaves a trace.
    """
    try:
        return definition.define()
    except Exception as error:  # a definition may raise anything
        if not is_refused(error):
            raise raised("at definition", error, definition.label) from error
        reason = str(error)
    try:
        definition.define()
    except Exception as error:  # a definition may raise anything
        if not is_refused(error):
            raise raised("at a second definition", error, definition.label) from error
        return reason
    raise Fault("a refused definition left a trace", definition.label)
