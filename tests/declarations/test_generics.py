"""Generic durable object classes, with arguments and without."""

from __future__ import annotations

import abc
import copy
import pickle
import sys
import types
from typing import Annotated, Any, Generic, Literal, TypeVar, get_args, get_origin

import attrs
import pytest
import typing_extensions as te

from trio_durable import DefinitionError, DurableObject, DurableRuntime, definition_of, handler
from trio_durable._api.durable_object import known_definitions, resolved_fields
from trio_durable._json.annotations import resolved_hints
from trio_durable.storage import MemoryStorage
from trio_durable.testing import perform_handler

T = TypeVar("T")
N = TypeVar("N", bound=int)
D = te.TypeVar("D", default=str)


class Item:
    """Has the name of a class in another module, as it were."""


class Repository(DurableObject, Generic[T]):
    """Keeps items."""

    items: list[T] = attrs.field(factory=list)

    @handler
    def add(self, item: T) -> int:
        self.items.append(item)
        return len(self.items)


class Numbers(Repository[int]):
    pass


class Behind(Generic[T], DurableObject, name="behind"):  # noqa: PYI059
    item: T | None = None


class Bounded(DurableObject, Generic[N]):
    n: N | None = None


class Defaulted(DurableObject, Generic[T, D]):
    keys: list[D] = attrs.field(factory=list)
    values: list[T] = attrs.field(factory=list)


class Lists(Repository[list[T]]):
    pass


class Stateless(DurableObject, Generic[T]):
    @handler
    def echo(self, value: T) -> T:
        return value


def types_of(cls: type[DurableObject]) -> dict[str, Any]:
    return {name: field.type for name, field in definition_of(cls).fields.items()}


# --- arguments -----------------------------------------------------------------------------------


def test_a_subclass_gives_the_arguments() -> None:
    class Deeper(Numbers):
        own: int = 0

    assert types_of(Numbers) == {"items": list[int]}
    assert types_of(Deeper) == {"items": list[int], "own": int}
    assert types_of(Repository) == {"items": types.GenericAlias(list, (T,))}
    assert definition_of(Numbers).name == "Numbers"


def test_arguments_make_a_class() -> None:
    cls = Repository[int]
    assert Repository[int] is cls
    assert isinstance(cls, type)
    assert issubclass(cls, Repository)
    assert types_of(cls) == {"items": list[int]}
    assert types_of(Repository[str]) == {"items": list[str]}
    assert definition_of(cls).name == cls.__qualname__ == "Repository[int]"
    assert (cls.__module__, cls.__doc__) == (__name__, "Keeps items.")
    assert known_definitions()["Repository[int]"] == [definition_of(cls)]
    assert isinstance(Numbers(), cls)
    with pytest.raises(TypeError, match="is not a generic class"):
        cls[int]  # type: ignore[type-arg]
    with pytest.raises(TypeError):
        Repository[int, str]  # type: ignore[misc]


def test_type_variables_among_the_arguments_leave_an_alias() -> None:
    alias: Any = Lists[T]  # type: ignore[valid-type]
    assert (get_origin(alias), get_args(alias)) == (Lists, (T,))
    assert types_of(Lists[int]) == {"items": list[list[int]]}
    lists: Any = Repository[list[T]]  # type: ignore[valid-type]
    assert definition_of(lists[int]) is definition_of(Repository[list[int]])
    with pytest.raises(DefinitionError, match="the type variable T has no type"):
        definition_of(lists)


def test_resolving_makes_no_class() -> None:
    class Own: ...

    class Sub(Lists[Own]):
        pass

    assert [str(each) for each in vars(Lists)["__durable_parametrised__"] if Own in get_args(each)]
    made = vars(Repository)["__durable_parametrised__"]
    assert not [each for each in made if get_args(each) == (list[Own],)]
    assert resolved_hints(Sub)["items"] == list[list[Own]]


def test_the_order_of_the_bases_does_not_matter() -> None:
    assert types_of(Behind[int]) == {"item": int | None}
    assert definition_of(Behind[int]).name == "behind[int]"


@pytest.mark.parametrize(
    ("args", "name"),
    [
        (int, "int"),
        (None, "None"),
        (list[Item], "list[Item]"),
        (dict[str, "int | None"], "dict[str, None | int]"),
        (str | int, "int | str"),
        (Literal["b", "a"], "Literal['a', 'b']"),
        (Annotated[int, "small"], "int"),
        (tuple[int, ...], "tuple[int, ...]"),
    ],
)
def test_stored_names(args: Any, name: str) -> None:
    class Of(DurableObject, Generic[T], name="of"):
        pass

    if name == "dict[str, None | int]":
        args = dict[str, int | None]
    assert definition_of(Of[args]).name == f"of[{name}]"


def test_stored_names_do_not_depend_on_the_first_spelling() -> None:
    class Of(DurableObject, Generic[T], name="of"):
        pass

    assert Of[str | int] is Of[int | str]
    assert definition_of(Of[str | int]).name == "of[int | str]"


def test_classes_of_one_name_are_two_arguments() -> None:
    other = type("Item", (), {"__module__": "elsewhere"})
    one: Any = Repository[Item]
    two: Any = Repository[other]  # type: ignore[valid-type]
    assert one is not two
    known = {each.cls for each in known_definitions()["Repository[Item]"]}
    assert known >= {definition_of(one).cls, definition_of(two).cls}  # and those of other tests
    assert definition_of(one).cls is not definition_of(two).cls


