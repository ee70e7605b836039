"""How what a statement is about goes into it: as parameters of its ``VALUES``, or as one JSON text.

The former is faster, and is what batches of saves and of most alarms take. They are padded with
NULLs to the next power of two, so that a dozen prepared statements serve all sizes.
"""

from __future__ import annotations

import orjson


def padded(rows: int) -> int:
    """For how many rows the statement is that takes ``rows``."""
    return 1 << (rows - 1).bit_length()


def values(rows: int, columns: int) -> str:
    """``VALUES`` with a place for each parameter."""
    row = f"({','.join('?' * columns)})"
    return f"VALUES {','.join([row] * rows)}"


def as_json(value: object) -> str:
    """What ``json_each`` takes apart."""
    return orjson.dumps(value).decode()
