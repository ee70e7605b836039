"""Exceptions by value."""

from __future__ import annotations

import asyncio
import copy
import enum
import json
import pickle
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from types import ModuleType
from typing import Any, Self
from uuid import UUID

import attrs
import orjson
import pytest
import trio
from exactness.snapshot import same
from hypothesis import given, settings
from hypothesis import strategies as st
from test_errors import classes as durable_errors
from test_errors import fields, sample

from trio_durable import CallTimeout, ObjectKey, RemoteError
from trio_durable._cluster.remote_errors import decode_error, encode_error
from trio_durable._keys import AlarmKey

KEY = ObjectKey("Cart", "user-123", "acme")
relaxed = settings(deadline=None)
calls: list[str] = []
"""The code of classes that has run."""


class OutOfStock(Exception):
    """An error whose constructor takes something else than its arguments."""

    def __init__(self, item: str, *, left: int) -> None:
        calls.append("init")
        super().__init__(f"only {left} of {item} left")
        self.item = item
        self.left = left


class Texted(Exception):
    """An error whose text is made of its attributes."""

    def __init__(self, part: object) -> None:
        self.part = part

    def __str__(self) -> str:
        return f"<{self.part}>"


class Restless(Exception):
    """An error that runs code wherever it can."""

    def __new__(cls, *args: object) -> Self:
        calls.append("new")
        return super().__new__(cls)

    def __init__(self, *args: object) -> None:
        calls.append("init")

    def __setattr__(self, name: str, value: object) -> None:
        calls.append("setattr")

    def __setstate__(self, state: object) -> None:
        calls.append("setstate")

    def __reduce__(self) -> Any:
        calls.append("reduce")

    @property
    def secret(self) -> int:
        return 1

    @secret.setter
    def secret(self, value: int) -> None:
        calls.append("property")


@attrs.define
class Slotted(Exception):
    item: str
    price: Decimal = Decimal(1)


class OwnOSError(OSError):
    def __init__(self, code: int) -> None:
        super().__init__(f"code {code}")
        self.code = code


class OwnGroup(ExceptionGroup[Exception]): ...


class Colour(enum.Enum):
    RED = "red"


def there(error: BaseException, **options: Any) -> Exception:
    return decode_error(orjson.loads(encode_error(error, **options)), "node 7")


def quietly(error: BaseException) -> Exception:
    return there(error, with_traceback=False)


def raised(run: Callable[[], object]) -> BaseException:
    try:
        run()
    except BaseException as error:  # noqa: BLE001
        return error
    raise AssertionError("nothing was raised")


def notes(error: BaseException) -> list[str]:
    return list(getattr(error, "__notes__", []))


def check_same(error: Any, other: Any) -> None:
    assert type(other) is type(error)
    assert str(other) == str(error)
    if isinstance(error, BaseExceptionGroup):
        assert other.message == error.message
        assert len(other.exceptions) == len(error.exceptions)
        for part, other_part in zip(error.exceptions, other.exceptions, strict=True):
            check_same(part, other_part)
    else:
        assert same(other.args, error.args)
    assert same(other.__dict__, error.__dict__)
    assert notes(other) == notes(error)


def noted(error: Exception, *notes: str) -> Exception:
    for note in notes:
        error.add_note(note)
    return error


def own_os_error() -> OSError:
    return OwnOSError(5)


ERRORS: list[Callable[[], BaseException]] = [
    lambda: ValueError("no"),
    lambda: KeyError("no", 1, None, 2.5, True),
    lambda: OutOfStock("apple", left=2),
    lambda: Texted("a"),
    lambda: Slotted("apple", Decimal("2.50")),
    own_os_error,
    lambda: noted(ValueError("no"), "one", "two\nlines"),
    lambda: raised(lambda: open("/does/not/exist")),  # noqa: SIM115
    lambda: raised(lambda: b"\xff".decode()),
    lambda: raised(lambda: "\udc00".encode()),
    lambda: raised(lambda: json.loads("{")),
    lambda: raised(lambda: compile("a b", "<text>", "exec")),
    lambda: raised(lambda: __import__("does_not_exist")),
    lambda: raised(lambda: int("x")),
    lambda: raised(lambda: [].missing),  # type: ignore[attr-defined]
    lambda: raised(lambda: dict[str, int]()["x"]),
    lambda: StopIteration(4),
    lambda: UnicodeTranslateError("abc", 1, 2, "no"),
    lambda: TimeoutError(),
    lambda: ExceptionGroup("several", [ValueError(1), noted(KeyError("x"), "note")]),
    lambda: OwnGroup("several", [OwnGroup("more", [OutOfStock("apple", left=1)])]),
    lambda: ValueError([1, (2, {3}, frozenset({4})), {"a": {5: b"6"}}]),
    lambda: ValueError(KEY, AlarmKey("Cart", "a", "remind"), datetime.now(UTC), UUID(int=1)),
    lambda: ValueError(2**100, float("inf"), -0.0, "\ud800", Decimal("1.50")),
    lambda: ValueError(timedelta.max, timedelta.min, timedelta(seconds=1.5)),
    lambda: pickle.PicklingError("no"),
    lambda: trio.ClosedResourceError("closed"),
    lambda: asyncio.InvalidStateError("no"),
]


