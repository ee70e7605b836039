"""Containers, texts and keys: what comes back exactly, and what is refused."""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict, deque
from datetime import datetime, time
from decimal import Decimal
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Literal
from uuid import UUID
from zoneinfo import ZoneInfo

import attrs
import pytest
from support.codecs import BERLIN, Colour, Level, Rights
from support.ids import stable

from trio_durable import BigInt
from trio_durable._json.errors import Unfit
from trio_durable._json.lookup import Forms

AMBIGUOUS = datetime(2026, 10, 25, 2, 30)


def round_trip(annotation: Any, value: Any) -> Any:
    form = Forms().of(annotation)
    return form.read(form.write(value, []), [])


@attrs.define(unsafe_hash=True)
class Tag:
    name: str


# --- containers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("maxlen", [None, 2, 5])
def test_deques_keep_their_maxlen(maxlen: int | None) -> None:
    back = round_trip(deque[UUID], deque([UUID(int=1), UUID(int=2)], maxlen))
    assert back == deque([UUID(int=1), UUID(int=2)])
    assert back.maxlen == maxlen


@pytest.mark.parametrize(
    "data",
    [{"items": [1, 2], "maxlen": 1}, {"items": [1]}, {"items": [1], "maxlen": None}],
    ids=str,
)
def test_data_that_is_no_deque(data: Any) -> None:
    with pytest.raises(Unfit):
        Forms().of(deque[int]).read(data, [])


def test_dicts_of_all_kinds() -> None:
    ordered = round_trip(OrderedDict[str, int], OrderedDict(b=1, a=2))
    assert type(ordered) is OrderedDict
    assert list(ordered) == ["b", "a"]
    counter = round_trip(Counter[int], Counter({1: 2, -1: 0}))
    assert type(counter) is Counter
    assert dict(counter) == {1: 2, -1: 0}
    by_name = round_trip(defaultdict[str, list[int]], defaultdict(list, a=[1]))
    assert by_name == {"a": [1]}
    assert by_name["new"] == []


@pytest.mark.parametrize("factory", [None, dict, lambda: [1]], ids=["none", "dict", "lambda"])
def test_a_defaultdict_of_another_factory_is_refused(factory: Any) -> None:
    with pytest.raises(Unfit, match="default_factory"):
        Forms().of(defaultdict[str, list[int]]).write(defaultdict(factory), [])


def test_items_of_a_set_that_became_equal_are_refused() -> None:
    first, second = Tag("a"), Tag("b")
    value = {first, second}
    form = Forms().of(set[Tag])
    assert form.read(form.write(value, []), []) == value
    second.name = "a"
    with pytest.raises(Unfit, match="became the same"):
        form.write(value, [])
    with pytest.raises(Unfit, match="the same item twice"):
        form.read([{"name": "a"}, {"name": "a"}], [])


def test_equal_sets_give_equal_json() -> None:
    form = Forms().of(set[str | int | None])
    values: list[Any] = ["b", 1, None, "a", 10, 9]
    assert form.write(set(values), []) == form.write({*values[3:], *values[:3]}, [])


# --- texts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("annotation", "value", "text"),
    [
        (datetime, AMBIGUOUS.replace(fold=1), "2026-10-25T02:30:00[fold=1]"),
        (datetime, AMBIGUOUS.replace(tzinfo=BERLIN), "2026-10-25T02:30:00[Europe/Berlin]"),
        (datetime, AMBIGUOUS.replace(tzinfo=BERLIN, fold=1),
         "2026-10-25T02:30:00[Europe/Berlin][fold=1]"),
        (time, time(2, 30, tzinfo=BERLIN), "02:30:00[Europe/Berlin]"),
        (ZoneInfo, BERLIN, "Europe/Berlin"),
        (Path, Path("a/../b"), "a/../b"),
        (PurePosixPath, PurePosixPath("/a"), "/a"),
        (PureWindowsPath, PureWindowsPath("C:/a"), "C:\\a"),
        (type(ip_address("127.0.0.1")), ip_address("127.0.0.1"), "127.0.0.1"),
        (type(ip_address("::1")), ip_address("fe80::1%eth0"), "fe80::1%eth0"),
        (type(ip_network("10.0.0.0/8")), ip_network("10.0.0.0/8"), "10.0.0.0/8"),
        (type(ip_interface("10.0.0.1/8")), ip_interface("10.0.0.1/8"), "10.0.0.1/8"),
        (BigInt, -(10**40), f"-1{'0' * 40}"),
    ],
    ids=stable,
)  # fmt: skip
def test_texts(annotation: Any, value: Any, text: str) -> None:
    form = Forms().of(annotation)
    assert form.write(value, []) == text
    back = form.read(text, [])
    assert (type(back), repr(back)) == (type(value), repr(value))


