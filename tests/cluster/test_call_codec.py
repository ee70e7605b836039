"""Arguments and replies of handlers as JSON."""

from __future__ import annotations

import enum
import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from typing import (
    TYPE_CHECKING,
    Any,
    Generic,
    Literal,
    NoReturn,
    Self,
    TypedDict,
    TypeVar,
    Unpack,
)
from uuid import UUID

import attrs
import orjson
import pytest
from exactness.snapshot import same
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_durable import (
    ArgumentError,
    DefinitionError,
    DurableObject,
    ReplyDecodeError,
    ReplyError,
    handler,
    make_converter,
)
from trio_durable._cluster.call_codec import CallCodec
from trio_durable._json.depth import MAX_DEPTH

from .codecs import (
    KEY,
    NoHandles,
    codec_of,
    crossed,
    echo,
    key,
    object_type,
    replied,
    with_handler,
)

if TYPE_CHECKING:
    from somewhere import OnlyForTypeCheckers  # type: ignore[import-not-found]

T = TypeVar("T")
relaxed = settings(deadline=None)


class Colour(enum.Enum):
    RED = "red"


@attrs.define
class Item:
    name: str
    price: Decimal = Decimal(1)
    tags: set[str] = attrs.field(factory=set)


class Options(TypedDict, total=False):
    item: Item
    size: int


class Cart(DurableObject):
    count: int = 0

    @handler
    def add(self, count: int) -> int:
        self.count += count
        return self.count

    @handler
    def put(
        self, item: Item, at: datetime, /, count: int = 1, *, colour: Colour | None = None
    ) -> list[Item]:
        return [item] * count

    @handler
    async def many(self, first: int, *items: Item, note: str, **prices: Decimal) -> None: ...

    @handler
    def anything(self, value, *more, flag=None, **others):  # type: ignore[no-untyped-def]
        return value

    @handler
    def shadowed(self, name: int, /, **names: str) -> None: ...

    @handler
    def configured(self, **options: Unpack[Options]) -> None: ...

    @handler
    def fails(self) -> NoReturn:
        raise ValueError

    @handler
    def generic(self, value: T) -> list[T]:
        return [value]


ITEM = Item("apple", Decimal("1.50"), {"red", "sweet"})
NOW = datetime(2026, 1, 2, tzinfo=UTC)

CALLS: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("add", (1,), {}),
    ("add", (), {"count": 1}),
    ("put", (ITEM, NOW), {}),
    ("put", (ITEM, NOW, 3), {"colour": Colour.RED}),
    ("put", (ITEM, NOW), {"colour": None, "count": 3}),
    ("many", (1,), {"note": "é\n"}),
    ("many", (1, ITEM, ITEM), {"note": "", "a": Decimal("1.0")}),
    ("anything", ({"a": [1, 2.5, None]}, "x", [True]), {"flag": 1, "more": {}}),
    ("shadowed", (1,), {"name": "a"}),
    ("configured", (), {"item": ITEM, "size": 2}),
    ("fails", (), {}),
    ("generic", ([1, "a"],), {}),
]
every_call = pytest.mark.parametrize(("name", "args", "kwargs"), CALLS)


