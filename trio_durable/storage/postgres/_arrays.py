"""Columns of a batch as PostgreSQL's arrays, in its binary format.

A batch goes to the server as one array a column, and ``unnest`` makes rows of them. psycopg makes
arrays of lists item by item in Python, which takes several times as long; JSON, for
``jsonb_to_recordset``, has every quote in a state escaped and read again. Here the bytes of a
state are copied once.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

import psycopg
from psycopg.adapt import Dumper
from psycopg.pq import Format

_TEXT, _TEXT_ARRAY = 25, 1009
_INT8, _INT8_ARRAY = 20, 1016
# Dimensions, whether there are NULLs, the items' type; the length and where it counts from.
_HEADER = struct.Struct("!iiIii")
_LENGTH = struct.Struct("!i")
_INTEGER = struct.Struct("!iq")
_NULL = _LENGTH.pack(-1)


class TextArray:
    """A parameter of the type ``text[]``, of text in UTF-8."""

    __slots__ = ("data",)

    def __init__(self, items: Sequence[bytes | None]) -> None:
        parts = [_HEADER.pack(1, None in items, _TEXT, len(items), 1)]
        for item in items:
            if item is None:
                parts.append(_NULL)
            else:
                parts += (_LENGTH.pack(len(item)), item)
        self.data = b"".join(parts)


class BigintArray:
    """A parameter of the type ``bigint[]``.

    Raises:
        struct.error: One has more than 64 bits.
    """

    __slots__ = ("data",)

    def __init__(self, items: Sequence[int | None]) -> None:
        parts = [_HEADER.pack(1, None in items, _INT8, len(items), 1)]
        parts += (_NULL if item is None else _INTEGER.pack(8, item) for item in items)
        self.data = b"".join(parts)


def text_array(items: Iterable[str | None]) -> TextArray:
    """A parameter of the type ``text[]``."""
    return TextArray([None if item is None else item.encode() for item in items])


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
    """Let a connection take these as parameters."""
    connection.adapters.register_dumper(TextArray, _TextArrayDumper)
    connection.adapters.register_dumper(BigintArray, _BigintArrayDumper)