def test_the_fold_is_compared_by_itself() -> None:
    back = round_trip(datetime, AMBIGUOUS.replace(tzinfo=BERLIN, fold=1))
    assert (back.fold, back.tzinfo, back.utcoffset().total_seconds()) == (1, BERLIN, 3600)


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (BigInt, True),
        (BigInt, "1"),
        (Path, "a"),
        (Path, PurePosixPath("a")),
        (ZoneInfo, "Europe/Berlin"),
    ],
    ids=stable,
)
def test_values_of_other_types_are_refused(annotation: Any, value: Any) -> None:
    with pytest.raises(Unfit):
        Forms().of(annotation).write(value, [])


@pytest.mark.parametrize("text", ["2026-10-25T02:30:00[No/Where]", "2026-10-25T02:30:00[fold=2]",
                                  "2026-10-25T02:30:00[a=b]", "2026-10-25T02:30:00]"])  # fmt: skip
def test_texts_that_are_no_datetime(text: str) -> None:
    with pytest.raises(Unfit):
        Forms().of(datetime).read(text, [])


# --- keys ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        (int, -(2**70), str(-(2**70))),
        (bool, True, "true"),
        (BigInt, 10**30, str(10**30)),
        (bytes, b"\0", "AA=="),
        (Decimal, Decimal("1.50"), "1.50"),
        (time, time(12), "12:00:00"),
        (Path, Path("a/b"), "a/b"),
        (Level, Level.HIGH, "2"),
        (Colour, Colour.RED, "red"),
        (Rights, Rights.READ | Rights.WRITE, "3"),
        (Literal[1, "a", False], 1, "1"),
        (Literal[1, "a", False], "a", "a"),
        (Literal[1, "a", False], False, "false"),
        (Literal[Colour.RED], Colour.RED, "red"),
        (tuple[int, str], (1, "a"), '[1,"a"]'),
        (tuple[UUID, ...], (UUID(int=1),), f'["{UUID(int=1)}"]'),
        (tuple[int, tuple[bool, ...]], (1, (True,)), "[1,[true]]"),
        (Any, "a", "a"),
    ],
    ids=stable,
)
def test_keys(key: Any, value: Any, text: str) -> None:
    form = Forms().of(dict[key, int])
    assert form.write({value: 1}, []) == {text: 1}
    [back] = form.read({text: 1}, [])
    assert (type(back), back) == (type(value), value)


@pytest.mark.parametrize(
    ("key", "text"),
    [
        (int, "01"),
        (int, "true"),
        (bool, "True"),
        (bool, "1"),
        (Literal[1], "01"),
        (Literal[1], "2"),
        (tuple[int, str], '[1, "a"]'),
        (tuple[int, str], "[1]"),
        (tuple[int, str], "1"),
    ],
    ids=stable,
)
def test_texts_that_are_no_key(key: Any, text: str) -> None:
    with pytest.raises(Unfit):
        Forms().of(dict[key, int]).read({text: 1}, [])


@pytest.mark.parametrize(
    ("key", "value"),
    [(int, True), (bool, 1), (Literal[1], True), (tuple[int, str], (True, 1)), (Any, 1)],
    ids=stable,
)
def test_keys_of_other_types_are_refused(key: Any, value: Any) -> None:
    with pytest.raises(Unfit):
        Forms().of(dict[key, int]).write({value: 1}, [])