@every_call
def test_arguments_arrive_as_they_were_given(
    name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    codec = codec_of(Cart, name)
    there = crossed(codec, *args, **kwargs)
    assert same(there, (args, kwargs))
    assert list(there[1]) == list(kwargs)
    assert same(codec.local_arguments(key, args, dict(kwargs)), there)


@pytest.mark.parametrize(
    ("name", "args", "kwargs", "problem"),
    [
        ("add", (), {}, "missing a required argument: 'count'"),
        ("add", (1, 2), {}, "too many positional arguments"),
        ("add", (1,), {"count": 2}, "multiple values for argument 'count'"),
        ("add", (1,), {"more": 2}, "got an unexpected keyword argument 'more'"),
        ("put", (), {"item": ITEM, "at": NOW}, "it takes .item"),
        ("many", (1,), {}, "missing a required .*: 'note'"),
        ("many", (), {"note": ""}, "missing a required argument: 'first'"),
        ("shadowed", (), {"name": "a"}, r"positional.only"),
        ("configured", (), {"other": 1}, "options"),
    ],
)
def test_arguments_that_the_handler_does_not_take(
    name: str, args: tuple[Any, ...], kwargs: dict[str, Any], problem: str
) -> None:
    codec = codec_of(Cart, name)
    data = [list(args), kwargs, None]
    for refusing in (
        lambda: codec.encode_arguments(key, args, kwargs),
        lambda: codec.local_arguments(key, args, dict(kwargs)),
        lambda: codec.decode_arguments(key, data),
    ):
        with pytest.raises(ArgumentError, match=problem) as raised:
            refusing()
        assert str(raised.value).startswith(f"call of {name} on {KEY}: ")
        assert "it takes (" in str(raised.value)


@pytest.mark.parametrize(
    ("name", "args", "kwargs", "problem"),
    [
        ("add", ("1",), {}, "the argument count: '1' is of type str, not int"),
        ("add", (), {"count": None}, "the argument count: None is of type NoneType, not int"),
        ("add", (2**64,), {}, "the argument count: Integer exceeds 64-bit range"),
        ("put", (Item("a", 1.5), NOW), {}, "the argument item.price: 1.5 is of type float"),  # type: ignore[arg-type]
        ("put", (ITEM, NOW), {"colour": "red"}, "the argument colour: "),
        ("many", (1, ITEM, "b"), {"note": ""}, "the argument 3: 'b' is of type str, not Item"),
        ("many", (1,), {"note": "", "x": 1}, "the argument x: 1 is of type int, not Decimal"),
        ("configured", (), {"size": "L"}, "the argument size: 'L' is of type str, not int"),
        ("anything", (ITEM,), {}, "the argument value: Item.* isn't plain JSON; declare its type"),
        ("anything", (1, {1}), {}, "the argument 2: .1. is of type set"),
        ("anything", (["\ud800"],), {}, "the argument value: str is not valid UTF-8"),
        ("anything", (float("nan"),), {}, "the argument value: nan is not a number"),
        ("anything", ({1: 2},), {}, "the argument value: the key 1 is not a str"),
        ("anything", (Colour.RED,), {}, "the argument value: .* of type Colour"),
    ],
)
def test_values_that_can_not_be_sent(
    name: str, args: tuple[Any, ...], kwargs: dict[str, Any], problem: str
) -> None:
    codec = codec_of(Cart, name)
    for refusing in (codec.encode_arguments, codec.local_arguments):
        with pytest.raises(ArgumentError, match=problem) as raised:
            refusing(key, args, dict(kwargs))
        assert (raised.value.key, raised.value.handler) == (KEY, name)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ((n for n in (1, 2)), "a generator can't be passed by value; pass its result, or a list"),
        (iter([]), "a list_iterator can't be passed by value"),
        (threading.Lock(), "a lock can't be passed by value: it synchronises"),
        (ITEM.tags.add, "isn't plain JSON|bound to an object"),
        (nullcontext(), "is of type nullcontext"),
        (lambda: 1, "is of type function"),
        (Item, "is of type type"),
    ],
)
def test_what_means_nothing_elsewhere_is_refused_by_name(value: object, problem: str) -> None:
    codec = codec_of(Cart, "anything")
    with pytest.raises(ArgumentError, match=problem):
        codec.encode_arguments(key, (value,), {})
    with pytest.raises(ReplyError, match=problem):
        codec.encode_reply(KEY, value)


# --- definitions ---------------------------------------------------------------------------------


def open_callable(self: Any, callback: Callable[[], int]) -> None: ...


def open_lock(self: Any, *locks: threading.RLock) -> None: ...


def open_class(self: Any, **values: Fraction) -> None: ...