@pytest.mark.parametrize("number", range(len(ERRORS)))
def test_an_error_arrives_as_it_was(number: int) -> None:
    error = ERRORS[number]()
    check_same(error, quietly(error))


@pytest.mark.parametrize("name", ["errno", "strerror", "filename", "filename2"])
def test_an_os_error_has_its_fields(name: str) -> None:
    error = raised(lambda: open("/does/not/exist"))  # noqa: SIM115
    assert getattr(quietly(error), name) == getattr(error, name)
    assert getattr(quietly(OwnOSError(3)), name) is None


def test_a_name_error_has_its_name() -> None:
    error: Any = quietly(raised(lambda: __import__("does_not_exist")))
    assert error.name == "does_not_exist"
    error = quietly(raised(lambda: "text".nothing))  # type: ignore[attr-defined]
    assert (error.name, error.obj) == ("nothing", None)  # as after pickling


plain: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(categories=None), max_size=4)
    | st.binary(max_size=4)
    | st.decimals(allow_nan=False, allow_infinity=False)
    | st.uuids()
    | st.timedeltas()
    | st.datetimes()
    | st.just(KEY),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.lists(inner, max_size=2).map(tuple)
        | st.dictionaries(st.text(max_size=2) | st.integers(), inner, max_size=2)
    ),
    max_leaves=5,
)
plain_errors: st.SearchStrategy[Any] = st.builds(
    lambda cls, args, attributes, notes: built(cls, args, attributes, notes),
    st.sampled_from([ValueError, KeyError, RuntimeError, OSError, OutOfStock, Texted, LookupError]),
    st.lists(plain, max_size=3),
    st.dictionaries(st.sampled_from(["a", "b", "part"]), plain, max_size=2),
    st.lists(st.text(st.characters(categories=None), max_size=5), max_size=2),
)


def built(cls: Any, args: list[Any], attributes: dict[str, Any], notes: list[str]) -> Any:
    error = cls.__new__(cls)
    error.args = tuple(args)
    error.__dict__.update({"part": 1} | attributes)
    for note in notes:
        error.add_note(note)
    return error


@relaxed
@given(
    st.recursive(
        plain_errors,
        lambda inner: st.builds(
            ExceptionGroup, st.text(max_size=3), st.lists(inner, min_size=1, max_size=3)
        ),
        max_leaves=4,
    )
)
def test_plain_errors_arrive_as_they_were(error: Exception) -> None:
    check_same(error, quietly(error))
    # And so they do if they are sent on.
    check_same(error, quietly(quietly(error)))


@pytest.mark.parametrize("cls", durable_errors(), ids=lambda cls: cls.__name__)
def test_our_own_errors_arrive_complete(cls: Any) -> None:
    error = sample(cls)
    error.add_note("in the handler add")
    back = quietly(error)
    check_same(error, back)
    for name in fields(cls):
        assert getattr(back, name) == getattr(error, name)
    for other in (pickle.loads(pickle.dumps(back)), copy.copy(back), copy.deepcopy(back)):
        check_same(error, other)


def test_no_code_of_the_class_runs() -> None:
    error = Restless("a")
    object.__setattr__(error, "x", 1)
    error.__dict__["secret"] = 2
    data = orjson.loads(encode_error(error))
    other = OutOfStock("a", left=1)
    other_data = orjson.loads(encode_error(other))
    calls.clear()
    back = decode_error(data)
    assert type(back) is Restless
    assert back.__dict__.keys() - {"__notes__"} == {"x", "secret"}
    assert type(decode_error(other_data)) is OutOfStock
    assert calls == []


# --- what can't cross ----------------------------------------------------------------------------


