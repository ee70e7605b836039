"""Parameters of statements on many rows: a ``VALUES`` list, or one JSON array.

``VALUES`` is faster, and serves commits and the frequent operations on alarms. Its rows are padded
to the next power of two, so that a dozen prepared statements serve all sizes. JSON serves the rest,
by one statement for every size.

A parameter of a ``VALUES`` list should be text or an integer. Python's sqlite3 asks for an adapter
of any other value, also of None and of bytes, which takes ten times as long as binding it.
"""

from __future__ import annotations

import orjson

PADDING = ""
"""The value of a column that a row doesn't have, and of all columns of the rows that pad a list."""

_LONG_BYTES = 4096
"""From this length on, a copy takes longer than to find the adapter."""


def as_text(json: bytes) -> str | bytes:
    """JSON as a parameter: text, unless it is long."""
    return json.decode() if len(json) < _LONG_BYTES else json


def padded(rows: int) -> int:
    """The next power of two: the number of rows in the statement that takes ``rows``."""
    return 1 << (rows - 1).bit_length()


def values(rows: int, columns: int) -> str:
    """A ``VALUES`` list with a placeholder for each parameter."""
    row = f"({','.join('?' * columns)})"
    return f"VALUES {','.join([row] * rows)}"


def as_json(value: object) -> str:
    """JSON text, which ``json_each`` turns into rows."""
    return orjson.dumps(value).decode()
