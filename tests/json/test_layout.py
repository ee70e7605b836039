"""Instances are read and built through their storage, never by code of their class."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cached_property
from typing import Any, ClassVar, NoReturn

import attrs
import pytest
from support.codecs import KEY, box, codec_of

from trio_durable import DefinitionError, StateEncodeError
from trio_durable._json.errors import UnsupportedType
from trio_durable._json.layout import layout_of
from trio_durable._json.lookup import Forms


def refuses(*_: object, **__: object) -> NoReturn:
    raise AssertionError("code of the class ran")


def round_trip(cls: type[Any], value: Any) -> Any:
    """A value of a class, written, and read again."""
    form = Forms().of(cls)
    return form.read(form.write(value, []), [])


def made(cls: type[Any], **values: Any) -> Any:
    """An instance with these attributes, made without code of its class."""
    instance = object.__new__(cls)
    for name, value in values.items():
        object.__setattr__(instance, name, value)
    return instance


def value_of(instance: object, name: str) -> Any:
    return object.__getattribute__(instance, name)


def refusal(cls: type[Any]) -> str:
    with pytest.raises(UnsupportedType) as caught:
        layout_of(cls)
    return str(caught.value)


# --- code of the class ---------------------------------------------------------------------------


class Hostile:
    """A class with code of its own in all places where an instance is made or read."""

    x: int = 1

    def __new__(cls, *args: object, **kwargs: object) -> Any:
        refuses()

    def __getattribute__(self, name: str) -> Any:
        refuses()

    def __setattr__(self, name: str, value: object) -> None:
        refuses()

    def __eq__(self, other: object) -> bool:
        refuses()

    def __hash__(self) -> int:
        refuses()


TOOLS: list[tuple[str, Callable[[type[Any]], type[Any]]]] = [
    ("attrs", attrs.define(slots=False, init=False, eq=False)),
    ("attrs with slots", attrs.define(slots=True, init=False, eq=False)),
    ("attrs frozen", attrs.frozen(slots=False, init=False, eq=False)),
    ("dataclass", dataclasses.dataclass(init=False, eq=False)),
    ("dataclass with slots", dataclasses.dataclass(init=False, eq=False, slots=True)),
]
tools = pytest.mark.parametrize(
    "tool", [tool for _, tool in TOOLS], ids=[name for name, _ in TOOLS]
)


@tools
def test_no_code_of_the_class_runs(tool: Callable[[type[Any]], type[Any]]) -> None:
    body = dict(vars(Hostile), __qualname__="Hostile")
    del body["__dict__"], body["__weakref__"]
    if tool is TOOLS[2][1]:
        del body["__setattr__"]  # which attrs.frozen makes
    body["__init__"] = refuses
    cls = tool(type("Hostile", (), body))
    back = round_trip(cls, made(cls, x=7))
    assert type(back) is cls
    assert value_of(back, "x") == 7


class MetaWithCall(type):
    def __call__(cls, *args: object, **kwargs: object) -> NoReturn:
        refuses()

    def __instancecheck__(cls, instance: object) -> NoReturn:
        refuses()


def test_a_metaclass_with_a_call_of_its_own() -> None:
    cls = attrs.define(MetaWithCall("Odd", (), {"__annotations__": {"x": int}}))
    assert round_trip(cls, made(cls, x=7)).x == 7


def stripped(name: str) -> str:
    return name.strip()


@attrs.define
class Converted:
    name: str = attrs.field(converter=stripped, on_setattr=attrs.setters.convert)
    size: int = attrs.field(default=1, on_setattr=refuses)
    seen: list[str] = attrs.field(factory=list)

    def __attrs_post_init__(self) -> None:
        self.seen.append("post_init")


def test_converters_and_hooks_do_not_run() -> None:
    value = made(Converted, name=" a ", size=2, seen=[])
    back = round_trip(Converted, value)
    assert [back.name, back.size, back.seen] == [" a ", 2, []]


@dataclasses.dataclass
class Posted:
    x: int
    init: dataclasses.InitVar[int] = 0
    total: int = dataclasses.field(init=False, default=0)
    SHARED: ClassVar[int] = 3

    def __post_init__(self, init: int) -> None:
        self.total += 1


def test_post_init_does_not_run_and_its_fields_are_kept() -> None:
    assert round_trip(Posted, Posted(1)).total == 1


@attrs.define
class Checked:
    x: int = attrs.field(validator=attrs.validators.gt(0))


def test_validators_run_at_both_ways() -> None:
    form = Forms().of(Checked)
    with pytest.raises(ValueError, match="must be > 0"):
        form.write(made(Checked, x=0), [])
    with pytest.raises(ValueError, match="must be > 0"):
        form.read({"x": 0}, [])
    with attrs.validators.disabled():
        assert form.read({"x": 0}, []).x == 0


# --- storage -------------------------------------------------------------------------------------


@attrs.define(slots=False)
class Base:
    a: int = 1


@attrs.define
class Slotted(Base):
    b: int = 2


@attrs.define
class Private:
    _a: int = 1
    __b: int = 2


@attrs.define(slots=False, frozen=True, cache_hash=True, eq=True)
class Hashed:
    a: int = 1


@attrs.define(slots=False)
class Cached:
    a: int = 1

    @cached_property
    def double(self) -> int:
        return 2 * self.a


@attrs.define
class CachedInSlots:
    a: int = 1

    @cached_property
    def double(self) -> int:
        return 2 * self.a


@attrs.frozen
class Frozen:
    a: int


@pytest.mark.parametrize(
    "value", [Base(3), Slotted(3, 4), Private(3, 4), Frozen(3), Hashed(3), Cached(3)], ids=repr
)
def test_slots_and_dicts(value: Any) -> None:
    assert round_trip(type(value), value) == value


def test_names_with_two_underscores_are_stored_unmangled() -> None:
    form = Forms().of(Private)
    assert form.write(Private(3, 4), []) == {"_a": 3, "__b": 4}
    assert form.read({"_a": 3, "__b": 4}, []) == Private(3, 4)
    assert form.read({"_a": 3, "_Private__b": 4}, []) == Private(3, 4)  # as older releases did


@pytest.mark.parametrize("cls", [Cached, CachedInSlots])
def test_cached_properties_are_no_state(cls: type[Any]) -> None:
    value = cls(3)
    assert value.double == 6
    form = Forms().of(cls)
    assert form.write(value, []) == {"a": 3}
    back = form.read({"a": 4}, [])
    assert back.double == 8


def test_the_cached_hash_is_no_state() -> None:
    value = Hashed(3)
    hash(value)
    assert Forms().of(Hashed).write(value, []) == {"a": 3}


def test_attributes_that_are_not_declared_are_refused() -> None:
    value: Any = Base(3)
    value.more = 1
    cls = box(Base, Base())
    with pytest.raises(StateEncodeError) as caught:
        codec_of(cls).encode(KEY, cls(value=value))
    assert caught.value.field == "value.more"
    assert "`more: int = …`" in caught.value.problem


@pytest.mark.parametrize(
    "value", [made(Base), made(Slotted, a=1), made(Frozen)], ids=["dict", "slot", "frozen"]
)
def test_fields_that_are_not_set_are_refused(value: Any) -> None:
    cls = box(type(value) | None, None)
    with pytest.raises(StateEncodeError, match="isn't set") as caught:
        codec_of(cls).encode(KEY, cls(value=value))
    assert caught.value.field in ("value.a", "value.b")


def test_a_value_of_a_subclass_is_refused() -> None:
    with pytest.raises(ValueError, match="is of type Slotted, not Base"):
        Forms().of(Base).write(Slotted(), [])


# --- classes whose storage isn't their fields ----------------------------------------------------


@pytest.mark.parametrize("base", [list, dict, str, int, bytearray, set])
def test_bases_written_in_c_are_refused(base: type[Any]) -> None:
    cls = attrs.define(type("Odd", (base,), {"__annotations__": {"x": int}}), slots=False, eq=False)
    assert f"has the base {base.__name__}" in refusal(cls)


def test_exceptions_are_refused() -> None:
    cls = attrs.define(type("Odd", (Exception,), {"__annotations__": {"x": int}}), slots=False)
    assert "__suppress_context__, which is no field" in refusal(cls)


class WithSlot:
    __slots__ = ("hidden",)


@attrs.define
class SlotOfABase(WithSlot):
    x: int = 1


@attrs.define(slots=False)
class PropertyInTheWay:
    x: int = 1


PropertyInTheWay.x = property(lambda self: 1)  # type: ignore[assignment]


@attrs.define
@dataclasses.dataclass
class Both:
    x: int = 1


@pytest.mark.parametrize(
    ("cls", "words"),
    [
        (SlotOfABase, "has the slot hidden, which is no field"),
        (PropertyInTheWay, "the field x of PropertyInTheWay isn't kept in its instances"),
        (Both, "is an attrs class and a dataclass at once"),
    ],
)
def test_other_storage_is_refused(cls: type[Any], words: str) -> None:
    assert words in refusal(cls)
    with pytest.raises(DefinitionError) as caught:
        box(cls, None)
    assert caught.value.member == "value"
    assert words in caught.value.problem


@attrs.define
class Weak:
    """attrs gives its slots a slot for weak references."""

    x: int = 1


@dataclasses.dataclass(slots=True, weakref_slot=True)
class WeakData:
    x: int = 1


@pytest.mark.parametrize("cls", [Weak, WeakData, Slotted])
def test_storage_of_python_itself_is_none_of_c(cls: type[Any]) -> None:
    assert layout_of(cls).cls is cls
