"""Parameters of statements on many rows: a ``VALUES`` list, or one JSON array.

``VALUES`` is faster, and serves saves and the frequent operations on alarms. Its rows are padded
with NULLs to the next power of two, so that a dozen prepared statements serve all sizes. JSON
serves the rest, by one statement for every size.
"""

from __future__ import annotations

import orjson


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
