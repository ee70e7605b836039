"""Class bodies: fields, keywords, inheritance, and the definition that is made of them."""

from __future__ import annotations

import abc
import copy
import gc
import pickle
import sys
import types
from datetime import timedelta
from typing import Any, ClassVar, Final, Self

import attrs
import pytest

from trio_durable import (
    DefinitionError,
    DurableObject,
    DurableRuntime,
    NotInTurn,
    definition_of,
    handler,
)
from trio_durable._api.durable_object import known_definitions, resolved_fields
from trio_durable._durations import UNSET
from trio_durable._json.namespaces import Namespace
from trio_durable.storage import MemoryStorage
from trio_durable.testing import perform_handler

from .examples import Counter, Loud, define, run

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


def in_module(source: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Run ``source`` as a module with postponed annotations."""
    module = types.ModuleType("postponed")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    source = f"from __future__ import annotations\n{POSTPONED}\n{source}"
    exec(compile(source, "postponed.py", "exec", dont_inherit=True), vars(module))
    return vars(module)


POSTPONED = """
import abc, datetime, typing
from datetime import date
from typing import *
import attrs
from trio_durable import DurableObject, handler
T = TypeVar("T")
"""


def types_of(cls: type[DurableObject]) -> dict[str, Any]:
    return {name: field.type for name, field in definition_of(cls).fields.items()}


def test_local_names_are_those_of_the_statement(monkeypatch: pytest.MonkeyPatch) -> None:
    names = in_module(
        """
@attrs.define
class Item: ...

class Meta(abc.ABCMeta):
    def __new__(mcls, name, bases, body, **keywords):
        Item = "that of the metaclass"
        return super().__new__(mcls, name, bases, body, **keywords)

class Plugin:
    def __init_subclass__(cls, **keywords):
        Item = "that of the base"
        super().__init_subclass__(**keywords)

def define():
    @attrs.define
    class Item: ...
    class Cart(DurableObject):
        items: list[Item] = attrs.field(factory=list)
    class Inherited(Plugin, Cart, metaclass=Meta):
        best: Item | None = None
    class Around:
        class Inner(DurableObject):
            item: Item | None = None
    return Item, Cart, Inherited, Around.Inner

def derive(base):
    @attrs.define
    class Item: ...
    class Sub(base):
        own: Item | None = None
    return Item, Sub
""",
        monkeypatch,
    )
    item, cart, inherited, inner = names["define"]()
    assert types_of(cart) == {"items": types.GenericAlias(list, (item,))}
    assert types_of(inherited) == {**types_of(cart), "best": item | None}
    assert types_of(inner) == {"item": item | None}
    # A base that was defined elsewhere has the names from there.
    other, sub = names["derive"](cart)
    assert types_of(sub) == {**types_of(cart), "own": other | None}
    # The local variables of the functions aren't kept alive.
    assert not any("Cart" in namespace_of(cls).names for cls in (cart, inherited, inner, sub))


def namespace_of(cls: type) -> Namespace:
    found = vars(cls)["__durable_namespace__"]
    assert isinstance(found, Namespace)
    return found


def test_plain_bases_are_resolved_where_the_first_durable_one_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = in_module(
        """
def define():
    class Item: ...
    class Mixin:
        item: Item | None = None
    class Cart(Mixin, DurableObject): ...
    return Item, Cart

def derive(base):
    class Sub(base): ...
    return Sub
""",
        monkeypatch,
    )
    item, cart = names["define"]()
    assert types_of(names["derive"](cart)) == {"item": item | None}


def test_names_that_are_defined_after_the_class(monkeypatch: pytest.MonkeyPatch) -> None:
    names = in_module(
        """
class Cart(DurableObject):
    items: list[Item] = attrs.field(factory=list)
    at: datetime.Later | None = None

class Sub(Cart):
    best: Item | None = None
""",
        monkeypatch,
    )
    cart, sub = names["Cart"], names["Sub"]
    for cls, member, name in (
        (cart, "items", "Item"),
        (sub, "items", "Item"),
        (cart, "at", "datetime.Later"),
    ):
        with pytest.raises(
            DefinitionError, match=rf"{name} in the annotation isn't defined"
        ) as caught:
            resolved_fields(cls)
        assert caught.value.member == member
        names.setdefault("Item", int) if cls is sub else None
    later = types.ModuleType("datetime")
    vars(later)["Later"] = str
    names["datetime"] = later
    assert types_of(sub) == {"items": list[int], "at": str | None, "best": int | None}
    assert types_of(cart) == {"items": list[int], "at": str | None}


def test_defaults_do_not_hide_types(monkeypatch: pytest.MonkeyPatch) -> None:
    names = in_module(
        """
def define():
    from datetime import time
    class Event(DurableObject):
        date: date | None = None
        time: time | None = None
    return time, Event
""",
        monkeypatch,
    )
    time, event = names["define"]()
    assert types_of(event) == {"date": names["date"] | None, "time": time | None}


def test_final_without_a_type_is_that_of_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    names = in_module(
        """
class Fixed(DurableObject):
    n: Final = 3
    t: "typing.Final" = "x"
    d: Final[list[int]] = attrs.field(factory=list)
""",
        monkeypatch,
    )
    assert types_of(names["Fixed"]) == {"n": int, "t": str, "d": Final[list[int]]}


def test_self_is_the_class() -> None:
    class Tree(DurableObject):
        parts: list[Self] = attrs.field(factory=list)

    class Sub(Tree):
        pass

    assert types_of(Tree) == {"parts": types.GenericAlias(list, (Tree,))}
    assert types_of(Sub) == {"parts": types.GenericAlias(list, (Sub,))}


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


# --- aliases -------------------------------------------------------------------------------------


class Aliased(DurableObject):
    _count: int = attrs.field(default=0, alias="count")
    self: str = attrs.field(default="", alias="owner")
    _kept: int = 1

    @handler
    def increment(self) -> int:
        self._count += 1
        return self._count


class AliasedMixin:
    _size: int = attrs.field(default=2, alias="size")
    _plain: int = 3


@attrs.define(slots=False, kw_only=True)
class AliasedAttrs:
    _weight: int = attrs.field(default=4, alias="kilos")
    _hidden: int = 5


def test_an_alias_is_the_name_of_the_parameter() -> None:
    one = Aliased(count=3, owner="me", _kept=2)
    assert (one._count, one.self, one._kept) == (3, "me", 2)
    with pytest.raises(TypeError):
        Aliased(_count=3)  # type: ignore[call-arg]
    assert copy.deepcopy(one) == one
    assert pickle.loads(pickle.dumps(one)) == one
    assert attrs.evolve(one, count=4) == Aliased(count=4, owner="me", _kept=2)  # type: ignore[misc]
    assert list(definition_of(Aliased).fields) == ["_count", "self", "_kept"]


def test_aliases_are_inherited() -> None:
    class Sub(Aliased):
        own: int = 0

    class Renamed(Aliased):
        _count: int = 7

    class Mixed(AliasedMixin, AliasedAttrs, DurableObject):  # type: ignore[misc]
        pass

    class SubOfMixed(Mixed):
        pass

    assert Sub(count=3, own=1)._count == 3
    assert Renamed(_count=3)._count == 3
    for cls in (Mixed, SubOfMixed):
        made: Any = cls(size=1, _plain=2, kilos=3, _hidden=4)  # type: ignore[call-arg]
        assert (made._size, made._plain, made._weight, made._hidden) == (1, 2, 3, 4)


@pytest.mark.anyio
async def test_objects_with_an_alias_are_stored() -> None:
    async with DurableRuntime(MemoryStorage()) as runtime:
        await runtime.put_state(Aliased, "a", Aliased(count=3, owner="me"))
        assert await runtime.get(Aliased, "a").increment() == 4
        assert await runtime.get_state(Aliased, "a") == Aliased(count=4, owner="me")
    assert (await perform_handler(Aliased(count=3), "increment")).result == 4


def test_of_two_plain_bases_with_a_field_the_first_counts() -> None:
    class First:
        mode: str = "first"

    class Second(DurableObject):
        mode: int = 2
        other: int = 0

    class Both(First, Second):  # type: ignore[misc]
        pass

    class Reversed(Second, First):  # type: ignore[misc]
        pass

    assert (Both().mode, types_of(Both)["mode"]) == ("first", str)
    assert (Reversed().mode, types_of(Reversed)["mode"]) == (2, int)


def test_an_undecorated_subclass_of_an_attrs_class_is_a_plain_base() -> None:
    class Extended(Stamped):
        extra: int = 1

    class Both(Extended, DurableObject):  # type: ignore[misc]
        pass

    assert types_of(Both) == {"stamp": int, "extra": int}


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


# --- inheritance ---------------------------------------------------------------------------------


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