def test_a_class_that_is_not_imported_gives_a_remote_error() -> None:
    module = ModuleType("elsewhere")
    sys.modules["elsewhere"] = module
    try:
        made: Any = type("Lost", (ValueError,), {"__module__": "elsewhere"})
        vars(module)["Lost"] = made
        data = orjson.loads(encode_error(noted(made("no apples"), "a note")))
        assert type(decode_error(data)) is made
    finally:
        del sys.modules["elsewhere"]
    error = decode_error(data)
    assert isinstance(error, RemoteError)
    assert (error.type_name, error.problem) == ("elsewhere.Lost", "no apples")
    assert notes(error)[0] == "a note"


def test_nothing_is_imported() -> None:
    sys.modules.pop("antigravity", None)
    sys.modules.pop("this", None)
    for name in ("this:Error", "antigravity:Error", "json.tool:Error"):
        error = decode_error(
            {"class": name, "type": name, "message": "", "args": [], "attributes": {}}
        )
        assert isinstance(error, RemoteError)
    assert "this" not in sys.modules
    assert "antigravity" not in sys.modules


def test_a_local_class_gives_a_remote_error() -> None:
    class Local(Exception):
        pass

    error = there(Local("x"))
    assert isinstance(error, RemoteError)
    assert error.type_name.endswith("<locals>.Local")
    assert error.problem == "x"


@pytest.mark.parametrize(
    "error",
    [KeyboardInterrupt("x"), SystemExit(3), asyncio.CancelledError(), GeneratorExit()],
    ids=lambda error: type(error).__name__,
)
def test_exits_and_cancellations_do_not_cross(error: BaseException) -> None:
    back = there(error)
    assert isinstance(back, RemoteError)
    assert back.type_name.endswith(type(error).__name__)
    assert back.problem == str(error)
    group = there(BaseExceptionGroup("several", [error, ValueError("no")]))
    assert type(group) is ExceptionGroup
    assert [type(part) for part in group.exceptions] == [RemoteError, ValueError]
    name = f"{type(error).__module__}:{type(error).__qualname__}"
    forged = decode_error({"class": name, "args": [], "attributes": {}})
    assert isinstance(forged, RemoteError)


def test_a_cancellation_of_trio_does_not_cross() -> None:
    errors: list[Exception] = []

    async def main() -> None:
        with trio.CancelScope() as scope:
            scope.cancel()
            try:
                await trio.lowlevel.checkpoint()
            except trio.Cancelled as error:
                errors.append(there(error))
                raise

    trio.run(main)
    assert [type(error) for error in errors] == [RemoteError]


def test_attributes_that_are_not_plain_are_left_out() -> None:
    error = ValueError("no")
    vars(error).update(response=threading.Lock(), code=3)
    back = quietly(error)
    assert type(back) is ValueError
    assert str(back) == "no"
    assert vars(back).keys() - {"__notes__"} == {"code"}
    assert notes(back) == ["Not sent by the process that raised it: attribute response, lock"]


def test_an_argument_that_is_not_plain_is_its_text_if_that_is_the_error_s() -> None:
    back = quietly(ValueError(Colour.RED))
    assert type(back) is ValueError
    assert (back.args, str(back)) == (("Colour.RED",), "Colour.RED")
    assert notes(back) == ["Not sent by the process that raised it: argument 1, Colour"]


@pytest.mark.parametrize(
    "error", [KeyError(Colour.RED), ValueError(1, Colour.RED), Texted(Colour.RED)]
)
def test_an_error_that_would_say_something_else_is_a_remote_error(error: Exception) -> None:
    back = quietly(error)
    assert isinstance(back, RemoteError)
    assert back.problem == str(error)
    assert notes(back) == []
    # Also beside another one whose text was cut.
    group = quietly(ExceptionGroup("both", [ValueError("x" * 10_000), error]))
    assert isinstance(group, ExceptionGroup)
    assert [type(part) for part in group.exceptions] == [ValueError, RemoteError]


class Broken(Exception):
    def __str__(self) -> str:
        raise AttributeError("no")


class Vicious(Exception):
    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError("no")

    def __str__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize("cls", [Broken, Vicious, Texted])
def test_errors_whose_own_code_raises(cls: type[Exception]) -> None:
    error = cls(Broken("x"))
    for back in (there(error), there(ExceptionGroup("several", [error]))):
        while isinstance(back, ExceptionGroup):
            (back,) = back.exceptions
        assert isinstance(back, RemoteError)
        assert cls.__name__ in back.type_name


# --- traceback -----------------------------------------------------------------------------------


