"""Class bodies: what they may hold, what becomes of it, and what is refused."""

from __future__ import annotations

import abc
import copy
import functools
import gc
import inspect
import pickle
import sys
import types
import typing
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, TypeVar

import attrs
import pytest
import trio

from trio_durable import (
    Alarm,
    AlarmDefinition,
    DefinitionError,
    DurableObject,
    DurableRuntime,
    NotInTurn,
    ObjectKey,
    Retry,
    UpgradeDefinition,
    alarm,
    definition_of,
    handler,
    upgrade,
)
from trio_durable._api.durable_object import known_definitions, resolved_fields
from trio_durable._durations import UNSET

R = TypeVar("R")

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Counter(DurableObject):
    """Counts."""

    STEP = 1
    limit: ClassVar[int] = 100

    count: int = 0
    title: str | None = None
    history: list[int] = attrs.field(factory=list)
    _secret: str = "s"

    @handler
    def increment(self, by: int = 1) -> int:
        """Add to the count."""
        self.count += by * self.STEP
        return self.count

    @handler(readonly=True)
    async def describe(self, *, loud: bool = False) -> str:
        await trio.lowlevel.checkpoint()
        return str(self.count)

    def helper(self) -> int:
        return self.count


def run(coroutine: Coroutine[Any, Any, R]) -> R:
    async def main() -> R:
        return await coroutine

    return trio.run(main)


# --- fields --------------------------------------------------------------------------------------


def test_annotated_names_are_the_fields() -> None:
    fields = definition_of(Counter).fields
    assert list(fields) == ["count", "title", "history", "_secret"]
    assert [field.type for field in fields.values()] == [int, str | None, list[int], str]
    assert fields["count"].default == 0
    assert fields["history"].default == attrs.Factory(list)


def test_constants_are_no_fields() -> None:
    assert Counter.STEP == 1
    assert Counter.limit == 100
    assert attrs.fields_dict(Counter).keys() == {"count", "title", "history", "_secret"}


def test_instances_start_from_the_defaults() -> None:
    first, second = Counter(), Counter()
    assert (first.count, first.title, first.history, first._secret) == (0, None, [], "s")
    assert first.history is not second.history
    assert definition_of(Counter).default_state() == first


def test_private_fields_keep_their_name_as_argument() -> None:
    assert Counter(_secret="x")._secret == "x"
    with pytest.raises(TypeError):
        Counter(secret="x")  # type: ignore[call-arg]


def test_fields_are_keyword_only() -> None:
    with pytest.raises(TypeError):
        Counter(3)  # type: ignore[call-arg]


def test_attrs_field_with_all_it_has() -> None:
    class Rich(DurableObject):
        positive: int = attrs.field(default=1, validator=attrs.validators.gt(0))
        text: str = attrs.field(default="", converter=str.strip)
        made: list[int] = attrs.field(
            default=attrs.Factory(lambda self: [self.positive], takes_self=True)
        )
        plain: str = attrs.field(default="p", repr=False, eq=False)

    assert Rich(positive=2, text=" a ") == Rich(positive=2, text="a", plain="other")
    assert Rich(positive=3).made == [3]
    assert "plain" not in repr(Rich())
    with pytest.raises(ValueError, match="positive"):
        Rich(positive=0)


def test_a_class_without_anything() -> None:
    class Empty(DurableObject):
        pass

    assert definition_of(Empty).fields == {}
    assert definition_of(Empty).handlers == {}
    assert Empty() == Empty()