def open_result(self: Any) -> Iterator[int]:
    return iter([1])


def undefined(self: Any, *, value: OnlyForTypeCheckers = None) -> None: ...


def union_of_lists(self: Any, value: list[int] | list[str]) -> None: ...


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        (open_callable, "Cart.work: its parameter callback can't be sent .*: Callable has no"),
        (open_lock, "Cart.work: its parameter locks can't be sent"),
        (open_class, "Cart.work: its parameter values can't be sent .*: Fraction has no"),
        (open_result, "Cart.work: its result can't be sent .*: Iterator has no"),
        (undefined, "Cart.work: its parameter value .*: the annotation 'OnlyForTypeCheckers'"),
        (union_of_lists, "Cart.work: its parameter value .*: .*told apart|.*are written alike"),
    ],
)
def test_annotations_that_can_not_be_sent_are_reported_by_the_definition(
    function: Callable[..., Any], problem: str
) -> None:
    with pytest.raises(DefinitionError, match=problem):
        CallCodec(object_type(with_handler(function)), NoHandles())


def test_a_definition_without_fault_is_accepted() -> None:
    CallCodec(object_type(Cart), NoHandles())


def test_a_converter_of_the_runtime_has_forms_for_its_types() -> None:
    converter = make_converter()
    converter.register_unstructure_hook(Fraction, str)
    converter.register_structure_hook(Fraction, lambda text, _: Fraction(text))
    made = object_type(with_handler(open_class), converter=converter)
    codec = CallCodec(made, NoHandles()).handler("work")
    assert same(crossed(codec, x=Fraction(1, 3)), ((), {"x": Fraction(1, 3)}))


class Shelf(DurableObject, Generic[T]):
    @handler
    def put(self, item: T, other: Self | None = None) -> list[T]:
        return [item]


class Items(Shelf[Item]): ...


def test_type_variables_of_the_class_have_its_types() -> None:
    codec = codec_of(Items, "put")
    assert same(crossed(codec, ITEM)[0], (ITEM,))
    assert same(replied(codec, [ITEM]), [ITEM])


def test_a_default_is_that_of_the_receiver() -> None:
    def work(self: Any, value: Item = NotImplemented) -> None: ...

    work.__annotations__["value"] = Item  # which only this function knows
    codec = codec_of(with_handler(work))
    assert crossed(codec) == ((), {})


def test_a_handler_without_annotations_of_its_own_takes_any() -> None:
    def work(self: Any, value: int) -> int:
        return value

    work.__annotations__.clear()
    assert crossed(codec_of(with_handler(work)), "a") == (("a",), {})


# --- replies -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "result"),
    [("add", 7), ("put", [ITEM, ITEM]), ("many", None), ("anything", {"a": [1]}), ("fails", None)],
)
def test_results_arrive_as_they_were_returned(name: str, result: Any) -> None:
    codec = codec_of(Cart, name)
    there = replied(codec, result)
    assert same(there, result)
    assert same(codec.local_reply(KEY, result), there)


@pytest.mark.parametrize(
    ("name", "result", "problem"),
    [
        ("add", "7", "'7' is of type str, not int"),
        ("add", 2**70, "exceeds 64-bit"),
        ("put", [ITEM, None], r"\[1\]: None is of type NoneType, not Item"),
        ("many", 1, "1 is of type int, not None"),
        ("anything", ITEM, "isn't plain JSON"),
    ],
)
def test_results_that_can_not_be_sent(name: str, result: Any, problem: str) -> None:
    codec = codec_of(Cart, name)
    for refusing in (codec.encode_reply, codec.local_reply):
        with pytest.raises(ReplyError, match=problem) as raised:
            refusing(KEY, result)
        assert (raised.value.key, raised.value.handler) == (KEY, name)
        assert "was rolled back" in str(raised.value)