def fail() -> None:
    try:
        raise KeyError("inner")
    except KeyError as error:
        raise noted(ValueError("outer"), "a note") from error


def test_the_traceback_is_a_note_and_has_the_causes() -> None:
    back = there(raised(fail))
    note, trace = notes(back)
    assert note == "a note"
    assert trace.startswith("Raised in node 7:\nTraceback (most recent call last):\n")
    for part in ("KeyError: 'inner'", "direct cause", "in fail", "test_remote_errors.py"):
        assert part in trace
    assert trace.endswith("ValueError: outer")
    assert back.__traceback__ is None
    assert back.__cause__ is None


def test_an_error_that_crosses_twice_has_both_tracebacks() -> None:
    first, again = notes(there(there(ValueError("no"))))
    assert first.startswith("Raised in node 7")
    assert "Raised in" not in again.removeprefix("Raised in node 7")


# --- sizes ---------------------------------------------------------------------------------------


def endless() -> Exception:
    error = ValueError("x")
    circle: list[object] = []
    circle.append(circle)
    vars(error).update(itself=[error], circle=circle)
    return error


def deep_group() -> Exception:
    error: Exception = ValueError("x")
    for _ in range(500):
        error = ExceptionGroup("deep", [error])
    return error


def long_chain() -> BaseException:
    error: BaseException = ValueError("first")
    for number in range(2_000):
        following = ValueError(number)
        following.__cause__ = error
        error = following
    return error


def with_attributes() -> Exception:
    error = ValueError("x")
    vars(error)["\ud800"] = 1
    error.__dict__.update({f"a{number}": "x" * 1_000 for number in range(10_000)})
    return error


HUGE: list[Callable[[], BaseException]] = [
    lambda: ValueError("x" * 1_000_000),
    lambda: ValueError(b"x" * 1_000_000),
    lambda: ValueError([["x"] * 1_000] * 1_000),
    lambda: ValueError(*range(100_000)),
    lambda: ValueError(10**5_000),
    lambda: noted(ValueError("x"), *(str(number) * 1_000 for number in range(1_000))),
    lambda: ExceptionGroup("many", [ValueError("x" * 10_000) for _ in range(1_000)]),
    lambda: type("A" * 100_000, (Exception,), {})("x"),
    endless,
    deep_group,
    long_chain,
    with_attributes,
]


@pytest.mark.parametrize("number", range(len(HUGE)))
def test_large_errors_are_cut(number: int) -> None:
    encoded = encode_error(HUGE[number]())
    assert len(encoded) < 200_000
    back = decode_error(orjson.loads(encoded))
    assert str(back)


def test_values_that_contain_themselves_are_left_out() -> None:
    back = quietly(endless())
    assert type(back) is ValueError
    assert notes(back) == [
        "Not sent by the process that raised it: attribute itself, list, attribute circle, list"
    ]


def test_a_long_text_keeps_the_class() -> None:
    back = quietly(ValueError("x" * 1_000_000))
    assert type(back) is ValueError
    assert str(back).endswith("x… (1,000,000 characters)")
    assert len(str(back)) < 10_000


def test_the_first_levels_of_a_group_are_sent() -> None:
    back = quietly(deep_group())
    for _ in range(8):
        assert isinstance(back, ExceptionGroup)
        (back,) = back.exceptions
    assert isinstance(back, RemoteError)


def test_the_first_attributes_and_notes_are_sent() -> None:
    error = ValueError("x")
    vars(error).update({f"a{number}": number for number in range(1_000)})
    back = quietly(error)
    assert [*vars(back)][:-1] == [f"a{number}" for number in range(64)]
    assert notes(back) == ["Not sent by the process that raised it: 936 more attributes"]
    back = quietly(noted(ValueError("x"), *map(str, range(1_000))))
    assert notes(back) == [str(number) for number in range(32)]


def test_a_large_group_says_how_many_there_were() -> None:
    back = quietly(ExceptionGroup("many", [ValueError(number) for number in range(100)]))
    assert isinstance(back, ExceptionGroup)
    assert len(back.exceptions) == 33
    assert "68 more exceptions" in str(back.exceptions[-1])


# --- data of unknown origin ----------------------------------------------------------------------


