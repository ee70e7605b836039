"""The source that a story has for the values in it."""

from __future__ import annotations

import math
import subprocess
import sys
from enum import Enum, Flag, IntEnum
from typing import NamedTuple

import pytest

from trio_durable.testing.simulate._source import source_of


class Colour(Enum):
    RED = "red"


class Level(IntEnum):
    LOW = 1


class Right(Flag):
    READ = 1
    WRITE = 2


class Point(NamedTuple):
    x: int
    y: int


SOURCES = [
    ("it's", '''"it's"'''),
    (-0.5, "-0.5"),
    (math.inf, "float('inf')"),
    (-math.inf, "float('-inf')"),
    (Colour.RED, "Colour.RED"),
    (Level.LOW, "Level.LOW"),
    (Right.READ, "Right.READ"),
    (Right.READ | Right.WRITE, "Right(3)"),
    (Colour, "Colour"),
    (int, "int"),
    ([], "[]"),
    ([Colour.RED, None], "[Colour.RED, None]"),
    ((), "()"),
    ((Level.LOW,), "(Level.LOW,)"),
    ((1, 2), "(1, 2)"),
    (set(), "set()"),
    ({Colour.RED}, "{Colour.RED}"),
    ({3, 1, 2}, "{1, 2, 3}"),
    (frozenset(), "frozenset()"),
    (frozenset({"b", "a"}), "frozenset({'a', 'b'})"),
    ({}, "{}"),
    ({"b": {Level.LOW: [1]}, "a": 0}, "{'b': {Level.LOW: [1]}, 'a': 0}"),
    (Point(1, 2), "Point(x=1, y=2)"),
]


@pytest.mark.parametrize(("value", "source"), SOURCES, ids=[source for _, source in SOURCES])
def test_values_are_printed_as_source(value: object, source: str) -> None:
    assert source_of(value) == source
    assert eval(source) == value


def test_a_float_that_is_no_number_is_printed_as_source() -> None:
    assert source_of(math.nan) == "float('nan')"


def test_the_order_of_a_set_does_not_depend_on_hashes() -> None:
    code = "from trio_durable.testing.simulate._source import source_of as s; print(s({*'abcdef'}))"
    printed = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": str(seed)},
        ).stdout
        for seed in range(3)
    }
    assert printed == {"{'a', 'b', 'c', 'd', 'e', 'f'}\n"}