@pytest.mark.parametrize(
    "data", [None, 1, "a", [], {}, ["x"], ["x", 1], ["x", "{}"], [[], "[[], {}, {}]"]]
)
def test_a_reply_that_can_not_be_read_says_that_the_handler_ran(data: Any) -> None:
    with pytest.raises(ReplyDecodeError, match=r"add on .* has run, but its reply") as raised:
        codec_of(Cart, "add").decode_reply(lambda: KEY, data)
    assert (raised.value.key, raised.value.handler) == (KEY, "add")


# --- copies --------------------------------------------------------------------------------------


def test_an_object_in_two_places_is_two() -> None:
    (there,), _ = crossed(codec_of(echo(list[list[int]])), [inner := [1], inner])
    assert there == [[1], [1]]
    assert there[0] is not there[1]


@pytest.mark.parametrize("value", [0.0, -0.0, 1.5, 3, -(2**53), 2**53 + 1, float("inf")])
def test_a_float_is_the_same_in_this_process(value: float) -> None:
    codec = codec_of(echo(float))
    try:
        there = crossed(codec, value)
    except ArgumentError:
        with pytest.raises(ArgumentError):
            codec.local_arguments(key, (value,), {})
        with pytest.raises(ReplyError):
            codec.local_reply(KEY, value)
    else:
        assert same(codec.local_arguments(key, (value,), {}), there)


def test_the_callee_of_this_process_shares_nothing_with_the_caller() -> None:
    codec, value = codec_of(echo(dict[str, list[int]])), {"a": [1]}
    (there,), _ = codec.local_arguments(key, (value,), {})
    back = codec.local_reply(KEY, value)
    value["a"].append(2)
    assert there == back == {"a": [1]}


def test_any_is_copied_as_well() -> None:
    codec, value = codec_of(echo(Any)), {"a": [1]}
    (there,), _ = codec.local_arguments(key, (value,), {})
    assert there == value
    assert there["a"] is not value["a"]


def test_circles_and_depth_are_refused() -> None:
    codec = codec_of(echo(Any))
    circle: list[Any] = []
    circle.append(circle)
    deep: Any = []
    for _ in range(MAX_DEPTH - 1):
        deep = [deep]
    assert crossed(codec, deep)[0] == (deep,)
    for value in (circle, [deep]):
        with pytest.raises(ArgumentError, match=r"the argument value.*: it is nested") as raised:
            codec.encode_arguments(key, (value,), {})
        assert len(str(raised.value)) < 300
        with pytest.raises(ArgumentError, match=r"the argument value.*: it is nested"):
            codec.encode_arguments(key, (), {"value": value})
        with pytest.raises(ReplyError, match="it is nested"):
            codec.encode_reply(KEY, value)


# --- sizes ---------------------------------------------------------------------------------------


def test_messages_have_a_limit() -> None:
    codec = codec_of(echo(str), max_size=1_000)
    fits, exceeds = "x" * (1_000 - len('[[""]]')), "x" * (1_001 - len('[[""]]'))
    assert crossed(codec, fits) == ((fits,), {})
    for refusing in (codec.encode_arguments, codec.local_arguments):
        with pytest.raises(
            ArgumentError, match=r"call of work on .*: it takes 1,001 bytes of JSON"
        ):
            refusing(key, (exceeds,), {})
    exceeds += "xx"  # a reply has fewer brackets
    for refusing_reply in (codec.encode_reply, codec.local_reply):
        with pytest.raises(ReplyError, match=r"work on .*: it takes 1,001 bytes of JSON"):
            refusing_reply(KEY, exceeds)


def refuses(run: Callable[[], object]) -> bool:
    try:
        run()
    except (ArgumentError, ReplyError):
        return True
    return False