names = st.sampled_from(
    [
        *("builtins:ValueError", "builtins:OSError", "builtins:UnicodeDecodeError"),
        *("builtins:ExceptionGroup", "builtins:KeyboardInterrupt", "builtins:int", "builtins:x"),
        *("trio_durable:CallTimeout", "trio_durable:StorageInUse", "os:system", "sys:modules"),
        *(f"{__name__}:Restless", f"{__name__}:Slotted", f"{__name__}:calls", "", ":", "a", "::"),
        "builtins:ValueError.__init__",
    ]
)
json_data: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | names | st.sampled_from(["tuple", "dict"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["class", "args", "__notes__", "errno"]), inner)
    ),
    max_leaves=8,
)
forged = st.fixed_dictionaries(
    {},
    optional={
        "class": names | json_data,
        "type": names | json_data,
        "message": names | json_data,
        "args": st.lists(json_data, max_size=5) | json_data,
        "attributes": st.just({})
        | st.dictionaries(st.sampled_from(["errno", "__notes__", "args", "key"]), json_data)
        | json_data,
        "notes": st.lists(names, max_size=2) | json_data,
        "traceback": names | json_data,
        "parts": st.lists(json_data, max_size=2) | json_data,
    },
)


@relaxed
@given(json_data | forged)
def test_any_data_is_an_error(data: Any) -> None:
    calls.clear()
    error = decode_error(data)
    assert isinstance(error, Exception)
    assert calls == []
    assert all(isinstance(note, str) for note in notes(error))
    if type(error).__module__ in ("builtins", "trio_durable"):
        assert isinstance(str(error), str)


def test_forged_notes_are_texts() -> None:
    data = {
        "class": "builtins:ValueError",
        "args": [],
        "attributes": {"__notes__": ["list", 1], "__dict__": 1, "__class__": 2},
        "notes": ["a note", 1],
        "traceback": "a traceback",
    }
    error = decode_error(data)
    assert type(error) is ValueError
    assert notes(error) == ["Raised in another process:\na traceback"]


def test_data_that_is_nested_deeply_is_a_remote_error() -> None:
    parts: Any = []
    value: Any = []
    for _ in range(50_000):
        value = ["list", value]
        parts = [
            {"class": "builtins:ExceptionGroup", "message": "", "attributes": {}, "parts": parts}
        ]
    for data in (
        {"class": "builtins:ValueError", "args": [value], "attributes": {}},
        value,
        {"class": "builtins:ValueError", "args": [], "attributes": {}, "notes": value},
    ):
        assert isinstance(decode_error(data), Exception)
    back = decode_error(parts[0])
    depth = 0
    while isinstance(back, ExceptionGroup):
        (back,), depth = back.exceptions, depth + 1
    assert isinstance(back, RemoteError)
    assert depth < 20


@pytest.mark.parametrize(
    "args",
    [
        ["utf-8", ["bytes", "YQ=="], -5, 1, "x"],
        ["utf-8", ["bytes", "YQ=="], 0, 9, "x"],
        ["utf-8", "a", 0, 1, "x"],
        [],
    ],
)
def test_a_forged_unicode_error_reads_no_other_memory(args: list[Any]) -> None:
    data = {
        "class": "builtins:UnicodeDecodeError",
        "args": args,
        "attributes": {},
    }
    assert isinstance(decode_error(data), RemoteError)


def test_the_fields_of_a_unicode_error_are_its_arguments() -> None:
    # Its text is made of them without a look at their types.
    error: Any = decode_error(
        {
            "class": "builtins:UnicodeDecodeError",
            "args": ["utf-8", ["bytes", "YQ=="], 0, 1, "x"],
            "attributes": {"object": "a", "start": -9},
        }
    )
    assert (error.object, error.start) == (b"a", 0)


def test_a_forged_error_of_ours_lacks_nothing() -> None:
    data = orjson.loads(encode_error(CallTimeout(KEY, "add", 1.0, "busy")))
    assert type(decode_error(data)) is CallTimeout
    for name in ("key", "timeout"):
        lacking = copy.deepcopy(data)
        del lacking["attributes"][name]
        assert isinstance(decode_error(lacking), RemoteError)
    other = copy.deepcopy(data)
    other["attributes"]["timeout"] = "soon"
    assert isinstance(decode_error(other), RemoteError)


def test_a_module_that_makes_its_attributes_is_not_asked() -> None:
    class Lazy(ModuleType):
        def __getattribute__(self, name: str) -> Any:
            calls.append(name)
            return ValueError

    sys.modules["lazy_errors"] = Lazy("lazy_errors")
    try:
        calls.clear()
        data = {"class": "lazy_errors:Error", "args": [], "attributes": {}}
        assert isinstance(decode_error(data), RemoteError)
        assert calls == []
    finally:
        del sys.modules["lazy_errors"]