@pytest.mark.parametrize("future", ["from __future__ import annotations\n", ""])
def test_annotations_as_text_and_as_objects(future: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("annotated")
    # Annotations that are text are resolved in the module of the class.
    monkeypatch.setitem(sys.modules, module.__name__, module)
    namespace = vars(module)
    source = """
import typing as t
from typing import ClassVar, Final, Optional
import typing
from trio_durable import DurableObject, handler

class Annotated(DurableObject):
    a: int = 0
    b: Optional["int"] = None
    c: "str" = ""
    d: ClassVar[int] = 1
    e: typing.ClassVar[int] = 2
    f: t.ClassVar = 3
    g: "ClassVar[int]" = 4

    @handler
    def work(self, value: "int") -> "str":
        return str(value)
"""
    # dont_inherit: this module's own future import would make both the same.
    exec(compile(future + source, "annotated.py", "exec", dont_inherit=True), namespace)
    fields = definition_of(namespace["Annotated"]).fields
    assert [(field.name, field.type) for field in fields.values()] == [
        ("a", int),
        ("b", int | None),
        ("c", str),
    ]
    assert namespace["Annotated"](a=1).a == 1


def test_classes_inside_functions() -> None:
    class Local(DurableObject):
        values: list[Counter] = attrs.field(factory=list)

        @handler
        def work(self) -> None: ...

    definition = definition_of(Local)
    assert definition.name == "test_classes_inside_functions.<locals>.Local"
    assert definition.fields["values"].type == list[Counter]


def test_annotations_that_cannot_be_resolved() -> None:
    class Broken(DurableObject):
        items: list[Missing] = attrs.field(factory=list)  # type: ignore[name-defined] # noqa: F821

    for look in (lambda: definition_of(Broken).fields, lambda: resolved_fields(Broken)):
        with pytest.raises(DefinitionError) as caught:
            look()
        assert caught.value.cls == Broken.__qualname__
        assert "Missing" in str(caught.value)
        assert "module level" in caught.value.problem


def test_annotations_that_cannot_be_resolved_name_the_field() -> None:
    class Broken(DurableObject):
        items: list[Missing] = attrs.field(factory=list)  # type: ignore[name-defined] # noqa: F821

    with pytest.raises(DefinitionError) as caught:
        resolved_fields(Broken)
    assert caught.value.member == "items"


# --- class keywords ------------------------------------------------------------------------------


def test_options_without_keywords() -> None:
    options = definition_of(Counter).options
    assert options.hibernate_after == 300.0
    assert options.shutdown_after is None
    assert options.call_timeout is UNSET
    assert options.mailbox_size == 1024
    assert definition_of(Counter).name == "Counter"


def test_durations_are_timedeltas_or_seconds() -> None:
    class Timed(
        DurableObject,
        name="timed",
        hibernate_after=timedelta(minutes=1),
        shutdown_after=90,
        call_timeout=2.5,
        mailbox_size=1,
    ):
        pass

    definition = definition_of(Timed)
    assert definition.name == "timed"
    assert definition.options.hibernate_after == 60.0
    assert definition.options.shutdown_after == 90.0
    assert definition.options.call_timeout == 2.5
    assert definition.options.mailbox_size == 1


def test_none_stands_for_never() -> None:
    class Patient(DurableObject, hibernate_after=None, shutdown_after=None, call_timeout=None):
        pass

    options = definition_of(Patient).options
    assert (options.hibernate_after, options.shutdown_after, options.call_timeout) == (None,) * 3


def test_options_are_inherited_one_by_one_but_the_name_is_not() -> None:
    class Base(DurableObject, name="base", hibernate_after=1, shutdown_after=2, mailbox_size=3):
        pass

    class Sub(Base, shutdown_after=20):
        pass

    class Third(Sub, hibernate_after=None):
        pass

    options = definition_of(Sub).options
    assert (options.hibernate_after, options.shutdown_after, options.mailbox_size) == (1, 20, 3)
    assert definition_of(Sub).name == Sub.__qualname__
    options = definition_of(Third).options
    assert (options.hibernate_after, options.shutdown_after, options.mailbox_size) == (None, 20, 3)
    assert definition_of(Base).options.shutdown_after == 2


def test_options_come_from_all_bases() -> None:
    class Short(DurableObject, hibernate_after=1):
        pass

    class Small(DurableObject, mailbox_size=3):
        pass

    class Both(Short, Small):
        pass

    options = definition_of(Both).options
    assert (options.hibernate_after, options.mailbox_size) == (1, 3)


def test_the_first_base_wins() -> None:
    class One(DurableObject, hibernate_after=1):
        pass

    class Two(DurableObject, hibernate_after=2):
        pass

    class Both(One, Two):
        pass

    assert definition_of(Both).options.hibernate_after == 1


def test_keywords_of_other_bases_pass_through() -> None:
    class Plugin:
        colour: ClassVar[str]

        def __init_subclass__(cls, *, colour: str = "none", **kwargs: object) -> None:
            super().__init_subclass__(**kwargs)
            cls.colour = colour

    class Painted(Plugin, DurableObject, hibernate_after=1, colour="blue"):
        pass

    assert Painted.colour == "blue"
    assert definition_of(Painted).options.hibernate_after == 1


def test_what_other_bases_set_on_the_class() -> None:
    class Plugin:
        colour: ClassVar[str]

        def __init_subclass__(cls, **kwargs: object) -> None:
            super().__init_subclass__(**kwargs)
            cls.colour = "red"

    class Painted(DurableObject, Plugin):
        pass

    assert Painted.colour == "red"


# --- handlers ------------------------------------------------------------------------------------


def test_handlers_in_the_definition() -> None:
    handlers = definition_of(Counter).handlers
    assert list(handlers) == ["increment", "describe"]
    increment, describe = handlers["increment"], handlers["describe"]
    assert (increment.name, increment.readonly, increment.is_async) == ("increment", False, False)
    assert (describe.name, describe.readonly, describe.is_async) == ("describe", True, True)
    assert list(increment.signature.parameters) == ["by"]
    assert list(describe.signature.parameters) == ["loud"]
    assert increment.function(Counter(count=3), 4) == 7
    with pytest.raises(TypeError):
        handlers["other"] = increment  # type: ignore[index]


def test_handlers_on_a_detached_instance() -> None:
    counter = Counter()
    assert run(counter.increment(2)) == 2
    assert run(counter.increment(by=3)) == 5
    assert run(counter.describe()) == "5"
    assert counter.increment.function(1) == 6
    assert counter.helper() == 6


def test_clients_and_bound_handlers_say_what_they_are() -> None:
    assert repr(Counter.increment) == "<client of Counter.increment>"
    assert repr(Counter().increment) == "<handler Counter.increment>"
    assert Counter.increment.__doc__ == "Add to the count."
    assert Counter.__doc__ == "Counts."


def test_docstrings_reach_the_tools() -> None:
    assert inspect.getdoc(Counter.increment) == "Add to the count."
    assert definition_of(Counter).handlers["increment"].function.__doc__ == "Add to the count."


def logged(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def inner(*args: Any, **kwargs: Any) -> Any:
        return ("logged", function(*args, **kwargs))

    return inner


def test_decorated_handlers() -> None:
    def awaited(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        async def inner(*args: Any, **kwargs: Any) -> Any:
            return ("awaited", await function(*args, **kwargs))

        return inner

    class Decorated(DurableObject):
        total: int = 0

        @handler
        @logged
        def add(self, amount: int) -> int:
            """Add up."""
            return amount

        @handler(readonly=True)
        @awaited
        async def shown(self) -> str:
            return "x"

        @handler
        @logged
        async def hidden(self) -> str:
            return "async behind a def"

    handlers = definition_of(Decorated).handlers
    assert list(handlers["add"].signature.parameters) == ["amount"]
    assert handlers["add"].function.__doc__ == "Add up."
    assert not handlers["add"].is_async
    assert handlers["shown"].is_async
    assert run(Decorated().add(3)) == ("logged", 3)
    assert run(Decorated().shown()) == ("awaited", "x")


def test_handlers_with_every_kind_of_parameter() -> None:
    class Wide(DurableObject):
        @handler
        def work(self, a: int, /, b: int = 2, *rest: int, c: int, **more: int) -> list[Any]:
            return [a, b, rest, c, more]

        @handler
        def any(*everything: Any) -> int:
            return len(everything)

        @handler
        def positional(self, /) -> str:
            return "x"

    assert run(Wide().work(1, 2, 3, c=4, d=5)) == [1, 2, (3,), 4, {"d": 5}]
    assert str(definition_of(Wide).handlers["work"].signature.replace(return_annotation=list)) == (
        "(a: 'int', /, b: 'int' = 2, *rest: 'int', c: 'int', **more: 'int') -> list"
    )
    assert str(definition_of(Wide).handlers["positional"].signature) == "() -> 'str'"


def test_the_signature_of_a_handler_that_takes_self_among_args() -> None:
    class Wide(DurableObject):
        @handler
        def work(*everything: int) -> int:
            return len(everything)

    assert list(definition_of(Wide).handlers["work"].signature.parameters) == ["everything"]


def test_one_handler_under_two_names() -> None:
    class Twice(DurableObject):
        @handler
        def first(self) -> str:
            return "x"

        second = first

    assert definition_of(Twice).handlers.keys() == {"first", "second"}
    for name, found in definition_of(Twice).handlers.items():
        assert found.name == name


def test_plain_methods_properties_and_friends_may_stay() -> None:
    class Free(DurableObject):
        count: int = 0

        class Inner:
            pass

        def method(self) -> int:
            return self.count

        async def coroutine(self) -> int:
            return self.count

        @property
        def doubled(self) -> int:
            return self.count * 2

        @functools.cached_property
        def cached(self) -> int:
            return 1

        @staticmethod
        def static() -> str:
            return "static"

        @classmethod
        def make(cls) -> Free:
            return cls(count=7)

        part = functools.partialmethod(method)

        def __len__(self) -> int:
            return self.count

        def __attrs_post_init__(self) -> None:
            self.count += 1

    free = Free.make()
    assert (free.count, free.doubled, free.method(), Free.static(), len(free)) == (
        8,
        16,
        8,
        "static",
        8,
    )
    assert definition_of(Free).handlers == {}


@pytest.mark.parametrize("is_async", [False, True])
def test_after_load(is_async: bool) -> None:
    def plain(self: object) -> None: ...

    async def coroutine(self: object) -> None: ...

    cls = typing.cast(
        "type[DurableObject]",
        type("Loads", (DurableObject,), {"after_load": coroutine if is_async else plain}),
    )
    assert definition_of(cls).has_after_load
    assert definition_of(cls).after_load_is_async is is_async
    assert not definition_of(Counter).has_after_load


def test_the_inherited_after_load_can_be_awaited_and_dropped() -> None:
    async def main() -> None:
        awaited = Counter().after_load()
        assert awaited is not None
        await awaited

    Counter().after_load()
    gc.collect()
    trio.run(main)


# --- inheritance ---------------------------------------------------------------------------------


class Loud(Counter):
    volume: int = 11
    count: int = 5

    @handler
    def increment(self, by: int = 1) -> int:
        return super().increment.function(by) * 100

    @handler(readonly=True)
    async def describe(self, *, loud: bool = True) -> str:
        return (await super().describe(loud=loud)) + "!"


def test_fields_are_inherited_and_defaults_overridden() -> None:
    assert set(definition_of(Loud).fields) == {"count", "title", "history", "_secret", "volume"}
    assert Loud().count == 5
    assert Counter().count == 0
    assert definition_of(Loud).fields["count"].default == 5


def test_overridden_handlers_reach_those_they_replace() -> None:
    loud = Loud(count=1)
    assert run(loud.increment(2)) == 300
    assert loud.count == 3
    assert run(loud.describe()) == "3!"
    assert definition_of(Loud).handlers["increment"].function is not (
        definition_of(Counter).handlers["increment"].function
    )
    assert repr(Loud.increment) == "<client of Loud.increment>"


def test_inherited_handlers_belong_to_the_subclass() -> None:
    class Quiet(Counter):
        pass

    assert definition_of(Quiet).handlers == definition_of(Counter).handlers
    assert repr(Quiet.increment) == f"<client of {Quiet.__qualname__}.increment>"
    assert run(Quiet().increment()) == 1


def test_an_override_decides_anew_about_readonly_and_async() -> None:
    class Other(Counter):
        @handler(readonly=True)
        async def increment(self, by: int = 1) -> int:  # type: ignore[override]
            return by

    found = definition_of(Other).handlers["increment"]
    assert found.readonly
    assert found.is_async
    assert not definition_of(Counter).handlers["increment"].readonly


class Shape(DurableObject, abc.ABC):
    scale: float = 1.0

    @handler
    @abc.abstractmethod
    def area(self) -> float: ...

    @handler
    @abc.abstractmethod
    async def outline(self) -> float: ...

    @handler
    def scaled(self) -> float:
        return self.area.function() * self.scale


class Square(Shape):
    side: float = 2.0

    @handler
    def area(self) -> float:
        return self.side**2

    @handler
    async def outline(self) -> float:
        return self.side * 4


def test_abstract_bases() -> None:
    assert definition_of(Shape).is_abstract
    assert Shape.__abstractmethods__ == {"area", "outline"}
    assert not definition_of(Square).is_abstract
    assert Square.__abstractmethods__ == frozenset()
    assert run(Square(scale=2.0).scaled()) == 8.0
    assert not definition_of(Counter).is_abstract
    with pytest.raises(TypeError, match="abstract"):
        Shape()  # type: ignore[abstract]


def test_half_abstract_classes_stay_abstract() -> None:
    class Half(Shape):
        @handler
        def area(self) -> float:
            return 1.0

    assert definition_of(Half).is_abstract
    assert Half.__abstractmethods__ == {"outline"}


class Audited(DurableObject):
    audit: list[str] = attrs.field(factory=list)

    @handler
    def note(self, text: str) -> str:
        self.audit.append(text)
        return "audited"


class Priced(DurableObject):
    price: int = 1

    @handler(readonly=True)
    def cost(self) -> int:
        return self.price

    @handler
    def note(self, text: str) -> str:
        return "priced"


class Tagged:
    """An ordinary class, with a field, a constant and a handler."""

    tags: list[str] = attrs.field(factory=list)
    kind: ClassVar[str] = "tagged"
    mode: str = "m"

    @handler
    def tag(self, text: str) -> list[str]:
        self.tags.append(text)
        return self.tags


@attrs.define(slots=False, kw_only=True)
class Stamped:
    """A mixin that is an attrs class already."""

    stamp: int = 3


def test_mixins_that_are_durable_objects() -> None:
    class Item(Audited, Priced):
        name: str = ""

    assert set(definition_of(Item).fields) == {"name", "audit", "price"}
    assert set(definition_of(Item).handlers) == {"note", "cost"}
    item = Item(name="x", price=3)
    assert run(item.note("a")) == "audited"
    assert run(item.cost()) == 3
    assert item.audit == ["a"]


def test_plain_mixins() -> None:
    class Item(Tagged, DurableObject):
        name: str = ""

    class Other(DurableObject, Tagged):
        pass

    for cls in (Item, Other):
        assert {"tags", "mode"} <= set(definition_of(cls).fields)
        assert "kind" not in definition_of(cls).fields
        assert set(definition_of(cls).handlers) == {"tag"}
        first, second = cls(), cls()
        assert run(first.tag("a")) == ["a"]
        assert (first.tags, second.tags, first.mode) == (["a"], [], "m")


def test_mixins_that_are_attrs_classes() -> None:
    class Item(Stamped, DurableObject):  # type: ignore[misc]
        name: str = ""

    assert set(definition_of(Item).fields) == {"stamp", "name"}
    assert Item(stamp=4).stamp == 4  # type: ignore[call-arg]


def test_all_kinds_of_mixins_at_once() -> None:
    class Everything(Audited, Tagged, Priced, Stamped, hibernate_after=1):
        price: int = 7

        @handler
        def note(self, text: str) -> str:
            return super().note.function(text) + "!"

    assert set(definition_of(Everything).fields) == {"audit", "tags", "mode", "price", "stamp"}
    assert Everything().price == 7
    assert run(Everything().note("x")) == "audited!"

    class Sub(Everything):
        tags: list[str] = attrs.field(factory=lambda: ["default"])

    assert Sub().tags == ["default"]
    assert Everything().tags == []


def test_fields_follow_the_method_resolution_order() -> None:
    class Left(DurableObject):
        value: str = "left"

    class Right(DurableObject):
        value: str = "right"

    class Both(Left, Right):
        pass

    assert Both().value == "left"
    assert definition_of(Both).fields["value"].default == "left"


def test_super_through_a_diamond() -> None:
    class Base(DurableObject):
        @handler
        def path(self) -> list[str]:
            return ["base"]

        @handler
        async def walk(self) -> list[str]:
            return ["base"]

    class Left(Base):
        @handler
        def path(self) -> list[str]:
            return ["left", *super().path.function()]

        @handler
        async def walk(self) -> list[str]:
            return ["left", *await super().walk()]

    class Right(Base):
        @handler
        def path(self) -> list[str]:
            return ["right", *super().path.function()]

        @handler
        async def walk(self) -> list[str]:
            return ["right", *await super().walk()]

    class Both(Left, Right):
        pass

    assert run(Both().path()) == run(Both().walk()) == ["left", "right", "base"]


def test_handlers_follow_the_method_resolution_order() -> None:
    class Right(Audited):
        @handler
        def note(self, text: str) -> str:
            return "right"

    class Left(Audited):
        pass

    class Both(Left, Right):
        pass

    assert run(Both().note("x")) == "right"
    assert definition_of(Both).handlers["note"].function(Both(), "x") == "right"


# --- alarms --------------------------------------------------------------------------------------


class Reminder(DurableObject):
    """Has an alarm of each kind."""

    rung: int = 0

    @alarm
    def ring(self) -> None:
        """Ring."""
        self.rung += 1

    @alarm(retry=Retry(initial=1, attempts=3))
    async def ring_slowly(self) -> None:
        await trio.lowlevel.checkpoint()
        self.rung += 10

    @alarm()
    def ring_quietly(self, volume: int = 0, *more: int, **named: int) -> int:
        return volume

    @handler
    def ring_now(self) -> int:
        self.ring()
        return self.rung

    @handler
    async def ring_slowly_now(self) -> int:
        await self.ring_slowly()
        return self.rung


def test_alarms_are_defined_by_their_names() -> None:
    alarms = definition_of(Reminder).alarms
    assert list(alarms) == ["ring", "ring_slowly", "ring_quietly"]
    assert all(type(each) is AlarmDefinition for each in alarms.values())
    assert [each.name for each in alarms.values()] == list(alarms)
    assert [each.is_async for each in alarms.values()] == [False, True, False]
    assert not any(each.readonly for each in alarms.values())
    assert alarms["ring"].function is Reminder.ring
    assert str(alarms["ring"].signature) == "() -> 'None'"


def test_alarms_say_how_they_are_retried() -> None:
    alarms = definition_of(Reminder).alarms
    assert alarms["ring"].retry == alarms["ring_quietly"].retry == Retry()
    assert alarms["ring_slowly"].retry == Retry(initial=1, attempts=3)


def test_alarms_are_no_handlers_and_handlers_no_alarms() -> None:
    definition = definition_of(Reminder)
    assert list(definition.handlers) == ["ring_now", "ring_slowly_now"]
    assert not definition.alarms.keys() & definition.handlers.keys()
    with pytest.raises(TypeError):
        definition.alarms["ring"] = definition.alarms["ring_slowly"]  # type: ignore[index]


def test_a_class_without_alarms() -> None:
    assert definition_of(Counter).alarms == {}
    assert definition_of(Counter).handle_alarm is None


def test_an_alarm_is_a_plain_method_too() -> None:
    reminder = Reminder()
    reminder.ring()
    assert reminder.rung == 1
    assert Reminder.ring.__doc__ == "Ring."
    assert Reminder.ring.__name__ == "ring"
    assert reminder.ring_quietly() == 0
    run(reminder.ring_slowly())
    assert reminder.rung == 11


def test_handlers_call_alarms_as_plain_methods() -> None:
    assert run(Reminder().ring_now()) == 1
    assert run(Reminder().ring_slowly_now()) == 10

    async def main() -> tuple[int, int]:
        async with DurableRuntime(":memory:", objects=[Reminder]) as runtime:
            reminder = runtime.get(Reminder, "r")
            return await reminder.ring_now(), await reminder.ring_slowly_now()

    assert trio.run(main) == (1, 11)


def test_alarms_are_inherited() -> None:
    class Quiet(Reminder):
        pass

    assert definition_of(Quiet).alarms == definition_of(Reminder).alarms


def test_an_override_decides_anew_about_retry_and_async() -> None:
    class Louder(Reminder):
        @alarm(retry=Retry(attempts=1))
        async def ring(self) -> None:  # type: ignore[override]
            super().ring()
            self.rung += 100

        @alarm
        async def ring_slowly(self) -> None:
            await super().ring_slowly()

    alarms = definition_of(Louder).alarms
    assert list(alarms) == ["ring", "ring_slowly", "ring_quietly"]
    assert alarms["ring"].is_async
    assert alarms["ring"].retry == Retry(attempts=1)
    # Nothing of the options comes from what was replaced.
    assert alarms["ring_slowly"].retry == Retry()
    assert not definition_of(Reminder).alarms["ring"].is_async
    louder = Louder()
    run(louder.ring())
    assert louder.rung == 101


def test_alarms_follow_the_method_resolution_order() -> None:
    class First(DurableObject):
        @alarm(retry=Retry(attempts=1))
        def ring(self) -> None: ...

    class Second(DurableObject):
        @alarm(retry=Retry(attempts=2))
        def ring(self) -> None: ...

    class Both(First, Second):
        pass

    assert definition_of(Both).alarms["ring"].retry.attempts == 1
    assert definition_of(Both).alarms["ring"].function is Both.ring


class Nagging:
    """A plain mixin that brings an alarm and catches the others."""

    nagged: int = 0

    @alarm(retry=Retry(attempts=2))
    def nag(self) -> None:
        self.nagged += 1

    def handle_alarm(self, alarm: Alarm) -> None:
        self.nagged += 100


def test_alarms_of_plain_mixins() -> None:
    class Nagger(Nagging, Reminder):
        pass

    definition = definition_of(Nagger)
    assert definition.alarms.keys() == {"ring", "ring_slowly", "ring_quietly", "nag"}
    assert definition.alarms["nag"].retry.attempts == 2
    assert definition.handle_alarm is not None
    assert definition.handle_alarm.function is Nagging.handle_alarm
    assert "nagged" in definition.fields


def test_abstract_alarms() -> None:
    class Base(DurableObject, abc.ABC):
        @alarm
        @abc.abstractmethod
        def ring(self) -> None: ...

        @abc.abstractmethod
        @alarm
        def ring_again(self) -> None: ...

    class Half(Base):
        @alarm
        def ring(self) -> None: ...

    class Whole(Half):
        @alarm
        def ring_again(self) -> None: ...

    assert definition_of(Base).is_abstract
    assert definition_of(Half).is_abstract
    assert not definition_of(Whole).is_abstract
    assert definition_of(Base).alarms.keys() == definition_of(Whole).alarms.keys()
    with pytest.raises(TypeError, match="abstract"):
        Half()  # type: ignore[abstract]


def test_alarms_under_other_decorators() -> None:
    class Decorated(DurableObject):
        @alarm(retry=Retry(attempts=4))
        @logged
        def inside(self) -> str:
            return "inside"

        # What `functools.wraps` copies is the mark, too.
        @logged
        @alarm(retry=Retry(attempts=5))
        def outside(self) -> str:
            return "outside"

        in_short: ClassVar[Any] = alarm(lambda self: "in short")

    alarms = definition_of(Decorated).alarms
    assert {name: each.retry.attempts for name, each in alarms.items()} == {
        "inside": 4,
        "outside": 5,
        "in_short": None,
    }
    assert [each.function(Decorated()) for each in alarms.values()] == [
        ("logged", "inside"),
        ("logged", "outside"),
        "in short",
    ]


@pytest.mark.parametrize(
    ("body", "is_async"),
    [
        ("def handle_alarm(self, alarm): ...", False),
        ("async def handle_alarm(self, alarm): ...", True),
        ("def handle_alarm(self, which): ...", False),
        ("def handle_alarm(this, alarm, /): ...", False),
        ("def handle_alarm(self, alarm, *, loud=False): ...", False),
        ("def handle_alarm(self, *alarms): ...", False),
        ("def handle_alarm(*everything): ...", False),
    ],
)
def test_what_handles_alarms_of_other_names(body: str, is_async: bool) -> None:
    cls = define("Reminder", body)
    found = definition_of(cls).handle_alarm
    assert found is not None
    assert (found.name, found.is_async, found.retry) == ("handle_alarm", is_async, Retry())
    assert found.function is cls.handle_alarm
    assert "handle_alarm" not in definition_of(cls).alarms

    class Heir(cls):  # type: ignore[misc, valid-type]
        pass

    heirs = definition_of(Heir).handle_alarm
    assert heirs is not None
    assert heirs.function is found.function


def test_the_handle_alarm_that_every_class_has_does_nothing() -> None:
    async def main() -> None:
        given = Alarm(ObjectKey("Reminder", "r"), "x", due_at=EPOCH)
        reminder = Reminder()
        reminder.handle_alarm(given)  # dropped without a warning
        hook = reminder.handle_alarm(given)
        assert hook is not None
        await hook  # and it may be awaited, as an override's may

    trio.run(main)


# --- schemas and upgrades ------------------------------------------------------------------------


class Billed(DurableObject, schema=2):
    cents: int = 0

    @upgrade(from_schema=1)
    @staticmethod
    def to_cents(state: dict[str, Any]) -> dict[str, Any]:
        """Count cents."""
        state["cents"] = state.pop("price") * 100
        return state

    @handler
    def pay(self) -> None: ...


class Labelled(DurableObject, schema=2):
    label: str = ""

    @upgrade(from_schema=1)
    @staticmethod
    def to_label(state: dict[str, Any]) -> dict[str, Any]:
        return state


def test_a_class_has_schema_1_unless_it_says_otherwise() -> None:
    definition = definition_of(Counter)
    assert definition.schema == 1
    assert definition.upgrades == {}


def test_upgrades_in_the_definition() -> None:
    definition = definition_of(Billed)
    assert definition.schema == 2
    assert definition.upgrades == {1: UpgradeDefinition("to_cents", Billed.to_cents, 1)}
    assert definition.handlers.keys() == {"pay"}
    assert definition.fields.keys() == {"cents"}


def test_upgrades_are_listed_in_the_order_in_which_they_run() -> None:
    steps = [UPGRADE.format(number, f"from_{number}") for number in (3, 1, 4, 2)]
    definition = definition_of(define("DurableObject, schema=5", "".join(steps)))
    assert list(definition.upgrades) == [1, 2, 3, 4]
    assert [step.name for step in definition.upgrades.values()] == [
        "from_1",
        "from_2",
        "from_3",
        "from_4",
    ]


def test_an_upgrade_is_called_as_a_function() -> None:
    assert Billed.to_cents({"price": 3}) == {"cents": 300}
    assert Billed().to_cents({"price": 3}) == {"cents": 300}
    assert Billed.to_cents.__doc__ == "Count cents."


def test_upgrades_may_be_private_and_made_elsewhere() -> None:
    cls = define(
        "DurableObject, schema=3",
        UPGRADE.format(1, "_quiet") + "loud = upgrade(from_schema=2)(staticmethod(as_it_is))",
    )
    upgrades = definition_of(cls).upgrades
    assert [step.name for step in upgrades.values()] == ["_quiet", "loud"]
    assert upgrades[2].function is as_it_is


def as_it_is(state: dict[str, Any], note: str = "") -> dict[str, Any]:
    return state


def test_schema_and_upgrades_are_inherited_with_the_fields() -> None:
    # What a subclass has stored so far holds the base's fields in their older form, too.
    class Sub(Billed, hibernate_after=1):
        title: str = ""

    assert definition_of(Sub).schema == 2
    assert definition_of(Sub).upgrades == definition_of(Billed).upgrades


def test_a_subclass_counts_on_from_its_base() -> None:
    class Sub(Billed, schema=3):
        @upgrade(from_schema=2)
        @staticmethod
        def to_title(state: dict[str, Any]) -> dict[str, Any]:
            return state

    assert [step.name for step in definition_of(Sub).upgrades.values()] == ["to_cents", "to_title"]
    assert definition_of(Billed).schema == 2


def test_a_subclass_replaces_an_upgrade_under_its_name() -> None:
    class Sub(Billed):
        @upgrade(from_schema=1)
        @staticmethod
        def to_cents(state: dict[str, Any]) -> dict[str, Any]:
            return {**Billed.to_cents(state), "rounded": True}

    assert definition_of(Sub).upgrades[1].function({"price": 1}) == {"cents": 100, "rounded": True}


def test_two_bases_with_upgrades_are_put_in_a_row() -> None:
    class Both(Billed, Labelled, schema=3):
        @upgrade(from_schema=2)
        @staticmethod
        def to_label(state: dict[str, Any]) -> dict[str, Any]:
            return Labelled.to_label(state)

    assert [step.name for step in definition_of(Both).upgrades.values()] == ["to_cents", "to_label"]


def test_a_base_without_upgrades_beside_one_with() -> None:
    class Both(Counter, Billed):
        pass

    assert definition_of(Both).schema == 2


def test_upgrades_of_plain_mixins() -> None:
    class Renaming:
        @upgrade(from_schema=1)
        @staticmethod
        def rename(state: dict[str, Any]) -> dict[str, Any]:
            return state

    class Named(Renaming, DurableObject, schema=2):
        title: str = ""

    assert definition_of(Named).upgrades.keys() == {1}


# --- what is refused -----------------------------------------------------------------------------


WRONG_BODIES = {
    # Fields.
    "ctx: int = 0": ("ctx", "choose another name"),
    "ctx = 1": ("ctx", "choose another name"),
    "def ctx(self): ...": ("ctx", "choose another name"),
    "count: int": ("count", "needs a default"),
    "count: int = attrs.field()": ("count", "needs a default"),
    "count = 0": ("count", "count: int = …"),
    "count = attrs.field(default=0)": ("count", "annotate the field"),
    "_count = 0": ("_count", "_count: int = …"),
    "items: list[int] = []": ("items", "factory=list"),
    "items: dict[str, int] = {}": ("items", "factory=dict"),
    "items: set[int] = set()": ("items", "factory=set"),
    "items: bytearray = bytearray()": ("items", "factory=bytearray"),
    "items: list[int] = attrs.field(default=[1])": ("items", "factory=list"),
    "inner: Mutable = Mutable()": ("inner", "factory=Mutable"),
    "count: int = attrs.field(default=0, init=False)": ("count", "init=False"),
    "after_load: int = 0": ("after_load", "plain method"),
    "handle_alarm: int = 0": ("handle_alarm", "plain method"),
    # Handlers.
    "@handler\ndef ctx(self): ...": ("ctx", "choose another name"),
    "@handler\ndef after_load(self): ...": ("after_load", "plain method"),
    "@handler\nasync def after_load(self): ...": ("after_load", "plain method"),
    "@handler\ndef handle_alarm(self, alarm): ...": ("handle_alarm", "plain method"),
    "@handler\ndef _private(self): ...": ("_private", "a public name"),
    "@handler\ndef __len__(self): ...": ("__len__", "a public name"),
    "@handler\ndef __init__(self): ...": ("__init__", "after_load"),
    "@handler\ndef numbers(self):\n    yield 1": ("numbers", "return a list"),
    "@handler\nasync def numbers(self):\n    yield 1": ("numbers", "return a list"),
    "@handler(readonly=True)\nasync def numbers(self):\n    yield 1": ("numbers", "return a list"),
    "@handler\ndef work(): ...": ("work", "self first"),
    "@handler\ndef work(*, key): ...": ("work", "self first"),
    "@handler\ndef work(**all): ...": ("work", "self first"),
    "@handler\n@handler\ndef work(self): ...": ("work", "once"),
    "@handler\n@handler(readonly=True)\ndef work(self): ...": ("work", "once"),
    "@handler\n@staticmethod\ndef work(): ...": ("work", "def or async def"),
    "@handler\n@classmethod\ndef work(cls): ...": ("work", "def or async def"),
    "@handler\n@property\ndef work(self): ...": ("work", "def or async def"),
    "@handler\nclass work: ...": ("work", "def or async def"),
    "work = handler(len)": ("work", "def or async def"),
    "work = handler(functools.partial(print))": ("work", "def or async def"),
    # Python's own.
    "def __init__(self): ...": ("__init__", "after_load"),
    "def __new__(cls): ...": ("__new__", "after_load"),
    "def __setattr__(self, name, value): ...": ("__setattr__", "after_load"),
    "after_load = None": ("after_load", "plain method"),
    "@staticmethod\ndef after_load(): ...": ("after_load", "plain method"),
    "@property\ndef after_load(self): ...": ("after_load", "plain method"),
    # Alarms.
    "@alarm\ndef ctx(self): ...": ("ctx", "choose another name"),
    "@alarm\ndef after_load(self): ...": ("after_load", "plain method"),
    "@alarm\ndef handle_alarm(self): ...": ("handle_alarm", "plain method"),
    "@alarm\ndef handle_alarm(self, alarm): ...": ("handle_alarm", "plain method"),
    "@alarm\ndef _private(self): ...": ("_private", "a public name"),
    "@alarm\ndef __len__(self): ...": ("__len__", "a public name"),
    "@alarm\ndef __init__(self): ...": ("__init__", "after_load"),
    "@alarm\ndef ring(self):\n    yield 1": ("ring", "can't yield"),
    "@alarm\nasync def ring(self):\n    yield 1": ("ring", "can't yield"),
    "@alarm(retry=Retry())\nasync def ring(self):\n    yield": ("ring", "can't yield"),
    "@alarm\ndef ring(): ...": ("ring", "takes self"),
    "@alarm\ndef ring(*, key): ...": ("ring", "takes self"),
    "@alarm\ndef ring(**all): ...": ("ring", "takes self"),
    "@alarm\ndef ring(self, alarm): ...": ("ring", "self.ctx.alarm.payload"),
    "@alarm\nasync def ring(self, alarm): ...": ("ring", "self.ctx.alarm.payload"),
    "@alarm\ndef ring(self, *, payload): ...": ("ring", "nothing but self"),
    "@alarm\ndef ring(self, a=1, *, b): ...": ("ring", "nothing but self"),
    "@alarm\n@handler\ndef ring(self): ...": ("ring", "both an alarm and a handler"),
    "@handler\n@alarm\ndef ring(self): ...": ("ring", "both an alarm and a handler"),
    "@alarm\n@handler(readonly=True)\ndef ring(self): ...": ("ring", "both an alarm and a"),
    "@handler(readonly=True)\n@alarm\ndef ring(self): ...": ("ring", "both an alarm and a"),
    "@alarm\n@staticmethod\ndef ring(): ...": ("ring", "comes last"),
    "@alarm\n@classmethod\ndef ring(cls): ...": ("ring", "comes last"),
    "@alarm\n@property\ndef ring(self): ...": ("ring", "comes last"),
    "@alarm(retry=Retry())\n@property\ndef ring(self): ...": ("ring", "comes last"),
    "@alarm\nclass ring: ...": ("ring", "def or async def"),
    "ring = alarm(len)": ("ring", "def or async def"),
    "ring = alarm(3)": ("ring", "def or async def"),
    "ring = alarm(functools.partial(print))": ("ring", "def or async def"),
    "handle_alarm = None": ("handle_alarm", "plain method"),
    "def handle_alarm(self): ...": ("handle_alarm", "(self, alarm)"),
    "async def handle_alarm(self): ...": ("handle_alarm", "(self, alarm)"),
    "def handle_alarm(self, alarm, more): ...": ("handle_alarm", "(self, alarm)"),
    "def handle_alarm(self, *, alarm): ...": ("handle_alarm", "(self, alarm)"),
    "def handle_alarm(self, alarm, *, more): ...": ("handle_alarm", "(self, alarm)"),
    "@staticmethod\ndef handle_alarm(self, alarm): ...": ("handle_alarm", "plain method"),
    "@classmethod\ndef handle_alarm(cls, alarm): ...": ("handle_alarm", "plain method"),
    "@property\ndef handle_alarm(self): ...": ("handle_alarm", "plain method"),
    "def after_load(self, more): ...": ("after_load", "(self)"),
    # Else the field would win, and the alarm be lost.
    "ring: int = 0\n@alarm\ndef ring(self): ...": ("ring", "both a field and an alarm"),
    "ring: int\n@alarm\ndef ring(self): ...": ("ring", "both a field and an alarm"),
    "@alarm(retry=None)\ndef ring(self): ...": ("ring", "retry must be a Retry, not None"),
    "@alarm(retry=5)\ndef ring(self): ...": ("ring", "retry must be a Retry, not 5"),
    # The mark is out of sight.
    "@staticmethod\n@alarm\ndef ring(self): ...": ("ring", "comes last"),
    "@classmethod\n@alarm\ndef ring(self): ...": ("ring", "comes last"),
    "@property\n@alarm\ndef ring(self): ...": ("ring", "comes last"),
    "@staticmethod\n@handler\ndef work(self): ...": ("work", "@handler goes on a plain method"),
    "@classmethod\n@handler\ndef work(self): ...": ("work", "@handler goes on a plain method"),
    "@property\n@handler\ndef work(self): ...": ("work", "@handler goes on a plain method"),
    "def handle_alarm(self, alarm):\n    yield": ("handle_alarm", "without yield"),
    "async def handle_alarm(self, alarm):\n    yield": ("handle_alarm", "without yield"),
    "def after_load(self):\n    yield": ("after_load", "without yield"),
    "async def after_load(self):\n    yield": ("after_load", "without yield"),
}

WRONG_SUBCLASSES = {
    "increment: int = 0": ("increment", "handler"),
    "def increment(self): ...": ("increment", "@handler"),
    "increment = None": ("increment", ""),
    "@handler\ndef count(self): ...": ("count", "field"),
    "@handler\ndef _secret(self): ...": ("_secret", ""),
    "title = 'new'": ("title", "title: str = …"),
    "items: list[int] = []": ("items", "factory=list"),
    "volume: int": ("volume", "needs a default"),
}

WRONG_HEIRS_OF_ALARMS = {
    "def ring(self): ...": ("ring", "@alarm"),
    "async def ring_slowly(self): ...": ("ring_slowly", "@alarm"),
    "ring = None": ("ring", "@alarm"),
    "ring = 5": ("ring", "@alarm"),
    "@property\ndef ring(self): ...": ("ring", "@alarm"),
    "ring: int = 0": ("ring", "a field and an alarm"),
    "@handler\ndef ring(self): ...": ("ring", "@alarm"),
    "@alarm\ndef ring(self, loud): ...": ("ring", "nothing but self"),
    "@alarm\ndef ring_now(self): ...": ("ring_now", "@handler"),
    "@alarm\ndef rung(self): ...": ("rung", "a field and an alarm"),
}

WRONG_KEYWORDS = {
    "name=''": ("", "empty"),
    "name='a\\0b'": ("", "NUL"),
    "name='x' * 513": ("", "513 bytes"),
    "name=7": ("", "type int"),
    "hibernate_after='5'": ("", "hibernate_after must be"),
    "hibernate_after=-1": ("", "hibernate_after must be"),
    "hibernate_after=float('nan')": ("", "hibernate_after must be"),
    "shutdown_after=True": ("", "shutdown_after must be"),
    "shutdown_after=timedelta(-1)": ("", "shutdown_after must be"),
    "call_timeout=float('inf')": ("", "call_timeout must be"),
    "mailbox_size=0": ("", "mailbox_size must be"),
    "mailbox_size=1.5": ("", "mailbox_size must be"),
    "mailbox_size=True": ("", "mailbox_size must be"),
    "mailbox_size=None": ("", "mailbox_size must be"),
    "schema=0": ("", "schema must be"),
    "schema=-1": ("", "schema must be"),
    "schema=2.0": ("", "schema must be"),
    "schema=True": ("", "schema must be"),
    "schema='2'": ("", "schema must be"),
    "schema=None": ("", "schema must be"),
    "schema=2": ("", "no upgrade from schema 1"),
    "schema=10**18": ("", "no upgrade from schema 1"),
}

UPGRADE = "@upgrade(from_schema={})\n@staticmethod\ndef {}(state): return state\n"

WRONG_UPGRADES = {
    # Chains.
    UPGRADE.format(2, "late"): ("", "no upgrade from schema 1; "),
    UPGRADE.format(1, "early"): ("", "@upgrade(from_schema=2)"),
    UPGRADE.format(3, "over"): ("over", "write schema=4"),
    UPGRADE.format(1, "one") + UPGRADE.format(1, "two"): ("two", "one upgrades from schema 1"),
    UPGRADE.format(0, "none"): ("none", "from_schema must be"),
    UPGRADE.format("'1'", "text"): ("text", "from_schema must be"),
    UPGRADE.format("True", "true"): ("true", "from_schema must be"),
    UPGRADE.format("1.0", "real"): ("real", "from_schema must be"),
    # Functions.
    "@upgrade(from_schema=1)\ndef up(state): ...": ("up", "@staticmethod"),
    "@upgrade(from_schema=1)\ndef up(self, state): ...": ("up", "@staticmethod"),
    "@upgrade(from_schema=1)\n@classmethod\ndef up(cls, state): ...": ("up", "@staticmethod"),
    "@upgrade(from_schema=1)\n@property\ndef up(self): ...": ("up", "@staticmethod"),
    "@upgrade(from_schema=1)\n@handler\ndef up(self): ...": ("up", "@staticmethod"),
    "@upgrade(from_schema=1)\n@alarm\ndef up(self): ...": ("up", "@staticmethod"),
    "@upgrade(from_schema=1)\nclass up: ...": ("up", "@staticmethod"),
    "up = upgrade(from_schema=1)(staticmethod(dict))": ("up", "@staticmethod"),
    "@upgrade(from_schema=2)\n@upgrade(from_schema=1)\n@staticmethod\ndef up(state): ...": (
        "up",
        "@staticmethod",
    ),
    "@staticmethod\n@upgrade(from_schema=1)\ndef up(state): ...": ("up", "comes first"),
    "@classmethod\n@upgrade(from_schema=1)\ndef up(cls, state): ...": ("up", "comes first"),
    "@property\n@upgrade(from_schema=1)\ndef up(self): ...": ("up", "comes first"),
    "@handler\n@upgrade(from_schema=1)\n@staticmethod\ndef up(state): ...": ("up", "@handler"),
    "@alarm\n@upgrade(from_schema=1)\n@staticmethod\ndef up(state): ...": ("up", "@alarm"),
    "@upgrade(from_schema=1)\n@staticmethod\ndef up(): ...": ("up", "takes one argument"),
    "@upgrade(from_schema=1)\n@staticmethod\ndef up(a, b): ...": ("up", "takes one argument"),
    "@upgrade(from_schema=1)\n@staticmethod\ndef up(*, state): ...": ("up", "takes one argument"),
    "@upgrade(from_schema=1)\n@staticmethod\nasync def up(state): ...": ("up", "await or yield"),
    "@upgrade(from_schema=1)\n@staticmethod\ndef up(state):\n    yield": ("up", "await or yield"),
    "@upgrade(from_schema=1)\n@staticmethod\nasync def up(state):\n    yield": (
        "up",
        "await or yield",
    ),
    # Names.
    "up: int = 0\n" + UPGRADE.format(1, "up"): ("up", "a field and an upgrade"),
    UPGRADE.format(1, "ctx"): ("ctx", "reserved"),
    UPGRADE.format(1, "after_load"): ("after_load", "plain method"),
    UPGRADE.format(1, "handle_alarm"): ("handle_alarm", "plain method"),
}

WRONG_HEIRS_OF_UPGRADES = {
    "def to_cents(state): ...": ("to_cents", "@upgrade"),
    "@staticmethod\ndef to_cents(state): ...": ("to_cents", "@upgrade"),
    "to_cents = None": ("to_cents", "@upgrade"),
    "to_cents = 5": ("to_cents", "@upgrade"),
    "to_cents: int = 0": ("to_cents", "a field and an upgrade"),
    "@handler\ndef to_cents(self): ...": ("to_cents", "@upgrade"),
    UPGRADE.format(1, "mine"): ("mine", "to_cents upgrades from schema 1"),
    UPGRADE.format(2, "mine"): ("mine", "write schema=3"),
    UPGRADE.format(2, "to_cents"): ("to_cents", "write schema=3"),
    UPGRADE.format(1, "pay"): ("pay", "@handler"),
}


@attrs.define
class Mutable:
    value: int = 0


def define(head: str, body: str) -> type[DurableObject]:
    namespace: dict[str, Any] = {**globals(), "__name__": "defined"}
    lines = body.splitlines() or ["pass"]
    exec(f"class Wrong({head}):\n" + "\n".join(f"    {line}" for line in lines), namespace)
    return typing.cast("type[DurableObject]", namespace["Wrong"])


def refused(head: str, body: str, member: str, mend: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        define(head, body)
    assert caught.value.cls == "Wrong"
    assert caught.value.member == member
    assert mend in caught.value.problem
    assert str(caught.value).startswith(f"Wrong.{member}: " if member else "Wrong: ")


@pytest.mark.parametrize("body", WRONG_BODIES)
def test_wrong_bodies(body: str) -> None:
    refused("DurableObject", body, *WRONG_BODIES[body])


@pytest.mark.parametrize("body", WRONG_SUBCLASSES)
def test_wrong_subclasses(body: str) -> None:
    refused("Counter", body, *WRONG_SUBCLASSES[body])


@pytest.mark.parametrize("body", WRONG_HEIRS_OF_ALARMS)
def test_wrong_subclasses_of_what_has_alarms(body: str) -> None:
    refused("Reminder", body, *WRONG_HEIRS_OF_ALARMS[body])


@pytest.mark.parametrize("keywords", WRONG_KEYWORDS)
def test_wrong_keywords(keywords: str) -> None:
    refused(f"DurableObject, {keywords}", "", *WRONG_KEYWORDS[keywords])


@pytest.mark.parametrize("body", WRONG_UPGRADES)
def test_wrong_upgrades(body: str) -> None:
    refused("DurableObject, schema=3", body, *WRONG_UPGRADES[body])


def test_an_upgrade_without_a_schema_for_it() -> None:
    refused("DurableObject", UPGRADE.format(1, "up"), "up", "write schema=2")


@pytest.mark.parametrize("body", WRONG_HEIRS_OF_UPGRADES)
def test_wrong_subclasses_of_what_has_upgrades(body: str) -> None:
    refused("Billed", body, *WRONG_HEIRS_OF_UPGRADES[body])


def test_a_subclass_can_not_go_back() -> None:
    refused("Billed, schema=1", "", "to_cents", "write schema=2")


def test_a_subclass_that_counts_on_without_an_upgrade() -> None:
    refused("Billed, schema=3", "", "", "no upgrade from schema 2")


def test_bases_that_have_an_upgrade_from_one_schema_each() -> None:
    refused("Billed, Labelled", "", "to_cents", "to_label upgrades from schema 1")
    refused("Labelled, Billed, schema=3", "", "to_label", "to_cents upgrades from schema 1")


def test_a_field_and_a_handler_of_one_name() -> None:
    refused("DurableObject", "work: int = 0\n@handler\ndef work(self): ...", "work", "")


@pytest.mark.parametrize(
    ("body", "bases"),
    [
        ("tags: list[str] = []", "Bad, DurableObject"),
        ("tags: list[str]", "Bad, DurableObject"),
        ("ctx: int = 0", "Bad, DurableObject"),
        ("@handler\ndef tags(self):\n    yield 1", "Bad, DurableObject"),
        ("@handler\ndef _hidden(self): ...", "Bad, DurableObject"),
        ("@handler\ndef after_load(self): ...", "Bad, DurableObject"),
        ("@alarm\ndef tags(self, more): ...", "Bad, DurableObject"),
        ("@alarm\ndef tags(self):\n    yield 1", "Bad, DurableObject"),
        ("@alarm\n@staticmethod\ndef tags(): ...", "Bad, DurableObject"),
        ("@alarm\n@handler\ndef tags(self): ...", "Bad, DurableObject"),
        ("@handler\n@alarm\ndef tags(self): ...", "Bad, DurableObject"),
        ("@alarm\ndef _hidden(self): ...", "Bad, DurableObject"),
        ("@alarm\ndef after_load(self): ...", "Bad, DurableObject"),
        ("@alarm\ndef handle_alarm(self, alarm): ...", "Bad, DurableObject"),
        ("@alarm(retry=None)\ndef tags(self): ...", "Bad, DurableObject"),
        ("@upgrade(from_schema=1)\ndef tags(state): ...", "Bad, DurableObject"),
        ("@upgrade(from_schema=1)\n@staticmethod\ndef tags(state): ...", "Bad, DurableObject"),
        ("@staticmethod\ndef to_cents(state): ...", "Bad, Billed"),
        ("def handle_alarm(self): ...", "Bad, DurableObject"),
        ("handle_alarm = None", "Bad, DurableObject"),
        ("@staticmethod\ndef handle_alarm(alarm): ...", "Bad, DurableObject"),
        ("def handle_alarm(self, alarm):\n    yield", "Bad, DurableObject"),
        ("def after_load(self, more): ...", "Bad, DurableObject"),
        ("after_load = None", "Bad, DurableObject"),
        # A class behind the mixin that has an alarm of the name.
        ("def ring(self): ...", "Bad, Reminder"),
        ("ring = None", "Bad, Reminder"),
        ("ring: int = 0", "Bad, Reminder"),
        ("@alarm\ndef ring_now(self): ...", "Bad, Reminder"),
    ],
)
def test_wrong_plain_mixins(body: str, bases: str) -> None:
    namespace: dict[str, Any] = {**globals(), "__name__": "defined"}
    exec("class Bad:\n" + "\n".join(f"    {line}" for line in body.splitlines()), namespace)
    with pytest.raises(DefinitionError) as caught:
        exec(f"class Wrong({bases}): pass", namespace)
    assert caught.value.member in body


@pytest.mark.parametrize(
    "body",
    [
        "@handler\ndef count(self): ...",
        "def increment(self): ...",
    ],
)
def test_mixins_that_would_replace_what_is_there(body: str) -> None:
    # The mixin comes first, so its method would win over the field or handler behind it.
    namespace: dict[str, Any] = {**globals(), "__name__": "defined"}
    exec("class Bad:\n" + "\n".join(f"    {line}" for line in body.splitlines()), namespace)
    with pytest.raises(DefinitionError):
        exec("class Wrong(Bad, Counter): pass", namespace)


def test_unknown_class_keywords() -> None:
    with pytest.raises(TypeError):
        define("DurableObject, hibernate=300", "")


def test_a_refused_class_leaves_no_trace() -> None:
    with pytest.raises(DefinitionError):
        define("DurableObject, name='refused'", "count: int")
    gc.collect()
    assert "refused" not in known_definitions()


# --- detached instances --------------------------------------------------------------------------


def test_detached_instances_have_no_context() -> None:
    with pytest.raises(NotInTurn) as caught:
        _ = Counter().ctx
    assert "Counter" in str(caught.value)
    assert not hasattr(type(Counter), "ctx")


def test_instances_are_compared_by_their_fields() -> None:
    assert Counter(count=1) == Counter(count=1)
    assert Counter(count=1) != Counter(count=2)
    assert Counter() != Loud(count=0)
    assert "count=1" in repr(Counter(count=1))


def test_instances_are_copied_in_depth() -> None:
    counter = Counter(count=1, history=[1], _secret="x")
    for other in (copy.deepcopy(counter), pickle.loads(pickle.dumps(counter))):
        assert other == counter
        assert other._secret == "x"
        assert other.history is not counter.history
    assert copy.deepcopy([counter, counter])[0] == counter
    assert copy.copy(counter).history is counter.history


def test_shared_parts_stay_shared_in_a_deep_copy() -> None:
    inner = [1]
    pair = copy.deepcopy([inner, Counter(history=inner)])
    assert isinstance(pair[1], Counter)
    assert pair[1].history is pair[0]


def test_a_deep_copy_keeps_identity() -> None:
    counter = Counter()
    first, second = copy.deepcopy([counter, counter])
    assert first is second


def test_live_instances_are_not_copied() -> None:
    live = Counter()
    live.__dict__["ctx"] = object()
    for attempt in (copy.deepcopy, copy.copy, pickle.dumps):
        with pytest.raises(TypeError, match="live Counter"):
            attempt(live)


# --- definition_of and the names -----------------------------------------------------------------


@pytest.mark.parametrize("wrong", [DurableObject, int, Tagged, "Counter", None, Counter()])
def test_definition_of_something_else(wrong: object) -> None:
    with pytest.raises(DefinitionError, match="is not a subclass of DurableObject"):
        definition_of(wrong)  # type: ignore[arg-type]


def test_definition_of() -> None:
    definition = definition_of(Counter)
    assert definition is definition_of(Counter)
    assert definition.cls is Counter
    assert definition_of(Loud) is not definition


def test_the_last_of_several_definitions_under_one_name_counts() -> None:
    first = define("DurableObject, name='again'", "a: int = 1")
    second = define("DurableObject, name='again'", "b: int = 1")
    third = define("DurableObject, name='again'", "c: int = 1")
    assert first is not second
    assert [definition.cls for definition in known_definitions()["again"]] == [third]


def test_different_classes_under_one_name_are_all_known() -> None:
    class One(DurableObject, name="shared"):
        pass

    class Two(DurableObject, name="shared"):
        pass

    assert {definition.cls for definition in known_definitions()["shared"]} == {One, Two}


def test_classes_are_forgotten_when_they_are_gone() -> None:
    define("DurableObject, name='short-lived'", "")
    gc.collect()
    assert "short-lived" not in known_definitions()