@relaxed
@given(st.text(st.sampled_from(["\0", "a", "é", '"']), max_size=60), st.integers(20, 400))
def test_the_limit_is_the_same_for_a_call_in_this_process(text: str, size: int) -> None:
    codec = codec_of(echo(str), max_size=size)
    for args, kwargs in (((text,), {}), ((), {"value": text})):
        here = refuses(lambda: codec.local_arguments(key, args, dict(kwargs)))  # noqa: B023
        assert here == refuses(lambda: codec.encode_arguments(key, args, kwargs))  # noqa: B023
    here = refuses(lambda: codec.local_reply(KEY, text))
    assert here == refuses(lambda: codec.encode_reply(KEY, text))


# --- releases ------------------------------------------------------------------------------------


def sent(now: Any, then: Any, value: Any) -> Any:
    """A value that a process of one release sends to one of another, as argument and reply."""
    old, new = codec_of(echo(now)), codec_of(echo(then))
    data = orjson.loads(old.encode_arguments(key, (value,), {}))
    (there,), _ = new.decode_arguments(key, data)
    by_name = orjson.loads(old.encode_arguments(key, (), {"value": value}))
    assert same(new.decode_arguments(key, by_name), ((), {"value": there}))
    assert same(new.decode_arguments(key, data), ((there,), {}))  # by the reader that it has kept
    back = new.decode_reply(lambda: KEY, orjson.loads(old.encode_reply(KEY, value)))
    assert same(back, there)
    return there


@pytest.mark.parametrize(
    ("now", "then", "value", "there"),
    [
        (int, float, 1, 1),
        (str, Decimal, "1.5", Decimal("1.5")),
        (Decimal, str, Decimal("1.5"), "1.5"),
        (int, int | UUID, 1, 1),
        (UUID, int | UUID, UUID(int=1), UUID(int=1)),
        (list[Decimal], tuple[Decimal, ...], [Decimal(1)], (Decimal(1),)),
        (int, Any, 1, 1),
    ],
)
def test_values_of_another_release_are_read_as_they_were_sent(
    now: Any, then: Any, value: Any, there: Any
) -> None:
    assert same(sent(now, then, value), there)


@pytest.mark.parametrize(
    ("now", "then", "value"),
    [
        (str, bytes, "YWFh"),
        (bytes, str, b"aaa"),
        (int, str, 1),
        (Decimal, Any, Decimal(1)),
        (Decimal, UUID, Decimal(1)),
        (Literal["a"], Colour, "a"),
    ],
)
def test_values_of_another_release_that_would_change_are_refused(
    now: Any, then: Any, value: Any
) -> None:
    old, new = codec_of(echo(now)), codec_of(echo(then))
    data = orjson.loads(old.encode_arguments(key, (value,), {}))
    with pytest.raises(ArgumentError, match="the argument value: ") as raised:
        new.decode_arguments(key, data)
    assert "@upgrade" not in str(raised.value)
    with pytest.raises(ReplyDecodeError):
        new.decode_reply(lambda: KEY, orjson.loads(old.encode_reply(KEY, value)))


def old_release(
    self: Any, price: Decimal, /, item: str, *rest: Decimal, at: datetime, **more: bytes
) -> None: ...


def new_release(
    self: Any, price: str, /, item: str, second: Decimal, *rest: str, **more: datetime | bytes
) -> None: ...


def test_parameters_of_another_release_are_read_by_their_place() -> None:
    old, new = codec_of(with_handler(old_release)), codec_of(with_handler(new_release))
    args = (Decimal("1.5"), "a", Decimal(2), Decimal(3))
    # A keyword may have the name of a parameter that takes none.
    kwargs = {"at": NOW, "more": b"aaa", "price": b"bbb"}
    there = new.decode_arguments(key, orjson.loads(old.encode_arguments(key, args, kwargs)))
    assert same(there, (("1.5", "a", Decimal(2), "3"), kwargs))


def test_a_class_with_a_new_field_gets_its_default() -> None:
    def release(fields: dict[str, Any]) -> Any:
        return attrs.make_class("Thing", fields)

    before = release({"price": attrs.field(type=Decimal)})
    after = release(
        {"price": attrs.field(type=Decimal), "at": attrs.field(type=datetime, default=NOW)}
    )
    made = sent(before, after, before(Decimal(1)))
    assert same(made, after(Decimal(1), NOW))


