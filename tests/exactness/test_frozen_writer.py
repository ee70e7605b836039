"""The frozen codec writes what release 0.1.0 wrote."""

from __future__ import annotations

import enum
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

import attrs
import pytest

from . import frozen_writer
from .snapshot import same


class Colour(enum.Enum):
    RED = "red"


@attrs.define
class Item:
    name: str
    price: Decimal = Decimal(0)


class Row(NamedTuple):
    left: int
    right: str = ""


@pytest.mark.parametrize(
    ("annotation", "value", "row"),
    [
        (int, 1, b"1"),
        (float, 1, b"1"),
        (float, -0.0, b"-0.0"),
        (bytes, b"ab", b'"YWI="'),
        (datetime, datetime(2024, 1, 1, tzinfo=UTC), b'"2024-01-01T00:00:00+00:00"'),
        (date, date(2024, 1, 1), b'"2024-01-01"'),
        (timedelta, timedelta(seconds=1), b"1000000"),
        (UUID, UUID(int=10), b'"00000000-0000-0000-0000-00000000000a"'),
        (Colour, Colour.RED, b'"red"'),
        (Item, Item("a", Decimal("1.50")), b'{"name":"a","price":"1.50"}'),
        (Row, Row(1, "a"), b'[1,"a"]'),
        (set[int], {2, 1}, b"[1,2]"),
        (dict[int, str], {1: "a"}, b'{"1":"a"}'),
        (int | str, "a", b'"a"'),
        (UUID | str, "a", b'"a"'),
        (Item | None, Item("a"), b'{"name":"a","price":"0"}'),
        (bytes | str, b"ab", b'{"$type":"bytes","value":"YWI="}'),
        (Item | Row, Row(1), b'{"$type":"Row","value":[1,""]}'),
    ],
    ids=repr,
)
def test_rows_are_those_of_the_release(annotation: Any, value: Any, row: bytes) -> None:
    types_ = {"value": annotation}
    written = frozen_writer.encode(types_, {"value": value})
    assert written == b'{"value":' + row + b"}"
    assert same(frozen_writer.decode(types_, written), {"value": value})


def test_the_release_refused_what_it_had_no_json_for() -> None:
    with pytest.raises(frozen_writer.UnsupportedType):
        frozen_writer.encode({"value": complex}, {"value": 1j})
    with pytest.raises(frozen_writer.Unfit):
        frozen_writer.encode({"value": int}, {"value": 1.0})