def test_text_is_left_to_the_subclass() -> None:
    class Node(Repository["Node"]):
        pass

    alias: Any = Repository["Item"]
    assert types_of(Node) == {"items": types.GenericAlias(list, (Node,))}
    with pytest.raises(DefinitionError, match="an argument is text; write the class itself"):
        definition_of(alias)


def test_arguments_without_a_hash() -> None:
    alias: Any = Repository[Annotated[int, []]]
    with pytest.raises(DefinitionError, match=r"can't be hashed.*make a subclass"):
        definition_of(alias)

    class Sub(alias):  # type: ignore[misc]
        pass

    assert types_of(Sub) == {"items": list[Annotated[int, []]]}


def test_bases_that_give_different_arguments() -> None:
    with pytest.raises(DefinitionError, match="another base inherits from"):
        types.new_class("Both", (Numbers, Repository[str]))


def test_an_abstract_class_stays_abstract() -> None:
    class Abstract(DurableObject, abc.ABC, Generic[T]):
        item: T | None = None

        @abc.abstractmethod
        def work(self) -> None: ...

    assert definition_of(Abstract[int]).is_abstract


# --- bare classes --------------------------------------------------------------------------------


def test_defaults_and_bounds_replace_arguments() -> None:
    assert types_of(Bounded) == {"n": int | None}
    assert types_of(Bounded[bool]) == {"n": bool | None}
    assert types_of(Defaulted[int]) == {"keys": list[str], "values": list[int]}
    assert types_of(Defaulted[int, bytes]) == {"keys": list[bytes], "values": list[int]}
    assert not definition_of(Bounded).is_abstract
    assert not definition_of(Stateless).is_abstract
    assert definition_of(Repository).is_abstract


def test_a_base_without_arguments() -> None:
    with pytest.raises(DefinitionError, match="give the base its arguments") as caught:

        class Sub(Repository):  # type: ignore[type-arg]
            pass

    assert caught.value.member == "items"
    with pytest.raises(DefinitionError, match="give the base its arguments"):

        class Other(Repository, Generic[D]):  # type: ignore[type-arg]
            pass


@pytest.mark.anyio
async def test_bare_classes_are_refused_when_used() -> None:
    problem = r"^Repository: .*use Repository\[…\] with a type for T"
    with pytest.raises(DefinitionError, match=problem):
        await perform_handler(Repository(), "add", 1)
    async with DurableRuntime(MemoryStorage()) as runtime:
        with pytest.raises(DefinitionError, match=problem):
            runtime.get(Repository, "a")
    with pytest.raises(DefinitionError, match=problem):
        async with DurableRuntime(MemoryStorage(), objects=[Repository]):
            pass


# --- use -----------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_runtimes_serve_classes_with_arguments() -> None:
    lists: Any = Repository[list[T]]  # type: ignore[valid-type]
    served = [Repository[int], Repository[str], Numbers, lists[int]]
    async with DurableRuntime(MemoryStorage(), objects=served) as runtime:
        assert await runtime.get(Repository[int], "a").add(1) == 1
        assert await runtime.get(Repository[str], "a").add("x") == 1
        assert await runtime.get(lists[int], "a").add([1]) == 1
        assert await runtime.get(lists[int], "a").add([1]) == 2
        assert await runtime.get(Numbers, "a").add(1) == 1
        assert await Repository[int].add("a", 2) == 2
        assert await runtime.call("Repository[int]", "a", "add", 3) == 3
        assert await runtime.list_objects("Repository[str]") == ["a"]
        await runtime.put_state(Repository[int], "b", Repository[int](items=[7]))
        state = await runtime.get_state(Repository[int], "a")
    assert state == Repository[int](items=[1, 2, 3])


def test_detached_instances_are_copied_and_pickled() -> None:
    one = Repository[int](items=[1])
    assert repr(one) == "Repository[int](items=[1])"
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        other = pickle.loads(pickle.dumps(one, protocol))
        assert (type(other), other) == (Repository[int], one)
    assert type(copy.deepcopy(one)) is type(copy.copy(one)) is Repository[int]


# --- type parameters -----------------------------------------------------------------------------


@pytest.mark.skipif(sys.version_info < (3, 12), reason="PEP 695")
@pytest.mark.parametrize("future", ["from __future__ import annotations\n", ""])
def test_type_parameters(future: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("parameters")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    source = """
import attrs
from trio_durable import DurableObject

class Repository[T, N: int](DurableObject):
    items: list[T] = attrs.field(factory=list)
    n: N | None = None

class Numbers(Repository[int, bool]): ...
class Lists[T](Repository[list[T], int]): ...

def define():
    class Item: ...
    class Local[T](Repository[Item, int]):
        more: dict[str, tuple[Item, T]] = attrs.field(factory=dict)
    return Item, Local[str]
"""
    exec(compile(future + source, "parameters.py", "exec", dont_inherit=True), vars(module))
    names = vars(module)
    assert types_of(names["Numbers"]) == {"items": list[int], "n": bool | None}
    assert types_of(names["Repository"][str, int]) == {"items": list[str], "n": int | None}
    assert types_of(names["Lists"][int]) == {"items": list[list[int]], "n": int | None}
    assert definition_of(names["Repository"][str, int]).name == "Repository[str, int]"
    assert definition_of(names["Repository"]).is_abstract
    item, local = names["define"]()
    assert resolved_fields(local)[2].type == types.GenericAlias(
        dict, (str, types.GenericAlias(tuple, (item, str)))
    )