def test_later_releases_may_send_more() -> None:
    codec = codec_of(Cart, "put")
    data = orjson.loads(codec.encode_arguments(key, (ITEM, NOW), {}))
    assert same(codec.decode_arguments(key, [*data, {"new": 1}]), ((ITEM, NOW), {}))
    reply = orjson.loads(codec.encode_reply(KEY, [ITEM]))
    assert same(codec.decode_reply(lambda: KEY, [*reply, 1]), [ITEM])


# --- data of unknown origin ----------------------------------------------------------------------


json_data: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "count", "*", "$", "a"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["count", "$", "*", "a"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@relaxed
@given(
    st.one_of(
        json_data,
        st.tuples(st.lists(json_data, max_size=2), json_data, json_data).map(list),
        st.tuples(st.lists(json_data, max_size=2), st.just({}), json_data.map(orjson.dumps)).map(
            lambda data: [*data[:2], data[2].decode()]
        ),
        st.tuples(
            st.lists(json_data, max_size=2),
            st.just({}),
            st.lists(json_data, min_size=3, max_size=3).map(orjson.dumps),
        ).map(lambda data: [*data[:2], data[2].decode()]),
    )
)
def test_any_data_is_arguments_or_an_argument_error(data: Any) -> None:
    for name in ("add", "put", "many"):
        codec = codec_of(Cart, name)
        try:
            args, kwargs = codec.decode_arguments(key, data)
        except ArgumentError:
            continue
        codec.encode_arguments(key, args, kwargs)
    for name in ("add", "put"):
        codec = codec_of(Cart, name)
        try:
            result = codec.decode_reply(lambda: KEY, data)
        except ReplyDecodeError:
            continue
        codec.encode_reply(KEY, result)


def test_a_declaration_that_contains_itself_is_refused() -> None:
    text = orjson.dumps([["count"], {"count": ["class", "A"]}, {"A": ["=", ["class", "A"]]}])
    with pytest.raises(ArgumentError):
        codec_of(Cart, "add").decode_arguments(key, [[1], {}, text.decode()])


def test_data_that_is_nested_deeply_is_refused() -> None:
    data: Any = []
    for _ in range(100_000):
        data = [data]
    for name in ("add", "put"):
        with pytest.raises(ArgumentError):
            codec_of(Cart, name).decode_arguments(key, [[data, data], {}, None])


def test_readers_of_other_declarations_are_bounded() -> None:
    codec = codec_of(Cart, "add")
    for number in range(1_000):
        declared = orjson.dumps([[f"p{number}"], {}, {}]).decode()
        assert codec.decode_arguments(key, [[1], {}, declared]) == ((1,), {})
    assert len(codec._declaration._others) <= 64


# --- memory --------------------------------------------------------------------------------------


class Marked(list[int]):
    pass


def test_a_refused_call_leaves_nothing_to_the_garbage_collector() -> None:
    codec = codec_of(Cart, "anything")
    gc.disable()
    try:
        runs: list[Callable[[object], object]] = [
            lambda value: codec.encode_arguments(key, (value,), {}),
            lambda value: codec.encode_arguments(key, (1,), {"flag": value}),
            lambda value: codec.encode_reply(KEY, value),
        ]
        for refusing in runs:
            value = Marked()
            mark = weakref.ref(value)
            with pytest.raises((ArgumentError, ReplyError)) as raised:
                refusing(value)
            del raised, value
            assert mark() is None
    finally:
        gc.enable()


def test_nothing_keeps_the_codecs_of_a_type() -> None:
    codecs: CallCodec | None = CallCodec(object_type(echo(list[int])), NoHandles())
    assert codecs is not None
    crossed(codecs.handler("work"), [1])
    mark = weakref.ref(codecs)
    codecs = None
    gc.collect()
    assert mark() is None
