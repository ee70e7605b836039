"""Arrays in PostgreSQL's binary format, as parameters for the columns of a batch.

A batch is sent as one array per column, from which ``unnest`` makes rows. psycopg converts lists
item by item in Python, which takes several times as long. JSON with ``jsonb_to_recordset`` would
escape and parse every quote in a state. This module copies the bytes of a state once.

JSON is stored as it is, with one exception: another escape stands for that of the character NUL.
The type jsonb can't hold NUL, so one state with it would fail every query that casts states, and
every save of it once there is an index on such an expression.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Sequence
from functools import lru_cache

import psycopg
from psycopg.adapt import Dumper
from psycopg.pq import Format

_TEXT, _TEXT_ARRAY = 25, 1009
_INT8, _INT8_ARRAY = 20, 1016
# Number of dimensions, 1 if there are NULLs, OID of the items; length and lower bound.
_HEADER = struct.Struct("!iiIii")
_LENGTH = struct.Struct("!i")
_INTEGER = struct.Struct("!iq")
_NULL = _LENGTH.pack(-1)


class TextArray:
    """A parameter of type ``text[]``, from items in UTF-8."""

    __slots__ = ("data",)

    def __init__(self, items: Sequence[bytes | None]) -> None:
        header = _HEADER.pack(1, None in items, _TEXT, len(items), 1)
        if None in items:
            self.data = b"".join((header, *map(_with_length, items)))
        else:
            parts = [header] * (2 * len(items) + 1)
            parts[1::2] = map(_LENGTH.pack, map(len, items))  # type: ignore[arg-type]
            parts[2::2] = items  # type: ignore[assignment]
            self.data = b"".join(parts)


class BigintArray:
    """A parameter of type ``bigint[]``.

    Raises:
        struct.error: An item has more than 64 bits.
    """

    __slots__ = ("data",)

    def __init__(self, items: Sequence[int | None]) -> None:
        count = len(items)
        if None in items:
            header = _HEADER.pack(1, 1, _INT8, count, 1)
            packed = (_NULL if item is None else _INTEGER.pack(8, item) for item in items)
            self.data = b"".join((header, *packed))
        else:
            lengths_and_items = [8] * (2 * count)
            lengths_and_items[1::2] = items  # type: ignore[assignment]
            self.data = _bigints(count).pack(1, 0, _INT8, count, 1, *lengths_and_items)


@lru_cache(maxsize=64)
def _bigints(count: int) -> struct.Struct:
    """The format of an array without NULLs."""
    return struct.Struct(f"{_HEADER.format}{'iq' * count}")


def _with_length(item: bytes | None) -> bytes:
    return _NULL if item is None else _LENGTH.pack(len(item)) + item


def text_array(items: Iterable[str | None]) -> TextArray:
    """A parameter of type ``text[]``, from items of type str."""
    texts = list(items)
    if texts and texts.count(texts[0]) == len(texts):  # as the types of most batches are
        return TextArray([None if texts[0] is None else texts[0].encode()] * len(texts))
    return TextArray([None if item is None else item.encode() for item in texts])


_BACKSLASH = ord("\\")
_NUL, _STAND_IN = rb"\u0000", rb"\ue000"
_SWAPPED = {_NUL: _STAND_IN, _STAND_IN: _NUL}
_ESCAPES = re.compile(rb"\\(?:u0000|ue000|.)", re.DOTALL)


def swap_nul(json: bytes) -> bytes:
    """JSON with the escapes of NUL and of U+E000, a character for private use, exchanged.

    Applied twice, it returns the same bytes. The library's own JSON has no escape of U+E000.
    """
    if _NUL not in json and _STAND_IN not in json:
        return json
    return _ESCAPES.sub(lambda found: _SWAPPED.get(found[0], found[0]), json)


def json_array(items: Iterable[bytes | None]) -> TextArray:
    """A parameter of type ``text[]``, from JSON to be stored."""
    return TextArray(
        [item if item is None or _BACKSLASH not in item else swap_nul(item) for item in items]
    )


class _TextArrayDumper(Dumper):
    format = Format.BINARY
    oid = _TEXT_ARRAY

    def dump(self, obj: TextArray) -> bytes:
        return obj.data


class _BigintArrayDumper(Dumper):
    format = Format.BINARY
    oid = _INT8_ARRAY

    def dump(self, obj: BigintArray) -> bytes:
        return obj.data


def register_dumpers(connection: psycopg.Connection[object]) -> None:
    """Let a connection accept these arrays as parameters."""
    connection.adapters.register_dumper(TextArray, _TextArrayDumper)
    connection.adapters.register_dumper(BigintArray, _BigintArrayDumper)
