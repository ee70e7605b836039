"""Types with hooks of the user, on a converter of `make_converter`."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import attrs
import cattrs
import pytest
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn
from cattrs.strategies import configure_tagged_union, include_subclasses
from exactness.snapshot import same
from support.codecs import KEY

from trio_durable import (
    DefinitionError,
    DurableObject,
    DurableRuntime,
    InlineRunner,
    MemoryStorage,
    StateDecodeError,
    StateEncodeError,
    definition_of,
    handler,
    make_converter,
)
from trio_durable._api.durable_object import state_form
from trio_durable._json.custom import StateConverter, checked_converter
from trio_durable._json.lookup import Forms
from trio_durable._json.state import StateCodec


class Vector:
    """A class of numbers in the manner of an array: mutable, and ``==`` is by element."""

    __slots__ = ("_data", "_dtype")

    def __init__(self, data: list[Any], dtype: str = "f8") -> None:
        self._data = data
        self._dtype = dtype

    def __eq__(self, other: object) -> Any:
        return [True]

    __hash__ = None  # type: ignore[assignment]

    def tolist(self) -> list[Any]:
        return self._data

    @property
    def dtype(self) -> str:
        return self._dtype


@attrs.define
class Base:
    price: Decimal


@attrs.define
class Child(Base):
    share: Fraction
    at: datetime | None = None


@attrs.define
class Node:
    share: Fraction
    nodes: list[Node] = attrs.field(factory=list)


@attrs.define
class NamedNode(Node):
    name: str = attrs.field(kw_only=True)


@attrs.define
class A:
    x: int = 0


@attrs.define
class B:
    x: int = 0


def converter() -> StateConverter:
    made = make_converter()
    made.register_unstructure_hook(Fraction, str)
    made.register_structure_hook(Fraction, lambda text, _: Fraction(text))
    made.register_unstructure_hook(Vector, lambda v: {"dtype": v.dtype, "data": v.tolist()})
    made.register_structure_hook(Vector, lambda data, _: Vector(data["data"], data["dtype"]))
    return checked_converter(made)


def codec(annotation: Any, hooks: Any, **keywords: Any) -> StateCodec:
    body = {"__annotations__": {"value": annotation}, "value": None}
    cls = type("Box", (DurableObject,), body, **keywords)
    return StateCodec(state_form(cls, hooks))


def stored(annotation: Any, value: Any, hooks: Any) -> tuple[Any, bytes]:
    """``value``, read from what was written for it, and what was written."""
    own = codec(annotation | None, hooks)
    box = own.decode(KEY, own.new_fields(KEY))
    box.value = value
    state = own.encode(KEY, box)
    return own.decode(KEY, state).value, state


# --- exact ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (Fraction, Fraction(1, 3)),
        (list[Fraction | None], [Fraction(1, 3), None]),
        (dict[str, Fraction], {"a": Fraction(1)}),
        (Fraction | int | A, Fraction(1)),
        (Fraction | int | A, 1),
        (Fraction | int | A, A(1)),
        (set[Fraction], {Fraction(1), Fraction(1, 2)}),
        (tuple[Fraction, int], (Fraction(1), 1)),
        (Child, Child(Decimal("1.0"), Fraction(1, 3), datetime(2030, 1, 1, tzinfo=UTC))),
        (Node, Node(Fraction(1), [Node(Fraction(1, 2))])),
        (Vector, Vector([1.5, 2.5])),
        (list[Vector], [Vector([1.5]), Vector([1], "i8")]),
    ],
)
def test_a_value_with_hooks_comes_back_as_it_was(annotation: Any, value: Any) -> None:
    hooks = converter()
    read, state = stored(annotation, value, hooks)
    assert same(read, value)
    assert stored(annotation, read, hooks)[1] == state


def test_the_hooks_say_how_a_value_is_written() -> None:
    _, state = stored(Fraction, Fraction(1, 3), converter())
    assert state == b'{"value":"1/3","$as":{"value":["?",["hook","Fraction"]]}}'


def test_hooks_of_a_type_of_ours_come_before_ours() -> None:
    hooks = converter()
    hooks.register_unstructure_hook(datetime, lambda value: int(value.timestamp()))
    hooks.register_structure_hook(datetime, lambda data, _: datetime.fromtimestamp(data, UTC))
    value = datetime(2030, 1, 1, tzinfo=UTC)
    read, state = stored(datetime, value, hooks)
    assert same(read, value)
    assert state.startswith(b'{"value":1893456000,')


def test_hooks_of_a_class_may_contain_it() -> None:
    hooks = converter()
    hooks.register_unstructure_hook(
        Node, lambda node: [str(node.share), hooks.unstructure(node.nodes, list[Node])]
    )
    hooks.register_structure_hook(
        Node, lambda data, _: Node(Fraction(data[0]), hooks.structure(data[1], list[Node]))
    )
    node = Node(Fraction(1), [Node(Fraction(1, 2))])
    read, state = stored(Node, node, hooks)
    assert same(read, node)
    assert state.startswith(b'{"value":["1",[["1/2",[]]]],')


# --- strategies and factories of cattrs ----------------------------------------------------------


def test_subclasses_can_be_included() -> None:
    hooks = converter()
    include_subclasses(Base, hooks)
    child = Child(Decimal("1.0"), Fraction(1, 3))
    assert same(stored(Base, child, hooks)[0], child)
    assert same(stored(list[Base], [child, Base(Decimal(1))], hooks)[0], [child, Base(Decimal(1))])


def test_subclasses_can_be_included_with_a_tag() -> None:
    hooks = converter()
    include_subclasses(Base, hooks, union_strategy=configure_tagged_union)
    read, state = stored(Base, Child(Decimal(1), Fraction(1)), hooks)
    assert same(read, Child(Decimal(1), Fraction(1)))
    assert b'"_type":"Child"' in state


def test_hooks_of_a_strategy_count_inside_their_own_class() -> None:
    hooks = converter()
    include_subclasses(Node, hooks)
    node = Node(Fraction(1), [NamedNode(Fraction(2), [Node(Fraction(3))], name="x")])
    assert same(stored(Node, node, hooks)[0], node)


def test_a_union_can_be_tagged() -> None:
    hooks = converter()
    configure_tagged_union(A | B, hooks, tag_name="kind")
    form = Forms(custom=(hooks.form,)).of(list[A | B])
    data = form.write([A(1), B(2)], [])
    assert data == [{"x": 1, "kind": "A"}, {"x": 2, "kind": "B"}]
    assert same(form.read(data, []), [A(1), B(2)])


def test_generated_hooks_write_the_parts_as_state_does() -> None:
    hooks = converter()
    hooks.register_unstructure_hook_factory(
        attrs.has, lambda cls: make_dict_unstructure_fn(cls, hooks, _cattrs_omit_if_default=True)
    )
    hooks.register_structure_hook_factory(attrs.has, lambda cls: make_dict_structure_fn(cls, hooks))
    child = Child(Decimal("1.0"), Fraction(1, 3))
    for each in (hooks, hooks.copy()):
        read, state = stored(Child, child, each)
        assert same(read, child)
        assert state.startswith(b'{"value":{"price":"1.0","share":"1/3"},')


# --- refused -------------------------------------------------------------------------------------


def refusal(annotation: Any, value: Any, hooks: Any) -> str:
    with pytest.raises(StateEncodeError) as caught:
        stored(annotation, value, hooks)
    return str(caught.value)


def hooked(write: Any, read: Any) -> StateConverter:
    made = make_converter()
    made.register_unstructure_hook(Fraction, write)
    made.register_structure_hook(Fraction, read)
    return checked_converter(made)


def test_hooks_that_lose_something_are_found_at_the_value() -> None:
    hooks = hooked(float, lambda data, _: Fraction(data).limit_denominator(10))
    assert same(stored(Fraction, Fraction(1, 3), hooks)[0], Fraction(1, 3))
    problem = refusal(Fraction, Fraction(1, 11), hooks)
    assert "Fraction(1, 11) would be read back as Fraction(1, 10)" in problem
    assert "value" in problem


def test_equality_of_the_class_is_not_asked() -> None:
    hooks = converter()
    hooks.register_structure_hook(Vector, lambda data, _: Vector(data["data"]))
    assert "would be read back" in refusal(Vector, Vector([1], "i8"), hooks)


def test_a_loss_that_the_json_doesnt_show_is_found_in_storage() -> None:
    hooks = converter()
    hooks.register_unstructure_hook(Vector, lambda vector: vector.tolist())
    hooks.register_structure_hook(Vector, lambda data, _: Vector(data))
    assert same(stored(Vector, Vector([1.5]), hooks)[0], Vector([1.5]))
    assert "would be read back" in refusal(Vector, Vector([1], "i8"), hooks)


def test_hooks_that_write_a_value_in_two_ways_are_refused() -> None:
    texts: Iterator[str] = iter(["1/2", "2/4"] * 10)
    hooks = hooked(lambda _: next(texts), lambda text, _: Fraction(text))
    assert "would be read back" in refusal(Fraction, Fraction(1, 2), hooks)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (None, "writes it as null"),
        ((1, 2), "isn't plain JSON"),
        ({1: 2}, "is not a str"),
        ([float("nan")], "nan"),
        ([Decimal(1)], "isn't plain JSON"),
        (2**64, "64-bit"),
    ],
)
def test_hooks_write_plain_json(data: Any, problem: str) -> None:
    hooks = hooked(lambda _: data, lambda _, __: Fraction(1))
    assert problem in refusal(Fraction, Fraction(1), hooks)


def test_a_value_of_another_type_is_refused() -> None:
    assert "of type str, not Fraction" in refusal(Fraction, "1/2", converter())


def test_a_hook_that_fails_names_the_field() -> None:
    hooks = hooked(lambda value: 1 / 0, lambda text, _: Fraction(text))
    assert "value: ZeroDivisionError" in refusal(Fraction, Fraction(1), hooks)
    hooks = hooked(str, lambda text, _: 1 / 0)
    assert "can't read Fraction(1, 1) back: ZeroDivisionError" in refusal(
        Fraction, Fraction(1), hooks
    )


def test_both_hooks_are_needed() -> None:
    made = make_converter()
    made.register_unstructure_hook(Fraction, str)
    with pytest.raises(DefinitionError, match=r"has an unstructure hook .* needs a structure hook"):
        codec(Fraction, made)
    made = make_converter()
    made.register_structure_hook(Fraction, lambda text, _: Fraction(text))
    with pytest.raises(DefinitionError, match=r"has a structure hook .* needs an unstructure hook"):
        codec(Fraction, made)


def test_a_type_with_hooks_is_no_key_of_a_dict() -> None:
    with pytest.raises(DefinitionError, match="can't be the key of a dict"):
        codec(dict[Fraction, int], converter())


# --- other releases ------------------------------------------------------------------------------


def test_data_of_hooks_is_read_by_hooks_of_that_name_alone() -> None:
    hooks = converter()
    _, state = stored(Fraction, Fraction(1, 2), hooks)
    optional = codec(Fraction | int | None, hooks)
    assert same(optional.decode(KEY, state).value, Fraction(1, 2))
    for other in (codec(str | None, hooks), codec(Vector | None, hooks)):
        with pytest.raises(StateDecodeError, match="Fraction"):
            other.decode(KEY, state)
    _, text = stored(str, "1/2", hooks)
    with pytest.raises(StateDecodeError, match=r"1/2"):
        codec(Fraction | None, hooks).decode(KEY, text)


def test_data_of_our_own_form_is_not_given_to_hooks() -> None:
    value = datetime(2030, 1, 1, tzinfo=UTC)
    _, state = stored(datetime, value, converter())
    hooks = converter()
    hooks.register_unstructure_hook(datetime, str)
    hooks.register_structure_hook(datetime, lambda text, _: datetime.fromisoformat(text))
    with pytest.raises(StateDecodeError, match="datetime"):
        codec(datetime | None, hooks).decode(KEY, state)


# --- runtimes and classes ------------------------------------------------------------------------


class Shares(DurableObject):
    total: Fraction | None = None
    parts: dict[str, list[Fraction]] = attrs.field(factory=dict)
    vector: Vector | None = None

    @handler
    def add(self, name: str, share: Fraction) -> Fraction:
        self.total = (self.total or Fraction(0)) + share
        self.parts.setdefault(name, []).append(share)
        return self.total

    @handler
    def set_vector(self, data: list[Any]) -> None:
        self.vector = Vector(data)

    @handler(readonly=True)
    def state(self) -> tuple[Fraction | None, dict[str, list[Fraction]], Vector | None]:
        return self.total, self.parts, self.vector


class Own(DurableObject, converter=converter()):
    share: Fraction = Fraction(1, 2)

    @handler
    def double(self) -> Fraction:
        self.share *= 2
        return self.share


class Inherited(Own):
    other: list[Fraction] = attrs.field(factory=list)


class Without(Own, converter=None):
    pass


@pytest.mark.anyio
async def test_the_converter_of_a_runtime_is_that_of_its_classes(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    for add in (Fraction(1, 2), Fraction(1, 3)):
        async with DurableRuntime(
            path, objects=[Shares], converter=converter(), runner=InlineRunner
        ) as runtime:
            shares = runtime.get(Shares, "a")
            await shares.add("x", add)
            await shares.set_vector([1.5])
    async with DurableRuntime(
        path, objects=[Shares], converter=converter(), runner=InlineRunner
    ) as runtime:
        total, parts, vector = await runtime.get(Shares, "a").state()
        assert total == Fraction(5, 6)
        assert parts == {"x": [Fraction(1, 2), Fraction(1, 3)]}
        assert same(vector, Vector([1.5]))


@pytest.mark.anyio
async def test_without_a_converter_the_class_is_refused_by_the_runtime() -> None:
    with pytest.raises(DefinitionError, match=r"Shares\.total: Fraction has no exact JSON form"):
        async with DurableRuntime(MemoryStorage(), objects=[Shares]):
            pass


@pytest.mark.anyio
async def test_the_converter_of_a_class_comes_before_that_of_the_runtime() -> None:
    backwards = hooked(lambda f: [f.denominator, f.numerator], lambda d, _: Fraction(d[1], d[0]))
    async with DurableRuntime(MemoryStorage(), converter=backwards) as runtime:
        assert await runtime.get(Own, "a").double() == 1
        assert await runtime.get(Inherited, "a").double() == 1
        assert await runtime.get(Without, "a").double() == 1
    forms = [state_form(cls, backwards) for cls in (Own, Inherited, Without)]
    written = [form.fields["share"].write(Fraction(1, 2), []) for form in forms]
    assert written == ["1/2", "1/2", [2, 1]]


def test_a_class_with_a_converter_has_a_default_state() -> None:
    default = definition_of(Own).default_state()
    assert isinstance(default, Own)
    assert same(default.share, Fraction(1, 2))
    with pytest.raises(DefinitionError, match="Fraction"):
        definition_of(Without).default_state()


def test_a_type_without_hooks_is_refused_by_the_statement_of_a_class_with_a_converter() -> None:
    with pytest.raises(DefinitionError, match=r"value: complex has no exact JSON form"):
        codec(complex, None, converter=converter())


@pytest.mark.parametrize("other", [cattrs.Converter(), cattrs.BaseConverter(), "x", 1])
def test_another_converter_is_refused(other: Any) -> None:
    with pytest.raises(ValueError, match=r"one that make_converter\(\) returned"):
        DurableRuntime(MemoryStorage(), converter=other)
    with pytest.raises(DefinitionError, match=r"one that make_converter\(\) returned"):
        codec(int, None, converter=other)


def test_a_form_is_made_once_for_a_class_and_a_converter() -> None:
    one, other = converter(), converter()
    assert state_form(Shares, one) is state_form(Shares, one)
    assert state_form(Shares, one) is not state_form(Shares, other)


def test_a_converter_and_its_forms_can_be_dropped() -> None:
    made = converter()
    state_form(Shares, made)
    dropped = weakref.ref(made)
    del made
    gc.collect()
    assert dropped() is None


def test_the_library_imports_cattrs_only_for_a_converter() -> None:
    program = (
        "import sys, trio_durable\n"
        "class A(trio_durable.DurableObject):\n    x: int = 0\n"
        "assert 'cattrs' not in sys.modules\n"
        "trio_durable.make_converter()\n"
        "assert 'cattrs' in sys.modules\n"
        "assert 'pydantic' not in sys.modules and 'msgspec' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
